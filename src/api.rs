//! The API listener: what dashboards call.
//!
//! Nearly every request is a hit, so the routes are told apart by hand and the request's
//! context is passed as arguments: nothing here allocates but the header values of the answer.

mod assets;
mod authentication;
mod browser_headers;
mod caching;
mod cors;
mod customers;
mod data;
mod docs;
mod documents;
mod extract;
mod metrics;
mod negotiation;
mod openapi;
mod page;
mod problem;
mod rate_limit;
mod route;
mod schema;
mod spans;
mod unsent_budget;
mod usage;

use std::{
    pin::pin,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use uuid::Uuid;

pub use self::openapi::document as openapi_document;
use self::{
    assets::{StaticAsset, StaticAssets},
    cors::CorsPolicy,
    rate_limit::RateLimitHeaders,
    route::Route,
    schema::Anonymous,
    spans::SpanParent,
    unsent_budget::{ResponseRecipient, UnsentBudgets, UnsentCharge},
};
pub use self::{
    authentication::Authenticator, metrics::ApiMetrics, spans::RequestSpans, unsent_budget::ApiBody,
};
use crate::{
    allowed_hosts::AllowedHosts,
    auth::CallerIdentity,
    cache::{CacheResult, CacheStatus},
    clock::SharedClock,
    config::{CorsOrigin, RequestLog},
    domain::{Caller, ProcessedDate},
    observability::telemetry::REQUEST_TARGET,
    observability::traces::TraceSpan,
    offload,
    panic::{self, HandlerPanicked},
    peer::Peer,
    problem::{FullBody, Problem, excerpt},
    request_id::{self, X_REQUEST_ID},
    service::{UsageService, source::CallTrace},
};

/// Everything an API request needs; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    inner: Arc<ApiState>,
}

#[derive(Debug)]
struct ApiState {
    authentication: Authenticator,
    usage: UsageService,
    clock: SharedClock,
    metrics: ApiMetrics,
    request_log: RequestLog,
    /// `None` where any host will do.
    allowed_hosts: Option<AllowedHosts>,
    /// `None` where no page of another origin may read answers.
    cors: Option<CorsPolicy>,
    unsent_budgets: UnsentBudgets,
    /// `None` where nothing is traced.
    spans: Option<RequestSpans>,
}

/// A request that has arrived.
struct RequestContext<'a, B> {
    request: &'a Request<B>,
    received_at: Instant,
    request_id: &'a HeaderValue,
    /// `None` where nothing is traced.
    span: Option<Arc<TraceSpan>>,
    /// Whether its connection is encrypted.
    encrypted: bool,
    /// Whether a person is to read what is wrong with it.
    wants_html: bool,
}

/// What a request came to.
struct ApiResponse {
    response: Response<FullBody>,
    cache_status: CacheStatus,
    log_fields: LogFields,
}

/// What metrics and the log tell of a request besides its status.
#[derive(Clone, Copy, Default)]
struct LogFields {
    /// What was found in the cache; `None` where it was not asked.
    cache_result: Option<CacheResult>,
    /// The date that was asked for.
    processed_date: Option<ProcessedDate>,
    /// The kind of problem that it was answered with.
    problem: Option<&'static str>,
    /// The id of the upstream call that this request made.
    upstream_request_id: Option<Uuid>,
}

/// A request under way. Dropped before it was answered, its caller went away: it is counted and
/// logged all the same.
struct RequestGuard<'a, B> {
    api: &'a ApiState,
    route: Route<'a>,
    context: RequestContext<'a, B>,
    peer: Peer,
    /// Who sent it; `None` as long as nobody knows.
    identity: Option<Arc<CallerIdentity>>,
    /// What its sender is told of its rate, where it has one.
    rate_headers: Option<RateLimitHeaders>,
    is_completed: bool,
    /// When it arrived; `None` where nothing is traced.
    started_at: Option<Timestamp>,
}

/// What is the same for everybody. It is the program's own and never changes while it runs, so all
/// services of a process share it.
static ASSETS: LazyLock<StaticAssets> = LazyLock::new(|| {
    let files = docs::pages().into_iter();
    StaticAssets::new(files.chain(docs::files()).chain(page::files()))
});

/// About what the description of this API takes.
const OPENAPI_BYTES: usize = 256 * 1024;

/// The descriptions of a service that everybody may call, and of one that tells its callers apart.
/// Each takes some 20 MiB for a moment when it is made, so nobody who is not asked for it makes it.
static OPENAPI_DOCUMENTS: [LazyLock<StaticAsset>; 2] = [
    LazyLock::new(|| StaticAsset::new(openapi::file(Anonymous::Allowed))),
    LazyLock::new(|| StaticAsset::new(openapi::file(Anonymous::Refused))),
];

/// The description where nobody is told apart, or everybody is.
fn openapi_asset(anonymous: Anonymous) -> &'static StaticAsset {
    let [open, closed] = &OPENAPI_DOCUMENTS;
    LazyLock::force(match anonymous {
        Anonymous::Allowed => open,
        Anonymous::Refused => closed,
    })
}

// === impl Api ===

impl Api {
    /// A request that took this long is logged also where only problems are.
    const SLOW_REQUEST: Duration = Duration::from_secs(1);

    /// An API over this service.
    pub fn new(
        authentication: Authenticator,
        usage: UsageService,
        clock: SharedClock,
        metrics: ApiMetrics,
        log: RequestLog,
        hosts: Option<AllowedHosts>,
        cors_origins: &[CorsOrigin],
    ) -> Self {
        Self {
            inner: Arc::new(ApiState {
                authentication,
                usage,
                clock,
                metrics,
                request_log: log,
                allowed_hosts: hosts,
                cors: CorsPolicy::new(cors_origins),
                unsent_budgets: UnsentBudgets::default(),
                spans: None,
            }),
        }
    }

    /// The same, with a span for each request where there are to be any.
    #[expect(clippy::expect_used, reason = "it is ours alone until it serves")]
    #[must_use]
    pub fn with_spans(mut self, spans: Option<RequestSpans>) -> Self {
        Arc::get_mut(&mut self.inner)
            .expect("nobody shares an API that does not serve yet")
            .spans = spans;
        self
    }

    /// Answers one request, counts it and logs it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no upstream call; the request is then counted and logged with
    /// status 499, as nginx does.
    pub async fn serve<B>(&self, request: Request<B>, peer: Peer) -> Response<ApiBody> {
        let inner = &*self.inner;
        let _in_flight = inner.metrics.start_request();
        let at = inner.clock.now();
        let request_id = request_id::accept_or_generate(request.headers());
        let route = Route::from_path(request.uri().path());
        let hosts = inner.allowed_hosts.as_ref();
        let misdirected = hosts.and_then(|hosts| hosts.check(&request).err());
        let mut under_way = RequestGuard {
            api: inner,
            route,
            context: RequestContext {
                request: &request,
                received_at: at,
                request_id: &request_id,
                span: None,
                encrypted: peer.encrypted,
                // On a foreign host the page's style sheet would be refused too.
                wants_html: route == Route::Page && misdirected.is_none(),
            },
            peer,
            identity: None,
            rate_headers: None,
            is_completed: false,
            started_at: inner.spans.as_ref().map(|_| inner.clock.wall_time()),
        };

        let answered = match misdirected {
            Some(problem) => Ok(under_way.context.reject(problem)),
            None => panic::catch(pin!(under_way.respond())).await,
        };

        let mut served = answered.unwrap_or_else(|HandlerPanicked| {
            inner.metrics.panics.inc();
            under_way.context.reject(Problem::internal())
        });
        let charge = under_way.charge_unsent(&mut served);
        if let Some(span) = under_way.span() {
            spans::record_cache_status(span, &served.cache_status);
        }
        under_way.complete(served.response.status(), served.log_fields);
        let rate = under_way.rate_headers.take();
        drop(under_way);
        let headers = served.response.headers_mut();
        if let Some(rate) = rate {
            rate.insert_into(headers);
        }
        headers.insert(
            caching::CACHE_STATUS,
            caching::cache_status(&served.cache_status),
        );
        headers.insert(X_REQUEST_ID, request_id);
        if let Some(cors) = &inner.cors {
            cors.add_headers(request.headers(), headers);
        }
        served.response.map(|body| ApiBody::new(body, charge))
    }
}

// === impl Inner ===

impl ApiState {
    /// What a browser asks before it lets a page make its request.
    fn preflight<B>(&self, arrived: &RequestContext<'_, B>) -> Option<ApiResponse> {
        let answer = self.cors.as_ref()?.preflight(arrived.request)?;
        Some(match answer {
            Ok(response) => ApiResponse {
                response,
                cache_status: CacheStatus::NOT_CONSULTED,
                log_fields: LogFields::default(),
            },
            Err(problem) => arrived.reject(problem),
        })
    }

    async fn dispatch<B>(
        &self,
        route: Route<'_>,
        arrived: &RequestContext<'_, B>,
        caller: &Caller,
    ) -> ApiResponse {
        match route {
            // Boxed, so that a hit of a customer does without their place.
            Route::Customers => Box::pin(customers::list(self, arrived, caller)).await,
            Route::Usage { customer } => usage::simplified(self, arrived, caller, customer).await,
            Route::Native { customer } => usage::native(self, arrived, caller, customer).await,
            Route::Chart { customer } => usage::chart(self, arrived, caller, customer).await,
            Route::Table { customer } => usage::table(self, arrived, caller, customer).await,
            Route::Deployment { customer } => {
                documents::deployment(self, arrived, caller, customer).await
            }
            Route::PartnerUsage => documents::partner_usage(self, arrived, caller).await,
            Route::PartnerDeployment => documents::partner_deployment(self, arrived, caller).await,
            Route::Page => Box::pin(page::page(self, arrived, caller)).await,
            // Their files are answered before anybody is asked who it is.
            Route::OpenApi | Route::Docs | Route::DocsFile | Route::Asset | Route::Unmatched => {
                arrived.reject(Problem::not_found(arrived.request.uri().path()))
            }
        }
    }

    fn should_log(&self, status: StatusCode, took: Duration) -> bool {
        match self.request_log {
            RequestLog::All => true,
            RequestLog::Problems => {
                status.is_client_error() || status.is_server_error() || took >= Api::SLOW_REQUEST
            }
            RequestLog::Off => false,
        }
    }
}

// === impl Arrived ===

impl<B> RequestContext<'_, B> {
    /// What an upstream call is traced by that is made for this request.
    fn call_trace(&self) -> CallTrace {
        CallTrace {
            span: self.span.clone(),
            ..extract::call_trace(self.request.headers())
        }
    }

    /// Answers with a problem that has nothing to do with the cache.
    fn reject(&self, problem: Problem) -> ApiResponse {
        self.problem_response(
            problem,
            CacheStatus::NOT_CONSULTED,
            LogFields::default(),
            None,
        )
    }

    fn problem_response(
        &self,
        problem: Problem,
        status: CacheStatus,
        told: LogFields,
        correlation_id: Option<Uuid>,
    ) -> ApiResponse {
        let headers = self.request.headers();
        let correlation_id = correlation_id
            .or_else(|| extract::correlation_id(headers))
            .map_or_else(
                || self.request_id.to_str().unwrap_or_default().to_owned(),
                |id| id.to_string(),
            );
        let path = self.request.uri().path();
        let told = LogFields {
            problem: Some(problem.name()),
            ..told
        };
        let response = if self.wants_html {
            page::present(self, &problem)
        } else {
            problem
                .for_request(path, self.request_id, Some(correlation_id))
                .into_response()
        };
        ApiResponse {
            response,
            cache_status: status,
            log_fields: told,
        }
    }
}

// === impl UnderWay ===

impl<B> RequestGuard<'_, B> {
    /// What is counted where the caller went away.
    const CLIENT_CLOSED_REQUEST: u16 = 499;

    /// What the log calls a sender that nobody knows.
    const UNKNOWN_CALLER: &'static str = "-";

    /// Nothing is looked at before it is known who asks, not even whether there is anything at the
    /// path; [files](assets) that are the same for everybody apart.
    async fn respond(&mut self) -> ApiResponse {
        if let Some(served) = self.api.preflight(&self.context) {
            return served;
        }
        if self.api.authentication.anonymous() == Anonymous::Allowed {
            self.start_span(SpanParent::Traceparent);
        }
        if self.route.may_be_static()
            && let Some(asset) = self.static_asset().await
        {
            return assets::respond(asset, &self.context).await;
        }
        let identity = match self.authenticate().await {
            Ok(identity) => identity,
            Err(problem) => return self.context.reject(problem),
        };
        self.start_span(SpanParent::Traceparent);
        let identity = &**self.identity.insert(identity);
        if let Some(limit) = identity.rate_limit() {
            let taken = limit.acquire(self.context.received_at);
            self.rate_headers = Some(RateLimitHeaders::new(limit, taken));
            if let Err(exhausted) = taken {
                self.api.metrics.access.rate_limited.inc();
                return self
                    .context
                    .reject(rate_limit::rate_limited_problem(limit, exhausted));
            }
        }
        let (api, arrived) = (self.api, &self.context);
        api.dispatch(self.route, arrived, identity.caller()).await
    }

    /// What everybody may have at this path.
    async fn static_asset(&self) -> Option<&'static StaticAsset> {
        if self.route == Route::OpenApi {
            let anonymous = self.api.authentication.anonymous();
            return Some(
                offload::run_cpu_bound(OPENAPI_BYTES, move || openapi_asset(anonymous)).await,
            );
        }
        ASSETS.find(self.context.request.uri().path())
    }

    async fn authenticate(&self) -> Result<Arc<CallerIdentity>, Problem> {
        let headers = self.context.request.headers();
        let identity = self.api.authentication.authenticate(headers, &self.peer);
        identity.await.map_err(|denied| {
            self.api.metrics.access.record_denied(denied);
            denied.problem_for(self.route)
        })
    }

    /// Counts an answer as unsent, or replaces it by a problem where too many are.
    fn charge_unsent(&self, served: &mut ApiResponse) -> Option<UnsentCharge> {
        let sender = match &self.identity {
            _ if self.api.authentication.anonymous() == Anonymous::Allowed => {
                ResponseRecipient::Anonymous
            }
            Some(identity) => ResponseRecipient::Caller(identity),
            None => ResponseRecipient::Unauthenticated,
        };
        let version = self.context.request.version();
        let charged = self
            .api
            .unsent_budgets
            .charge(&served.response, version, sender);
        charged.unwrap_or_else(|problem| {
            *served = self.context.reject(problem);
            None
        })
    }

    fn caller_name(&self) -> &str {
        match &self.identity {
            Some(identity) => identity.caller().name(),
            None => Self::UNKNOWN_CALLER,
        }
    }

    /// Begins the span of this request, if it has none yet. The caller's span may be the parent only
    /// once the caller is known: it decides whether the trace is exported.
    fn start_span(&mut self, parent: SpanParent) {
        if let (None, Some(spans), Some(began)) =
            (&self.context.span, &self.api.spans, self.started_at)
        {
            self.context.span =
                Some(spans.start(&self.context, self.route, &self.peer, parent, began));
        }
    }

    fn span(&mut self) -> Option<&TraceSpan> {
        self.start_span(SpanParent::NewTrace);
        self.context.span.as_deref()
    }

    fn trace_id(&self) -> Option<impl std::fmt::Display> {
        let span = self.context.span.as_ref()?;
        Some(span.context().trace_id())
    }

    fn complete(&mut self, status: StatusCode, told: LogFields) {
        self.is_completed = true;
        // A duration takes a second look at the clock; everything else went by the first.
        let now = self.api.clock.now();
        let took = now.saturating_duration_since(self.context.received_at);
        let method = self.context.request.method();
        self.api
            .metrics
            .record_request(self.route, method, status, told.cache_result, took);
        self.start_span(SpanParent::NewTrace);
        if let Some(span) = &self.context.span {
            spans::end_span(span, status, told, self.caller_name());
        }
        if self.api.should_log(status, took) {
            self.log(status, told, took);
        }
    }

    /// One line per request. Of what was sent it names the path, which names the customer, and the
    /// date, and no more: the rest of a query or a header may be nobody's business.
    fn log(&self, status: StatusCode, told: LogFields, took: Duration) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: REQUEST_TARGET,
                    method = self.context.request.method().as_str(),
                    route = self.route.pattern(),
                    path = &*excerpt(self.context.request.uri().path()),
                    processed_date = told.processed_date.map(tracing::field::display),
                    status = status.as_u16(),
                    cache = told.cache_result.map_or("none", CacheResult::as_str),
                    problem = told.problem,
                    duration_seconds = truncate_to_microseconds(took).as_secs_f64(),
                    request_id = self.context.request_id.to_str().unwrap_or_default(),
                    caller = self.caller_name(),
                    peer = %self.peer.address.ip(),
                    ms.request_id = told.upstream_request_id.map(tracing::field::display),
                    trace_id = self.trace_id().map(tracing::field::display),
                    "request"
                )
            };
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            line!(error);
        } else if status.is_server_error() {
            line!(warn);
        } else {
            line!(info);
        }
    }
}

impl<B> Drop for RequestGuard<'_, B> {
    fn drop(&mut self) {
        if !self.is_completed
            && let Ok(status) = StatusCode::from_u16(Self::CLIENT_CLOSED_REQUEST)
        {
            self.complete(status, LogFields::default());
        }
    }
}

/// Finer would only be noise.
fn truncate_to_microseconds(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
