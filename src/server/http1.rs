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
pub(super) struct Http1Connection<S, V: HttpService<Incoming>> {
    http: Builder,
    /// Always there but while it changes.
    state: Option<Http1State<S, V>>,
}

enum Http1State<S, V: HttpService<Incoming>> {
    Active(Box<Connection<TokioIo<Guarded<S>>, V>>),
    Idle { io: TokioIo<Guarded<S>>, service: V },
}

// === impl RestingConnection ===

impl<S, V, B> Http1Connection<S, V>
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
            state: Some(Http1State::Active(Box::new(serving))),
        }
    }

    /// Gives the buffers back until something comes. Only for a connection that is idle and whose
    /// heads are judged: hyper then has read nothing that it has not answered.
    pub(super) fn release_buffers(&mut self) {
        self.state = match self.state.take() {
            Some(Http1State::Active(serving)) => {
                let http1::Parts { io, service, .. } = serving.into_parts();
                Some(Http1State::Idle { io, service })
            }
            resting => resting,
        };
    }

    /// Ends it after what is under way.
    pub(super) fn shut_down_gracefully(&mut self) {
        if let Some(serving) = self.active_connection() {
            Pin::new(serving).graceful_shutdown();
        }
    }

    fn active_connection(&mut self) -> Option<&mut Connection<TokioIo<Guarded<S>>, V>> {
        if let Some(Http1State::Idle { .. }) = self.state
            && let Some(Http1State::Idle { io, service }) = self.state.take()
        {
            let serving = self.http.serve_connection(io, service);
            self.state = Some(Http1State::Active(Box::new(serving)));
        }
        match &mut self.state {
            Some(Http1State::Active(serving)) => Some(&mut **serving),
            _ => None,
        }
    }
}

impl<S, V, B> Future for Http1Connection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: HttpService<Incoming, ResBody = B> + Unpin,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(Http1State::Idle { io, .. }) = &mut self.state {
            ready!(io.inner_mut().poll_begin(cx));
        }
        match self.active_connection() {
            Some(serving) => Pin::new(serving).poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
