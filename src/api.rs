//! The API listener: what dashboards call.
//!
//! Nearly every request is a hit, so the routes are told apart by hand and the request's
//! context is passed as arguments: nothing here allocates but the header values of the answer.

mod assets;
mod authentication;
mod browser;
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
mod unsent;
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
    assets::{Asset, Assets},
    cors::Cors,
    rate_limit::RateFields,
    route::Route,
    schema::Anonymous,
    spans::SpanParent,
    unsent::{Charge, Sender, UnsentBudgets},
};
pub use self::{
    authentication::Authentication, metrics::ApiMetrics, spans::RequestSpans, unsent::ApiBody,
};
use crate::{
    allowed_hosts::AllowedHosts,
    auth::Identity,
    cache::{CacheResult, CacheStatus},
    clock::SharedClock,
    config::{Origin, RequestLog},
    domain::{Caller, ProcessedDate},
    observability::telemetry::REQUEST_TARGET,
    observability::traces::Span,
    offload,
    panic::{self, Panicked},
    peer::Peer,
    problem::{Body, Problem, excerpt},
    request_id::{self, X_REQUEST_ID},
    service::{UsageService, source::CallTrace},
};

/// Everything an API request needs; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authentication: Authentication,
    usage: UsageService,
    clock: SharedClock,
    metrics: ApiMetrics,
    log: RequestLog,
    /// `None` where any host will do.
    hosts: Option<AllowedHosts>,
    /// `None` where no page of another origin may read answers.
    cors: Option<Cors>,
    unsent: UnsentBudgets,
    /// `None` where nothing is traced.
    spans: Option<RequestSpans>,
}

/// A request that has arrived.
struct Arrived<'a, B> {
    request: &'a Request<B>,
    at: Instant,
    request_id: &'a HeaderValue,
    /// `None` where nothing is traced.
    span: Option<Arc<Span>>,
    /// Whether its connection is encrypted.
    encrypted: bool,
    /// Whether a person is to read what is wrong with it.
    is_for_people: bool,
}

/// What a request came to.
struct Served {
    response: Response<Body>,
    status: CacheStatus,
    told: Told,
}

/// What metrics and the log tell of a request besides its status.
#[derive(Clone, Copy, Default)]
struct Told {
    /// What was found in the cache; `None` where it was not asked.
    result: Option<CacheResult>,
    /// The date that was asked for.
    processed_date: Option<ProcessedDate>,
    /// The kind of problem that it was answered with.
    problem: Option<&'static str>,
    /// The id of the upstream call that this request made.
    upstream_request_id: Option<Uuid>,
}

/// A request under way. Dropped before it was answered, its caller went away: it is counted and
/// logged all the same.
struct UnderWay<'a, B> {
    api: &'a Inner,
    route: Route<'a>,
    arrived: Arrived<'a, B>,
    peer: Peer,
    /// Who sent it; `None` as long as nobody knows.
    identity: Option<Arc<Identity>>,
    /// What its sender is told of its rate, where it has one.
    rate: Option<RateFields>,
    answered: bool,
    /// When it arrived; `None` where nothing is traced.
    began: Option<Timestamp>,
}

/// What is the same for everybody. It is the program's own and never changes while it runs, so all
/// services of a process share it.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let files = docs::pages().into_iter();
    Assets::new(files.chain(docs::files()).chain(page::files()))
});

/// About what the description of this API takes.
const DESCRIPTION_BYTES: usize = 256 * 1024;

/// The descriptions of a service that everybody may call, and of one that tells its callers apart.
/// Each takes some 20 MiB for a moment when it is made, so nobody who is not asked for it makes it.
static DESCRIPTIONS: [LazyLock<Asset>; 2] = [
    LazyLock::new(|| Asset::new(openapi::file(Anonymous::Allowed))),
    LazyLock::new(|| Asset::new(openapi::file(Anonymous::Refused))),
];

/// The description where nobody is told apart, or everybody is.
fn description(anonymous: Anonymous) -> &'static Asset {
    let [open, closed] = &DESCRIPTIONS;
    LazyLock::force(match anonymous {
        Anonymous::Allowed => open,
        Anonymous::Refused => closed,
    })
}

// === impl Api ===

impl Api {
    /// A request that took this long is logged also where only problems are.
    const SLOW: Duration = Duration::from_secs(1);

    /// An API over this service.
    pub fn new(
        authentication: Authentication,
        usage: UsageService,
        clock: SharedClock,
        metrics: ApiMetrics,
        log: RequestLog,
        hosts: Option<AllowedHosts>,
        cors_origins: &[Origin],
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                authentication,
                usage,
                clock,
                metrics,
                log,
                hosts,
                cors: Cors::new(cors_origins),
                unsent: UnsentBudgets::default(),
                spans: None,
            }),
        }
    }

    /// The same, with a span for each request where there are to be any.
    #[expect(clippy::expect_used, reason = "it is ours alone until it serves")]
    #[must_use]
    pub fn traced(mut self, spans: Option<RequestSpans>) -> Self {
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
        let _in_flight = inner.metrics.enter();
        let at = inner.clock.now();
        let request_id = request_id::accept_or_mint(request.headers());
        let route = Route::of(request.uri().path());
        let hosts = inner.hosts.as_ref();
        let misdirected = hosts.and_then(|hosts| hosts.check(&request).err());
        let mut under_way = UnderWay {
            api: inner,
            route,
            arrived: Arrived {
                request: &request,
                at,
                request_id: &request_id,
                span: None,
                encrypted: peer.encrypted,
                // On a foreign host the page's style sheet would be refused too.
                is_for_people: route == Route::Page && misdirected.is_none(),
            },
            peer,
            identity: None,
            rate: None,
            answered: false,
            began: inner.spans.as_ref().map(|_| inner.clock.wall()),
        };

        let answered = match misdirected {
            Some(problem) => Ok(under_way.arrived.refuse(problem)),
            None => panic::catch(pin!(under_way.serve())).await,
        };

        let mut served = answered.unwrap_or_else(|Panicked| {
            inner.metrics.panics.inc();
            under_way.arrived.refuse(Problem::internal())
        });
        let charge = under_way.charge(&mut served);
        if let Some(span) = under_way.span() {
            spans::tell_cache(span, &served.status);
        }
        under_way.end(served.response.status(), served.told);
        let rate = under_way.rate.take();
        drop(under_way);
        let headers = served.response.headers_mut();
        if let Some(rate) = rate {
            rate.write(headers);
        }
        headers.insert(caching::CACHE_STATUS, caching::cache_status(&served.status));
        headers.insert(X_REQUEST_ID, request_id);
        if let Some(cors) = &inner.cors {
            cors.dress(request.headers(), headers);
        }
        served.response.map(|body| ApiBody::new(body, charge))
    }
}

// === impl Inner ===

impl Inner {
    /// What a browser asks before it lets a page make its request.
    fn preflight<B>(&self, arrived: &Arrived<'_, B>) -> Option<Served> {
        let answer = self.cors.as_ref()?.preflight(arrived.request)?;
        Some(match answer {
            Ok(response) => Served {
                response,
                status: CacheStatus::NOT_CONSULTED,
                told: Told::default(),
            },
            Err(problem) => arrived.refuse(problem),
        })
    }

    async fn dispatch<B>(
        &self,
        route: Route<'_>,
        arrived: &Arrived<'_, B>,
        caller: &Caller,
    ) -> Served {
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
                arrived.refuse(Problem::not_found(arrived.request.uri().path()))
            }
        }
    }

    fn wants_log(&self, status: StatusCode, took: Duration) -> bool {
        match self.log {
            RequestLog::All => true,
            RequestLog::Problems => {
                status.is_client_error() || status.is_server_error() || took >= Api::SLOW
            }
            RequestLog::Off => false,
        }
    }
}

// === impl Arrived ===

impl<B> Arrived<'_, B> {
    /// What an upstream call is traced by that is made for this request.
    fn call_trace(&self) -> CallTrace {
        CallTrace {
            span: self.span.clone(),
            ..extract::call_trace(self.request.headers())
        }
    }

    /// Answers with a problem that has nothing to do with the cache.
    fn refuse(&self, problem: Problem) -> Served {
        self.answer_problem(problem, CacheStatus::NOT_CONSULTED, Told::default(), None)
    }

    fn answer_problem(
        &self,
        problem: Problem,
        status: CacheStatus,
        told: Told,
        correlation_id: Option<Uuid>,
    ) -> Served {
        let headers = self.request.headers();
        let correlation_id = correlation_id
            .or_else(|| extract::correlation_id(headers))
            .map_or_else(
                || self.request_id.to_str().unwrap_or_default().to_owned(),
                |id| id.to_string(),
            );
        let path = self.request.uri().path();
        let told = Told {
            problem: Some(problem.name()),
            ..told
        };
        let response = if self.is_for_people {
            page::present(self, &problem)
        } else {
            problem
                .of_request(path, self.request_id, Some(correlation_id))
                .into_response()
        };
        Served {
            response,
            status,
            told,
        }
    }
}

// === impl UnderWay ===

impl<B> UnderWay<'_, B> {
    /// What is counted where the caller went away.
    const CLOSED_BY_CALLER: u16 = 499;

    /// What the log calls a sender that nobody knows.
    const UNKNOWN: &'static str = "-";

    /// Nothing is looked at before it is known who asks, not even whether there is anything at the
    /// path; [files](assets) that are the same for everybody apart.
    async fn serve(&mut self) -> Served {
        if let Some(served) = self.api.preflight(&self.arrived) {
            return served;
        }
        if self.api.authentication.anonymous() == Anonymous::Allowed {
            self.begin_span(SpanParent::Caller);
        }
        if self.route.has_files()
            && let Some(asset) = self.file().await
        {
            return assets::answer(asset, &self.arrived).await;
        }
        let identity = match self.authenticate().await {
            Ok(identity) => identity,
            Err(problem) => return self.arrived.refuse(problem),
        };
        self.begin_span(SpanParent::Caller);
        let identity = &**self.identity.insert(identity);
        if let Some(limit) = identity.limit() {
            let taken = limit.take(self.arrived.at);
            self.rate = Some(RateFields::new(limit, taken));
            if let Err(exhausted) = taken {
                self.api.metrics.access.rate_limited.inc();
                return self.arrived.refuse(rate_limit::too_many(limit, exhausted));
            }
        }
        let (api, arrived) = (self.api, &self.arrived);
        api.dispatch(self.route, arrived, identity.caller()).await
    }

    /// What everybody may have at this path.
    async fn file(&self) -> Option<&'static Asset> {
        if self.route == Route::OpenApi {
            let anonymous = self.api.authentication.anonymous();
            return Some(
                offload::run_cpu_bound(DESCRIPTION_BYTES, move || description(anonymous)).await,
            );
        }
        ASSETS.find(self.arrived.request.uri().path())
    }

    async fn authenticate(&self) -> Result<Arc<Identity>, Problem> {
        let headers = self.arrived.request.headers();
        let identity = self.api.authentication.authenticate(headers, &self.peer);
        identity.await.map_err(|denied| {
            self.api.metrics.access.denied(denied);
            denied.problem_at(self.route)
        })
    }

    /// Counts an answer as unsent, or replaces it by a problem where too many are.
    fn charge(&self, served: &mut Served) -> Option<Charge> {
        let sender = match &self.identity {
            _ if self.api.authentication.anonymous() == Anonymous::Allowed => Sender::Anyone,
            Some(identity) => Sender::Caller(identity),
            None => Sender::Unknown,
        };
        let version = self.arrived.request.version();
        let charged = self.api.unsent.charge(&served.response, version, sender);
        charged.unwrap_or_else(|problem| {
            *served = self.arrived.refuse(problem);
            None
        })
    }

    fn caller_name(&self) -> &str {
        match &self.identity {
            Some(identity) => identity.caller().name(),
            None => Self::UNKNOWN,
        }
    }

    /// Begins the span of this request, if it has none yet. The caller's span may be the parent only
    /// once the caller is known: it decides whether the trace is exported.
    fn begin_span(&mut self, parent: SpanParent) {
        if let (None, Some(spans), Some(began)) = (&self.arrived.span, &self.api.spans, self.began)
        {
            self.arrived.span =
                Some(spans.begin(&self.arrived, self.route, &self.peer, parent, began));
        }
    }

    fn span(&mut self) -> Option<&Span> {
        self.begin_span(SpanParent::None);
        self.arrived.span.as_deref()
    }

    fn trace_id(&self) -> Option<impl std::fmt::Display> {
        let span = self.arrived.span.as_ref()?;
        Some(span.context().trace_id())
    }

    fn end(&mut self, status: StatusCode, told: Told) {
        self.answered = true;
        // A duration takes a second look at the clock; everything else went by the first.
        let now = self.api.clock.now();
        let took = now.saturating_duration_since(self.arrived.at);
        let method = self.arrived.request.method();
        self.api
            .metrics
            .answered(self.route, method, status, told.result, took);
        self.begin_span(SpanParent::None);
        if let Some(span) = &self.arrived.span {
            spans::end(span, status, told, self.caller_name());
        }
        if self.api.wants_log(status, took) {
            self.log(status, told, took);
        }
    }

    /// One line per request. Of what was sent it names the path, which names the customer, and the
    /// date, and no more: the rest of a query or a header may be nobody's business.
    fn log(&self, status: StatusCode, told: Told, took: Duration) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: REQUEST_TARGET,
                    method = self.arrived.request.method().as_str(),
                    route = self.route.pattern(),
                    path = &*excerpt(self.arrived.request.uri().path()),
                    processed_date = told.processed_date.map(tracing::field::display),
                    status = status.as_u16(),
                    cache = told.result.map_or("none", CacheResult::as_str),
                    problem = told.problem,
                    duration_seconds = whole_microseconds(took).as_secs_f64(),
                    request_id = self.arrived.request_id.to_str().unwrap_or_default(),
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

impl<B> Drop for UnderWay<'_, B> {
    fn drop(&mut self) {
        if !self.answered
            && let Ok(status) = StatusCode::from_u16(Self::CLOSED_BY_CALLER)
        {
            self.end(status, Told::default());
        }
    }
}

/// Finer would only be noise.
fn whole_microseconds(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
