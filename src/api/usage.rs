//! Usage of a customer: as JSON or CSV, as a picture, as a table, and in Partner Center's own form.

use super::{
    context::{AuthenticatedRequest, RequestContext},
    data::{self, DataRequest, RequestedResource},
    extract, negotiation,
    response::HandlerResult,
};
use crate::{problem::Problem, render::Format};

/// `GET /v1/customers/{customer_id}/usage`.
pub(super) async fn simplified(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_simplified(&request)).await
}

pub(super) fn parse_simplified(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse_dated(context, negotiation::SIMPLIFIED_FORMATS)
}

/// `GET /v1/customers/{customer_id}/usage/chart.svg`.
pub(super) async fn chart(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_chart(&request)).await
}

pub(super) fn parse_chart(context: &RequestContext) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    let (date, theme) = extract::chart_query(context.query(), || context.today())?;
    let resource = RequestedResource::Usage(customer, date);
    Ok(DataRequest {
        format: Format::Chart(theme),
        ..DataRequest::parse(context, resource, negotiation::CHART_FORMATS)?
    })
}

/// `GET /v1/customers/{customer_id}/usage/table.csv`.
pub(super) async fn table(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_table(&request)).await
}

pub(super) fn parse_table(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse_dated(context, negotiation::TABLE_FORMATS)
}

/// `GET /v1/customers/{customer_id}/analytics/licenses/usage`.
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
    let date = extract::processed_date(context.query(), || context.today())?;
    DataRequest::parse(context, RequestedResource::Usage(customer, date), formats)
}
