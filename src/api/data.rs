//! Answers from the [`service`](crate::service): how they are requested, sent and replaced by problems.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    browser_headers,
    caching::{self, ResponseAudience},
    context::RequestContext,
    negotiation, problem,
    response::{ApiResponse, HandlerResult, LogFields, Rejection},
    spans,
    unsent_budget::ApiBody,
};
use crate::{
    cache::{CacheResult, CacheStatus},
    domain::{Caller, CustomerId, ProcessedDate, Resource},
    problem::{FullBody, Problem, ProblemKind},
    render::{ContentCoding, EncodedBody, Format, RenderedDocument},
    service::{
        CacheDirective, ErrorKind, FleetAnswer, UsageAnswer, UsageError, UsageQuery,
        source::CallIds,
    },
};

const MS_REQUEST_ID: HeaderName = HeaderName::from_static("ms-requestid");
const MS_CORRELATION_ID: HeaderName = HeaderName::from_static("ms-correlationid");

/// A request for data, read from its path, query and headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataRequest {
    pub(super) resource: RequestedResource,
    pub(super) format: Format,
    pub(super) coding: ContentCoding,
    pub(super) directive: CacheDirective,
}

/// The resource of a request for data.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestedResource {
    /// Usage of a customer, of the newest date where there is none.
    Usage(CustomerId, Option<ProcessedDate>),
    Document(Resource),
}

/// The origin of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerOrigin {
    status: CacheStatus,
    result: CacheResult,
    /// `None` if the request made no call.
    call_ids: Option<CallIds>,
}

/// Reads a request for data, or says what is wrong with it.
pub(super) type ParseDataRequest = fn(&RequestContext) -> Result<DataRequest, Problem>;

/// Answers from the cache alone, where that has a fresh answer in the requested format and the caller
/// may read it; `None` for everything that the handler has to decide.
pub(super) fn fresh_hit(
    context: &RequestContext,
    caller: &Caller,
    parse: ParseDataRequest,
) -> Option<ApiResponse> {
    if !matches!(*context.method(), http::Method::GET | http::Method::HEAD) {
        return None;
    }
    let request = parse(context).ok()?;
    let (usage, now) = (&context.api.usage, context.received_at);
    let answer = match request.resource {
        RequestedResource::Usage(customer_id, date) => {
            usage.fresh_usage(request.usage_query(customer_id, date), caller, now)
        }
        RequestedResource::Document(document) => {
            usage.fresh_document(document, request.directive, caller, now)
        }
    }?;
    // Not before it is certain that the handler is not called, which does so too.
    let ready = answer
        .cached
        .rendered
        .ready(request.format, request.coding)?;
    usage.record_hit();
    record_customer(context, request);
    Some(send(context, &answer, request, ready))
}

/// Answers a request for data.
pub(super) async fn respond(
    context: &RequestContext,
    caller: &Caller,
    request: Result<DataRequest, Problem>,
) -> HandlerResult {
    let request = request?;
    record_customer(context, request);
    let (usage, now) = (&context.api.usage, context.received_at);
    let trace = || context.call_trace();
    let answer = match request.resource {
        RequestedResource::Usage(customer_id, date) => {
            let query = request.usage_query(customer_id, date);
            usage.answer(query, caller, trace, now).await
        }
        RequestedResource::Document(document) => {
            let directive = request.directive;
            usage
                .document(document, directive, caller, trace, now)
                .await
        }
    };
    let answer = answer.map_err(|error| {
        let rejection = rejection(context, request.date(), &error);
        match (error.kind, request.resource) {
            (
                ErrorKind::NotAllowed,
                RequestedResource::Document(Resource::PartnerUsage | Resource::PartnerDeployment),
            ) => problem::not_allowed("this caller may not read every customer's usage").into(),
            _ => rejection,
        }
    })?;
    let rendered = &answer.cached.rendered;
    let (format, coding) = (request.format, request.coding);
    if rendered.ready(format, coding).is_none()
        && let Err(error) = usage.render(rendered, format, coding).await
    {
        let customer = rendered.customer().map(tracing::field::display);
        tracing::error!(customer.id = customer, %error, "a cached answer could not be rendered");
    }
    let ready = rendered.ready(format, coding).ok_or_else(render_problem)?;
    Ok(send(context, &answer, request, ready))
}

/// Sends an answer in a format and coding that are ready.
fn send(
    context: &RequestContext,
    answer: &UsageAnswer,
    request: DataRequest,
    ready: (&RenderedDocument, &EncodedBody),
) -> ApiResponse {
    let audience = if context.api.authenticator.allows_anonymous() {
        ResponseAudience::Everyone
    } else {
        ResponseAudience::AuthorizedCallers
    };
    let (format, coding) = (request.format, request.coding);
    let headers = context.headers();
    let mut response = caching::respond(headers, &answer.cached, audience, format, coding, ready);
    if response.status() == StatusCode::OK
        && let Some(disposition) = answer.cached.rendered.disposition(format)
    {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, disposition.clone());
    }
    if let Format::Chart(_) = format {
        // With 304 too: its headers replace those that the picture was stored with (RFC 9111 §3.2).
        browser_headers::add_chart_headers(response.headers_mut());
    }
    context.api.metrics.record_served_age(answer.cached.age);
    with_upstream_ids(response, answer, request.date())
}

/// An answer with the ids of the upstream call that it made.
pub(super) fn with_upstream_ids(
    mut response: Response<FullBody>,
    origin: impl Into<AnswerOrigin>,
    date: Option<ProcessedDate>,
) -> ApiResponse {
    let origin = origin.into();
    if let Some(ids) = origin.call_ids {
        response.headers_mut().extend(upstream_id_headers(ids));
    }
    ApiResponse {
        http: response.map(ApiBody::from),
        cache_status: origin.status,
        log_fields: log_fields(date, Some(origin.result), origin.call_ids),
    }
}

/// The problem that a failed answer is sent as; a missing right is counted.
pub(super) fn rejection(
    context: &RequestContext,
    date: Option<ProcessedDate>,
    error: &UsageError,
) -> Rejection {
    if let ErrorKind::NotAllowed = error.kind {
        context.api.metrics.access.not_allowed.inc();
    }
    let call = match error.call_ids {
        Some(_) => problem::CallOwnership::Own,
        None => problem::CallOwnership::Shared,
    };
    let mut problem = problem::from_cause(&error.kind, call);
    for (name, value) in error.call_ids.into_iter().flat_map(upstream_id_headers) {
        problem = problem.with_header(name, value);
    }
    Rejection {
        correlation_id: error.call_ids.map(|ids| ids.correlation_id),
        ..Rejection::new(
            problem,
            error.status,
            log_fields(date, error.result, error.call_ids),
        )
    }
}

fn log_fields(
    processed_date: Option<ProcessedDate>,
    cache_result: Option<CacheResult>,
    call_ids: Option<CallIds>,
) -> LogFields {
    LogFields {
        cache_result,
        processed_date,
        problem: None,
        upstream_request_id: call_ids.map(|ids| ids.request_id),
    }
}

/// The ids of the upstream call, for questions to Microsoft's support.
fn upstream_id_headers(ids: CallIds) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let ids = [
        (MS_REQUEST_ID, ids.request_id),
        (MS_CORRELATION_ID, ids.correlation_id),
    ];
    ids.into_iter()
        .filter_map(|(name, id)| Some((name, HeaderValue::try_from(id.to_string()).ok()?)))
}

/// A cached answer could not be rendered.
pub(super) fn render_problem() -> Problem {
    Problem::new(
        ProblemKind::NotRendered,
        "the answer is cached, but this form of it could not be rendered; the log says why",
    )
}

fn record_customer(context: &RequestContext, request: DataRequest) {
    let customer = match request.resource {
        RequestedResource::Usage(customer, _)
        | RequestedResource::Document(Resource::Deployment(customer)) => Some(customer),
        RequestedResource::Document(_) => None,
    };
    if let (Some(span), Some(customer)) = (context.span(), customer) {
        spans::record_customer(span, customer);
    }
}

// === impl AnswerOrigin ===

impl From<&UsageAnswer> for AnswerOrigin {
    fn from(answer: &UsageAnswer) -> Self {
        Self {
            status: answer.status,
            result: answer.result,
            call_ids: answer.call_ids,
        }
    }
}

impl From<&FleetAnswer> for AnswerOrigin {
    fn from(answer: &FleetAnswer) -> Self {
        Self {
            status: answer.status,
            result: answer.result,
            call_ids: answer.call_ids,
        }
    }
}

// === impl DataRequest ===

impl DataRequest {
    /// Reads what all requests for data have in common.
    pub(super) fn parse(
        context: &RequestContext,
        resource: RequestedResource,
        formats: &[Format],
    ) -> Result<Self, Problem> {
        let headers = context.headers();
        Ok(Self {
            resource,
            format: negotiation::negotiate_format(headers, formats)?,
            coding: negotiation::negotiate_coding(headers)?,
            directive: context.cache_directive(),
        })
    }

    fn usage_query(self, customer_id: CustomerId, date: Option<ProcessedDate>) -> UsageQuery {
        UsageQuery {
            customer_id,
            format: self.format,
            date,
            directive: self.directive,
        }
    }

    fn date(self) -> Option<ProcessedDate> {
        match self.resource {
            RequestedResource::Usage(_, date) => date,
            RequestedResource::Document(_) => None,
        }
    }
}
