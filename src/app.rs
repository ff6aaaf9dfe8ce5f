//! The composition root: the one place that knows every component.

mod gates;
mod pause_sharing;

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tower::Service;

use self::pause_sharing::PauseSharing;
use crate::{
    admin::{
        self, AdminState,
        readiness::{Readiness, account_id},
    },
    allowed_hosts::AllowedHosts,
    api::{Api, ApiParts, Authenticator, RequestSpans},
    auth::{
        CallersFile, CallersMetrics, TokenAuthenticator,
        jwt::{JwtDeps, JwtVerifier, VerifierStartError},
    },
    cache::{CacheMetrics, UsageCache},
    clock::{SharedClock, SystemClock},
    config::{Config, ConfigErrors, TlsConfig, is_loopback_address},
    jitter::Jitter,
    observability::telemetry::{DroppedLines, MetricsRegistry},
    observability::traces::{Exporting, TraceDeps, TraceStartError, Tracer},
    partner_center::{PartnerCenter, SharedTokenStore, UpstreamDeps, UpstreamStartError},
    peer::Peer,
    portfolio_file::{CurrentPortfolio, PortfolioMetrics},
    reload::Reload,
    server::{
        BindError, BoundSocket, ConnectionLimits, ConnectionMetrics, ListenerConfig,
        RequestValidation, router_handler, serve,
        tls::{ListenerTls, TlsError, TlsMetrics},
    },
    service::{
        BackfillError, BackfillRequest, CallLimits, FleetMetrics, ServiceParts, UsageService,
    },
    shutdown::Shutdown,
    socket_activation::InheritedSockets,
    store::{self, DurableStore, StoreDeps, StoreStartError},
};

/// The longest time for probes that are running at the end.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The service, bound to its addresses and not serving yet.
#[derive(Debug)]
pub struct App {
    api: BoundService<Api>,
    admin: BoundService<axum::Router>,
    usage: UsageService,
    drain_timeout: Duration,
    reload: Reload,
    /// `None` if tracing is not configured.
    trace_export: Option<Exporting>,
    shutdown: Shutdown,
}

/// A service and the listener that it is for.
#[derive(Debug)]
struct BoundService<S> {
    socket: BoundSocket,
    config: ListenerConfig,
    service: S,
}

/// The future of a whole service. It is boxed where it is made, so that this crate has its code and not
/// each program that awaits it.
pub type AppFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dependencies of the service that tests replace.
#[derive(Clone, Debug)]
pub struct AppDeps {
    /// The time.
    pub clock: SharedClock,
    /// Spreads freshness lifetimes.
    pub freshness_jitter: Jitter,
    /// Spreads retries, token refreshes and fetches of an issuer's keys.
    pub upstream_jitter: Jitter,
    /// Counts dropped log lines.
    pub dropped_log_lines: DroppedLines,
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppStartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The callers file or the portfolio file is invalid.
    #[error(transparent)]
    Tables(#[from] ConfigErrors),
    /// The files for TLS are invalid.
    #[error("{table}")]
    Tls {
        /// The configuration table that names them.
        table: &'static str,
        /// The error.
        source: Box<TlsError>,
    },
    /// Tokens of callers cannot be verified.
    #[error("cannot set up the check of tokens")]
    Tokens(#[from] VerifierStartError),
    /// The upstream client cannot be created.
    #[error("cannot set up the upstream client")]
    Upstream(#[from] UpstreamStartError),
    /// The store must not be used as it is configured.
    #[error(transparent)]
    Store(#[from] StoreStartError),
    /// Traces cannot be exported.
    #[error("tracing")]
    Tracing(#[from] TraceStartError),
    /// Two components have a metric of the same name.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Builds components from the configuration.
#[derive(Clone, Copy)]
struct ComponentBuilder<'a> {
    config: &'a Config,
    deps: &'a AppDeps,
    registry: &'a prometheus::Registry,
    reload: &'a Reload,
    shutdown: &'a Shutdown,
}

// === impl AppDeps ===

impl Default for AppDeps {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            freshness_jitter: Jitter::Random,
            upstream_jitter: Jitter::Random,
            dropped_log_lines: DroppedLines::default(),
        }
    }
}

// === impl App ===

impl App {
    /// Binds both listeners and builds all components. Nothing is served yet.
    ///
    /// # Errors
    ///
    /// [`AppStartError`] names the cause.
    pub fn build(config: &Config, deps: AppDeps) -> AppFuture<'_, Result<Self, AppStartError>> {
        Self::build_with_sockets(InheritedSockets::default(), config, deps)
    }

    /// Builds the service as [`App::build`] does, on inherited sockets in place of `server.listen` and
    /// `admin.listen`.
    ///
    /// # Errors
    ///
    /// [`AppStartError`] names the cause.
    pub fn build_with_sockets(
        inherited: InheritedSockets,
        config: &Config,
        deps: AppDeps,
    ) -> AppFuture<'_, Result<Self, AppStartError>> {
        Box::pin(Self::build_on(inherited, config, deps))
    }

    async fn build_on(
        inherited: InheritedSockets,
        config: &Config,
        deps: AppDeps,
    ) -> Result<Self, AppStartError> {
        // First, because the checks of `Host` depend on the addresses.
        let api_socket =
            BoundSocket::bind("server.listen", config.server.listen, inherited.api).await?;
        let admin_socket =
            BoundSocket::bind("admin.listen", config.admin.listen, inherited.admin).await?;

        let (shutdown, reload) = (Shutdown::new(), Reload::default());
        let metrics = MetricsRegistry::new()?;
        deps.dropped_log_lines.register(metrics.registry())?;
        let builder = ComponentBuilder {
            config,
            deps: &deps,
            registry: metrics.registry(),
            reload: &reload,
            shutdown: &shutdown,
        };

        let (tracer, trace_export) = builder.tracer()?.unzip();
        let authenticator =
            Authenticator::new(builder.callers().await?, builder.token_authenticator()?);
        let durable = builder.durable_store().await?;
        let upstream = Arc::new(builder.upstream(durable.as_ref(), tracer.clone())?);
        let portfolio = builder.portfolio().await?;
        let usage = builder.usage_service(&upstream, durable, portfolio).await?;
        builder.share_pauses(&upstream, &usage);
        let api = builder.api(authenticator, &usage, tracer, api_socket.address)?;
        let readiness = gates::add_gates(
            Readiness::for_account(account_id(&config.upstream)),
            &shutdown,
            &upstream,
            &usage,
        );
        let (api_listener, admin_listener) = builder.listeners().await?;
        let admin_hosts = builder.allowed_hosts(admin_socket.address, config.admin.is_guarded());

        shutdown.spawn({
            let usage = usage.clone();
            async move {
                let is_empty = || !usage.cache().has_data();
                upstream.recheck_refused_token(is_empty).await;
            }
        });
        let admin_state = AdminState {
            usage: usage.clone(),
            readiness: Arc::new(readiness),
            metrics,
            usage_max_series: config
                .metrics
                .usage
                .then_some(config.metrics.usage_max_series),
            clock: deps.clock,
        };
        let admin = admin::router(&config.admin, admin_state, admin_hosts)?;

        Ok(Self {
            api: BoundService {
                socket: api_socket,
                config: api_listener,
                service: api,
            },
            admin: BoundService {
                socket: admin_socket,
                config: admin_listener,
                service: admin,
            },
            usage,
            drain_timeout: config.server.drain_timeout,
            reload,
            trace_export,
            shutdown,
        })
    }

    /// Returns the address of the API listener, with the real port if port 0 was configured.
    pub fn api_address(&self) -> SocketAddr {
        self.api.socket.address
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.socket.address
    }

    /// Starts to fetch past dates into the store, as `POST /backfill` does.
    ///
    /// # Errors
    ///
    /// [`BackfillError`].
    pub fn start_backfill(&self, request: BackfillRequest) -> Result<(), BackfillError> {
        self.usage.start_backfill(request)
    }

    /// Returns the handle that ends [`App::run`].
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Returns the handle that reloads files.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until the shutdown handle drains: then it is not ready, stops accepting, finishes running
    /// requests, and cancels all tasks. Returns when everything has ended.
    pub fn run(self) -> AppFuture<'static, ()> {
        Box::pin(self.serve_until_drained())
    }

    async fn serve_until_drained(self) {
        let (api_drained, admin_may_stop) = oneshot::channel::<()>();
        let serve_api = async {
            serve_api(self.api, &self.shutdown, self.drain_timeout).await;
            drop(api_drained);
        };
        // Probes are answered to the end, so that they see that the service is not ready.
        let stop_admin = async {
            let _dropped = admin_may_stop.await;
        };
        let BoundService {
            socket,
            config,
            service,
        } = self.admin;
        let handler = router_handler(service);
        let serve_admin = serve(
            socket.listener,
            config,
            handler,
            stop_admin,
            ADMIN_DRAIN_TIMEOUT,
        );
        tokio::join!(serve_api, serve_admin);
        self.shutdown.cancel().await;
        if let Some(export) = self.trace_export {
            export.finish().await;
        }
    }
}

async fn serve_api(api: BoundService<Api>, shutdown: &Shutdown, drain_timeout: Duration) {
    let service = api.service.into_service();
    let handler = move |request: Request<Incoming>, peer: Peer| {
        let (head, _) = request.into_parts();
        service.clone().call((head, peer))
    };
    let stop = shutdown.draining();
    let aborted = serve(
        api.socket.listener,
        api.config,
        handler,
        stop,
        drain_timeout,
    )
    .await;
    if aborted > 0 {
        tracing::warn!(
            connections = aborted,
            "aborted requests that outlasted server.drain_timeout"
        );
    }
}

// === impl ComponentBuilder ===

impl ComponentBuilder<'_> {
    fn tracer(self) -> Result<Option<(Tracer, Exporting)>, TraceStartError> {
        let deps = TraceDeps {
            clock: self.clock(),
            jitter: self.deps.upstream_jitter,
            registry: self.registry,
        };
        let config = self.config.tracing.as_ref();
        config
            .map(|config| Tracer::start(config, &deps))
            .transpose()
    }

    async fn callers(self) -> Result<Option<CallersFile>, AppStartError> {
        let metrics = CallersMetrics::new(self.registry)?;
        let Some(file) = &self.config.callers.file else {
            return Ok(None);
        };
        let callers =
            CallersFile::load(file, self.clock(), metrics, self.reload, self.shutdown).await?;
        Ok(Some(callers))
    }

    async fn portfolio(self) -> Result<CurrentPortfolio, AppStartError> {
        let metrics = PortfolioMetrics::new(self.registry)?;
        let Some(file) = &self.config.portfolio.file else {
            return Ok(CurrentPortfolio::default());
        };
        let portfolio =
            CurrentPortfolio::load(file, self.clock(), metrics, self.reload, self.shutdown).await?;
        Ok(portfolio)
    }

    fn token_authenticator(self) -> Result<Option<TokenAuthenticator>, VerifierStartError> {
        let Some(config) = &self.config.callers.jwt else {
            return Ok(None);
        };
        let deps = JwtDeps {
            clock: self.clock(),
            jitter: self.deps.upstream_jitter,
            shutdown: self.shutdown.clone(),
            registry: self.registry,
        };
        let verifier = JwtVerifier::start(config, &deps)?;
        Ok(Some(TokenAuthenticator::new(verifier)))
    }

    fn upstream(
        self,
        durable: Option<&DurableStore>,
        tracer: Option<Tracer>,
    ) -> Result<PartnerCenter, UpstreamStartError> {
        let key_file = self.config.store.encryption_key_file.clone();
        let tokens = durable.zip(key_file).and_then(|(durable, key_file)| {
            let (clock, shutdown) = (self.clock(), self.shutdown.clone());
            SharedTokenStore::new(&durable.store, key_file, clock, shutdown)
        });
        let deps = UpstreamDeps {
            clock: self.clock(),
            jitter: self.deps.upstream_jitter,
            shutdown: self.shutdown.clone(),
            registry: self.registry,
            tracer,
            tokens,
        };
        PartnerCenter::new(&self.config.upstream, deps)
    }

    async fn durable_store(self) -> Result<Option<DurableStore>, StoreStartError> {
        let deps = StoreDeps {
            clock: &self.deps.clock,
            shutdown: self.shutdown,
            registry: self.registry,
            preferred: self.config.upstream.source,
        };
        store::open(&self.config.store, deps).await
    }

    async fn usage_service(
        self,
        upstream: &Arc<PartnerCenter>,
        durable: Option<DurableStore>,
        portfolio: CurrentPortfolio,
    ) -> Result<UsageService, AppStartError> {
        let Config {
            cache,
            fleet,
            upstream: calls,
            ..
        } = self.config;
        let metrics = CacheMetrics::new(self.registry)?;
        let usage = UsageService::new(ServiceParts {
            config: cache,
            limits: CallLimits {
                max_concurrency: calls.max_concurrency,
                deadline: calls.deadline,
            },
            newest_api: calls.source,
            cache: UsageCache::new(cache, self.deps.freshness_jitter, metrics),
            source: Arc::clone(upstream) as _,
            durable,
            portfolio,
            clock: self.clock(),
            fleet_metrics: FleetMetrics::new(self.registry)?,
            shutdown: self.shutdown,
        });
        usage.warm_start().await;
        if let Some(follower) = usage.store_follower(self.deps.upstream_jitter) {
            self.shutdown.spawn(follower.run());
        }
        if let Some(refresher) = usage.fleet_refresher(fleet, self.deps.upstream_jitter) {
            self.shutdown.spawn(refresher.run());
        }
        Ok(usage)
    }

    fn share_pauses(self, upstream: &Arc<PartnerCenter>, usage: &UsageService) {
        if let Some(store) = usage.store() {
            let sharing = PauseSharing {
                upstream: Arc::clone(upstream),
                usage: usage.clone(),
                store: Arc::clone(store),
                account: account_id(&self.config.upstream),
                clock: self.clock(),
                shared: Vec::new(),
            };
            self.shutdown.spawn(sharing.run());
        }
    }

    fn api(
        self,
        authenticator: Authenticator,
        usage: &UsageService,
        tracer: Option<Tracer>,
        address: SocketAddr,
    ) -> prometheus::Result<Api> {
        let Config {
            server, callers, ..
        } = self.config;
        let scheme = match server.tls {
            Some(_) => "https",
            None => "http",
        };
        let identifies_callers = callers.file.is_some() || callers.jwt.is_some();
        let parts = ApiParts {
            authenticator,
            usage: usage.clone(),
            refreshes_fleet: usage.refreshes_fleet(&self.config.fleet),
            clock: self.clock(),
            request_log: self.config.log.requests,
            allowed_hosts: self.allowed_hosts(address, identifies_callers),
            cors_origins: &server.cors_origins,
            spans: tracer.map(|tracer| RequestSpans::new(tracer, scheme)),
        };
        Api::new(parts, self.registry)
    }

    /// Returns the hosts that a listener accepts; `None` for all. A listener needs this protection
    /// from web pages only on the loopback and only if it asks for no credential.
    fn allowed_hosts(self, address: SocketAddr, identifies_callers: bool) -> Option<AllowedHosts> {
        let exposed = is_loopback_address(address) && !identifies_callers;
        exposed.then(|| AllowedHosts::new(&self.config.server.allowed_hosts))
    }

    /// Returns the settings of the API listener and of the admin listener. The admin listener has few
    /// and trusted clients, so its limits cannot be configured.
    async fn listeners(self) -> Result<(ListenerConfig, ListenerConfig), AppStartError> {
        let (server, admin) = (&self.config.server, &self.config.admin);
        let tls_metrics = TlsMetrics::new(self.registry)?;
        let api_tls = self.tls("api", "server.tls", server.tls.as_ref(), &tls_metrics);
        let api = ListenerConfig {
            limits: ConnectionLimits {
                header_timeout: server.header_timeout,
                idle_timeout: server.idle_timeout,
                request_timeout: server.request_timeout,
                stall_timeout: server.stall_timeout,
                max_connections: server.max_connections,
                ..ConnectionLimits::default()
            },
            http2_cleartext: server.http2_cleartext,
            metrics: ConnectionMetrics::new(self.registry)?,
            tls: api_tls.await?,
            ..ListenerConfig::new(RequestValidation::Strict)
        };
        let admin_tls = self.tls("admin", "admin.tls", admin.tls.as_ref(), &tls_metrics);
        let admin = ListenerConfig {
            tls: admin_tls.await?,
            ..ListenerConfig::new(RequestValidation::Strict)
        };
        Ok((api, admin))
    }

    /// Reads the TLS files of a listener, and reloads them when they change.
    async fn tls(
        self,
        listener: &'static str,
        table: &'static str,
        files: Option<&TlsConfig>,
        metrics: &TlsMetrics,
    ) -> Result<Option<Arc<ListenerTls>>, AppStartError> {
        let Some(files) = files else {
            return Ok(None);
        };
        let loading =
            ListenerTls::load_watched(files.clone(), listener, metrics, self.reload, self.clock());
        let (tls, watch) = loading.await.map_err(|source| AppStartError::Tls {
            table,
            source: Box::new(source),
        })?;
        self.shutdown
            .spawn(Arc::clone(&tls).reload_on_change(watch));
        Ok(Some(tls))
    }

    fn clock(self) -> SharedClock {
        Arc::clone(&self.deps.clock)
    }
}
