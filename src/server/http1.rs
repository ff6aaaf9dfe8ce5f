//! HTTP/1 connections that free hyper's buffers while they are idle.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::HttpService,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::socket::ClientSocket;

/// An HTTP/1 connection. Between requests hyper keeps two buffers of 8 KiB and room for the future that
/// answers; an idle connection here keeps its socket alone.
pub(super) struct Http1Connection<S, V: HttpService<Incoming>> {
    http: Builder,
    /// Absent only while it changes.
    state: Option<Http1State<S, V>>,
}

enum Http1State<S, V: HttpService<Incoming>> {
    Active(Box<Connection<TokioIo<ClientSocket<S>>, V>>),
    Idle {
        io: TokioIo<ClientSocket<S>>,
        service: V,
    },
}

// === impl Http1Connection ===

impl<S, V, B> Http1Connection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: HttpService<Incoming, ResBody = B>,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(http: Builder, stream: ClientSocket<S>, service: V) -> Self {
        let serving = http.serve_connection(TokioIo::new(stream), service);
        Self {
            http,
            state: Some(Http1State::Active(Box::new(serving))),
        }
    }

    /// Frees the buffers until something comes. Only for a connection that is idle.
    pub(super) fn release_buffers(&mut self) {
        self.state = match self.state.take() {
            Some(Http1State::Active(serving)) => {
                let parts = serving.into_parts();
                let (mut io, service) = (parts.io, parts.service);
                io.inner_mut().unread(parts.read_buf);
                Some(Http1State::Idle { io, service })
            }
            resting => resting,
        };
    }

    /// Closes a connection that hyper gave up, and reads on until the client closes it too.
    pub(super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.release_buffers();
        if let Some(Http1State::Idle { io, .. }) = &mut self.state {
            // The connection is over in any case.
            let _closed = ready!(Pin::new(io.inner_mut()).poll_shutdown(cx));
        }
        Poll::Ready(())
    }

    /// Ends it after what is under way.
    pub(super) fn shut_down_gracefully(&mut self) {
        if let Some(serving) = self.active_connection() {
            Pin::new(serving).graceful_shutdown();
        }
    }

    fn active_connection(&mut self) -> Option<&mut Connection<TokioIo<ClientSocket<S>>, V>> {
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
            ready!(io.inner_mut().poll_readable(cx));
        }
        match self.active_connection() {
            Some(serving) => Pin::new(serving).poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
