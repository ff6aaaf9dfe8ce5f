//! The token endpoint.

use std::sync::Arc;

use axum::{
    body::to_bytes,
    extract::{Request, State},
};
use http::StatusCode;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::Value;
use url::form_urlencoded;

use super::{
    assertion::{ExpectedAssertion, JWT_BEARER},
    error::{FormParameters, SimulatedTokenError, TokenApiVersion, required},
    registry::{AccessGrant, IssuedTokens},
};
use crate::simulator::{record::SimulatedApi, reply::SimulatedReply, simulation::Simulation};

/// The largest form that is read.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// Handles `POST /{tenant}/oauth2/token` and `POST /{tenant}/oauth2/v2.0/token`.
pub(in crate::simulator) async fn handle(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> SimulatedReply {
    let (head, body) = request.into_parts();
    // Before the arrival is recorded: a test that waits for it may change both at once.
    let (failure, retry_after) = {
        let faults = simulation.faults();
        (faults.token_failure(), faults.retry_after.clone())
    };
    let release = simulation.token_gate.wait_if_held();
    let recorder = &simulation.recorder;
    let sequence = recorder.record_request(SimulatedApi::Token, &head);
    release.await;
    let form = to_bytes(body, MAX_FORM_BYTES).await.unwrap_or_default();
    let form = form_urlencoded::parse(&form).into_owned().collect();
    let retry_after = retry_after.filter(|_| failure.is_some());
    let answer = match failure {
        Some((status, error)) => Err(fault(status, error)),
        None => issue_tokens(&simulation, head.uri.path(), &form),
    };
    let now = simulation.clock.wall_time();
    let reply = answer.unwrap_or_else(|error| error.into_reply(&head, now));
    recorder.record_status(sequence, reply.status);
    reply
        .with_retry_after(retry_after.as_deref())
        .with_header("cache-control", "no-store, no-cache")
}

fn fault(status: StatusCode, error: String) -> SimulatedTokenError {
    let (code, text) = match error.as_str() {
        "invalid_grant" => (
            50_173,
            "The provided grant has expired due to it being revoked.",
        ),
        "interaction_required" => (50_076, "You must use multi-factor authentication."),
        "invalid_client" => (7_000_215, "Invalid client secret provided."),
        _ => (90_033, "A transient error has occurred. Please try again."),
    };
    SimulatedTokenError::new(status, error, code, text)
}

/// Checks the client and the grant, and issues tokens.
fn issue_tokens(
    simulation: &Simulation,
    path: &str,
    form: &FormParameters,
) -> Result<SimulatedReply, SimulatedTokenError> {
    let version = TokenApiVersion::of_path(path);
    let grant_type = required(form, "grant_type")?;
    check_client(simulation, path, form)?;
    let audience = required(form, version.audience_parameter())?;
    let now = simulation.clock.now();
    let tokens = &simulation.tokens;
    let issued = match grant_type {
        "refresh_token" => {
            let presented = required(form, "refresh_token")?;
            tokens
                .redeem(presented, &simulation.faults(), now)
                .ok_or_else(|| {
                    let text = "The provided grant has expired due to it being revoked, \
                                a fresh auth token is needed.";
                    SimulatedTokenError::invalid_grant(50_173, text)
                })?
        }
        "authorization_code" => {
            let is_offline = simulation.codes.redeem(form)?;
            let mut issued = tokens.issue(AccessGrant::User, now);
            issued.refresh_token = is_offline.then(|| tokens.issue_refresh_token());
            issued
        }
        "client_credentials" => tokens.issue(AccessGrant::App, now),
        other => return Err(SimulatedTokenError::unsupported_grant_type(other)),
    };
    let body = render_tokens(version, issued, audience, simulation.clock.wall_time());
    Ok(SimulatedReply::json(StatusCode::OK, &body))
}

/// Checks the client id, if only one gets tokens, and returns it.
pub(super) fn check_client_id<'a>(
    simulation: &Simulation,
    form: &'a FormParameters,
) -> Result<&'a str, SimulatedTokenError> {
    let id = required(form, "client_id")?;
    match &simulation.client_id {
        Some(expected) if expected != id => Err(SimulatedTokenError::new(
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            700_016,
            format!("Application with identifier '{id}' was not found in the directory."),
        )),
        Some(_) | None => Ok(id),
    }
}

fn check_client(
    simulation: &Simulation,
    path: &str,
    form: &FormParameters,
) -> Result<(), SimulatedTokenError> {
    required(form, "client_id")?;
    let value_of = |name: &str| form.get(name).map_or("", String::as_str);
    let (secret, assertion) = (value_of("client_secret"), value_of("client_assertion"));
    if secret.is_empty() && assertion.is_empty() {
        let text = "The request body must contain the following parameter: \
                    'client_assertion' or 'client_secret'.";
        return Err(SimulatedTokenError::invalid_client(7_000_218, text));
    }
    let client_id = check_client_id(simulation, form)?;
    if !assertion.is_empty() {
        if !secret.is_empty() || value_of("client_assertion_type") != JWT_BEARER {
            let text = format!(
                "The request body must contain client_assertion_type '{JWT_BEARER}' beside \
                 client_assertion, and no client_secret."
            );
            return Err(SimulatedTokenError::invalid_request(50_027, text));
        }
        let now = simulation.clock.wall_time().as_second();
        let expected = ExpectedAssertion {
            client_id,
            path,
            now,
        };
        return simulation.assertions.verify(assertion, expected);
    }
    // The secret of a simulator is worth nothing, so the comparison need not take constant time.
    match &simulation.client_secret {
        Some(expected) if expected.expose_secret() != secret => {
            let text = "Invalid client secret provided.";
            Err(SimulatedTokenError::invalid_client(7_000_215, text))
        }
        Some(_) | None => Ok(()),
    }
}

/// Renders the answer. v1 has more fields, and sends its numbers as strings.
fn render_tokens(
    version: TokenApiVersion,
    issued: IssuedTokens,
    audience: &str,
    now: Timestamp,
) -> Value {
    let lifetime = issued.expires_in.as_secs();
    let mut body = serde_json::Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("token_type", "Bearer".into());
    set("access_token", issued.access_token.into());
    let expires_in: Value = match version {
        TokenApiVersion::V1 => {
            let now = now.as_second();
            let expires_on = now.saturating_add_unsigned(lifetime);
            set("not_before", now.to_string().into());
            set("expires_on", expires_on.to_string().into());
            set("resource", audience.into());
            lifetime.to_string().into()
        }
        TokenApiVersion::V2 => lifetime.into(),
    };
    set("expires_in", expires_in.clone());
    set("ext_expires_in", expires_in);
    if issued.grant == AccessGrant::User {
        set("scope", "user_impersonation".into());
    }
    if let Some(refresh_token) = issued.refresh_token {
        set("refresh_token", refresh_token.into());
    }
    body.into()
}
