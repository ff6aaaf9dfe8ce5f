//! The edge: connections are accepted, kept within limits, and drained at the end.
//!
//! `axum::serve` sets no timer: there, half a request stays open for ever. hyper parses HTTP and limits
//! its size; `request_check` rejects what hyper accepts and we do not; `watchdog` ends what takes too
//! long, by the `activity` of a connection; `drain` ends everything.

mod activity;
mod connection;
mod drain;
mod http1;
mod limits;
mod metrics;
mod request_check;
mod response_body;
mod socket;
mod stream_tracker;
#[cfg(test)]
mod tests;
pub mod tls;
mod watchdog;

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tower::ServiceExt;

use self::{
    connection::{ClientConnection, ConnectionAdmission, HttpProtocol},
    drain::{DrainSignal, DrainSignals},
    metrics::CloseReason,
    tls::ListenerTls,
};
pub use self::{limits::ConnectionLimits, metrics::ConnectionMetrics};
use crate::peer::Peer;

/// What a listener takes from its clients.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// How much, and for how long.
    pub limits: ConnectionLimits,
    /// Which requests.
    pub validation: RequestValidation,
    /// Whether HTTP/2 is spoken without TLS, by clients that know beforehand (RFC 9113 §3.3).
    pub http2_cleartext: bool,
    /// The TLS that is spoken first, if any. Then it agrees upon the version of HTTP (ALPN).
    pub tls: Option<Arc<ListenerTls>>,
    /// What is counted.
    pub metrics: ConnectionMetrics,
}

/// Which requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestValidation {
    /// Those that every reader of HTTP reads alike, and no bodies.
    Strict,
    /// Whatever hyper reads, and bodies.
    Lenient,
}

/// What answers requests.
pub trait RequestHandler: Clone + Send + Sync + 'static {
    /// The bodies of its answers.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static;

    /// Answers one request.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

/// The pause after the system could not give us a connection, so as not to spin while it is out of
/// file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections may stand idle, at our end, before they are closed: long enough for a
/// client that is about to use one to be answered and told to leave.
const IDLE_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How many connections too many are told so at a time; the others are closed without a word.
const MAX_CONCURRENT_REJECTIONS: usize = 64;

/// Serves connections until `stop` completes, then lets requests that are under way finish for up
/// to `drain_timeout`. Returns how many connections it had to cut off then.
///
/// # Cancel safety
///
/// Dropping the future stops accepting and cuts off every connection.
pub async fn serve<H: RequestHandler>(
    listener: TcpListener,
    edge: ListenerConfig,
    handler: H,
    stop: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> usize {
    limit_unsent_bytes(&listener);
    let mut house = ConnectionPool::new(edge, handler);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = house.connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => house.accept(stream, peer),
            Err(error) => handle_accept_error(error).await,
        }
    }
    drop(listener);
    house.drain(drain_timeout).await
}

/// Has the system keep little of what a client does not take. So a reader that is only slow is seen to
/// take something now and then, and one that stalls pins little of the system's memory.
fn limit_unsent_bytes(listener: &TcpListener) {
    /// In bytes, for each connection: they inherit it.
    const MAX_UNSENT_BYTES: u32 = 32 * 1024;
    if let Err(error) = SockRef::from(listener).set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
        tracing::debug!(%error, "the system does not limit what it keeps of unsent answers");
    }
}

/// A handler that hands every request to an axum router, with its [`Peer`] among the extensions.
pub fn router_handler(router: Router) -> impl RequestHandler {
    move |mut request: Request<Incoming>, peer: Peer| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}

// === impl Edge ===

impl ListenerConfig {
    /// With the limits of a listener whose clients are ours, and counted where nobody looks.
    pub fn new(heads: RequestValidation) -> Self {
        Self {
            limits: ConnectionLimits::default(),
            validation: heads,
            http2_cleartext: false,
            tls: None,
            metrics: ConnectionMetrics::unregistered(),
        }
    }
}

/// A listener's connections.
struct ConnectionPool<H> {
    config: ListenerConfig,
    handler: H,
    drain: Arc<DrainSignal>,
    connections: JoinSet<()>,
    connection_permits: Arc<Semaphore>,
    rejection_permits: Arc<Semaphore>,
}

// === impl House ===

impl<H: RequestHandler> ConnectionPool<H> {
    fn new(edge: ListenerConfig, handler: H) -> Self {
        let room = edge.limits.max_connections.get();
        Self {
            config: edge,
            handler,
            drain: Arc::default(),
            connections: JoinSet::new(),
            connection_permits: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            rejection_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS)),
        }
    }

    /// Serves a connection, or tells it that there is no room.
    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        // The loop comes to it only when no connection waits to be accepted.
        self.reap_finished();
        let limits = self.config.limits;
        let (admission, limits, place) =
            match Arc::clone(&self.connection_permits).try_acquire_owned() {
                Ok(place) => (ConnectionAdmission::Accepted, limits, place),
                // With TLS, saying so would cost as much as serving.
                Err(_full) if self.config.tls.is_some() => return self.reject(),
                Err(_full) => match Arc::clone(&self.rejection_permits).try_acquire_owned() {
                    Ok(place) => (ConnectionAdmission::Rejected, limits.for_rejected(), place),
                    Err(_full) => return self.reject(),
                },
            };
        let connection = ClientConnection {
            handler: self.handler.clone(),
            peer: address.into(),
            limits,
            validation: self.config.validation,
            admission,
            drain_signals: DrainSignals {
                listener: Arc::clone(&self.drain),
                certificate: None,
            },
            guard: self.config.metrics.track(),
        };
        let protocol = if self.config.http2_cleartext {
            HttpProtocol::Detect
        } else {
            HttpProtocol::Http1
        };
        let tls = self.config.tls.clone();
        self.connections.spawn(async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was gone before it was served");
                return connection.guard.close(CloseReason::Error);
            }
            match tls {
                // Boxed, since every connection is as large as the largest kind.
                Some(tls) => Box::pin(connection.serve_tls(stream, &tls)).await,
                None => connection.serve(stream, protocol).await,
            }
        });
    }

    fn reap_finished(&mut self) {
        while self.connections.try_join_next().is_some() {}
    }

    fn reject(&self) {
        self.config.metrics.record_closed(CloseReason::Rejected);
    }

    /// Waits until every connection has ended, and cuts off those that have not by then.
    async fn drain(mut self, drain_timeout: Duration) -> usize {
        self.drain.begin();
        let ended = tokio::time::timeout(drain_timeout, async {
            let grace = IDLE_DRAIN_GRACE.min(drain_timeout / 2);
            if tokio::time::timeout(grace, join_all(&mut self.connections))
                .await
                .is_err()
            {
                self.drain.close();
                join_all(&mut self.connections).await;
            }
        });
        if ended.await.is_ok() {
            return 0;
        }
        self.reap_finished();
        let left = self.connections.len();
        self.connections.shutdown().await;
        left
    }
}

async fn join_all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

// === impl Handler ===

impl<H, F, B> RequestHandler for H
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Body = B;

    fn handle(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<B>> + Send + 'static {
        self(request, peer)
    }
}

/// A connection that went away before we took it is nobody's trouble; anything else is ours.
async fn handle_accept_error(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(%error, "no connection could be accepted; trying again shortly");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
