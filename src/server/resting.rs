//! HTTP/1 connections that give hyper's buffers back while they are idle.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::{self, Builder, Connection},
    service::HttpService,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::Guarded;

/// An HTTP/1 connection. Between requests hyper keeps two buffers of 8 KiB and the place of the
/// future that answers; a connection that rests keeps its socket alone.
pub(super) struct RestingConnection<S, V: HttpService<Incoming>> {
    http: Builder,
    /// Always there but while it changes.
    state: Option<State<S, V>>,
}

enum State<S, V: HttpService<Incoming>> {
    Serving(Box<Connection<TokioIo<Guarded<S>>, V>>),
    Resting { io: TokioIo<Guarded<S>>, service: V },
}

// === impl RestingConnection ===

impl<S, V, B> RestingConnection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: HttpService<Incoming, ResBody = B>,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(http: Builder, stream: Guarded<S>, service: V) -> Self {
        let serving = http.serve_connection(TokioIo::new(stream), service);
        Self {
            http,
            state: Some(State::Serving(Box::new(serving))),
        }
    }

    /// Gives the buffers back until something comes. Only for a connection that is idle and whose
    /// heads are judged: hyper then has read nothing that it has not answered.
    pub(super) fn rest(&mut self) {
        self.state = match self.state.take() {
            Some(State::Serving(serving)) => {
                let http1::Parts { io, service, .. } = serving.into_parts();
                Some(State::Resting { io, service })
            }
            resting => resting,
        };
    }

    /// Ends it after what is under way.
    pub(super) fn end(&mut self) {
        if let Some(serving) = self.serving() {
            Pin::new(serving).graceful_shutdown();
        }
    }

    fn serving(&mut self) -> Option<&mut Connection<TokioIo<Guarded<S>>, V>> {
        if let Some(State::Resting { .. }) = self.state
            && let Some(State::Resting { io, service }) = self.state.take()
        {
            let serving = self.http.serve_connection(io, service);
            self.state = Some(State::Serving(Box::new(serving)));
        }
        match &mut self.state {
            Some(State::Serving(serving)) => Some(&mut **serving),
            _ => None,
        }
    }
}

impl<S, V, B> Future for RestingConnection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: HttpService<Incoming, ResBody = B> + Unpin,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(State::Resting { io, .. }) = &mut self.state {
            ready!(io.inner_mut().poll_begin(cx));
        }
        match self.serving() {
            Some(serving) => Pin::new(serving).poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
