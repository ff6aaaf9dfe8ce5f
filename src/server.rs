//! The edge: connections are accepted, kept within limits, and drained at the end.
//!
//! Not `axum::serve`, which sets no timer: there, half a request head stays open for ever. What
//! hyper lacks stands in files of its own. `guard` lets only heads through to it that `head` finds
//! no fault with, and `refusal` answers the others; `watchdog` ends what takes too long, by what
//! `activity` tells of a connection; `drain` is how it all ends.

mod activity;
mod answer;
mod connection;
mod drain;
mod guard;
mod head;
mod limits;
mod metrics;
mod refusal;
mod resting;
mod streams;
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
    connection::{Admission, Connection, Protocol},
    drain::{Drain, Drains},
    metrics::CloseReason,
    tls::Tls,
};
pub use self::{limits::Limits, metrics::ConnectionMetrics};
use crate::peer::Peer;

/// What a listener takes from its clients.
#[derive(Clone, Debug)]
pub struct Edge {
    /// How much, and for how long.
    pub limits: Limits,
    /// Which requests.
    pub heads: Heads,
    /// Whether HTTP/2 is spoken without TLS, by clients that know beforehand (RFC 9113 §3.3).
    pub http2_cleartext: bool,
    /// The TLS that is spoken first, if any. Then it agrees upon the version of HTTP (ALPN).
    pub tls: Option<Arc<Tls>>,
    /// What is counted.
    pub metrics: ConnectionMetrics,
}

/// Which requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// Those that every reader of HTTP reads alike, and no bodies.
    Judged,
    /// Whatever hyper reads, and bodies.
    AsTheyCome,
}

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
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
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How many connections too many are told so at a time; the others are closed without a word.
const TOLD_AT_ONCE: usize = 64;

/// Serves connections until `stop` completes, then lets requests that are under way finish for up
/// to `drain_timeout`. Returns how many connections it had to cut off then.
///
/// # Cancel safety
///
/// Dropping the future stops accepting and cuts off every connection.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    edge: Edge,
    handler: H,
    stop: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> usize {
    limit_unsent(&listener);
    let mut house = House::new(edge, handler);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = house.connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => house.take_in(stream, peer),
            Err(error) => refused(error).await,
        }
    }
    drop(listener);
    house.empty(drain_timeout).await
}

/// Has the system keep little of what a client does not take. So a reader that is only slow is seen to
/// take something now and then, and one that stalls pins little of the system's memory.
fn limit_unsent(listener: &TcpListener) {
    /// In bytes, for each connection: they inherit it.
    const UNSENT: u32 = 32 * 1024;
    if let Err(error) = SockRef::from(listener).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "the system does not limit what it keeps of unsent answers");
    }
}

/// A handler that hands every request to an axum router, with its [`Peer`] among the extensions.
pub fn routed(router: Router) -> impl Handler {
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

impl Edge {
    /// With the limits of a listener whose clients are ours, and counted where nobody looks.
    pub fn new(heads: Heads) -> Self {
        Self {
            limits: Limits::default(),
            heads,
            http2_cleartext: false,
            tls: None,
            metrics: ConnectionMetrics::unseen(),
        }
    }
}

/// A listener's connections.
struct House<H> {
    edge: Edge,
    handler: H,
    drain: Arc<Drain>,
    connections: JoinSet<()>,
    room: Arc<Semaphore>,
    told: Arc<Semaphore>,
}

// === impl House ===

impl<H: Handler> House<H> {
    fn new(edge: Edge, handler: H) -> Self {
        let room = edge.limits.max_connections.get();
        Self {
            edge,
            handler,
            drain: Arc::default(),
            connections: JoinSet::new(),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            told: Arc::new(Semaphore::new(TOLD_AT_ONCE)),
        }
    }

    /// Serves a connection, or tells it that there is no room.
    fn take_in(&mut self, stream: TcpStream, address: SocketAddr) {
        // The loop comes to it only when no connection waits to be accepted.
        self.forget_ended();
        let limits = self.edge.limits;
        let (admission, limits, place) = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => (Admission::Granted, limits, place),
            // With TLS, saying so would cost as much as serving.
            Err(_full) if self.edge.tls.is_some() => return self.turn_away(),
            Err(_full) => match Arc::clone(&self.told).try_acquire_owned() {
                Ok(place) => (Admission::Refused, limits.of_the_refused(), place),
                Err(_full) => return self.turn_away(),
            },
        };
        let connection = Connection {
            handler: self.handler.clone(),
            peer: address.into(),
            limits,
            heads: self.edge.heads,
            admission,
            drains: Drains {
                listener: Arc::clone(&self.drain),
                certificate: None,
            },
            counted: self.edge.metrics.open(),
        };
        let protocol = if self.edge.http2_cleartext {
            Protocol::Either
        } else {
            Protocol::Http1
        };
        let tls = self.edge.tls.clone();
        self.connections.spawn(async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was gone before it was served");
                return connection.counted.close(CloseReason::Error);
            }
            match tls {
                // Boxed, since every connection is as large as the largest kind.
                Some(tls) => Box::pin(connection.serve_tls(stream, &tls)).await,
                None => connection.serve(stream, protocol).await,
            }
        });
    }

    fn forget_ended(&mut self) {
        while self.connections.try_join_next().is_some() {}
    }

    fn turn_away(&self) {
        self.edge.metrics.closed(CloseReason::Refused);
    }

    /// Waits until every connection has ended, and cuts off those that have not by then.
    async fn empty(mut self, drain_timeout: Duration) -> usize {
        self.drain.begin();
        let ended = tokio::time::timeout(drain_timeout, async {
            let grace = DRAIN_GRACE.min(drain_timeout / 2);
            if tokio::time::timeout(grace, ended(&mut self.connections))
                .await
                .is_err()
            {
                self.drain.close();
                ended(&mut self.connections).await;
            }
        });
        if ended.await.is_ok() {
            return 0;
        }
        self.forget_ended();
        let left = self.connections.len();
        self.connections.shutdown().await;
        left
    }
}

async fn ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

// === impl Handler ===

impl<H, F, B> Handler for H
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
async fn refused(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(%error, "no connection could be accepted; trying again shortly");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
