//! The documents that have the native form alone.

use super::{
    ApiResponse, ApiState, RequestContext,
    data::{check_method, respond},
    extract, negotiation,
    problem::not_allowed,
    schema::{
        CustomerProblems, DataHeaders, NativeDeployment, NativePartnerDeployment,
        NativePartnerUsage, OfCustomer, PartnerProblems, USAGE,
    },
    spans,
};
use crate::{
    domain::Caller,
    problem::Problem,
    render::{ContentCoding, Format},
    service::{CacheDirective, ErrorKind, NativeDocument, UsageAnswer, UsageError},
};

/// How a document is asked for.
struct DocumentRequest {
    coding: ContentCoding,
    directive: CacheDirective,
}

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
pub(super) async fn deployment<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    customer: &str,
) -> ApiResponse {
    let read = parse_request(arrived).and_then(|request| {
        Ok((
            NativeDocument::Deployment(extract::customer_id(customer)?),
            request,
        ))
    });
    match read {
        Ok((document, request)) => {
            let answered = fetch_and_respond(api, arrived, caller, document, &request).await;
            respond(
                api,
                arrived,
                answered,
                (Format::Native, request.coding),
                None,
            )
            .await
        }
        Err(problem) => arrived.reject(problem),
    }
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
pub(super) async fn partner_usage<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
) -> ApiResponse {
    partner_document(api, arrived, caller, NativeDocument::PartnerUsage).await
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
pub(super) async fn partner_deployment<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
) -> ApiResponse {
    partner_document(api, arrived, caller, NativeDocument::PartnerDeployment).await
}

async fn partner_document<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    document: NativeDocument,
) -> ApiResponse {
    let request = match parse_request(arrived) {
        Ok(request) => request,
        Err(problem) => return arrived.reject(problem),
    };
    match fetch_and_respond(api, arrived, caller, document, &request).await {
        Err(UsageError {
            kind: ErrorKind::NotAllowed,
            ..
        }) => {
            api.metrics.access.not_allowed.inc();
            arrived.reject(not_allowed(
                "this caller may not read every customer's usage",
            ))
        }
        answered => {
            respond(
                api,
                arrived,
                answered,
                (Format::Native, request.coding),
                None,
            )
            .await
        }
    }
}

fn parse_request<B>(arrived: &RequestContext<'_, B>) -> Result<DocumentRequest, Problem> {
    let request = arrived.request;
    let headers = request.headers();
    check_method(request.method())?;
    extract::reject_query(request.uri().query())?;
    negotiation::negotiate_format(headers, negotiation::NATIVE_FORMATS)?;
    Ok(DocumentRequest {
        coding: negotiation::negotiate_coding(headers)?,
        directive: extract::cache_directive(headers),
    })
}

async fn fetch_and_respond<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    document: NativeDocument,
    request: &DocumentRequest,
) -> Result<UsageAnswer, UsageError> {
    if let (Some(span), NativeDocument::Deployment(customer)) = (&arrived.span, document) {
        spans::record_customer(span, customer);
    }
    let trace = || arrived.call_trace();
    api.usage
        .document(
            document,
            request.directive,
            caller,
            trace,
            arrived.received_at,
        )
        .await
}
