//! The documents that exist in Partner Center's own form only.

use super::{
    context::{AuthenticatedRequest, RequestContext},
    data::{self, DataRequest, RequestedResource},
    extract, negotiation,
    response::HandlerResult,
    schema::{
        CustomerProblems, DataHeaders, NativeDeployment, NativePartnerDeployment,
        NativePartnerUsage, OfCustomer, PartnerProblems, USAGE,
    },
};
use crate::{domain::Resource, problem::Problem};

/// `GET /v1/customers/{customer_id}/analytics/licenses/deployment`.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer_id}/analytics/licenses/deployment",
    operation_id = "getNativeCustomerDeployment",
    tag = USAGE,
    summary = "Deployment of a customer, as Partner Center words it",
    description = "Partner Center's own answer, byte for byte, of the newest processed date.",
    params(OfCustomer, DataHeaders),
    responses(
        (status = 200, description = "Partner Center's own answer.", body = NativeDeployment, content_type = "application/json"),
        (status = 304, description = "The client has this very content already."),
        CustomerProblems,
    ),
)]
pub(super) async fn deployment(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_deployment(&request)).await
}

pub(super) fn parse_deployment(context: &RequestContext) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    parse(context, Resource::Deployment(customer))
}

/// `GET /v1/analytics/licenses/usage`: over all customers.
#[utoipa::path(
    get,
    path = "/v1/analytics/licenses/usage",
    operation_id = "getNativePartnerUsage",
    tag = USAGE,
    summary = "Usage of all customers, as Partner Center words it",
    description = "Partner Center's own answer, byte for byte, for callers that may read every customer.",
    params(DataHeaders),
    responses(
        (status = 200, description = "Partner Center's own answer.", body = NativePartnerUsage, content_type = "application/json"),
        (status = 304, description = "The client has this very content already."),
        PartnerProblems,
    ),
)]
pub(super) async fn partner_usage(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_partner_usage(&request)).await
}

pub(super) fn parse_partner_usage(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse(context, Resource::PartnerUsage)
}

/// `GET /v1/analytics/licenses/deployment`: over all customers.
#[utoipa::path(
    get,
    path = "/v1/analytics/licenses/deployment",
    operation_id = "getNativePartnerDeployment",
    tag = USAGE,
    summary = "Deployment of all customers, as Partner Center words it",
    description = "Partner Center's own answer, byte for byte, for callers that may read every customer.",
    params(DataHeaders),
    responses(
        (status = 200, description = "Partner Center's own answer.", body = NativePartnerDeployment, content_type = "application/json"),
        (status = 304, description = "The client has this very content already."),
        PartnerProblems,
    ),
)]
pub(super) async fn partner_deployment(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(
        &request,
        request.caller(),
        parse_partner_deployment(&request),
    )
    .await
}

pub(super) fn parse_partner_deployment(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse(context, Resource::PartnerDeployment)
}

fn parse(context: &RequestContext, document: Resource) -> Result<DataRequest, Problem> {
    extract::reject_query(context.query())?;
    let resource = RequestedResource::Document(document);
    DataRequest::parse(context, resource, negotiation::NATIVE_FORMATS)
}
