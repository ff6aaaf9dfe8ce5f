//! An answer in memory before it is sent, so that faults can still change it.

use std::io;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Serialize;
use serde_json::json;

const JSON_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A status, headers and a body.
#[derive(Debug)]
pub(super) struct SimulatedReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) delivery: BodyDelivery,
}

/// The part of the body that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyDelivery {
    Complete,
    /// Announces the whole length, sends half of it, and closes the connection.
    Truncated,
}

// === impl SimulatedReply ===

impl SimulatedReply {
    /// Creates an answer from a body that is sent as JSON unchecked.
    pub(super) fn raw_json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, JSON_CONTENT_TYPE)]),
            body: body.into(),
            delivery: BodyDelivery::Complete,
        }
    }

    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self::raw_json(status, body),
            Err(error) => Self::raw_json(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Creates an error answer in Partner Center's format.
    pub(super) fn error(status: StatusCode, code: &str, description: &str) -> Self {
        let body = json!({
            "code": code,
            "description": description,
            "data": [],
            "source": "PartnerFD",
        });
        Self::json(status, &body)
    }

    pub(super) fn with_retry_after(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with_header("retry-after", value),
            None => self,
        }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl IntoResponse for SimulatedReply {
    fn into_response(mut self) -> Response {
        self.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let body = match self.delivery {
            BodyDelivery::Complete => Body::from(self.body),
            BodyDelivery::Truncated => truncated(&self.body),
        };
        (self.status, self.headers, body).into_response()
    }
}

/// Returns the first half of a body, and then an error.
fn truncated(body: &Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    // An immediate error would overtake the first half.
    let error = async {
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    };
    let half = stream::iter([Ok(half)]);
    Body::from_stream(half.chain(stream::once(error)))
}
