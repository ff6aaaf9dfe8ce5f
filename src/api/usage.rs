//! The usage resources: extract, ask [`UsageService`](crate::usage::UsageService), answer.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{
    Arrived, Inner, Served, Told, browser,
    caching::{self, Audience},
    extract, negotiation,
    openapi::{
        CustomerProblems, DataHeaders, DatedProblems, NativeUsage, OfCustomer, OfDate, SHOWN, USAGE,
    },
    problem, spans,
};
use crate::{
    cache::CacheResult,
    domain::{Caller, ProcessedDate},
    problem::{Body, Kind, Problem},
    representation::{Coding, Form, Usage},
    usage::{Answer, Cause, Query, Unanswered, source::CallIds},
};

const MS_REQUEST_ID: HeaderName = HeaderName::from_static("ms-requestid");
const MS_CORRELATION_ID: HeaderName = HeaderName::from_static("ms-correlationid");

/// `GET /v1/customers/{customer_id}/usage`.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer_id}/usage",
    operation_id = "getCustomerUsage",
    tag = USAGE,
    summary = "Usage of a customer",
    description = "License usage per product and workload, of the newest processed date or of the \
                   one asked for.",
    params(OfCustomer, OfDate, DataHeaders),
    responses(
        (status = 200, description = "The usage, in the form that `Accept` prefers.", content(
            (Usage<'static> = "application/json"),
            (String = "text/csv"),
        ), links(("native" = (
            operation_id = "getNativeCustomerUsage",
            description = "The same customer, as Partner Center words it.",
            parameters(("customer_id" = "$response.body#/customerId")),
        )))),
        (status = 304, description = "The client has this very content already."),
        DatedProblems,
    ),
)]
pub(super) async fn simplified<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    dated(
        api,
        arrived,
        caller,
        customer,
        negotiation::SIMPLIFIED_FORMS,
    )
    .await
}

/// `GET /v1/customers/{customer_id}/usage/chart.svg`.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer_id}/usage/chart.svg",
    operation_id = "getCustomerUsageChart",
    tag = SHOWN,
    summary = "Usage of a customer as a picture",
    description = "Adoption per product and workload as bars, with a text alternative inside.",
    params(OfCustomer, OfDate, DataHeaders),
    responses(
        (status = 200, description = "A picture.", body = String, content_type = "image/svg+xml"),
        (status = 304, description = "The client has this very content already."),
        DatedProblems,
    ),
)]
pub(super) async fn chart<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    let mut served = dated(api, arrived, caller, customer, negotiation::CHART_FORMS).await;
    if served.response.status() == StatusCode::OK {
        browser::guard_chart(served.response.headers_mut());
    }
    served
}

/// `GET /v1/customers/{customer_id}/usage/table.csv`.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer_id}/usage/table.csv",
    operation_id = "getCustomerUsageTable",
    tag = SHOWN,
    summary = "Usage of a customer as a table, to be saved",
    description = "What `Accept: text/csv` brings, at an address of its own.",
    params(OfCustomer, OfDate, DataHeaders),
    responses(
        (status = 200, description = "A line for each product and workload.", body = String, content_type = "text/csv"),
        (status = 304, description = "The client has this very content already."),
        DatedProblems,
    ),
)]
pub(super) async fn table<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    let mut served = dated(api, arrived, caller, customer, negotiation::TABLE_FORMS).await;
    if served.response.status() == StatusCode::OK {
        browser::guard_table(served.response.headers_mut());
    }
    served
}

/// A resource that `processedDate` picks a date of.
async fn dated<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
    forms: &[Form],
) -> Served {
    let today = || ProcessedDate::of(api.clock.wall());
    let date = |query: Option<&str>| extract::processed_date(query, today);
    match read(arrived, customer, forms, date) {
        Ok(query) => answer(api, arrived, caller, query).await,
        Err(problem) => arrived.refuse(problem),
    }
}

/// `GET /v1/customers/{customer_id}/analytics/licenses/usage`.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer_id}/analytics/licenses/usage",
    operation_id = "getNativeCustomerUsage",
    tag = USAGE,
    summary = "Usage of a customer, as Partner Center words it",
    description = "Partner Center's own answer, byte for byte, of the newest processed date: what \
                   its SDKs expect at this path.",
    params(OfCustomer, DataHeaders),
    responses(
        (status = 200, description = "Partner Center's own answer.", body = NativeUsage, content_type = "application/json"),
        (status = 304, description = "The client has this very content already."),
        CustomerProblems,
    ),
)]
pub(super) async fn native<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    let date = |query: Option<&str>| extract::no_query(query).map(|()| None);
    match read(arrived, customer, negotiation::NATIVE_FORMS, date) {
        Ok(query) => answer(api, arrived, caller, query).await,
        Err(problem) => arrived.refuse(problem),
    }
}

fn read<B>(
    arrived: &Arrived<'_, B>,
    customer: &str,
    forms: &[Form],
    date: impl FnOnce(Option<&str>) -> Result<Option<ProcessedDate>, Problem>,
) -> Result<Query, Problem> {
    let request = arrived.request;
    check_method(request.method())?;
    Ok(Query {
        customer_id: extract::customer_id(customer)?,
        date: date(request.uri().query())?,
        form: negotiation::form(request.headers(), forms)?,
        directive: extract::directive(request.headers()),
    })
}

/// That nothing but reading is asked for.
pub(super) fn check_method(method: &Method) -> Result<(), Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method_not_allowed(method, "GET, HEAD")),
    }
}

async fn answer<B>(api: &Inner, arrived: &Arrived<'_, B>, caller: &Caller, query: Query) -> Served {
    let headers = arrived.request.headers();
    let coding = match negotiation::coding(headers) {
        Ok(coding) => coding,
        Err(problem) => return arrived.refuse(problem),
    };
    if let Some(span) = &arrived.span {
        spans::tell_customer(span, query.customer_id);
    }
    let trace = || arrived.call_trace();
    let answered = api.usage.answer(query, caller, trace, arrived.at).await;
    finish(api, arrived, answered, (query.form, coding), query.date).await
}

/// Hands out an answer in this form and coding, or says why there is none.
pub(super) async fn finish<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    answered: Result<Answer, Unanswered>,
    (form, coding): (Form, Coding),
    date: Option<ProcessedDate>,
) -> Served {
    let answer = match answered {
        Ok(answer) => answer,
        Err(unanswered) => return refuse_unanswered(api, arrived, date, &unanswered),
    };
    let prepared = &answer.held.prepared;
    if prepared.ready(form, coding).is_none()
        && let Err(error) = api.usage.render(prepared, form, coding).await
    {
        let customer = prepared.subject().customer();
        let customer = customer.map(tracing::field::display);
        tracing::error!(customer.id = customer, %error, "a stored answer could not be rendered");
    }
    let Some(ready) = prepared.ready(form, coding) else {
        return arrived.refuse(not_rendered());
    };
    api.metrics.served(answer.held.age);
    let (headers, everybody) = (arrived.request.headers(), Audience::Everybody);
    let response = caching::respond(headers, &answer.held, everybody, form, coding, ready);
    serve(response, &answer, date)
}

/// An answer, with what goes with it besides.
pub(super) fn serve(
    mut response: Response<Body>,
    answer: &Answer,
    date: Option<ProcessedDate>,
) -> Served {
    if let Some(ids) = answer.ids {
        name_upstream_call(response.headers_mut(), ids);
    }
    Served {
        response,
        status: answer.status,
        told: told(date, Some(answer.result), answer.ids),
    }
}

fn told(
    processed_date: Option<ProcessedDate>,
    result: Option<CacheResult>,
    ids: Option<CallIds>,
) -> Told {
    Told {
        result,
        processed_date,
        problem: None,
        upstream_request_id: ids.map(|ids| ids.request_id),
    }
}

/// The problem that stands in the way of an answer, told and counted.
pub(super) fn refuse_unanswered<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    date: Option<ProcessedDate>,
    unanswered: &Unanswered,
) -> Served {
    if let Cause::NotAllowed = unanswered.cause {
        api.metrics.access.not_allowed.inc();
    }
    let correlation_id = unanswered.ids.map(|ids| ids.correlation_id);
    let call = match unanswered.ids {
        Some(_) => problem::Call::Own,
        None => problem::Call::Shared,
    };
    let mut served = arrived.answer_problem(
        problem::of(&unanswered.cause, call),
        unanswered.status,
        told(date, unanswered.result, unanswered.ids),
        correlation_id,
    );
    if let Some(ids) = unanswered.ids {
        name_upstream_call(served.response.headers_mut(), ids);
    }
    served
}

/// The upstream call's ids, for whoever asks Microsoft's support about it.
fn name_upstream_call(headers: &mut http::HeaderMap, ids: CallIds) {
    for (name, id) in [
        (MS_REQUEST_ID, ids.request_id),
        (MS_CORRELATION_ID, ids.correlation_id),
    ] {
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            headers.insert(name, value);
        }
    }
}

/// What is held could not be rendered.
pub(super) fn not_rendered() -> Problem {
    Problem::new(
        Kind::NotRendered,
        "the answer is held, but this form of it could not be made; the log says why",
    )
}
