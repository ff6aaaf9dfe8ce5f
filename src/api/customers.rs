//! The list of customers: cut to what its caller may see, and page by page for who wants it so.

use super::{
    ApiResponse, ApiState, RequestContext,
    caching::{self, ResponseAudience},
    data::{check_method, error_response, render_problem, with_upstream_ids},
    extract, negotiation,
    problem::not_allowed,
    schema::{DataHeaders, ListProblems, NativeCustomers, Paging, USAGE},
};
use crate::{
    domain::Caller,
    problem::Problem,
    render::{
        ContentCoding, Format,
        customers::{CustomerPageRequest, VisibleCustomers},
    },
    service::{CacheDirective, ErrorKind, UsageAnswer},
};

/// What is asked for.
struct CustomerListRequest {
    page: Option<CustomerPageRequest>,
    coding: ContentCoding,
    directive: CacheDirective,
}

/// `GET /v1/customers`.
#[utoipa::path(
    get,
    path = "/v1/customers",
    operation_id = "getCustomers",
    tag = USAGE,
    summary = "Customers",
    description = "The customers that the caller may see, by name, in Partner Center's form: all of \
                   them, or page by page, gone through as Partner Center's own list is, by \
                   `links.next`.",
    params(Paging, DataHeaders),
    responses(
        (status = 200, description = "Customers.", body = NativeCustomers, content_type = "application/json",
            links(("usage" = (
                operation_id = "getCustomerUsage",
                description = "What the first of them uses.",
                parameters(("customer_id" = "$response.body#/items/0/id")),
            )))),
        (status = 304, description = "The client has this very content already."),
        ListProblems,
    ),
)]
pub(super) async fn list<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
) -> ApiResponse {
    let request = match parse_request(arrived) {
        Ok(request) => request,
        Err(problem) => return arrived.reject(problem),
    };
    let trace = || arrived.call_trace();
    let answer = api
        .usage
        .customer_list(request.directive, caller, trace, arrived.received_at)
        .await;
    match answer {
        Ok(answer) => respond(api, arrived, caller, request, &answer).await,
        Err(unanswered) => match unanswered.kind {
            ErrorKind::NotAllowed => {
                api.metrics.access.not_allowed.inc();
                arrived.reject(not_allowed("this caller may not read any customer's usage"))
            }
            ErrorKind::NotCached | ErrorKind::Source { .. } => {
                error_response(api, arrived, None, &unanswered)
            }
        },
    }
}

fn parse_request<B>(arrived: &RequestContext<'_, B>) -> Result<CustomerListRequest, Problem> {
    let request = arrived.request;
    let headers = request.headers();
    check_method(request.method())?;
    negotiation::negotiate_format(headers, negotiation::NATIVE_FORMATS)?;
    Ok(CustomerListRequest {
        page: extract::list_page(request.uri().query(), headers)?,
        coding: negotiation::negotiate_coding(headers)?,
        directive: extract::cache_directive(headers),
    })
}

async fn respond<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    CustomerListRequest { page, coding, .. }: CustomerListRequest,
    answer: &UsageAnswer,
) -> ApiResponse {
    let prepared = &answer.cached.rendered;
    let part = match api
        .usage
        .visible_customers(prepared, caller, page, coding)
        .await
    {
        Ok(Some(VisibleCustomers::Part(part))) => Some(part),
        Ok(Some(VisibleCustomers::Whole)) => {
            if prepared.ready(Format::Native, coding).is_none()
                && let Err(error) = api.usage.render(prepared, Format::Native, coding).await
            {
                tracing::error!(%error, "the list of customers could not be rendered");
            }
            None
        }
        Ok(None) => return arrived.reject(render_problem()),
        Err(error) => {
            tracing::error!(%error, "a part of the list of customers could not be rendered");
            return arrived.reject(render_problem());
        }
    };
    let ready = match &part {
        Some(part) => part.ready(coding).map(|encoded| (&**part, encoded)),
        None => prepared.ready(Format::Native, coding),
    };
    let Some(ready) = ready else {
        return arrived.reject(render_problem());
    };
    api.metrics.record_served_age(answer.cached.age);
    let audience = if caller.is_anonymous() {
        ResponseAudience::EveryonePerPage
    } else {
        ResponseAudience::SingleCaller
    };
    let headers = arrived.request.headers();
    let response = caching::respond(
        headers,
        &answer.cached,
        audience,
        Format::Native,
        coding,
        ready,
    );
    with_upstream_ids(response, answer, None)
}
