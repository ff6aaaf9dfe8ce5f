//! The authorization endpoint. Every browser counts as signed in: it is redirected back with a code at
//! once.

use std::sync::Arc;

use axum::extract::{Request, State};
use http::{StatusCode, header::LOCATION};
use url::{Host, Url};

use super::{
    codes::IssuedCode,
    error::{FormParameters, SimulatedTokenError, TokenApiVersion, required},
    token_endpoint::check_client_id,
};
use crate::simulator::{record::SimulatedApi, reply::SimulatedReply, simulation::Simulation};

/// Handles `GET /{tenant}/oauth2/authorize` and `GET /{tenant}/oauth2/v2.0/authorize`.
pub(in crate::simulator) async fn handle(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> SimulatedReply {
    let (head, _) = request.into_parts();
    let recorder = &simulation.recorder;
    let sequence = recorder.record_request(SimulatedApi::Token, &head);
    let version = TokenApiVersion::of_path(head.uri.path());
    let query = head.uri.query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    let reply = match authorize(&simulation, version, &query.collect()) {
        Ok(url) => {
            SimulatedReply::raw_json(StatusCode::FOUND, "").with_header(LOCATION.as_str(), url)
        }
        Err(error) => error.into_reply(&head, simulation.clock.wall_time()),
    };
    recorder.record_status(sequence, reply.status);
    reply.with_header("cache-control", "no-store, no-cache")
}

/// Returns the address to redirect to, with a code or an error. Other errors are shown at once: a browser
/// must not be redirected to an address that is not registered (RFC 6749 §4.1.2.1).
fn authorize(
    simulation: &Simulation,
    version: TokenApiVersion,
    asked: &FormParameters,
) -> Result<Url, SimulatedTokenError> {
    check_client_id(simulation, asked)?;
    let redirect_uri = required(asked, "redirect_uri")?;
    let mut url = parse_registered_uri(redirect_uri).ok_or_else(|| {
        SimulatedTokenError::invalid_request(
            50_011,
            format!(
                "The redirect URI '{redirect_uri}' specified in the request does not match the \
                 redirect URIs configured for the application."
            ),
        )
    })?;
    let state = required(asked, "state")?;
    let answer = match simulation.faults().sign_in_error.clone() {
        Some(error) => Err(sign_in_failed(error)),
        None => IssuedCode::from_request(version, asked),
    };
    let mut query = url.query_pairs_mut();
    match answer {
        Ok(code) => query.append_pair("code", &simulation.codes.issue(code)),
        Err(refusal) => query
            .append_pair("error", &refusal.error)
            .append_pair("error_description", &refusal.description()),
    };
    query.append_pair("state", state);
    drop(query);
    Ok(url)
}

/// Only `http://localhost` is registered, whose port does not matter, as with Entra.
fn parse_registered_uri(redirect_uri: &str) -> Option<Url> {
    let url = Url::parse(redirect_uri).ok()?;
    let is_ours = url.scheme() == "http"
        && url.host() == Some(Host::Domain("localhost"))
        && url.path() == "/"
        && url.query().is_none();
    is_ours.then_some(url)
}

fn sign_in_failed(error: String) -> SimulatedTokenError {
    let (code, text) = match error.as_str() {
        "access_denied" => (65_004, "User declined to consent to access the app."),
        _ => (90_094, "The sign-in did not succeed."),
    };
    SimulatedTokenError::new(StatusCode::FOUND, error, code, text)
}
