//! The admin listener: metrics, probes and the cache. None of it is on the API listener.
//!
//! Handlers and layers return a problem as `Extension<Problem>`; `finish_response` turns it into
//! the response.

mod access;
mod backfill;
mod cache;
mod query;
pub mod readiness;
mod state;

use std::pin::pin;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use prometheus::IntCounter;
use serde::Serialize;

use self::access::AdminAuth;
pub use self::state::AdminState;
use crate::{
    allowed_hosts::AllowedHosts,
    config::AdminConfig,
    offload,
    panic::{self, HandlerPanicked},
    peer::Peer,
    problem::{Problem, ProblemKind},
    render,
    request_id::{self, X_REQUEST_ID},
    text::excerpt,
};

/// Creates the router of the admin listener, and registers its metrics. `allowed_hosts` are the
/// accepted values of `Host`; `None` accepts all.
///
/// # Errors
///
/// Fails if one of the metrics is registered already.
pub fn router(
    config: &AdminConfig,
    state: AdminState,
    allowed_hosts: Option<AllowedHosts>,
) -> prometheus::Result<Router> {
    let registry = state.metrics.registry();
    state.readiness.register(registry)?;
    let auth = AdminAuth::new(config, registry)?;
    let panics = panic::register_counter(registry, "admin")?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/usage", get(usage_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/cache", get(cache::get_cache))
        .route("/cache/purge", post(cache::purge_cache))
        .route(
            "/backfill",
            get(backfill::progress)
                .post(backfill::start)
                .delete(backfill::stop),
        )
        .with_state(state);
    // The layers wrap the routes as a whole: `Allow` is set only outside them.
    let router = Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(
            auth,
            access::authenticate_request,
        ))
        .layer(middleware::from_fn_with_state(allowed_hosts, check_host))
        .layer(middleware::from_fn_with_state(panics, finish_response));
    Ok(router)
}

/// The media type of Prometheus' text format.
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

async fn metrics(State(admin): State<AdminState>) -> impl IntoResponse {
    admin.usage.update_gauges();
    let content_type = [(header::CONTENT_TYPE, PROMETHEUS_TEXT)];
    (content_type, admin.metrics.to_prometheus_text())
}

/// Shows the usage of all customers as metrics, from memory.
async fn usage_metrics(
    State(admin): State<AdminState>,
) -> Result<impl IntoResponse, Extension<Problem>> {
    /// About the bytes that are read and written for a customer.
    const CUSTOMER_BYTES: usize = 4_000;

    let Some(max_series) = admin.usage_max_series else {
        let detail = "usage as metrics is off; metrics.usage = true switches it on";
        return Err(Extension(Problem::new(ProblemKind::NotFound, detail)));
    };
    let fleet = admin.usage.fleet_usage().unwrap_or_default();
    let portfolio = admin.usage.portfolio().get();
    let bytes = fleet.entries.len() * CUSTOMER_BYTES;
    let render = move || render::usage_metrics(&fleet, &portfolio, max_series);
    let text = offload::run_cpu_bound(bytes, render).await;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text))
}

/// Shows that the process runs.
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

/// Rejects requests with a foreign `Host`.
async fn check_host(
    State(hosts): State<Option<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Result<Response, Extension<Problem>> {
    let problem = hosts.and_then(|hosts| hosts.check(request.uri(), request.headers()).err());
    let Some(problem) = problem else {
        return Ok(next.run(request).await);
    };
    let peer = request.extensions().get::<Peer>();
    tracing::info!(
        path = &*excerpt(request.uri().path()),
        peer = peer.map(|peer| tracing::field::display(peer.address.ip())),
        reason = problem.detail(),
        "a request of the admin listener was refused"
    );
    Err(Extension(problem))
}

/// Adds the request id and `Cache-Control: no-store`, and writes problem documents, also for panics
/// and for paths and methods that axum does not route.
async fn finish_response(
    State(panics): State<IntCounter>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = request_id::accept_or_generate(request.headers());
    // The handlers log the same id.
    request
        .headers_mut()
        .insert(X_REQUEST_ID, request_id.clone());
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let caught = panic::catch(pin!(next.run(request))).await;
    let mut response = caught.unwrap_or_else(|HandlerPanicked| {
        panics.inc();
        tracing::error!(
            path = &*excerpt(&path),
            request_id = request_id.to_str().unwrap_or_default(),
            "a handler of the admin listener panicked"
        );
        Extension(Problem::internal()).into_response()
    });
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Some(Problem::not_found(&path)),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = allowed_methods(response.headers());
            Some(Problem::method_not_allowed(&method, allow))
        }
        _ => response.extensions_mut().remove(),
    };
    if let Some(problem) = problem {
        let problem = problem.for_request(&path, &request_id, None);
        response = problem.into_response().map(Body::new);
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the methods of a route from axum's `Allow`.
fn allowed_methods(headers: &HeaderMap) -> &'static str {
    match headers.get(header::ALLOW).map(HeaderValue::as_bytes) {
        Some(b"POST") => "POST",
        Some(b"GET,HEAD,POST,DELETE") => "GET, HEAD, POST, DELETE",
        _ => "GET, HEAD",
    }
}
