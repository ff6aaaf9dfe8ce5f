//! Errors of the token endpoint and of the authorization endpoint, and what both share.

use std::collections::HashMap;

use http::{StatusCode, request::Parts};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::simulator::reply::SimulatedReply;

/// The parameters of a form or of a query.
pub(super) type FormParameters = HashMap<String, String>;

/// The version of an endpoint. Both have much the same parameters under other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenApiVersion {
    V1,
    V2,
}

/// An error in the format of Microsoft's identity platform.
#[derive(Debug)]
pub(super) struct SimulatedTokenError {
    pub(super) status: StatusCode,
    pub(super) error: String,
    code: u32,
    text: String,
}

/// Returns a parameter that must not be empty.
pub(super) fn required<'a>(
    form: &'a FormParameters,
    name: &str,
) -> Result<&'a str, SimulatedTokenError> {
    let value = form.get(name).map(String::as_str);
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| SimulatedTokenError::missing_parameter(name))
}

// === impl TokenApiVersion ===

impl TokenApiVersion {
    pub(super) fn of_path(path: &str) -> Self {
        if path.contains("/oauth2/v2.0/") {
            Self::V2
        } else {
            Self::V1
        }
    }

    pub(super) fn audience_parameter(self) -> &'static str {
        match self {
            Self::V1 => "resource",
            Self::V2 => "scope",
        }
    }
}

// === impl SimulatedTokenError ===

impl SimulatedTokenError {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        code: u32,
        text: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error: error.into(),
            code,
            text: text.into(),
        }
    }

    pub(super) fn invalid_request(code: u32, text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", code, text)
    }

    pub(super) fn invalid_grant(code: u32, text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", code, text)
    }

    pub(super) fn invalid_client(code: u32, text: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", code, text)
    }

    pub(super) fn missing_parameter(name: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        Self::invalid_request(900_144, text)
    }

    pub(super) fn unsupported_grant_type(grant_type: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, "unsupported_grant_type", 70_003, text)
    }

    pub(super) fn description(&self) -> String {
        format!("AADSTS{}: {}", self.code, self.text)
    }

    pub(super) fn into_reply(self, head: &Parts, now: Timestamp) -> SimulatedReply {
        let sent_id = head.headers.get("client-request-id");
        let correlation_id = sent_id
            .and_then(|id| id.to_str().ok())
            .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let body = json!({
            "error": self.error,
            "error_description": self.description(),
            "error_codes": [self.code],
            "timestamp": now.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            "trace_id": Uuid::new_v4().to_string(),
            "correlation_id": correlation_id,
        });
        SimulatedReply::json(self.status, &body)
    }
}
