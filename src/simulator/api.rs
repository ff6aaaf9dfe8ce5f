//! The calls of Partner Center, and their common part.

mod call;
mod commercial;
mod corruption;
mod customers;
mod insights;

use std::sync::{Arc, atomic::Ordering};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use self::call::SimulatedCall;
use super::{
    faults::Faults, record::SimulatedApi, reply::SimulatedReply, simulation::Simulation,
    tokens::registry::AccessGrant,
};
use crate::clock::retry_after_seconds;

/// Handles a call from its arrival to its answer.
///
/// Faults apply as they were set at the arrival. Data is read at the answer, so a test can hold a
/// call, change the data, and release it.
pub(super) async fn handle(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let api = call::find_api(&head);
    let page = call::fleet_page(&head, simulation.page_size);
    // Before the arrival is recorded: a test that waits for it may change both at once.
    let faults = simulation.faults().take_applicable(api, page);
    let release = simulation.call_gate.wait_if_held();
    let sequence = simulation.recorder.record_request(api, &head);
    let call = SimulatedCall { api, head, faults };
    if api.is_partner_center() {
        release.await;
    }
    if !call.faults.latency.is_zero() {
        tokio::time::sleep(call.faults.latency).await;
    }
    let reply = reject(&simulation, &call).unwrap_or_else(|| answer(&simulation, &call));
    let reply = corruption::apply_faults(reply, &call);
    let reply = with_common_headers(reply, &call);
    simulation.recorder.record_status(sequence, reply.status);
    reply.into_response()
}

fn answer(simulation: &Simulation, call: &SimulatedCall) -> SimulatedReply {
    let answered = match call.api {
        SimulatedApi::Insights => insights::customer_usage(simulation, call),
        SimulatedApi::Deployment => insights::customer_deployment(simulation, call),
        SimulatedApi::PartnerUsage => Ok(insights::partner_usage(simulation)),
        SimulatedApi::PartnerDeployment => Ok(insights::partner_deployment(simulation)),
        SimulatedApi::Commercial | SimulatedApi::FleetPage | SimulatedApi::FleetCheck => {
            commercial::usage(simulation, call)
        }
        SimulatedApi::Customers => customers::list(simulation, call),
        SimulatedApi::Token | SimulatedApi::Other => {
            let description = format!("There is nothing at {}.", call.head.uri.path());
            let status = StatusCode::NOT_FOUND;
            Ok(SimulatedReply::error(status, "404", &description))
        }
    };
    answered.unwrap_or_else(SimulatedReply::from)
}

/// Returns the error of a call that gets no data, whatever its query.
fn reject(simulation: &Simulation, call: &SimulatedCall) -> Option<SimulatedReply> {
    check_throttle(simulation, &call.faults)
        .or_else(|| check_status_fault(&call.faults))
        .or_else(|| check_authorization(simulation, call))
}

fn check_throttle(simulation: &Simulation, faults: &Faults) -> Option<SimulatedReply> {
    let limit = faults.calls_per_minute?;
    let now = simulation.clock.now();
    let left = simulation.throttle.admit(limit, now).err()?;
    let seconds = retry_after_seconds(left).to_string();
    Some(too_many_requests(Some(
        faults.retry_after.as_ref().unwrap_or(&seconds),
    )))
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
    Some(SimulatedReply::error(status, code, description).with_retry_after(retry_after))
}

/// Returns the answer to a throttled call, which has a body of its own.
fn too_many_requests(retry_after: Option<&str>) -> SimulatedReply {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let seconds = retry_after.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let message = match seconds {
        Some(seconds) => format!("Rate limit is exceeded. Try again in {seconds} seconds."),
        None => "Rate limit is exceeded.".into(),
    };
    let body = json!({ "statusCode": status.as_u16(), "message": message });
    SimulatedReply::json(status, &body).with_retry_after(retry_after)
}

fn check_authorization(simulation: &Simulation, call: &SimulatedCall) -> Option<SimulatedReply> {
    let unauthorized =
        |code, text| Some(SimulatedReply::error(StatusCode::UNAUTHORIZED, code, text));
    if call.faults.mfa_required {
        return unauthorized(
            "900421",
            "The token carries no proof of multi-factor authentication.",
        );
    }
    if !call.api.is_partner_center() {
        return None;
    }
    let allow_app_only = simulation.allow_app_only.load(Ordering::Relaxed);
    let now = simulation.clock.now();
    let token = call.bearer_token();
    match token.and_then(|token| simulation.tokens.grant(token, now)) {
        None => unauthorized("800001", "The access token is missing, expired or unknown."),
        Some(AccessGrant::App) if call.api.requires_user(allow_app_only) => {
            let description = "App-only access is not supported for this call.";
            let status = StatusCode::FORBIDDEN;
            Some(SimulatedReply::error(status, "900329", description))
        }
        Some(AccessGrant::App | AccessGrant::User) => None,
    }
}

/// Adds the headers of every answer.
fn with_common_headers(reply: SimulatedReply, call: &SimulatedCall) -> SimulatedReply {
    let new_id = || Uuid::new_v4().to_string();
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
    let compliant = !call.faults.mfa_required && !call.faults.mfa_missing;
    reply.with_header("ismfacompliant", compliant.to_string())
}
