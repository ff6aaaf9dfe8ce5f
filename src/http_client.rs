//! The HTTP client of this process: what every request has in common, and how a reply is read.
//!
//! No client follows redirects, since a credential is for one host. None uses the proxies of the
//! environment: only the configuration says which servers are called. None retries by itself.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::InvalidHeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    clock::{SharedClock, with_deadline},
    offload,
    resilience::byte_budget::{MemoryLimitError, MemoryShare},
    text::{error_chain, to_printable_line},
};

/// The name and version of this program, as `User-Agent` has them.
pub const USER_AGENT: &str = concat!("usage-proxy/", env!("CARGO_PKG_VERSION"));

/// The most bytes that are read of the body of an error. Error documents are small; error pages need
/// not be.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The time that the body of an error may take, so that a stalled one does not hide its status.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// A client whose deadlines are those of our clock.
#[derive(Clone, Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    clock: SharedClock,
}

/// A reply of any status.
#[derive(Debug)]
pub struct HttpReply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed. The body of an error may be cut.
    pub body: Bytes,
    /// The reason why a success has no body: there is no memory for it.
    pub unread: Option<MemoryLimitError>,
}

/// A request without a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The reply was not complete in time.
    #[error("no answer in time")]
    TimedOut,
    /// There was no connection, or it broke, perhaps within the body. The cause is for the log.
    #[error("{0}")]
    Connection(String),
    /// The body is not what its content coding says.
    #[error("{0}")]
    Undecodable(String),
}

/// A body that is being read, in blocks. A buffer that grows as one takes twice its size and more
/// whenever it is copied to a larger one.
#[derive(Debug, Default)]
struct BodyBlocks(Vec<Vec<u8>>);

/// Returns a builder with the settings that all clients share.
pub fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
}

/// Returns the value of `Authorization` for a bearer token, marked sensitive.
///
/// # Errors
///
/// If the token has characters that a header cannot hold.
pub fn bearer(token: &SecretString) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a whole body, if `memory` has room for it.
///
/// # Errors
///
/// The inner error is a body that is too large, the outer one a connection that broke.
pub async fn read_body(
    response: &mut reqwest::Response,
    memory: &mut MemoryShare,
) -> reqwest::Result<Result<Bytes, MemoryLimitError>> {
    let mut body = BodyBlocks::default();
    while let Some(chunk) = response.chunk().await? {
        if let Err(full) = memory.acquire(chunk.len()) {
            return Ok(Err(full));
        }
        body.push(&chunk);
    }
    Ok(Ok(body.join().await))
}

// === impl HttpClient ===

impl HttpClient {
    /// Builds a client from [`builder`].
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up, for example because there are no CA certificates.
    pub fn build(http: reqwest::ClientBuilder, clock: SharedClock) -> reqwest::Result<Self> {
        Ok(Self {
            http: http.build()?,
            clock,
        })
    }

    /// The clock of the deadlines.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Sends a request and reads the reply. The body of a success takes its bytes from `memory`.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]. A reply of any status is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the exchange, and closes its connection.
    pub async fn exchange(
        &self,
        request: reqwest::Request,
        memory: &mut MemoryShare,
        deadline: Instant,
    ) -> Result<HttpReply, ExchangeError> {
        with_deadline(
            &self.clock,
            deadline,
            self.exchange_untimed(request, memory),
        )
        .await
        .unwrap_or(Err(ExchangeError::TimedOut))
    }

    async fn exchange_untimed(
        &self,
        request: reqwest::Request,
        memory: &mut MemoryShare,
    ) -> Result<HttpReply, ExchangeError> {
        let mut response = self.http.execute(request).await?;
        let status = response.status();
        let (body, unread) = if status.is_success() {
            match read_body(&mut response, memory).await? {
                Ok(body) => (body, None),
                Err(full) => (Bytes::new(), Some(full)),
            }
        } else {
            let deadline = self.clock.now() + ERROR_BODY_TIMEOUT;
            let mut body = Vec::new();
            let reading = read_error_body(&mut response, &mut body);
            with_deadline(&self.clock, deadline, reading).await;
            (body.into(), None)
        };
        Ok(HttpReply {
            status,
            headers: std::mem::take(response.headers_mut()),
            body,
            unread,
        })
    }
}

/// Reads the start of a body. It may break off or stall: the status says enough.
async fn read_error_body(response: &mut reqwest::Response, body: &mut Vec<u8>) {
    while body.len() < MAX_ERROR_BODY
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_ERROR_BODY);
}

// === impl BodyBlocks ===

impl BodyBlocks {
    const BLOCK_BYTES: usize = 64 * 1024;

    fn push(&mut self, chunk: &[u8]) {
        for part in chunk.chunks(Self::BLOCK_BYTES) {
            match self.0.last_mut() {
                Some(last) if last.len() + part.len() <= Self::BLOCK_BYTES => {
                    last.extend_from_slice(part);
                }
                None => self.0.push(part.to_vec()),
                Some(_) => {
                    let mut block = Vec::with_capacity(Self::BLOCK_BYTES);
                    block.extend_from_slice(part);
                    self.0.push(block);
                }
            }
        }
    }

    /// Joins the blocks. Each is freed as soon as it is copied.
    ///
    /// The allocator keeps a large buffer for the thread that allocated it, also after another has freed it.
    /// That must be no thread of the runtime, which never ends.
    async fn join(mut self) -> Bytes {
        if let [_] = self.0[..] {
            return self.0.pop().unwrap_or_default().into();
        }
        let bytes = self.0.iter().map(Vec::len).sum();
        let join = move || {
            let mut body = Vec::with_capacity(bytes);
            for block in self.0 {
                body.extend_from_slice(&block);
            }
            body.into()
        };
        offload::run_cpu_bound(bytes, join).await
    }
}

// === impl ExchangeError ===

impl ExchangeError {
    /// The stable name in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Connection(_) => "connection",
            Self::Undecodable(_) => "undecodable",
        }
    }
}

impl From<reqwest::Error> for ExchangeError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let cause = to_printable_line(&error_chain(&error), 500);
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_decode() && !is_broken_connection(&error) {
            Self::Undecodable(cause)
        } else {
            Self::Connection(cause)
        }
    }
}

/// Returns whether the connection is to blame: reqwest calls that a decoding error too.
fn is_broken_connection(error: &(dyn Error + 'static)) -> bool {
    // Dereferenced in full: a reference to an error is an error too, and has a shorter life.
    std::iter::successors(Some(error), |error| (**error).source())
        .any(|error| error.is::<hyper::Error>())
}
