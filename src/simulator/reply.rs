//! An answer in memory before it is sent, so that faults can still change it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::body::Frame;
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
            BodyDelivery::Truncated => Body::new(TruncatedBody::new(&self.body)),
        };
        (self.status, self.headers, body).into_response()
    }
}

/// A body that ends too early.
#[derive(Debug)]
enum TruncatedBody {
    Sending(Bytes),
    /// The first half is still on its way: an error now would overtake it.
    Flushing,
    Aborted,
}

// === impl TruncatedBody ===

impl TruncatedBody {
    fn new(body: &Bytes) -> Self {
        Self::Sending(body.slice(..body.len() / 2))
    }
}

impl hyper::body::Body for TruncatedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Sending(half) => {
                let half = std::mem::take(half);
                *self = Self::Flushing;
                Poll::Ready(Some(Ok(Frame::data(half))))
            }
            Self::Flushing => {
                *self = Self::Aborted;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Aborted => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }
}
