//! The authorization endpoint. Every browser counts as signed in: it is redirected back with a code at
//! once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{StatusCode, header::LOCATION};
use sha2::{Digest, Sha256};
use url::{Host, Url};
use uuid::Uuid;

use super::{SimulatedTokenError, TokenApiVersion, required};
use crate::simulator::{Simulation, record::SimulatedApi, reply::SimulatedReply};

/// The codes that were given out.
#[derive(Debug, Default)]
pub(in crate::simulator) struct IssuedCodes {
    /// `None` once redeemed.
    issued: Mutex<HashMap<String, Option<IssuedCode>>>,
}

/// The parameters of the request that a code answers.
#[derive(Clone, Debug)]
pub(super) struct IssuedCode {
    client_id: String,
    redirect_uri: String,
    /// `code_challenge`, by S256.
    challenge: Option<String>,
    /// A refresh token was asked for.
    is_offline: bool,
}

type FormParameters = HashMap<String, String>;

/// `GET /{tenant}/oauth2/authorize`.
pub(in crate::simulator) async fn v1(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> Response {
    handle(&simulation, TokenApiVersion::V1, &request.into_parts().0)
}

/// `GET /{tenant}/oauth2/v2.0/authorize`.
pub(in crate::simulator) async fn v2(
    State(simulation): State<Arc<Simulation>>,
    request: Request,
) -> Response {
    handle(&simulation, TokenApiVersion::V2, &request.into_parts().0)
}

fn handle(
    simulation: &Simulation,
    version: TokenApiVersion,
    head: &http::request::Parts,
) -> Response {
    let sequence = simulation
        .recorder
        .record_request(SimulatedApi::Token, head);
    let query = head.uri.query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    let reply = match authorize(simulation, version, &query.collect()) {
        Ok(url) => {
            SimulatedReply::raw_json(StatusCode::FOUND, "").with_header(LOCATION.as_str(), url)
        }
        Err(refusal) => refusal.into_reply(simulation, head),
    };
    simulation.recorder.record_status(sequence, reply.status);
    reply
        .with_header("cache-control", "no-store, no-cache")
        .into_response()
}

/// Returns the address to redirect to, with a code or an error. A refusal is shown in place: a browser
/// must not be redirected to an address that is not registered (RFC 6749 §4.1.2.1).
fn authorize(
    simulation: &Simulation,
    version: TokenApiVersion,
    asked: &FormParameters,
) -> Result<Url, SimulatedTokenError> {
    let client_id = required(asked, "client_id")?;
    let expected = &simulation.client_id;
    if expected.as_deref().is_some_and(|known| known != client_id) {
        return Err(SimulatedTokenError::unknown_client(client_id));
    }
    let redirect_uri = required(asked, "redirect_uri")?;
    let mut url = parse_registered_uri(redirect_uri)
        .ok_or_else(|| SimulatedTokenError::unregistered_redirect(redirect_uri))?;
    let state = required(asked, "state")?;
    let answer = match simulation.faults().sign_in_error.clone() {
        Some(error) => Err(SimulatedTokenError::sign_in_failed(error)),
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

// === impl Codes ===

impl IssuedCodes {
    fn issue(&self, code: IssuedCode) -> String {
        let name = format!("0.{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.insert(name.clone(), Some(code));
        name
    }

    /// Redeems a code, once, for the client that asked for it (RFC 7636 §4.6). Returns whether a
    /// refresh token goes with it.
    pub(super) fn redeem(&self, form: &FormParameters) -> Result<bool, SimulatedTokenError> {
        let name = required(form, "code")?;
        let redirect_uri = required(form, "redirect_uri")?;
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let code = issued
            .get_mut(name)
            .ok_or_else(SimulatedTokenError::unknown_code)?;
        // Spent by a wrong attempt too.
        let code = code.take().ok_or_else(SimulatedTokenError::used_code)?;
        if form.get("client_id") != Some(&code.client_id) {
            return Err(SimulatedTokenError::unknown_code());
        }
        if code.redirect_uri != redirect_uri {
            return Err(SimulatedTokenError::mismatched_redirect());
        }
        let verifier = form.get("code_verifier").map(Sha256::digest);
        if code.challenge != verifier.map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)) {
            return Err(SimulatedTokenError::wrong_verifier());
        }
        Ok(code.is_offline)
    }
}

// === impl IssuedCode ===

impl IssuedCode {
    fn from_request(
        version: TokenApiVersion,
        asked: &FormParameters,
    ) -> Result<Self, SimulatedTokenError> {
        let response_type = required(asked, "response_type")?;
        if response_type != "code" {
            return Err(SimulatedTokenError::unsupported_grant_type(response_type));
        }
        let audience = required(asked, version.audience_parameter())?;
        let challenge = asked.get("code_challenge").cloned();
        if challenge.is_some() && required(asked, "code_challenge_method")? != "S256" {
            return Err(SimulatedTokenError::missing_parameter(
                "code_challenge_method",
            ));
        }
        let copy = |name: &str| asked.get(name).cloned().unwrap_or_default();
        Ok(Self {
            client_id: copy("client_id"),
            redirect_uri: copy("redirect_uri"),
            challenge,
            is_offline: match version {
                TokenApiVersion::V1 => true,
                TokenApiVersion::V2 => audience.split(' ').any(|scope| scope == "offline_access"),
            },
        })
    }
}

// === impl Refusal ===

impl SimulatedTokenError {
    fn invalid_grant(code: u32, text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", code, text)
    }

    fn unknown_code() -> Self {
        Self::invalid_grant(70_000, "The provided authorization code is invalid.")
    }

    fn used_code() -> Self {
        Self::invalid_grant(54_005, "OAuth2 Authorization code was already redeemed.")
    }

    fn wrong_verifier() -> Self {
        let text = "The Code_Verifier does not match the code_challenge supplied in the \
                    authorization request.";
        Self::invalid_grant(501_481, text)
    }

    fn mismatched_redirect() -> Self {
        let text = "The reply address does not match the reply address provided when requesting \
                    Authorization code.";
        Self::invalid_grant(500_112, text)
    }

    fn unregistered_redirect(redirect_uri: &str) -> Self {
        let text = format!(
            "The redirect URI '{redirect_uri}' specified in the request does not match the \
             redirect URIs configured for the application."
        );
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", 50_011, text)
    }

    fn sign_in_failed(error: String) -> Self {
        let (code, text) = match error.as_str() {
            "access_denied" => (65_004, "User declined to consent to access the app."),
            _ => (90_094, "The sign-in did not succeed."),
        };
        Self {
            status: StatusCode::FOUND,
            error,
            code,
            text: text.into(),
        }
    }
}
