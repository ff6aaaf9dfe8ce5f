//! The state that the layers and the handler of a request share.

use std::{
    ops::{Deref, Range},
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    extract, rate_limit::RateLimitHeaders, response::Rejection, route::Route, spans::SpanParent,
    state::ApiState,
};
use crate::{
    auth::CallerIdentity,
    domain::{Caller, ProcessedDate},
    observability::traces::TraceSpan,
    peer::Peer,
    problem::Problem,
    request_id,
    service::{CacheDirective, source::CallTrace},
};

/// One request; clones share it.
#[derive(Clone, Debug)]
pub(super) struct RequestContext(Arc<RequestState>);

/// A request with the findings of the layers.
#[derive(Debug)]
pub(super) struct RequestState {
    pub(super) api: Arc<ApiState>,
    pub(super) head: Parts,
    pub(super) peer: Peer,
    pub(super) route: Route,
    /// The range of the route's parameter in the path.
    parameter: Range<usize>,
    pub(super) received_at: Instant,
    pub(super) request_id: HeaderValue,
    /// `None` where nothing is traced.
    started_at: Option<Timestamp>,
    /// Absent until the caller is authenticated.
    identity: OnceLock<Arc<CallerIdentity>>,
    /// Absent where the caller has no rate limit.
    rate_limit: OnceLock<RateLimitHeaders>,
    /// Absent where nothing is traced.
    span: OnceLock<Arc<TraceSpan>>,
}

/// A request whose caller is known.
#[derive(Clone, Debug)]
pub(super) struct AuthenticatedRequest {
    context: RequestContext,
    identity: Arc<CallerIdentity>,
}

// === impl RequestContext ===

impl RequestContext {
    pub(super) fn new(api: Arc<ApiState>, head: Parts, peer: Peer) -> Self {
        let (route, parameter) = api.routes.find(head.uri.path());
        Self(Arc::new(RequestState {
            received_at: api.clock.now(),
            request_id: request_id::accept_or_generate(&head.headers),
            route,
            parameter,
            started_at: api.spans.as_ref().map(|_| api.clock.wall_time()),
            api,
            head,
            peer,
            identity: OnceLock::new(),
            rate_limit: OnceLock::new(),
            span: OnceLock::new(),
        }))
    }
}

impl Deref for RequestContext {
    type Target = RequestState;

    fn deref(&self) -> &RequestState {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| Problem::internal().into())
    }
}

// === impl RequestState ===

impl RequestState {
    pub(super) fn method(&self) -> &Method {
        &self.head.method
    }

    pub(super) fn path(&self) -> &str {
        self.head.uri.path()
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The customer that the path names, as it was sent.
    pub(super) fn customer_segment(&self) -> &str {
        self.path().get(self.parameter.clone()).unwrap_or_default()
    }

    /// The date of today, in UTC.
    pub(super) fn today(&self) -> ProcessedDate {
        ProcessedDate::from_timestamp(self.api.clock.wall_time())
    }

    pub(super) fn cache_directive(&self) -> CacheDirective {
        extract::cache_directive(self.headers())
    }

    /// The ids that an upstream call of this request is traced by.
    pub(super) fn call_trace(&self) -> CallTrace {
        CallTrace {
            span: self.span.get().cloned(),
            ..extract::call_trace(self.headers())
        }
    }

    /// The correlation id for a problem document: that of the upstream call, the caller's, or the
    /// request id.
    pub(super) fn correlation_id(&self, call: Option<Uuid>) -> String {
        call.or_else(|| extract::correlation_id(self.headers()))
            .map_or_else(|| self.request_id_text().to_owned(), |id| id.to_string())
    }

    pub(super) fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The scheme and host that the client used; empty where the host is not a plain one.
    pub(super) fn origin(&self) -> String {
        let authority = self.head.uri.authority();
        let host = self.headers().get(header::HOST);
        let host = authority
            .map(http::uri::Authority::as_str)
            .or_else(|| host?.to_str().ok())
            .unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return String::new();
        }
        let scheme = if self.peer.encrypted { "https" } else { "http" };
        format!("{scheme}://{host}")
    }

    pub(super) fn identity(&self) -> Option<&Arc<CallerIdentity>> {
        self.identity.get()
    }

    /// Sets who sent the request; only the first time counts.
    pub(super) fn set_identity(&self, identity: Arc<CallerIdentity>) -> &CallerIdentity {
        self.identity.get_or_init(|| identity)
    }

    /// The name of the caller for the log and for spans.
    pub(super) fn caller_name(&self) -> &str {
        const UNKNOWN_CALLER: &str = "-";

        self.identity()
            .map_or(UNKNOWN_CALLER, |identity| identity.caller().name())
    }

    pub(super) fn rate_limit(&self) -> Option<&RateLimitHeaders> {
        self.rate_limit.get()
    }

    pub(super) fn set_rate_limit(&self, headers: RateLimitHeaders) {
        self.rate_limit.get_or_init(|| headers);
    }

    pub(super) fn span(&self) -> Option<&Arc<TraceSpan>> {
        self.span.get()
    }

    /// Starts the span of this request, if it has none yet. The caller's span may be the parent only
    /// once the caller is known: it decides whether the trace is exported.
    pub(super) fn start_span(&self, parent: SpanParent) {
        if let (Some(spans), Some(started_at)) = (&self.api.spans, self.started_at) {
            self.span.get_or_init(|| {
                let id = &self.request_id;
                spans.start(&self.head, id, self.route, &self.peer, parent, started_at)
            });
        }
    }
}

// === impl AuthenticatedRequest ===

impl AuthenticatedRequest {
    /// Returns `None` where the caller is not authenticated.
    pub(super) fn new(context: &RequestContext) -> Option<Self> {
        Some(Self {
            identity: Arc::clone(context.identity()?),
            context: context.clone(),
        })
    }

    pub(super) fn caller(&self) -> &Caller {
        self.identity.caller()
    }
}

impl Deref for AuthenticatedRequest {
    type Target = RequestContext;

    fn deref(&self) -> &RequestContext {
        &self.context
    }
}

impl<S: Sync> FromRequestParts<S> for AuthenticatedRequest {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        Self::new(&context).ok_or_else(|| Problem::internal().into())
    }
}
