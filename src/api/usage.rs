//! The usage resources: extract, ask [`UsageService`](crate::service::UsageService), answer.

use http::StatusCode;

use super::{
    Arrived, Inner, Served, browser,
    data::{check_method, finish},
    extract, negotiation,
    schema::{
        ChartProblems, CustomerProblems, DataHeaders, DatedProblems, NativeUsage, OfCustomer,
        OfDate, OfTheme, SHOWN, USAGE,
    },
    spans,
};
use crate::{
    domain::{Caller, ProcessedDate},
    problem::Problem,
    render::{Form, Theme, Usage},
    service::Query,
};

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
    params(OfCustomer, OfDate, OfTheme, DataHeaders),
    responses(
        (status = 200, description = "A picture.", body = String, content_type = "image/svg+xml"),
        (status = 304, description = "The client has this very content already."),
        ChartProblems,
    ),
)]
pub(super) async fn chart<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    let today = || ProcessedDate::of(api.clock.wall());
    let mut theme = Theme::default();
    let date = |query: Option<&str>| {
        let (date, asked) = extract::chart(query, today)?;
        theme = asked;
        Ok(date)
    };
    let mut served = match read(arrived, customer, negotiation::CHART_FORMS, date) {
        Ok(query) => {
            let form = Form::Chart(theme);
            answer(api, arrived, caller, Query { form, ..query }).await
        }
        Err(problem) => arrived.refuse(problem),
    };
    // With 304 too: its headers replace those that the picture was kept with (RFC 9111 §3.2).
    if matches!(
        served.response.status(),
        StatusCode::OK | StatusCode::NOT_MODIFIED
    ) {
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
    description = "What `Accept: text/csv` brings, for a spreadsheet: it begins with a byte-order \
                   mark, and an apostrophe stands before what would be a formula. A browser saves \
                   it by the customer's name and the date.",
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
    dated(api, arrived, caller, customer, negotiation::TABLE_FORMS).await
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
