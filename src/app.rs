//! The composition root: the one place that knows every component.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::Service;

use crate::{
    admin::{
        self, AdminAuth, AdminState,
        readiness::{Readiness, ReadinessGate},
    },
    allowed_hosts::AllowedHosts,
    api::{Api, ApiParts, Authenticator, RequestSpans},
    auth::{
        CallersFile, CallersMetrics, TokenAuthenticator,
        jwt::{JwtDeps, JwtVerifier},
    },
    cache::{CacheMetrics, UsageCache},
    clock::{SharedClock, SystemClock},
    config::{Config, ConfigErrors, ServerConfig, TlsConfig, is_loopback_address},
    jitter::Jitter,
    observability::telemetry::{DroppedLines, MetricsRegistry},
    observability::traces::{self, Exporting, TraceDeps, Tracer},
    panic,
    partner_center::{PartnerCenter, TokenStatus, UpstreamDeps},
    peer::Peer,
    reload::Reload,
    server::{
        ConnectionLimits, ConnectionMetrics, ListenerConfig, RequestValidation, router_handler,
        serve,
        tls::{ListenerTls, TlsError, TlsMetrics},
    },
    service::{CallLimits, UsageService},
    shutdown::Shutdown,
    socket_activation::InheritedSockets,
};

/// The service, bound to its addresses and not yet serving.
#[derive(Debug)]
pub struct App {
    api: BoundListener<ListenerConfig, Api>,
    admin: BoundListener<ListenerConfig, axum::Router>,
    drain_timeout: Duration,
    reload: Reload,
    /// `None` where nothing is traced.
    trace_export: Option<Exporting>,
    shutdown: Shutdown,
}

/// What the service takes from outside, so that a test can give it something else.
#[derive(Clone, Debug)]
pub struct AppDeps {
    /// Time.
    pub clock: SharedClock,
    /// Spreads freshness lifetimes.
    pub freshness_jitter: Jitter,
    /// Spreads retries, token refreshes and fetches of an issuer's keys.
    pub upstream_jitter: Jitter,
    /// The count of log lines that were dropped.
    pub dropped_log_lines: DroppedLines,
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppStartError {
    /// An address cannot be had.
    #[error("{key} = {address} cannot be listened on: {reason}")]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
        /// Why not, and what to do.
        reason: String,
    },
    /// The callers file has faults.
    #[error(transparent)]
    Callers(#[from] ConfigErrors),
    /// The files of TLS are not in order.
    #[error("{table}")]
    Tls {
        /// The table of configuration that names them.
        table: &'static str,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Tokens of callers cannot be checked.
    #[error("cannot set up the check of tokens")]
    Tokens(#[from] crate::auth::jwt::VerifierStartError),
    /// The upstream client cannot be made.
    #[error("cannot set up the upstream client")]
    Upstream(#[from] crate::partner_center::UpstreamStartError),
    /// Traces cannot be exported.
    #[error("tracing")]
    Tracing(#[from] traces::TraceStartError),
    /// Two components have a metric of the same name.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

/// What components are built on.
struct Components<'a> {
    config: &'a Config,
    deps: &'a AppDeps,
    registry: &'a prometheus::Registry,
    /// `None` where nothing is traced.
    tracer: Option<Tracer>,
    reload: &'a Reload,
    shutdown: &'a Shutdown,
}

#[derive(Debug)]
struct BoundListener<E, S> {
    listener: TcpListener,
    address: SocketAddr,
    config: E,
    service: S,
}

// === impl Deps ===

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
    /// Binds both listeners and puts the components together; nothing is served yet.
    ///
    /// # Errors
    ///
    /// [`AppStartError`] says what stands in the way.
    pub async fn build(config: &Config, deps: AppDeps) -> Result<Self, AppStartError> {
        Self::build_with_sockets(InheritedSockets::default(), config, deps).await
    }

    /// As [`App::build`], on sockets that were opened before this process in the place of those that
    /// `server.listen` and `admin.listen` name.
    ///
    /// # Errors
    ///
    /// [`AppStartError`] says what stands in the way.
    pub async fn build_with_sockets(
        inherited: InheritedSockets,
        config: &Config,
        deps: AppDeps,
    ) -> Result<Self, AppStartError> {
        let api = bind("server.listen", config.server.listen, inherited.api).await?;
        let admin = bind("admin.listen", config.admin.listen, inherited.admin).await?;
        let (shutdown, reload) = (Shutdown::new(), Reload::default());
        let metrics = MetricsRegistry::new()?;
        deps.dropped_log_lines.register(metrics.registry())?;
        let (tracer, exporting) = start_tracing(config, &deps, &metrics)?.unzip();
        let ground = Components {
            config,
            deps: &deps,
            registry: metrics.registry(),
            tracer,
            reload: &reload,
            shutdown: &shutdown,
        };
        let authentication = ground.authentication().await?;
        let upstream = Arc::new(ground.upstream()?);
        let usage = ground.usage_service(&upstream)?;
        let (api_edge, admin_edge) = ground.listener_configs().await?;
        let identifies_callers = config.callers.file.is_some() || config.callers.jwt.is_some();
        let api_parts = ApiParts {
            authenticator: authentication,
            usage: usage.clone(),
            clock: Arc::clone(&deps.clock),
            request_log: config.log.requests,
            allowed_hosts: ground.allowed_hosts(api.address, identifies_callers),
            cors_origins: &config.server.cors_origins,
            spans: ground.request_spans(),
        };
        let api_service = Api::new(api_parts, metrics.registry())?;
        let admin_hosts = ground.allowed_hosts(admin.address, config.admin.is_guarded());
        recheck_while_empty(&shutdown, &upstream, &usage);
        let access = AdminAuth::new(&config.admin, metrics.registry())?;
        let readiness = Arc::new(readiness(
            admin::account_id(&config.upstream),
            &shutdown,
            &upstream,
            &usage,
        ));
        readiness.register(metrics.registry())?;
        let panics = panic::register_counter(metrics.registry(), "admin")?;
        let admin_service = admin::router(AdminState {
            readiness,
            usage,
            panics,
            metrics,
            clock: deps.clock,
            allowed_hosts: admin_hosts,
            access,
        });
        Ok(Self {
            api: api.with_service(api_edge, api_service),
            admin: admin.with_service(admin_edge, admin_service),
            drain_timeout: config.server.drain_timeout,
            reload,
            trace_export: exporting,
            shutdown,
        })
    }

    /// Where the API listens: the real port, also when port 0 was asked for.
    pub fn api_address(&self) -> SocketAddr {
        self.api.address
    }

    /// Where the admin listener listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// The handle that ends [`App::run`].
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// The handle that has files read again.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until the shutdown handle drains, and returns once everything has ended: not ready,
    /// stop accepting, finish what is under way, cancel what is left.
    pub async fn run(self) {
        let Self {
            api,
            admin,
            drain_timeout,
            shutdown,
            trace_export: exporting,
            reload: _,
        } = self;
        let (api_drained, admin_may_stop) = tokio::sync::oneshot::channel::<()>();
        let draining = shutdown.clone();
        let serve_api = async {
            let service = api.service.into_service();
            let handler = move |request: Request<Incoming>, peer: Peer| {
                let (head, _) = request.into_parts();
                let answer = service.clone().call((head, peer));
                answer.map(|Ok(response)| response)
            };
            let stop = draining.draining();
            let left = serve(api.listener, api.config, handler, stop, drain_timeout).await;
            if left > 0 {
                tracing::warn!(
                    connections = left,
                    "cut off requests that outlasted server.drain_timeout"
                );
            }
            drop(api_drained);
        };
        let serve_admin = async {
            // Probes are answered to the end, so that they see that we are not ready.
            let stop = async {
                let _dropped = admin_may_stop.await;
            };
            let handler = router_handler(admin.service);
            serve(
                admin.listener,
                admin.config,
                handler,
                stop,
                ADMIN_DRAIN_TIMEOUT,
            )
            .await
        };
        tokio::join!(serve_api, serve_admin);
        shutdown.cancel().await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
    }
}

/// Begins to export spans, where a collector is configured.
fn start_tracing(
    config: &Config,
    deps: &AppDeps,
    metrics: &MetricsRegistry,
) -> Result<Option<(Tracer, Exporting)>, traces::TraceStartError> {
    let Some(config) = &config.tracing else {
        return Ok(None);
    };
    let deps = TraceDeps {
        clock: Arc::clone(&deps.clock),
        jitter: deps.upstream_jitter,
        registry: metrics.registry(),
    };
    Tracer::start(config, &deps).map(Some)
}

fn connection_limits(server: &ServerConfig) -> ConnectionLimits {
    ConnectionLimits {
        header_timeout: server.header_timeout,
        idle_timeout: server.idle_timeout,
        request_timeout: server.request_timeout,
        stall_timeout: server.stall_timeout,
        max_connections: server.max_connections,
        ..ConnectionLimits::default()
    }
}

// === impl Ground ===

impl Components<'_> {
    async fn authentication(&self) -> Result<Authenticator, AppStartError> {
        let metrics = CallersMetrics::new(self.registry)?;
        let callers = match &self.config.callers.file {
            Some(file) => {
                let clock = Arc::clone(&self.deps.clock);
                Some(CallersFile::load(file, clock, metrics, self.reload, self.shutdown).await?)
            }
            None => None,
        };
        let tokens = match &self.config.callers.jwt {
            Some(jwt) => {
                let deps = JwtDeps {
                    clock: Arc::clone(&self.deps.clock),
                    jitter: self.deps.upstream_jitter,
                    shutdown: self.shutdown.clone(),
                    registry: self.registry,
                };
                Some(TokenAuthenticator::new(JwtVerifier::start(jwt, &deps)?))
            }
            None => None,
        };
        Ok(Authenticator::new(callers, tokens))
    }

    fn upstream(&self) -> Result<PartnerCenter, AppStartError> {
        let deps = UpstreamDeps {
            clock: Arc::clone(&self.deps.clock),
            jitter: self.deps.upstream_jitter,
            shutdown: self.shutdown.clone(),
            registry: self.registry,
            tracer: self.tracer.clone(),
        };
        Ok(PartnerCenter::new(&self.config.upstream, deps)?)
    }

    /// The hosts that a listener answers to; `None` where any will do: it has no other protection
    /// against web pages on the loopback alone, and there only where it asks for no credential.
    fn allowed_hosts(&self, address: SocketAddr, identifies_callers: bool) -> Option<AllowedHosts> {
        let exposed = is_loopback_address(address) && !identifies_callers;
        exposed.then(|| AllowedHosts::new(&self.config.server.allowed_hosts))
    }

    fn request_spans(&self) -> Option<RequestSpans> {
        let scheme = if self.config.server.tls.is_some() {
            "https"
        } else {
            "http"
        };
        Some(RequestSpans::new(self.tracer.clone()?, scheme))
    }

    fn usage_service(&self, upstream: &Arc<PartnerCenter>) -> Result<UsageService, AppStartError> {
        let Config {
            cache,
            upstream: of,
            ..
        } = self.config;
        let metrics = CacheMetrics::new(self.registry)?;
        Ok(UsageService::new(
            cache,
            CallLimits {
                max_concurrency: of.max_concurrency,
                deadline: of.deadline,
            },
            of.source,
            UsageCache::new(cache, self.deps.freshness_jitter, metrics),
            Arc::clone(upstream) as _,
            Arc::clone(&self.deps.clock),
            self.shutdown,
        ))
    }

    /// Of the API and of the admin listener, whose clients are few and ours, so that its limits are
    /// no matter of configuration.
    async fn listener_configs(&self) -> Result<(ListenerConfig, ListenerConfig), AppStartError> {
        let (server, admin) = (&self.config.server, &self.config.admin);
        let metrics = TlsMetrics::new(self.registry)?;
        let api = ListenerConfig {
            limits: connection_limits(server),
            http2_cleartext: server.http2_cleartext,
            metrics: ConnectionMetrics::new(self.registry)?,
            tls: self.tls("api", server.tls.as_ref(), &metrics).await?,
            ..ListenerConfig::new(RequestValidation::Strict)
        };
        let admin = ListenerConfig {
            tls: self.tls("admin", admin.tls.as_ref(), &metrics).await?,
            ..ListenerConfig::new(RequestValidation::Strict)
        };
        Ok((api, admin))
    }

    /// Reads the files of a listener's TLS, and has them read again.
    async fn tls(
        &self,
        listener: &'static str,
        config: Option<&TlsConfig>,
        metrics: &TlsMetrics,
    ) -> Result<Option<Arc<ListenerTls>>, AppStartError> {
        let Some(config) = config else {
            return Ok(None);
        };
        let clock = Arc::clone(&self.deps.clock);
        let (tls, watch) =
            ListenerTls::load_watched(config.clone(), listener, metrics, self.reload, clock)
                .await
                .map_err(|source| AppStartError::Tls {
                    table: if listener == "api" {
                        "server.tls"
                    } else {
                        "admin.tls"
                    },
                    source: Box::new(source),
                })?;
        self.shutdown
            .spawn(Arc::clone(&tls).reload_on_change(watch));
        Ok(Some(tls))
    }
}

/// How long probes that are under way may take at the end.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

async fn bind(
    key: &'static str,
    configured: SocketAddr,
    inherited: Option<std::net::TcpListener>,
) -> Result<BoundListener<(), ()>, AppStartError> {
    let refused = |address, reason| AppStartError::Bind {
        key,
        address,
        reason,
    };
    let listening = async {
        let listener = match inherited {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => TcpListener::bind(configured).await?,
        };
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = listening
        .await
        .map_err(|error| refused(configured, bind_failure_advice(&error)))?;
    // What may be reached from where is judged by what is configured.
    if is_loopback_address(configured) && !is_loopback_address(address) {
        let reason = format!("the socket passed on is {address}, which others can reach; say so");
        return Err(refused(configured, reason));
    }
    Ok(BoundListener {
        listener,
        address,
        config: (),
        service: (),
    })
}

/// Why an address cannot be listened on, and what to do.
pub fn bind_failure_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "that is not allowed; choose a port above 1023, or grant the right to bind it"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose one that it has".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Refused credentials are checked again without traffic while there is nothing to answer with.
fn recheck_while_empty(shutdown: &Shutdown, upstream: &Arc<PartnerCenter>, usage: &UsageService) {
    let (upstream, usage) = (Arc::clone(upstream), usage.clone());
    shutdown.spawn(async move {
        let is_empty = || !usage.cache().has_data();
        upstream.recheck_refused_token(is_empty).await;
    });
}

/// We are ready when we can answer: with a token, or with what is held.
fn readiness(
    account: String,
    shutdown: &Shutdown,
    upstream: &Arc<PartnerCenter>,
    usage: &UsageService,
) -> Readiness {
    let shutdown = shutdown.clone();
    let upstream = Arc::clone(upstream);
    let usage = usage.clone();
    Readiness::for_account(account)
        .gate("running", move || {
            if shutdown.is_draining() {
                ReadinessGate::waiting_for("its end: the process is draining")
            } else {
                ReadinessGate::open()
            }
        })
        .gate("can-answer", move || {
            let status = upstream.status();
            let silent = status.empty_responses_advice.map(str::to_owned);
            let ahead = status.refresh_problem.as_deref().map(str::to_owned);
            let proof = status.mfa_advice.map(str::to_owned);
            let lacking = match status.token {
                TokenStatus::Usable => {
                    return ReadinessGate::open().with_notes([ahead, proof, silent]);
                }
                TokenStatus::Waiting { detail: None } => "the first access token".to_owned(),
                TokenStatus::Waiting {
                    detail: Some(detail),
                } => format!("an access token: {detail}"),
                TokenStatus::Refused { action } => action.to_string(),
            };
            if usage.cache().has_data() {
                ReadinessGate::open().with_notes([Some(lacking), silent])
            } else {
                ReadinessGate::waiting_for(lacking).with_notes([silent])
            }
        })
}

// === impl Bound ===

impl BoundListener<(), ()> {
    fn with_service<S>(self, edge: ListenerConfig, service: S) -> BoundListener<ListenerConfig, S> {
        BoundListener {
            listener: self.listener,
            address: self.address,
            config: edge,
            service,
        }
    }
}
