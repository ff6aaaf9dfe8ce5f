//! One HTTP exchange: a request sent, an answer read whole, within a time and a size.

use std::{error::Error, fmt, future::Future, pin::Pin, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    observability::traces::{KeyValue, Tracer, semconv},
    printable::{error_chain, to_printable_line},
    resilience::memory_pool::{MemoryLimitError, MemoryShare},
};

/// Bytes of an error's body that are read; error documents are small, error pages need not be.
const LONGEST_ERROR_BODY: usize = 64 * 1024;

/// Takes a request to where it is answered.
pub(super) trait HttpExchange: fmt::Debug + Send + Sync {
    /// Sends `request` and reads the answer; the body of a success takes its bytes from `memory`.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]; a status of any kind is an answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the exchange, and its connection where it was under way.
    fn exchange<'a>(
        &'a self,
        request: reqwest::Request,
        memory: &'a mut MemoryShare,
        ends: Instant,
    ) -> HttpExchangeFuture<'a>;
}

/// What [`HttpExchange::exchange`] returns.
pub(super) type HttpExchangeFuture<'a> =
    Pin<Box<dyn Future<Output = Result<UpstreamReply, ExchangeError>> + Send + 'a>>;

/// The one HTTP client of the process, for Partner Center and the token endpoint.
///
/// Redirects are not followed, since a bearer token belongs to one host. Proxies are not taken from
/// the environment: what the service talks to stands in its configuration alone. reqwest's own
/// retries are off: every attempt is ours to count.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    http: reqwest::Client,
    clock: SharedClock,
    /// For requests that are part of no call; `None` where nothing is traced.
    tracer: Option<Tracer>,
}

/// An answer, read as far as allowed.
#[derive(Debug)]
pub(super) struct UpstreamReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Decompressed. That of an error may be cut.
    pub(super) body: Bytes,
    /// Why there is no body, where a success has one that cannot be read whole.
    pub(super) unread: Option<MemoryLimitError>,
}

/// An exchange that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// Not ended in time.
    TimedOut,
    /// No connection, or one that broke, in mid-body too; the cause is for the log.
    Connection(String),
    /// The body's compression is broken.
    Undecodable(String),
}

/// A body that is being read, in blocks: a buffer that grows as one would take twice its size and more
/// whenever it is copied to a larger one.
#[derive(Debug, Default)]
struct BodyBlocks(Vec<Vec<u8>>);

/// The time set for some work has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeadlinePassed;

// === impl HttpClient ===

impl HttpClient {
    /// # Errors
    ///
    /// When TLS cannot be set up, for want of CA certificates for example.
    pub(super) fn build(
        config: &UpstreamConfig,
        clock: SharedClock,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("usage-proxy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(config.max_concurrency.get())
            .gzip(true)
            .build()?;
        Ok(Self {
            http,
            clock,
            tracer: None,
        })
    }

    /// The same, with traces where there are to be any.
    pub(super) fn traced(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    async fn exchange_untimed(
        &self,
        request: reqwest::Request,
        memory: &mut MemoryShare,
    ) -> Result<UpstreamReply, ExchangeError> {
        let mut response = self.http.execute(request).await?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let (body, unread) = if status.is_success() {
            match read_body(&mut response, memory).await? {
                Ok(body) => (body, None),
                Err(refusal) => (Bytes::new(), Some(refusal)),
            }
        } else {
            // The status says enough, even where its explanation breaks off.
            (
                read_error_body(&mut response).await.unwrap_or_default(),
                None,
            )
        };
        Ok(UpstreamReply {
            status,
            headers,
            body,
            unread,
        })
    }
}

impl HttpExchange for HttpClient {
    fn exchange<'a>(
        &'a self,
        request: reqwest::Request,
        memory: &'a mut MemoryShare,
        ends: Instant,
    ) -> HttpExchangeFuture<'a> {
        Box::pin(async move {
            before(&self.clock, ends, self.exchange_untimed(request, memory))
                .await
                .unwrap_or(Err(ExchangeError::TimedOut))
        })
    }
}

/// Reads a body whole, or none of it.
async fn read_body(
    response: &mut reqwest::Response,
    memory: &mut MemoryShare,
) -> Result<Result<Bytes, MemoryLimitError>, ExchangeError> {
    let mut body = BodyBlocks::default();
    while let Some(chunk) = response.chunk().await? {
        if let Err(refusal) = memory.acquire(chunk.len()) {
            return Ok(Err(refusal));
        }
        body.push(&chunk);
    }
    Ok(Ok(body.join()))
}

async fn read_error_body(response: &mut reqwest::Response) -> Result<Bytes, ExchangeError> {
    let mut body = Vec::new();
    while let Some(mut chunk) = response.chunk().await? {
        chunk.truncate(LONGEST_ERROR_BODY - body.len());
        body.extend_from_slice(&chunk);
        if body.len() == LONGEST_ERROR_BODY {
            break;
        }
    }
    Ok(body.into())
}

/// Runs `work` until it is done or `deadline` has come.
///
/// # Errors
///
/// [`DeadlinePassed`], and `work` is dropped.
pub(super) async fn before<T>(
    clock: &SharedClock,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Result<T, DeadlinePassed> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = clock.sleep_until(deadline) => Err(DeadlinePassed),
    }
}

// === impl BodyBlocks ===

impl BodyBlocks {
    const BLOCK: usize = 256 * 1024;

    fn push(&mut self, chunk: &[u8]) {
        match self.0.last_mut() {
            Some(last) if last.len() + chunk.len() <= Self::BLOCK => last.extend_from_slice(chunk),
            None => self.0.push(chunk.to_vec()),
            Some(_) => {
                let mut block = Vec::with_capacity(Self::BLOCK.max(chunk.len()));
                block.extend_from_slice(chunk);
                self.0.push(block);
            }
        }
    }

    /// The body in one piece. Each block is freed as soon as it is copied.
    fn join(mut self) -> Bytes {
        if let [_] = self.0[..] {
            return self.0.pop().unwrap_or_default().into();
        }
        let mut body = Vec::with_capacity(self.0.iter().map(Vec::len).sum());
        for block in self.0 {
            body.extend_from_slice(&block);
        }
        body.into()
    }
}

// === impl ExchangeError ===

impl ExchangeError {
    /// Stable name for traces.
    pub(super) const fn as_str(&self) -> &'static str {
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
        } else if error.is_decode() && !broke_off(&error) {
            Self::Undecodable(cause)
        } else {
            Self::Connection(cause)
        }
    }
}

/// Whether the transport is to blame: reqwest says "decode" for a broken connection as well.
fn broke_off(error: &(dyn Error + 'static)) -> bool {
    // Dereferenced in full: a reference to an error is an error too, and has a shorter life.
    std::iter::successors(Some(error), |error| (**error).source())
        .any(|error| error.is::<hyper::Error>())
}

/// Returns the span attributes of a request: its method and address, without query or credentials.
pub(super) fn request_attributes(method: &Method, url: &Url) -> impl Iterator<Item = KeyValue> {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().map(i64::from);
    [
        KeyValue::new(semconv::HTTP_REQUEST_METHOD, method.to_string()),
        KeyValue::new(semconv::URL_FULL, String::from(bare)),
        KeyValue::new(semconv::SERVER_ADDRESS, host),
    ]
    .into_iter()
    .chain(port.map(|port| KeyValue::new(semconv::SERVER_PORT, port)))
}
