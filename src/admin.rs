//! The admin listener: metrics, probes, and a look at what is held. Never on the API listener.

mod access;
mod account;
mod cache;
pub mod readiness;

use std::{pin::pin, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use prometheus::IntCounter;
use serde::Serialize;

use self::readiness::Readiness;
pub use self::{access::AdminAuth, account::account_id};
use crate::{
    allowed_hosts::AllowedHosts,
    clock::SharedClock,
    observability::telemetry::MetricsRegistry,
    panic::{self, HandlerPanicked},
    peer::Peer,
    problem::{Problem, excerpt},
    request_id::{self, X_REQUEST_ID},
    service::UsageService,
};

/// Everything the admin listener shows; clones share it.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// What is held.
    pub usage: UsageService,
    /// Whether we can answer.
    pub readiness: Arc<Readiness>,
    /// What is scraped.
    pub metrics: MetricsRegistry,
    /// For ages.
    pub clock: SharedClock,
    /// The hosts that it answers to; `None` where any will do.
    pub allowed_hosts: Option<AllowedHosts>,
    /// Who may look.
    pub access: AdminAuth,
    /// Counts panics.
    pub panics: IntCounter,
}

/// The admin listener's routes.
pub fn router(admin: AdminState) -> Router {
    let (access, hosts) = (admin.access.clone(), admin.allowed_hosts.clone());
    let panics = admin.panics.clone();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/cache", get(cache::get_cache))
        .route("/cache/purge", post(cache::purge_cache))
        .with_state(admin);
    // Around the routes as a whole: within them, axum has not yet said what it allows.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(
            access,
            access::authenticate_request,
        ))
        .layer(middleware::from_fn_with_state(hosts, check_host))
        .layer(middleware::from_fn_with_state(panics, finish_response))
}

async fn metrics(State(admin): State<AdminState>) -> impl IntoResponse {
    admin.usage.update_gauges();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    (
        [(header::CONTENT_TYPE, content_type)],
        admin.metrics.to_prometheus_text(),
    )
}

/// The process lives: whoever reads this has its answer.
async fn healthz() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

async fn readyz(State(admin): State<AdminState>) -> impl IntoResponse {
    let report = admin.readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

#[derive(Debug, Serialize)]
struct HealthResponse {
    status: &'static str,
}

/// Refuses requests for hosts that are none of this listener's.
async fn check_host(
    State(hosts): State<Option<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    let problem = hosts.and_then(|hosts| hosts.check(request.uri(), request.headers()).err());
    let Some(problem) = problem else {
        return next.run(request).await;
    };
    let path = request.uri().path();
    let peer = request.extensions().get::<Peer>();
    tracing::info!(
        path = &*excerpt(path),
        peer = peer.map(|peer| tracing::field::display(peer.address.ip())),
        reason = problem.detail(),
        "a request of the admin listener was refused"
    );
    let request_id = request_id::accept_or_generate(request.headers());
    problem_response(problem, path, &request_id)
}

/// Gives every answer its request id, keeps it out of caches, and puts problem documents in the place
/// of panics and of what axum says where no route or method fits.
async fn finish_response(
    State(panics): State<IntCounter>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = request_id::accept_or_generate(request.headers());
    // Whoever refuses the request further in names it by the same id.
    request
        .headers_mut()
        .insert(X_REQUEST_ID, request_id.clone());
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let caught = panic::catch(pin!(next.run(request))).await;
    let response = caught.unwrap_or_else(|HandlerPanicked| {
        panics.inc();
        tracing::error!(
            path = &*excerpt(&path),
            request_id = request_id.to_str().unwrap_or_default(),
            "a handler of the admin listener panicked"
        );
        problem_response(Problem::internal(), &path, &request_id)
    });
    let mut response = match response.status() {
        StatusCode::NOT_FOUND => problem_response(Problem::not_found(&path), &path, &request_id),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = allowed_methods(response.headers());
            problem_response(
                Problem::method_not_allowed(&method, allow),
                &path,
                &request_id,
            )
        }
        _ => response,
    };
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The methods of a route, as axum tells them.
fn allowed_methods(headers: &HeaderMap) -> &'static str {
    match headers.get(header::ALLOW).map(HeaderValue::as_bytes) {
        Some(b"POST") => "POST",
        _ => "GET, HEAD",
    }
}

fn problem_response(problem: Problem, path: &str, request_id: &HeaderValue) -> Response {
    problem
        .for_request(path, request_id, None)
        .into_response()
        .map(axum::body::Body::new)
}
