//! The calls of Partner Center, and their common part.

mod commercial;
mod corruption;
mod customers;
mod deployment;
mod insights;
mod partner;

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    extract::{RawPathParams, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderName, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER},
    request::Parts,
};
use serde_json::json;
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    Simulation, faults::Faults, record::SimulatedApi, reply::SimulatedReply, tokens::AccessGrant,
};
use crate::clock::retry_after_seconds;

/// A call in progress, and its faults.
#[derive(Debug)]
pub(super) struct SimulatedCall {
    api: SimulatedApi,
    head: Parts,
    faults: Faults,
}

/// A description of the error in a request.
#[derive(Debug)]
struct BadRequestError(String);

/// Routes of every call, with and without the prefix that some environments have.
pub(super) fn routes() -> Router<Arc<Simulation>> {
    ["", "/partner"]
        .into_iter()
        .fold(Router::new(), |router, prefix| {
            let path = |rest: &str| format!("{prefix}/v1/{rest}");
            router
                .route(&path("customers"), get(list_customers))
                .route(
                    &path("customers/{id}/analytics/licenses/usage"),
                    get(customer_usage),
                )
                .route(
                    &path("customers/{id}/analytics/licenses/deployment"),
                    get(customer_deployment),
                )
                .route(&path("analytics/licenses/usage"), get(partner_usage))
                .route(
                    &path("analytics/licenses/deployment"),
                    get(partner_deployment),
                )
                .route(
                    &path("analytics/commercial/usage/license"),
                    get(fleet_usage),
                )
                .route(
                    &path("analytics/commercial/usage/license/"),
                    get(fleet_usage),
                )
        })
}

async fn customer_usage(
    State(simulation): State<Arc<Simulation>>,
    parameters: RawPathParams,
    request: Request,
) -> Response {
    let answer =
        |_: &SimulatedCall| insights::handle(&simulation, customer_id_parameter(&parameters));
    handle_call(&simulation, SimulatedApi::Insights, request, answer).await
}

async fn customer_deployment(
    State(simulation): State<Arc<Simulation>>,
    parameters: RawPathParams,
    request: Request,
) -> Response {
    let answer =
        |_: &SimulatedCall| deployment::handle(&simulation, customer_id_parameter(&parameters));
    handle_call(&simulation, SimulatedApi::Deployment, request, answer).await
}

fn customer_id_parameter(parameters: &RawPathParams) -> &str {
    parameters.iter().map(|(_, id)| id).next().unwrap_or("")
}

async fn partner_usage(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let answer = |_: &SimulatedCall| partner::usage(&simulation);
    handle_call(&simulation, SimulatedApi::PartnerUsage, request, answer).await
}

async fn partner_deployment(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> Response {
    let answer = |_: &SimulatedCall| partner::deployment(&simulation);
    handle_call(
        &simulation,
        SimulatedApi::PartnerDeployment,
        request,
        answer,
    )
    .await
}

async fn fleet_usage(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let answer = |call: &SimulatedCall| commercial::handle(&simulation, call);
    handle_call(&simulation, SimulatedApi::Commercial, request, answer).await
}

async fn list_customers(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let answer = |call: &SimulatedCall| customers::handle(&simulation, call);
    handle_call(&simulation, SimulatedApi::Customers, request, answer).await
}

/// Answers any other request.
pub(super) async fn not_found(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> Response {
    let answer = |call: &SimulatedCall| {
        let description = format!("There is nothing at {}.", call.head.uri.path());
        SimulatedReply::error(StatusCode::NOT_FOUND, "404", &description)
    };
    handle_call(&simulation, SimulatedApi::Other, request, answer).await
}

/// Handles a call from its arrival to its answer.
///
/// Faults apply as they were set at the arrival. Data is read at the answer, so a test can hold a
/// call, change the data, and release it.
async fn handle_call(
    simulation: &Simulation,
    api: SimulatedApi,
    request: Request,
    answer: impl FnOnce(&SimulatedCall) -> SimulatedReply,
) -> Response {
    let (head, _) = request.into_parts();
    // Before the arrival is recorded: a test that waits for it may change both at once.
    let faults = simulation.faults().take_applicable(api);
    let release = simulation.call_gate.wait_if_held();
    let sequence = simulation.recorder.record_request(api, &head);
    let call = SimulatedCall { api, head, faults };
    if api.is_partner_center() {
        release.await;
    }
    if !call.faults.latency.is_zero() {
        tokio::time::sleep(call.faults.latency).await;
    }
    let reply = match check_call(simulation, &call) {
        Some(error) => error,
        None => answer(&call),
    };
    let reply = corruption::apply_faults(reply, &call);
    let reply = with_common_headers(reply, &call);
    simulation.recorder.record_status(sequence, reply.status);
    reply.into_response()
}

/// Returns the error of a call that gets no data, whatever its query.
fn check_call(simulation: &Simulation, call: &SimulatedCall) -> Option<SimulatedReply> {
    check_throttle(simulation, &call.faults)
        .or_else(|| check_status_fault(&call.faults))
        .or_else(|| check_authorization(simulation, call))
}

fn check_throttle(simulation: &Simulation, faults: &Faults) -> Option<SimulatedReply> {
    let limit = faults.calls_per_minute?;
    let left = simulation
        .throttle
        .admit(limit, simulation.clock.now())
        .err()?;
    let seconds = retry_after_seconds(left).to_string();
    let retry_after = faults.retry_after.as_ref().unwrap_or(&seconds);
    Some(too_many_requests(Some(retry_after)))
}

fn check_status_fault(faults: &Faults) -> Option<SimulatedReply> {
    let status = faults.status?;
    let retry_after = faults.retry_after.as_deref();
    if status == StatusCode::TOO_MANY_REQUESTS && faults.code.is_none() {
        return Some(too_many_requests(retry_after));
    }
    let code = faults.code.as_deref().unwrap_or(status.as_str());
    let description = faults.description.as_deref();
    let description = description.unwrap_or("This is a simulated fault.");
    let reply = SimulatedReply::error(status, code, description);
    Some(match retry_after {
        Some(retry_after) => reply.with_header(RETRY_AFTER.as_str(), retry_after),
        None => reply,
    })
}

/// The answer to a throttled call, which has a body of its own.
fn too_many_requests(retry_after: Option<&str>) -> SimulatedReply {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let seconds = retry_after.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let message = match seconds {
        Some(seconds) => format!("Rate limit is exceeded. Try again in {seconds} seconds."),
        None => "Rate limit is exceeded.".into(),
    };
    let reply = SimulatedReply::json(
        status,
        &json!({ "statusCode": status.as_u16(), "message": message }),
    );
    match retry_after {
        Some(retry_after) => reply.with_header(RETRY_AFTER.as_str(), retry_after),
        None => reply,
    }
}

fn check_authorization(simulation: &Simulation, call: &SimulatedCall) -> Option<SimulatedReply> {
    let reject = |code, text| Some(SimulatedReply::error(StatusCode::UNAUTHORIZED, code, text));
    if call.faults.mfa_required {
        return reject(
            "900421",
            "The token carries no proof of multi-factor authentication.",
        );
    }
    if !call.api.is_partner_center() {
        return None;
    }
    let now = simulation.clock.now();
    let allow_app_only = simulation.allow_app_only.load(Ordering::Relaxed);
    let grant = call
        .bearer_token()
        .and_then(|token| simulation.tokens.grant(token, now));
    match grant {
        None => reject("800001", "The access token is missing, expired or unknown."),
        Some(AccessGrant::App) if call.api.requires_user(allow_app_only) => {
            Some(SimulatedReply::error(
                StatusCode::FORBIDDEN,
                "900329",
                "App-only access is not supported for this call.",
            ))
        }
        Some(AccessGrant::App | AccessGrant::User) => None,
    }
}

/// Adds the headers of every answer.
fn with_common_headers(reply: SimulatedReply, call: &SimulatedCall) -> SimulatedReply {
    let id = |name| call.header(name).map_or_else(new_id, str::to_owned);
    let vector = new_id().replace('-', "");
    let vector = vector.get(..16).unwrap_or(&vector);
    let reply = reply
        .with_header("ms-requestid", id("ms-requestid"))
        .with_header("ms-correlationid", id("ms-correlationid"))
        .with_header("ms-cv", format!("{vector}.0"))
        .with_header("ms-serverid", "030020525");
    if call.header("validatemfa") != Some("true") {
        return reply;
    }
    let compliant = if call.faults.mfa_required || call.faults.mfa_missing {
        "false"
    } else {
        "true"
    };
    reply.with_header("ismfacompliant", compliant)
}

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

// === impl SimulatedCall ===

impl SimulatedCall {
    fn header(&self, name: &'static str) -> Option<&str> {
        let value = self.head.headers.get(HeaderName::from_static(name))?;
        value.to_str().ok()
    }

    fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// The first value of a query parameter.
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    fn parameters(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let query = self.head.uri.query().unwrap_or("");
        form_urlencoded::parse(query.as_bytes()).into_owned()
    }

    /// Returns a query parameter that is a whole number of at least `least`.
    fn number(&self, name: &str, least: usize) -> Result<Option<usize>, BadRequestError> {
        let Some(text) = self.parameter(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if number >= least => Ok(Some(number)),
            Ok(_) | Err(_) => Err(BadRequestError(format!(
                "{name} is '{text}': expected a whole number, at least {least}"
            ))),
        }
    }
}

// === impl BadRequestError ===

impl From<BadRequestError> for SimulatedReply {
    fn from(BadRequestError(description): BadRequestError) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "2100", &description)
    }
}
