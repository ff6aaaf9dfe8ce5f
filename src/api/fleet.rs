//! Usage of all customers: totals, a row for each customer, a row for each customer and product.

mod query;

use std::sync::Arc;

use http::{StatusCode, header};

use self::query::FleetRequest;
pub(super) use self::query::parse_sort;
use super::{
    caching::{self, ResponseAudience},
    context::AuthenticatedRequest,
    data::{rejection, render_problem, with_upstream_ids},
    negotiation,
    problem::not_allowed,
    response::HandlerResult,
};
use crate::{
    domain::{Caller, CallerScope},
    offload,
    problem::Problem,
    render::{
        ContentCoding, Format, RenderedDocument,
        fleet::{FleetDocumentRequest, FleetRenderError, FleetScope, FleetView},
    },
};

/// About the CPU time for a customer, as the time to read so many bytes.
const BYTES_PER_CUSTOMER: usize = 1_024;

/// `GET /v1/usage`.
pub(super) async fn totals(request: AuthenticatedRequest) -> HandlerResult {
    respond(
        &request,
        FleetView::Products,
        negotiation::SIMPLIFIED_FORMATS,
    )
    .await
}

/// `GET /v1/usage/table.csv`.
pub(super) async fn totals_table(request: AuthenticatedRequest) -> HandlerResult {
    respond(&request, FleetView::Products, negotiation::TABLE_FORMATS).await
}

/// `GET /v1/usage/customers`.
pub(super) async fn customers(request: AuthenticatedRequest) -> HandlerResult {
    respond(
        &request,
        FleetView::Customers,
        negotiation::SIMPLIFIED_FORMATS,
    )
    .await
}

/// `GET /v1/usage/customers/table.csv`.
pub(super) async fn customers_table(request: AuthenticatedRequest) -> HandlerResult {
    respond(&request, FleetView::Customers, negotiation::TABLE_FORMATS).await
}

/// `GET /v1/usage/unused`.
pub(super) async fn unused(request: AuthenticatedRequest) -> HandlerResult {
    respond(&request, FleetView::Unused, negotiation::SIMPLIFIED_FORMATS).await
}

/// `GET /v1/usage/unused/table.csv`.
pub(super) async fn unused_table(request: AuthenticatedRequest) -> HandlerResult {
    respond(&request, FleetView::Unused, negotiation::TABLE_FORMATS).await
}

async fn respond(
    request: &AuthenticatedRequest,
    view: FleetView,
    formats: &[Format],
) -> HandlerResult {
    let format = negotiation::negotiate_format(request.headers(), formats)?;
    let coding = negotiation::negotiate_coding(request.headers())?;
    let parsed = FleetRequest::parse(request.query(), view, format, request.today())?;
    if let Some(problem) = missing_right(request.caller(), &parsed) {
        request.api.metrics.access.not_allowed.inc();
        return Err(problem.into());
    }
    let usage = &request.api.usage;
    let portfolio = usage.portfolio().get();
    let group = parsed.group(&portfolio, request.caller())?;
    let trace = || request.call_trace();
    let (date, directive) = (parsed.date, request.cache_directive());
    let answer = usage
        .fleet(
            date,
            directive,
            request.caller(),
            trace,
            request.received_at,
        )
        .await
        .map_err(|error| rejection(request, date, &error))?;
    let may_read = |customer| request.caller().may_read(customer);
    let document_request = FleetDocumentRequest {
        scope: FleetScope::new(&answer.usage, may_read, parsed.customers.as_ref(), group),
        fleet: Arc::clone(&answer.usage),
        portfolio: Arc::clone(&portfolio),
        query: parsed.query,
        format: parsed.format,
    };
    let (format, disposition) = (parsed.format.format(), document_request.disposition());
    let document = render(request, document_request, coding).await?;
    let encoded = document.ready(coding).ok_or_else(render_problem)?;
    request.api.metrics.record_served_age(answer.age);
    let audience = if request.caller().is_anonymous() {
        ResponseAudience::EveryoneUndated
    } else {
        ResponseAudience::SingleCaller
    };
    let (headers, ready) = (request.headers(), (&*document, encoded));
    let mut response = caching::respond(headers, &answer, audience, format, coding, ready);
    if response.status() == StatusCode::OK
        && let Some(disposition) = disposition
    {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(with_upstream_ids(response, &answer, date))
}

/// The problem of a caller that may read no usage at all, or not that of a customer it asks for.
fn missing_right(caller: &Caller, parsed: &FleetRequest) -> Option<Problem> {
    if !caller.has_scope(CallerScope::UsageRead) {
        return Some(not_allowed("this caller may not read any customer's usage"));
    }
    let mut customers = parsed.customers.iter().flatten();
    customers
        .any(|customer| !caller.may_read(*customer))
        .then(|| not_allowed("this caller may not read the usage of each customer in the query"))
}

async fn render(
    request: &AuthenticatedRequest,
    document_request: FleetDocumentRequest,
    coding: ContentCoding,
) -> Result<Arc<RenderedDocument>, Problem> {
    if let Some(ready) = request.api.fleet_documents.ready(&document_request, coding) {
        return Ok(ready);
    }
    let (api, seen_at) = (Arc::clone(&request.api), request.api.clock.wall_time());
    let bytes = document_request.fleet.entries.len() * BYTES_PER_CUSTOMER;
    let render = move || {
        api.fleet_documents
            .render(&document_request, coding, seen_at)
    };
    let rendered = offload::run_cpu_bound(bytes, render).await;
    rendered.map_err(|error| match error {
        FleetRenderError::CursorExpired(expired) => query::cursor_problem(expired),
        error @ FleetRenderError::Failed(_) => {
            tracing::error!(%error, "the usage of all customers could not be rendered");
            render_problem()
        }
    })
}
