//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::{Future, poll_fn, ready},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{TryFutureExt, future::Either};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use super::{
    activity::{Activity, Phase},
    drain::DrainSignals,
    handler::RequestHandler,
    http1::Http1Connection,
    limits::ConnectionLimits,
    metrics::{CloseReason, ConnectionGuard},
    request_check::{self, InvalidRequest, RequestValidation},
    response_body::{ActiveResponse, ResponseBody},
    socket::ClientSocket,
    tls::{self, ListenerTls},
    watchdog::{Watchdog, WatchdogEvent},
};
use crate::peer::Peer;

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection with everything that it needs.
#[derive(Debug)]
pub(super) struct ClientConnection<H> {
    pub(super) handler: H,
    pub(super) peer: Peer,
    pub(super) limits: ConnectionLimits,
    pub(super) validation: RequestValidation,
    pub(super) admission: ConnectionAdmission,
    pub(super) drain_signals: DrainSignals,
    pub(super) guard: ConnectionGuard,
}

/// The decision whether a connection is served, or only gets a problem document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionAdmission {
    Accepted,
    Rejected,
}

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpProtocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2, agreed upon by ALPN.
    Http2,
    /// HTTP/2 if the connection begins with its preface, else HTTP/1.
    Detect,
}

/// Answers the requests of one connection.
struct ConnectionService<H> {
    handler: H,
    peer: Peer,
    validation: RequestValidation,
    admission: ConnectionAdmission,
    drain_signals: DrainSignals,
    activity: Arc<Activity>,
    protocol: HttpProtocol,
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone)]
struct StreamExecutor(Arc<Activity>);

/// The common methods of hyper's two kinds of connections.
trait ConnectionControl: Future<Output = hyper::Result<()>> {
    /// Asks it to end after what is under way.
    fn shut_down_gracefully(self: Pin<&mut Self>);

    /// It has been idle for a while.
    fn release_buffers(self: Pin<&mut Self>) {}

    /// Closes a connection that hyper gave up, so that the client reads the responses before.
    fn poll_linger(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

// === impl ClientConnection ===

impl<H: RequestHandler> ClientConnection<H> {
    /// Serves until either side has enough.
    pub(super) async fn serve<S>(self, mut stream: S, protocol: HttpProtocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut begun = Vec::new();
        let protocol = match protocol {
            HttpProtocol::Http1 | HttpProtocol::Http2 => protocol,
            HttpProtocol::Detect => {
                let reading = detect_protocol(&mut stream, &mut begun);
                match tokio::time::timeout(self.limits.header_timeout, reading).await {
                    Ok(Ok(protocol)) => protocol,
                    Ok(Err(_broken)) => return self.guard.close(CloseReason::Error),
                    Err(_elapsed) => return self.guard.close(CloseReason::HeaderTimeout),
                }
            }
        };
        if protocol == HttpProtocol::Http2 {
            Box::pin(self.serve_http2(stream, begun)).await;
        } else {
            self.serve_http1(stream, begun).await;
        }
    }

    /// Agrees upon TLS first, then upon HTTP.
    pub(super) async fn serve_tls(mut self, stream: TcpStream, tls: &ListenerTls) {
        let handshake = tokio::time::timeout(self.limits.header_timeout, tls.accept(stream));
        let (stream, client) = match handshake.await {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer.address, %error, "no TLS was agreed upon");
                return self.guard.close(CloseReason::TlsHandshake);
            }
            Err(_elapsed) => return self.guard.close(CloseReason::TlsHandshake),
        };
        self.peer.encrypted = true;
        if let Some(client) = client {
            self.peer.certificate_name = Some(client.name);
            self.drain_signals.certificate = Some(client.trust_end);
        }
        let protocol = if tls::negotiated_http2(&stream) {
            HttpProtocol::Http2
        } else {
            HttpProtocol::Http1
        };
        self.serve(stream, protocol).await;
    }

    async fn serve_http1<S>(self, stream: S, begun: Vec<u8>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        const MAX_BUFFER: usize = 64 * 1024;
        let service = self.service(HttpProtocol::Http1);
        let activity = Arc::clone(&service.activity);
        let mut socket = ClientSocket::new(stream, begun.into(), Arc::clone(&activity));
        if self.validation == RequestValidation::Strict {
            socket = socket.with_half_close();
        }
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_BUFFER);
        let service = service_fn(move |request| Arc::clone(&service).call(request));
        let connection = Http1Connection::new(http, socket, service);
        self.drive(pin!(connection), &activity).await;
    }

    async fn serve_http2<S>(self, stream: S, begun: Vec<u8>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        /// Each takes some 10 KiB, whatever its answer.
        const MAX_STREAMS: u32 = 32;
        const PING_INTERVAL: Duration = Duration::from_secs(20);
        const PING_TIMEOUT: Duration = Duration::from_secs(10);
        let service = self.service(HttpProtocol::Http2);
        let activity = Arc::clone(&service.activity);
        let socket = ClientSocket::new(stream, begun.into(), Arc::clone(&activity));
        let executor = StreamExecutor(Arc::clone(&activity));
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(ResponseBody::<H::Body>::STREAM_CHUNK_BYTES)
            // Streams opened only to be reset (CVE-2023-44487), by the client or by us
            // (CVE-2025-8671): past these, the connection goes.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100)
            // It bounds CONTINUATION frames too. Each field counts 32 bytes more than it has.
            .max_header_list_size(32 * 1024)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(
                TokioIo::new(socket),
                service_fn(move |request| Arc::clone(&service).call(request)),
            );
        self.drive(pin!(connection), &activity).await;
    }

    fn service(&self, protocol: HttpProtocol) -> Arc<ConnectionService<H>> {
        Arc::new(ConnectionService {
            handler: self.handler.clone(),
            peer: self.peer.clone(),
            validation: self.validation,
            admission: self.admission,
            drain_signals: self.drain_signals.clone(),
            activity: Arc::new(match protocol {
                HttpProtocol::Http2 => Activity::with_streams(),
                HttpProtocol::Http1 | HttpProtocol::Detect => Activity::default(),
            }),
            protocol,
        })
    }

    /// Runs a connection until it ends by itself, at our end, or because something takes too long.
    async fn drive<C: ConnectionControl>(self, mut connection: Pin<&mut C>, activity: &Activity) {
        let mut counted = self.guard;
        let mut watchdog = Watchdog::new(self.limits);
        let mut closing = pin!(self.drain_signals.wait_for_close());
        // Once, so that it wakes us; to ask it again takes a lock that all connections share.
        let mut drained = poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx).is_ready())).await;
        let (mut told, mut overdue) = (false, None);
        let result = poll_fn(|cx| {
            loop {
                drained = drained
                    || (self.drain_signals.has_begun() && closing.as_mut().poll(cx).is_ready());
                // The service still answers a request that has begun to arrive.
                if drained && !told && !activity.is_partial() {
                    told = true;
                    connection.as_mut().shut_down_gracefully();
                }
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                let Poll::Ready(what) = watchdog.poll(cx, activity, &mut counted) else {
                    return Poll::Pending;
                };
                if what == WatchdogEvent::ReleaseBuffers {
                    // A lenient listener may have an unread body, whose rest is no new request.
                    if self.validation == RequestValidation::Strict {
                        connection.as_mut().release_buffers();
                    }
                    continue;
                }
                let first = overdue.is_none();
                overdue.get_or_insert(what);
                match what {
                    // The other streams may end, besides the one that takes too long.
                    WatchdogEvent::PhaseTimeout(
                        Phase::Opening | Phase::Idle(_) | Phase::Streams(_),
                    )
                    | WatchdogEvent::StallTimeout
                        if first =>
                    {
                        activity.close();
                        connection.as_mut().shut_down_gracefully();
                    }
                    _ => return Poll::Ready(None),
                }
            }
        });
        let result = result.await;
        if let Some(Err(error)) = &result {
            if error.is_parse() {
                let lingering = poll_fn(|cx| connection.as_mut().poll_linger(cx));
                let lingering = tokio::time::timeout(ConnectionLimits::LINGER_TIMEOUT, lingering);
                lingering.await.unwrap_or_default();
            }
            tracing::debug!(peer = %self.peer.address, %error, "a connection ended early");
        }
        counted.close(match overdue.and_then(WatchdogEvent::close_reason) {
            _ if self.admission == ConnectionAdmission::Rejected => CloseReason::Rejected,
            Some(timeout) => timeout,
            None if activity.is_rejected() => CloseReason::BadRequest,
            None => match result {
                Some(Err(error)) if error.is_parse() => CloseReason::BadRequest,
                Some(Err(_)) => CloseReason::Error,
                _ if drained || self.drain_signals.has_begun() => CloseReason::Drained,
                _ => CloseReason::Client,
            },
        });
    }
}

// === impl ConnectionService ===

impl<H: RequestHandler> ConnectionService<H> {
    /// Answers a request. It counts as received at once, so that the watchdog of the connection sees it.
    /// Mapped and not awaited: an async block has room for a future twice.
    fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody<H::Body>>, Infallible>> {
        let service = Arc::clone(&self);
        let active = ActiveResponse::new(Arc::clone(&self.activity), self.activity.receive());
        let is_http1 = self.protocol == HttpProtocol::Http1;
        let is_strict = self.validation == RequestValidation::Strict;
        let frames_body = is_strict && is_http1 && request_check::frames_body(&request);
        if frames_body {
            self.activity.expect_body();
        }
        // hyper leaves the content of an answer to HEAD out by itself, but not with HTTP/2.
        let omits_content = !is_http1 && *request.method() == Method::HEAD;
        let finish = move |mut response: Response<_>, is_last: bool| {
            if is_http1 && (is_last || service.drain_signals.has_begun()) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            if omits_content {
                omit_content(response)
            } else if is_http1 {
                response
            } else {
                response.map(ResponseBody::in_chunks)
            }
        };
        match self.check_request(&request) {
            Ok(()) => {
                let answer = self.handler.handle(request, self.peer());
                Either::Left(answer.map_ok(move |answer| {
                    let body = |body| ResponseBody::from_handler(body, active);
                    finish(answer.map(body), frames_body)
                }))
            }
            Err(invalid) => {
                tracing::debug!(peer = %self.peer.address, ?invalid, "a request was rejected");
                let answer = invalid.response(request.uri().path(), request.headers());
                let answer = answer.map(|body| ResponseBody::from_problem(body, active));
                Either::Right(ready(Ok(finish(answer, true))))
            }
        }
    }

    /// The client, whose certificate may have lapsed since it was shown.
    fn peer(&self) -> Peer {
        let mut peer = self.peer.clone();
        if self.drain_signals.is_certificate_untrusted() {
            peer.certificate_name = None;
        }
        peer
    }

    fn check_request(&self, request: &Request<Incoming>) -> Result<(), InvalidRequest> {
        if self.admission == ConnectionAdmission::Rejected {
            return Err(InvalidRequest::TooManyConnections);
        }
        if self.validation == RequestValidation::Lenient {
            return Ok(());
        }
        let checked = request_check::check(request);
        if checked.is_err() && self.protocol == HttpProtocol::Http1 {
            self.activity.reject();
        }
        checked
    }
}

/// The answer to HEAD: the size of what GET would get, and none of it (RFC 9110 §9.3.2).
fn omit_content<B>(mut response: Response<ResponseBody<B>>) -> Response<ResponseBody<B>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let size = response.body().size_hint().exact();
    if let Some(size) = size.filter(|size| *size > 0) {
        let headers = response.headers_mut().entry(header::CONTENT_LENGTH);
        headers.or_insert(size.into());
    }
    response.map(ResponseBody::without_content)
}

// === impl StreamExecutor ===

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "a stream ends with its connection, which the drain waits for"
    )]
    fn execute(&self, stream: F) {
        self.0.run(|| tokio::spawn(stream).abort_handle());
    }
}

// === impl ConnectionControl ===

impl<S, V, B> ConnectionControl for Http1Connection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: hyper::service::HttpService<Incoming, ResBody = B> + Unpin,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn shut_down_gracefully(self: Pin<&mut Self>) {
        self.get_mut().shut_down_gracefully();
    }

    fn release_buffers(self: Pin<&mut Self>) {
        self.get_mut().release_buffers();
    }

    fn poll_linger(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_linger(cx)
    }
}

impl<S, I, B, E> ConnectionControl for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn shut_down_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Tells HTTP/2 by its first bytes, which are then in `begun`.
async fn detect_protocol(
    stream: &mut (impl AsyncRead + Unpin),
    begun: &mut Vec<u8>,
) -> io::Result<HttpProtocol> {
    let mut space = [0; PREFACE.len()];
    loop {
        let wanted = space.get_mut(begun.len()..).unwrap_or_default();
        if wanted.is_empty() {
            return Ok(HttpProtocol::Http2);
        }
        let came = stream.read(wanted).await?;
        begun.extend_from_slice(wanted.get(..came).unwrap_or_default());
        if came == 0 || !PREFACE.starts_with(begun) {
            return Ok(HttpProtocol::Http1);
        }
    }
}
