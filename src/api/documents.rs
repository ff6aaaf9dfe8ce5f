//! The documents that exist in Partner Center's own form only.

use super::{
    context::{AuthenticatedRequest, RequestContext},
    data::{self, DataRequest, RequestedResource},
    extract, negotiation,
    response::HandlerResult,
};
use crate::{domain::Resource, problem::Problem};

/// `GET /v1/customers/{customer_id}/analytics/licenses/deployment`.
pub(super) async fn deployment(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_deployment(&request)).await
}

pub(super) fn parse_deployment(context: &RequestContext) -> Result<DataRequest, Problem> {
    let customer = extract::customer_id(context.customer_segment())?;
    parse(context, Resource::Deployment(customer))
}

/// `GET /v1/analytics/licenses/usage`: over all customers.
pub(super) async fn partner_usage(request: AuthenticatedRequest) -> HandlerResult {
    data::respond(&request, request.caller(), parse_partner_usage(&request)).await
}

pub(super) fn parse_partner_usage(context: &RequestContext) -> Result<DataRequest, Problem> {
    parse(context, Resource::PartnerUsage)
}

/// `GET /v1/analytics/licenses/deployment`: over all customers.
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
