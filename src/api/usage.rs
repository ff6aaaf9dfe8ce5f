//! Usage of a customer: as JSON or CSV, as a picture, as a table, and in Partner Center's own form.

use super::{
    context::{AuthenticatedRequest, RequestContext},
    data::{self, DataRequest, RequestedResource},
    extract, negotiation,
    response::HandlerResult,
    schema::{
        ChartProblems, CustomerProblems, DataHeaders, DatedProblems, NativeUsage, OfCustomer,
        OfDate, OfTheme, SHOWN, USAGE,
    },
};
use crate::{
    domain::ProcessedDate,
    problem::Problem,
    render::{Format, Usage},
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
pub(super) async fn simplified(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_simplified(&request)).await
}

pub(super) fn parse_simplified(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse_dated(context, negotiation::SIMPLIFIED_FORMATS)
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
pub(super) async fn chart(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_chart(&request)).await
}

pub(super) fn parse_chart(context: &RequestContext) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    let (date, theme) = extract::chart_query(context.query(), || today(context))?;
    let resource = RequestedResource::Usage(customer, date);
    Ok(DataRequest {
        format: Format::Chart(theme),
        ..DataRequest::parse(context, resource, negotiation::CHART_FORMATS)?
    })
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
pub(super) async fn table(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_table(&request)).await
}

pub(super) fn parse_table(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse_dated(context, negotiation::TABLE_FORMATS)
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
pub(super) async fn native(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_native(&request)).await
}

pub(super) fn parse_native(context: &RequestContext) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    extract::reject_query(context.query())?;
    let resource = RequestedResource::Usage(customer, None);
    DataRequest::parse(context, resource, negotiation::NATIVE_FORMATS)
}

fn parse_dated(context: &RequestContext, formats: &[Format]) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    let date = extract::processed_date(context.query(), || today(context))?;
    DataRequest::parse(context, RequestedResource::Usage(customer, date), formats)
}

fn today(context: &RequestContext) -> ProcessedDate {
    ProcessedDate::from_timestamp(context.api.clock.wall_time())
}
