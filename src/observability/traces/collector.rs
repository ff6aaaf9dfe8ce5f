//! One export over OTLP/HTTP with protobuf.
//!
//! See [the protocol](https://opentelemetry.io/docs/specs/otlp/#otlphttp).

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::Request;
use url::Url;

use super::headers::{self, HeadersError};
use crate::{
    clock::SharedClock,
    config::TracingConfig,
    http_client::{self, ExchangeError, HttpClient},
    offload,
    resilience::byte_budget::MemoryShare,
};

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest export, up to the last byte of its answer, as OpenTelemetry has it.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Sends spans to the collector. Its requests have no spans, which would be exported in turn.
#[derive(Debug)]
pub(super) struct Collector {
    http: HttpClient,
    url: Url,
    headers_file: Option<PathBuf>,
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("status {}", .status.as_u16())]
    Status {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
    #[error("tracing.headers_file: {0}")]
    Headers(HeadersError),
}

// === impl Collector ===

impl Collector {
    /// # Errors
    ///
    /// If TLS cannot be set up, for example without CA certificates.
    pub(super) fn new(config: &TracingConfig, clock: SharedClock) -> Result<Self, reqwest::Error> {
        let http = http_client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(1);
        Ok(Self {
            http: HttpClient::build(http, clock)?,
            url: config.traces_url(),
            headers_file: config.headers_file.clone(),
        })
    }

    /// Sends an `ExportTraceServiceRequest` once. Returns the number of spans that the collector
    /// rejected.
    ///
    /// # Errors
    ///
    /// [`ExportError`], which tells transient failures from others.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the exchange. The collector may have accepted the spans.
    pub(super) async fn send(&self, body: Bytes) -> Result<usize, ExportError> {
        let deadline = self.http.clock().now() + EXPORT_TIMEOUT;
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = self.headers().await?;
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, protobuf);
        *request.body_mut() = Some(body.into());
        let mut memory = MemoryShare::unshared(MAX_ANSWER_BYTES);
        let reply = self.http.exchange(request, &mut memory, deadline).await?;
        if reply.status != StatusCode::OK {
            return Err(ExportError::Status {
                status: reply.status,
                retry_after: reply.headers.get(RETRY_AFTER).and_then(seconds),
            });
        }
        Ok(rejected(&reply.body))
    }

    /// Reads the headers for each export, because the file may change.
    async fn headers(&self) -> Result<HeaderMap, ExportError> {
        let Some(file) = self.headers_file.clone() else {
            return Ok(HeaderMap::new());
        };
        offload::spawn_blocking(move || headers::read(&file))
            .await
            .map_err(ExportError::Headers)
    }
}

/// Returns the number of rejected spans. An answer in another format rejects none.
fn rejected(answer: &[u8]) -> usize {
    let partial = ExportTraceServiceResponse::decode(answer)
        .ok()
        .and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| {
        usize::try_from(partial.rejected_spans).unwrap_or_default()
    })
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

// === impl ExportError ===

impl ExportError {
    /// Returns true if the same export may succeed later, as the protocol defines it.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(_) | Self::Headers(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    /// The shortest pause before the next attempt.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::Exchange(_) | Self::Headers(_) => Duration::ZERO,
        }
    }
}
