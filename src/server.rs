//! Listeners: they accept connections, limit them, and drain them at the end.
//!
//! `axum::serve` has no timeouts, so half a request would keep its connection open for ever. Here hyper
//! parses HTTP and limits its size; `request_check` rejects requests that hyper accepts and we do not;
//! `watchdog` closes a connection whose `activity` takes too long; `drain` ends all connections.

mod activity;
mod bind;
mod connection;
mod drain;
mod handler;
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

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

pub use self::{
    bind::{BindError, BoundSocket, bind_failure_advice},
    handler::{RequestHandler, router_handler},
    limits::ConnectionLimits,
    metrics::ConnectionMetrics,
    request_check::RequestValidation,
};
use self::{
    connection::{ClientConnection, ConnectionAdmission, HttpProtocol},
    drain::{DrainSignal, DrainSignals},
    metrics::CloseReason,
    tls::ListenerTls,
};

/// Settings of a listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Limits of its connections.
    pub limits: ConnectionLimits,
    /// The requests that it accepts.
    pub validation: RequestValidation,
    /// Accepts HTTP/2 without TLS from clients that start with it (RFC 9113 §3.3).
    pub http2_cleartext: bool,
    /// TLS, which also selects the version of HTTP (ALPN); `None` for plain HTTP.
    pub tls: Option<Arc<ListenerTls>>,
    /// Counts its connections.
    pub metrics: ConnectionMetrics,
}

/// The pause after a failed `accept`, so that the loop does not spin while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time for which idle connections stay open during shutdown: a client that is about to use one
/// still gets its response, with `Connection: close`.
const IDLE_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The number of connections over the limit that get a problem document at a time. Others are closed
/// without a response.
const MAX_CONCURRENT_REJECTIONS: usize = 64;

/// Serves connections until `stop` completes, then gives running requests up to `drain_timeout` to
/// finish. Returns the number of connections that it had to abort.
///
/// # Cancel safety
///
/// Dropping the future stops accepting and aborts every connection.
pub async fn serve<H: RequestHandler>(
    listener: TcpListener,
    config: ListenerConfig,
    handler: H,
    stop: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> usize {
    limit_unsent_bytes(&listener);
    let mut pool = ConnectionPool::new(config, handler);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = pool.connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => pool.accept(stream, peer),
            Err(error) => handle_accept_error(error).await,
        }
    }
    drop(listener);
    pool.drain(drain_timeout).await
}

/// Limits the data that the system buffers for a slow client. A client that reads slowly then shows
/// progress from time to time, and one that stalls uses little memory of the system.
fn limit_unsent_bytes(listener: &TcpListener) {
    /// Bytes for each connection, which inherits the option from the listener.
    const MAX_UNSENT_BYTES: u32 = 32 * 1024;
    if let Err(error) = SockRef::from(listener).set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
        tracing::debug!(%error, "cannot limit the unsent bytes of a connection");
    }
}

// === impl ListenerConfig ===

impl ListenerConfig {
    /// Creates the settings of a listener for few and trusted clients, without exported metrics.
    pub fn new(validation: RequestValidation) -> Self {
        Self {
            limits: ConnectionLimits::default(),
            validation,
            http2_cleartext: false,
            tls: None,
            metrics: ConnectionMetrics::unregistered(),
        }
    }
}

/// The open connections of a listener.
struct ConnectionPool<H> {
    config: ListenerConfig,
    handler: H,
    drain: Arc<DrainSignal>,
    connections: JoinSet<()>,
    connection_permits: Arc<Semaphore>,
    rejection_permits: Arc<Semaphore>,
}

// === impl ConnectionPool ===

impl<H: RequestHandler> ConnectionPool<H> {
    fn new(config: ListenerConfig, handler: H) -> Self {
        let room = config.limits.max_connections.get();
        Self {
            config,
            handler,
            drain: Arc::default(),
            connections: JoinSet::new(),
            connection_permits: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            rejection_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS)),
        }
    }

    /// Serves a connection, or rejects it if too many are open.
    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        // The accept loop does this only while no connection waits.
        self.reap_finished();
        let limits = self.config.limits;
        let (admission, limits, permit) =
            match Arc::clone(&self.connection_permits).try_acquire_owned() {
                Ok(permit) => (ConnectionAdmission::Accepted, limits, permit),
                // A response over TLS would cost as much as serving it.
                Err(_full) if self.config.tls.is_some() => return self.reject(),
                Err(_full) => match Arc::clone(&self.rejection_permits).try_acquire_owned() {
                    Ok(permit) => (ConnectionAdmission::Rejected, limits.for_rejected(), permit),
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
            let _permit = permit;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was closed before it was served");
                return connection.guard.close(CloseReason::Error);
            }
            match tls {
                // Boxed, because the task is as large as its largest branch.
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

    /// Waits until every connection has ended, and aborts those that take too long.
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

/// Ignores a connection that the client closed before we accepted it. Logs any other error.
async fn handle_accept_error(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(%error, "cannot accept connections; retrying");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
