//! The handlers of a listener's requests.

use std::{convert::Infallible, future::Future};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::peer::Peer;

/// Answers the requests of a listener.
pub trait RequestHandler: Clone + Send + Sync + 'static {
    /// The bodies of its responses.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static;

    /// Answers one request.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send + use<Self>;
}

impl<H, F, B> RequestHandler for H
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Body = B;

    fn handle(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<B>, Infallible>> + Send + use<H, F, B> {
        self(request, peer)
    }
}

/// Returns a handler that passes every request to an axum router, with its [`Peer`] among the
/// extensions.
pub fn router_handler(router: Router) -> impl RequestHandler {
    move |mut request: Request<Incoming>, peer: Peer| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(Body::new))
    }
}
