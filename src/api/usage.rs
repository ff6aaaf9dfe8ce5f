//! The usage resources: extract, ask [`UsageService`](crate::service::UsageService), answer.

use http::StatusCode;

use super::{
    ApiResponse, ApiState, RequestContext, browser_headers,
    data::{check_method, respond},
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
    render::{Format, Theme, Usage},
    service::UsageQuery,
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
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
) -> ApiResponse {
    dated_usage(
        api,
        arrived,
        caller,
        customer,
        negotiation::SIMPLIFIED_FORMATS,
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
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
) -> ApiResponse {
    let today = || ProcessedDate::from_timestamp(api.clock.wall_time());
    let mut theme = Theme::default();
    let date = |query: Option<&str>| {
        let (date, asked) = extract::chart_query(query, today)?;
        theme = asked;
        Ok(date)
    };
    let mut served = match parse_request(arrived, customer, negotiation::CHART_FORMATS, date) {
        Ok(query) => {
            let format = Format::Chart(theme);
            answer(api, arrived, caller, UsageQuery { format, ..query }).await
        }
        Err(problem) => arrived.reject(problem),
    };
    // With 304 too: its headers replace those that the picture was kept with (RFC 9111 §3.2).
    if matches!(
        served.response.status(),
        StatusCode::OK | StatusCode::NOT_MODIFIED
    ) {
        browser_headers::add_chart_headers(served.response.headers_mut());
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
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
) -> ApiResponse {
    dated_usage(api, arrived, caller, customer, negotiation::TABLE_FORMATS).await
}

/// A resource that `processedDate` picks a date of.
async fn dated_usage<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
    forms: &[Format],
) -> ApiResponse {
    let today = || ProcessedDate::from_timestamp(api.clock.wall_time());
    let date = |query: Option<&str>| extract::processed_date(query, today);
    match parse_request(arrived, customer, forms, date) {
        Ok(query) => answer(api, arrived, caller, query).await,
        Err(problem) => arrived.reject(problem),
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
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
) -> ApiResponse {
    let date = |query: Option<&str>| extract::reject_query(query).map(|()| None);
    match parse_request(arrived, customer, negotiation::NATIVE_FORMATS, date) {
        Ok(query) => answer(api, arrived, caller, query).await,
        Err(problem) => arrived.reject(problem),
    }
}

fn parse_request<B>(
    arrived: &RequestContext<'_, B>,
    customer: &str,
    forms: &[Format],
    date: impl FnOnce(Option<&str>) -> Result<Option<ProcessedDate>, Problem>,
) -> Result<UsageQuery, Problem> {
    let request = arrived.request;
    check_method(request.method())?;
    Ok(UsageQuery {
        customer_id: extract::customer_id(customer)?,
        date: date(request.uri().query())?,
        format: negotiation::negotiate_format(request.headers(), forms)?,
        directive: extract::cache_directive(request.headers()),
    })
}

async fn answer<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    query: UsageQuery,
) -> ApiResponse {
    let headers = arrived.request.headers();
    let coding = match negotiation::negotiate_coding(headers) {
        Ok(coding) => coding,
        Err(problem) => return arrived.reject(problem),
    };
    if let Some(span) = &arrived.span {
        spans::record_customer(span, query.customer_id);
    }
    let trace = || arrived.call_trace();
    let answered = api
        .usage
        .answer(query, caller, trace, arrived.received_at)
        .await;
    respond(api, arrived, answered, (query.format, coding), query.date).await
}
