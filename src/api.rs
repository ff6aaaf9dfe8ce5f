//! The API listener: what dashboards call.

mod access_log;
mod authentication;
mod browser_headers;
mod caching;
mod context;
mod cors;
mod customers;
mod data;
mod documents;
mod extract;
mod fleet;
mod history;
mod layers;
mod metrics;
mod negotiation;
mod openapi;
mod page;
mod problem;
mod rate_limit;
mod response;
mod route;
mod router;
mod spans;
mod state;
mod static_files;
mod unsent_budget;
mod usage;

use std::{convert::Infallible, sync::Arc};

use futures_util::TryFutureExt;
use http::{Response, request::Parts};
use prometheus::Registry;
use tower::{Service, ServiceBuilder, service_fn};

pub use self::{
    authentication::Authenticator, openapi::OPENAPI_DOCUMENT, spans::RequestSpans,
    unsent_budget::ApiBody,
};
use self::{
    context::RequestContext, cors::CorsPolicy, metrics::ApiMetrics, state::ApiState,
    unsent_budget::UnsentBudgets,
};
use crate::{
    allowed_hosts::AllowedHosts,
    clock::SharedClock,
    config::{CorsOrigin, RequestLog},
    peer::Peer,
    render::fleet::FleetDocuments,
    service::UsageService,
};

/// The API; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    state: Arc<ApiState>,
}

/// The dependencies of the API.
#[derive(Debug)]
pub struct ApiParts<'a> {
    /// Identifies callers.
    pub authenticator: Authenticator,
    /// The service that answers.
    pub usage: UsageService,
    /// True if all customers are refreshed together.
    pub refreshes_fleet: bool,
    /// The clock of the service.
    pub clock: SharedClock,
    /// The requests that are logged.
    pub request_log: RequestLog,
    /// The hosts that are served; `None` for any host.
    pub allowed_hosts: Option<AllowedHosts>,
    /// The origins whose pages may read answers.
    pub cors_origins: &'a [CorsOrigin],
    /// Starts spans; `None` without tracing.
    pub spans: Option<RequestSpans>,
}

// === impl Api ===

impl Api {
    /// Creates the API and registers its metrics.
    ///
    /// # Errors
    ///
    /// If the registry already has metrics of the same names.
    pub fn new(parts: ApiParts<'_>, registry: &Registry) -> prometheus::Result<Self> {
        let routes = router::table();
        let state = ApiState {
            metrics: ApiMetrics::new(registry, &routes)?,
            routes,
            authenticator: parts.authenticator,
            usage: parts.usage,
            refreshes_fleet: parts.refreshes_fleet,
            clock: parts.clock,
            request_log: parts.request_log,
            allowed_hosts: parts.allowed_hosts,
            cors: CorsPolicy::new(parts.cors_origins),
            unsent_budgets: UnsentBudgets::default(),
            spans: parts.spans,
            fleet_documents: FleetDocuments::new(),
        };
        Ok(Self {
            state: Arc::new(state),
        })
    }

    /// The service that answers requests: the layers in the order in which a request passes them, and
    /// the router.
    ///
    /// # Cancel safety
    ///
    /// Dropping a future of the service cancels no upstream call; the request is then counted and
    /// logged with status 499, as nginx does.
    pub fn into_service(
        self,
    ) -> impl Service<
        (Parts, Peer),
        Response = Response<ApiBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static {
        let mut service = ServiceBuilder::new()
            .layer_fn(layers::add_common_headers)
            .layer_fn(layers::record)
            .layer_fn(layers::add_cors_headers)
            .layer_fn(layers::limit_unsent)
            .layer_fn(layers::answer_problems)
            .layer_fn(layers::check_origin)
            .layer_fn(layers::authenticate)
            .layer_fn(layers::limit_rate)
            .layer_fn(|inner| layers::serve_fresh_hits(router::parsers(), inner))
            .service(layers::route(router::router()));
        let state = self.state;
        service_fn(move |(head, peer): (Parts, Peer)| {
            let context = RequestContext::new(Arc::clone(&state), head, peer);
            service.call(context).map_ok(|response| response.http)
        })
    }
}
