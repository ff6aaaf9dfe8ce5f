//! The accept loop: connections over hyper, with a header timeout, and drained at the end.
//!
//! Not `axum::serve`, which sets no timer: there, half a request head stays open for ever.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::peer::Peer;

/// What [`routed`] answers with.
type RouterFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// How long a client may take over the head of a request; also how long a connection may stand
/// idle between two requests.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The pause after the system could not give us a connection, so as not to spin while it is out of
/// file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` completes, then lets requests that are under way finish for up
/// to `drain_timeout`. Returns how many connections it had to cut off then.
///
/// # Cancel safety
///
/// Dropping the future stops accepting and cuts off every connection.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    handler: H,
    stop: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> usize
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(
                    stream,
                    peer.into(),
                    handler.clone(),
                    graceful.watcher(),
                ));
            }
            Err(error) => refused(error).await,
        }
    }
    drop(listener);
    if tokio::time::timeout(drain_timeout, graceful.shutdown())
        .await
        .is_ok()
    {
        return 0;
    }
    while connections.try_join_next().is_some() {}
    let left = connections.len();
    connections.shutdown().await;
    left
}

/// A handler that hands every request to an axum router, with its [`Peer`] among the extensions.
pub fn routed(
    router: Router,
) -> impl Fn(Request<Incoming>, Peer) -> RouterFuture + Clone + Send + Sync + 'static {
    move |mut request, peer| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

async fn connection<H, F, B>(stream: TcpStream, peer: Peer, handler: H, watcher: Watcher)
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let address = peer.address;
    let service = service_fn(move |request| {
        let answer = handler(request, peer.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(peer = %address, %error, "a connection ended early");
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
