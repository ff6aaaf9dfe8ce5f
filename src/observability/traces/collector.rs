//! One export over OTLP/HTTP with protobuf.
//!
//! See [the protocol](https://opentelemetry.io/docs/specs/otlp/#otlphttp).

use std::{error::Error, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use url::Url;

use super::headers::{self, HeadersError};
use crate::{clock::SharedClock, config::TracingConfig, offload, printable::to_printable_line};

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest export, up to the last byte of its answer, as OpenTelemetry has it.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Sends spans to the collector.
///
/// It follows no redirects, because credentials are for one host. It uses no proxies of the
/// environment and none of reqwest's retries. Its requests have no spans, which would be exported in
/// turn.
#[derive(Debug)]
pub(super) struct Collector {
    http: reqwest::Client,
    url: Url,
    headers_file: Option<PathBuf>,
    clock: SharedClock,
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("no answer within {} seconds", EXPORT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Connection(String),
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
        let http = reqwest::Client::builder()
            .user_agent(concat!("usage-proxy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(Self {
            http,
            url: config.traces_url(),
            headers_file: config.headers_file.clone(),
            clock,
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
        let ends = self.clock.now() + EXPORT_TIMEOUT;
        tokio::select! {
            biased;
            sent = self.exchange(body) => sent,
            () = self.clock.sleep_until(ends) => Err(ExportError::TimedOut),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<usize, ExportError> {
        let request = self
            .http
            .post(self.url.clone())
            .headers(self.headers().await?)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(body);
        let mut response = request.send().await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(ExportError::Status {
                status,
                retry_after: response.headers().get(RETRY_AFTER).and_then(seconds),
            });
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            let room = MAX_ANSWER_BYTES.saturating_sub(answer.len());
            answer.extend(chunk.into_iter().take(room));
        }
        Ok(rejected(&answer))
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
            Self::TimedOut | Self::Connection(_) | Self::Headers(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    /// The shortest pause before the next attempt.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::TimedOut | Self::Connection(_) | Self::Headers(_) => Duration::ZERO,
        }
    }
}

impl From<reqwest::Error> for ExportError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let error = error.without_url();
        let first: &dyn Error = &error;
        // Dereferenced in full: a reference to an error is an error too, and has a shorter life.
        let chain = std::iter::successors(Some(first), |error| (**error).source());
        let causes: Vec<_> = chain.map(ToString::to_string).collect();
        Self::Connection(to_printable_line(&causes.join(": "), 500))
    }
}
