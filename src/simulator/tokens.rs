//! The token endpoint, v1 and v2, and the tokens that it issued.

mod assertion;
pub(super) mod authorization;
mod registry;

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::to_bytes,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

pub(super) use assertion::AssertionVerifier;
pub use assertion::RegisteredCertificate;
pub(super) use registry::{AccessGrant, TokenRegistry};

use super::{Simulation, record::SimulatedApi, reply::SimulatedReply};
use assertion::{ExpectedAssertion, JWT_BEARER};
use registry::{IssuedTokens, RedemptionContext, ReusePolicy};

/// The largest form that is read.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// The version of the token endpoint. Both have much the same parameters under other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenApiVersion {
    V1,
    V2,
}

/// The body of a token answer.
#[derive(Serialize)]
struct TokenReplyBody<'a> {
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    expires_in: Value,
    ext_expires_in: Value,
    #[serde(flatten)]
    v1: Option<TokenReplyV1Fields<'a>>,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

/// Fields that only v1 has.
#[derive(Serialize)]
struct TokenReplyV1Fields<'a> {
    not_before: String,
    expires_on: String,
    resource: &'a str,
}

/// An error in the format of Microsoft's identity platform.
#[derive(Debug)]
struct SimulatedTokenError {
    status: StatusCode,
    error: String,
    code: u32,
    text: String,
}

/// `POST /{tenant}/oauth2/token`.
pub(super) async fn v1(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    handle(&simulation, TokenApiVersion::V1, request).await
}

/// `POST /{tenant}/oauth2/v2.0/token`.
pub(super) async fn v2(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    handle(&simulation, TokenApiVersion::V2, request).await
}

async fn handle(simulation: &Simulation, version: TokenApiVersion, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Before the arrival is recorded: a test that waits for it may change both at once.
    let failure = simulation.faults().take_token_failure();
    let release = simulation.token_gate.wait_if_held();
    let sequence = simulation
        .recorder
        .record_request(SimulatedApi::Token, &head);
    release.await;
    let form = to_bytes(body, MAX_FORM_BYTES).await.unwrap_or_default();
    let form: HashMap<String, String> = form_urlencoded::parse(&form).into_owned().collect();
    let answer = match failure {
        Some((status, error)) => Err(SimulatedTokenError::from_fault(status, error)),
        None => issue_tokens(simulation, version, head.uri.path(), &form),
    };
    let reply = answer.unwrap_or_else(|error| error.into_reply(simulation, &head));
    simulation.recorder.record_status(sequence, reply.status);
    reply
        .with_header("cache-control", "no-store, no-cache")
        .into_response()
}

/// Checks the client and the grant, and issues tokens.
fn issue_tokens(
    simulation: &Simulation,
    version: TokenApiVersion,
    path: &str,
    form: &HashMap<String, String>,
) -> Result<SimulatedReply, SimulatedTokenError> {
    let grant_type = required(form, "grant_type")?;
    check_client(simulation, path, form)?;
    let audience = required(form, version.audience_parameter())?;
    let now = simulation.clock.now();
    let issued = match grant_type {
        "refresh_token" => {
            let presented = required(form, "refresh_token")?;
            let reuse = ReusePolicy::from_faults(&simulation.faults());
            let redemption = RedemptionContext { reuse, now };
            simulation
                .tokens
                .redeem(presented, redemption)
                .ok_or_else(SimulatedTokenError::used_refresh_token)?
        }
        "authorization_code" => {
            let is_offline = simulation.codes.redeem(form)?;
            let mut issued = simulation.tokens.issue(AccessGrant::User, now);
            issued.refresh_token = is_offline.then(|| simulation.tokens.issue_refresh_token());
            issued
        }
        "client_credentials" => simulation.tokens.issue(AccessGrant::App, now),
        other => return Err(SimulatedTokenError::unsupported_grant_type(other)),
    };
    let body = version.body(&issued, audience, simulation.clock.wall_time());
    Ok(SimulatedReply::json(StatusCode::OK, &body))
}

fn required<'a>(
    form: &'a HashMap<String, String>,
    name: &str,
) -> Result<&'a str, SimulatedTokenError> {
    form.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| SimulatedTokenError::missing_parameter(name))
}

fn check_client(
    simulation: &Simulation,
    path: &str,
    form: &HashMap<String, String>,
) -> Result<(), SimulatedTokenError> {
    let id = required(form, "client_id")?;
    let value_of = |name: &str| form.get(name).map_or("", String::as_str);
    let (secret, assertion) = (value_of("client_secret"), value_of("client_assertion"));
    if secret.is_empty() && assertion.is_empty() {
        return Err(SimulatedTokenError::no_client_secret());
    }
    let expected = &simulation.client_id;
    if expected.as_deref().is_some_and(|expected| expected != id) {
        return Err(SimulatedTokenError::unknown_client(id));
    }
    if !assertion.is_empty() {
        if !secret.is_empty() || value_of("client_assertion_type") != JWT_BEARER {
            return Err(SimulatedTokenError::wrong_assertion_type());
        }
        let now = simulation.clock.wall_time().as_second();
        let expected = ExpectedAssertion {
            client_id: id,
            path,
            now,
        };
        return simulation.assertions.verify(assertion, expected);
    }
    // The secret of a simulator is worth nothing, so the comparison need not take constant time.
    match &simulation.client_secret {
        Some(expected) if expected.expose_secret() != secret => {
            Err(SimulatedTokenError::wrong_secret())
        }
        Some(_) | None => Ok(()),
    }
}

// === impl TokenApiVersion ===

impl TokenApiVersion {
    fn audience_parameter(self) -> &'static str {
        match self {
            Self::V1 => "resource",
            Self::V2 => "scope",
        }
    }

    /// Creates the answer. v1 sends its numbers as strings.
    fn body<'a>(
        self,
        issued: &'a IssuedTokens,
        audience: &'a str,
        now: Timestamp,
    ) -> TokenReplyBody<'a> {
        let lifetime = issued.expires_in.as_secs();
        let begins = now.as_second();
        let (expires_in, v1) = match self {
            Self::V1 => {
                let v1 = TokenReplyV1Fields {
                    not_before: begins.to_string(),
                    expires_on: begins.saturating_add_unsigned(lifetime).to_string(),
                    resource: audience,
                };
                (Value::from(lifetime.to_string()), Some(v1))
            }
            Self::V2 => (Value::from(lifetime), None),
        };
        TokenReplyBody {
            token_type: "Bearer",
            scope: (issued.grant == AccessGrant::User).then_some("user_impersonation"),
            ext_expires_in: expires_in.clone(),
            expires_in,
            v1,
            access_token: &issued.access_token,
            refresh_token: issued.refresh_token.as_deref(),
        }
    }
}

// === impl SimulatedTokenError ===

impl SimulatedTokenError {
    fn new(status: StatusCode, error: &str, code: u32, text: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            code,
            text: text.into(),
        }
    }

    fn from_fault(status: StatusCode, error: String) -> Self {
        let (code, text) = match error.as_str() {
            "invalid_grant" => (
                50173,
                "The provided grant has expired due to it being revoked.",
            ),
            "interaction_required" => (50076, "You must use multi-factor authentication."),
            "invalid_client" => (7000215, "Invalid client secret provided."),
            _ => (90033, "A transient error has occurred. Please try again."),
        };
        Self {
            status,
            error,
            code,
            text: text.into(),
        }
    }

    fn missing_parameter(name: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", 900144, text)
    }

    fn unsupported_grant_type(grant_type: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        Self::new(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            70003,
            text,
        )
    }

    fn used_refresh_token() -> Self {
        let text = "The provided grant has expired due to it being revoked, \
                    a fresh auth token is needed.";
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", 50173, text)
    }

    fn no_client_secret() -> Self {
        let text = "The request body must contain the following parameter: \
                    'client_assertion' or 'client_secret'.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", 7000218, text)
    }

    fn wrong_assertion_type() -> Self {
        let text = format!(
            "The request body must contain client_assertion_type '{JWT_BEARER}' beside \
             client_assertion, and no client_secret."
        );
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", 50027, text)
    }

    fn invalid_assertion(code: u32, text: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", code, text)
    }

    fn no_federated_credential() -> Self {
        let text = "No matching federated identity record found for presented assertion.";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", 70021, text)
    }

    fn unknown_client(id: &str) -> Self {
        let text = format!("Application with identifier '{id}' was not found in the directory.");
        Self::new(StatusCode::BAD_REQUEST, "unauthorized_client", 700016, text)
    }

    fn wrong_secret() -> Self {
        let text = "Invalid client secret provided.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", 7000215, text)
    }

    fn description(&self) -> String {
        format!("AADSTS{}: {}", self.code, self.text)
    }

    fn into_reply(self, simulation: &Simulation, head: &Parts) -> SimulatedReply {
        let correlation_id = head
            .headers
            .get("client-request-id")
            .and_then(|id| id.to_str().ok())
            .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let body = json!({
            "error": self.error,
            "error_description": self.description(),
            "error_codes": [self.code],
            "timestamp": simulation.clock.wall_time().strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            "trace_id": Uuid::new_v4().to_string(),
            "correlation_id": correlation_id,
        });
        SimulatedReply::json(self.status, &body)
    }
}
