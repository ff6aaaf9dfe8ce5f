//! The documents that have the native form alone.

use super::{
    Arrived, Inner, Served,
    data::{check_method, finish},
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
    render::{Coding, Form},
    service::{Answer, Cause, Directive, NativeDocument, Unanswered},
};

/// How a document is asked for.
struct Request {
    coding: Coding,
    directive: Directive,
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
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    customer: &str,
) -> Served {
    let read = read(arrived).and_then(|request| {
        Ok((
            NativeDocument::Deployment(extract::customer_id(customer)?),
            request,
        ))
    });
    match read {
        Ok((document, request)) => {
            let answered = ask(api, arrived, caller, document, &request).await;
            finish(api, arrived, answered, (Form::Native, request.coding), None).await
        }
        Err(problem) => arrived.refuse(problem),
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
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
) -> Served {
    of_partner(api, arrived, caller, NativeDocument::PartnerUsage).await
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
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
) -> Served {
    of_partner(api, arrived, caller, NativeDocument::PartnerDeployment).await
}

async fn of_partner<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    document: NativeDocument,
) -> Served {
    let request = match read(arrived) {
        Ok(request) => request,
        Err(problem) => return arrived.refuse(problem),
    };
    match ask(api, arrived, caller, document, &request).await {
        Err(Unanswered {
            cause: Cause::NotAllowed,
            ..
        }) => {
            api.metrics.access.not_allowed.inc();
            arrived.refuse(not_allowed(
                "this caller may not read every customer's usage",
            ))
        }
        answered => finish(api, arrived, answered, (Form::Native, request.coding), None).await,
    }
}

fn read<B>(arrived: &Arrived<'_, B>) -> Result<Request, Problem> {
    let request = arrived.request;
    let headers = request.headers();
    check_method(request.method())?;
    extract::no_query(request.uri().query())?;
    negotiation::form(headers, negotiation::NATIVE_FORMS)?;
    Ok(Request {
        coding: negotiation::coding(headers)?,
        directive: extract::directive(headers),
    })
}

async fn ask<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    document: NativeDocument,
    request: &Request,
) -> Result<Answer, Unanswered> {
    if let (Some(span), NativeDocument::Deployment(customer)) = (&arrived.span, document) {
        spans::tell_customer(span, customer);
    }
    let trace = || arrived.call_trace();
    api.usage
        .document(document, request.directive, caller, trace, arrived.at)
        .await
}
