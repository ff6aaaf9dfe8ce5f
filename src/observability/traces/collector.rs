//! One export over OTLP/HTTP: protobuf sent, a status read.
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

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One export, to the last byte of its answer; OpenTelemetry's own default.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read; it says hardly anything.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where spans are sent.
///
/// Redirects are not followed, since credentials belong to one host. Proxies are not taken from the
/// environment, and reqwest's own retries are off. Its requests bear no trace context and have no
/// spans: they would beget one another.
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
    /// When TLS cannot be set up, for want of CA certificates for example.
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

    /// Sends an `ExportTraceServiceRequest`, once. Returns how many of its spans the collector would
    /// not have.
    ///
    /// # Errors
    ///
    /// [`ExportError`] says whether sending it again may help.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the exchange; the collector may have taken the spans.
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
            let room = LONGEST_ANSWER.saturating_sub(answer.len());
            answer.extend(chunk.into_iter().take(room));
        }
        Ok(rejected(&answer))
    }

    /// Read each time: whoever changes a key replaces the file.
    async fn headers(&self) -> Result<HeaderMap, ExportError> {
        let Some(file) = self.headers_file.clone() else {
            return Ok(HeaderMap::new());
        };
        offload::spawn_blocking(move || headers::read(&file))
            .await
            .map_err(ExportError::Headers)
    }
}

/// Spans that a collector took the export without. One that answers something else took them all.
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
    /// Whether the same export may succeed later: as the protocol says, and where nobody answered.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::TimedOut | Self::Connection(_) | Self::Headers(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    /// The least pause that was asked for.
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
