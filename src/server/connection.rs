//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
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
    Handler, Heads,
    activity::{Activity, Phase},
    answer::{Answer, Answering},
    drain::Drains,
    guard::Guarded,
    limits::Limits,
    metrics::{CloseReason, Counted},
    refusal::{self, Refusal},
    resting::RestingConnection,
    tls::{self, Tls},
    watchdog::{Overdue, Watchdog},
};
use crate::peer::Peer;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one connection is served with.
#[derive(Debug)]
pub(super) struct Connection<H> {
    pub(super) handler: H,
    pub(super) peer: Peer,
    pub(super) limits: Limits,
    pub(super) heads: Heads,
    /// Whether it is served, or only told why it is not.
    pub(super) admission: Admission,
    pub(super) drains: Drains,
    pub(super) counted: Counted,
}

/// Whether there is room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    Refused,
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2, agreed upon by ALPN.
    Http2,
    /// HTTP/2 if the connection begins with its preface, else HTTP/1.
    Either,
}

/// What answers the requests of one connection.
struct Service<H> {
    handler: H,
    peer: Peer,
    heads: Heads,
    admission: Admission,
    drains: Drains,
    activity: Arc<Activity>,
    protocol: Protocol,
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone)]
struct StreamExecutor(Arc<Activity>);

/// What hyper's two kinds of connections have in common.
trait Ends: Future<Output = hyper::Result<()>> {
    /// Asks it to end after what is under way.
    fn end(self: Pin<&mut Self>);

    /// It has been idle for a while.
    fn rest(self: Pin<&mut Self>) {}
}

// === impl Connection ===

impl<H: Handler> Connection<H> {
    /// Serves until either side has enough.
    pub(super) async fn serve<S>(self, mut stream: S, protocol: Protocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut begun = Vec::new();
        let protocol = match protocol {
            Protocol::Http1 | Protocol::Http2 => protocol,
            Protocol::Either => {
                let reading = sniff(&mut stream, &mut begun);
                match tokio::time::timeout(self.limits.header_timeout, reading).await {
                    Ok(Ok(protocol)) => protocol,
                    Ok(Err(_broken)) => return self.counted.close(CloseReason::Error),
                    Err(_elapsed) => return self.counted.close(CloseReason::HeaderTimeout),
                }
            }
        };
        if protocol == Protocol::Http2 {
            Box::pin(self.http2(stream, begun)).await;
        } else {
            self.http1(stream, begun).await;
        }
    }

    /// Agrees upon TLS first, then upon HTTP.
    pub(super) async fn serve_tls(mut self, stream: TcpStream, tls: &Tls) {
        let handshake = tokio::time::timeout(self.limits.header_timeout, tls.accept(stream));
        let (stream, client) = match handshake.await {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer.address, %error, "no TLS was agreed upon");
                return self.counted.close(CloseReason::TlsHandshake);
            }
            Err(_elapsed) => return self.counted.close(CloseReason::TlsHandshake),
        };
        self.peer.encrypted = true;
        if let Some(client) = client {
            self.peer.certificate_name = Some(client.name);
            self.drains.certificate = Some(client.end);
        }
        let protocol = if tls::speaks_http2(&stream) {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        self.serve(stream, protocol).await;
    }

    async fn http1<S>(self, stream: S, begun: Vec<u8>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        const BUFFER: usize = 64 * 1024;
        let service = self.service(Protocol::Http1);
        let activity = Arc::clone(&service.activity);
        let guarded = match self.heads {
            Heads::Judged => Guarded::heads(stream, &begun, Arc::clone(&activity)),
            Heads::AsTheyCome => Guarded::unjudged(stream, begun, Arc::clone(&activity)),
        };
        let mut http = http1::Builder::new();
        http.max_buf_size(BUFFER);
        let service = service_fn(move |request| Arc::clone(&service).answer(request));
        let connection = RestingConnection::new(http, guarded, service);
        self.drive(pin!(connection), &activity).await;
    }

    async fn http2<S>(self, stream: S, begun: Vec<u8>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        /// Each takes some 10 KiB, whatever its answer.
        const MAX_STREAMS: u32 = 32;
        const PING_EVERY: Duration = Duration::from_secs(20);
        const PONG_WITHIN: Duration = Duration::from_secs(10);
        let service = self.service(Protocol::Http2);
        let activity = Arc::clone(&service.activity);
        let guarded = Guarded::unjudged(stream, begun, Arc::clone(&activity));
        let executor = StreamExecutor(Arc::clone(&activity));
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(Answer::<H::Body>::STREAM_PIECE)
            // Streams opened only to be reset (CVE-2023-44487), by the client or by us
            // (CVE-2025-8671): past these, the connection goes.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100)
            // It bounds CONTINUATION frames too. Each field counts 32 bytes more than it has.
            .max_header_list_size(32 * 1024)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .serve_connection(
                TokioIo::new(guarded),
                service_fn(move |request| Arc::clone(&service).answer(request)),
            );
        self.drive(pin!(connection), &activity).await;
    }

    fn service(&self, protocol: Protocol) -> Arc<Service<H>> {
        Arc::new(Service {
            handler: self.handler.clone(),
            peer: self.peer.clone(),
            heads: self.heads,
            admission: self.admission,
            drains: self.drains.clone(),
            activity: Arc::new(match protocol {
                Protocol::Http2 => Activity::of_streams(),
                Protocol::Http1 | Protocol::Either => Activity::default(),
            }),
            protocol,
        })
    }

    /// Runs a connection until it ends by itself, at our end, or because something takes too long.
    async fn drive<C: Ends>(self, mut connection: Pin<&mut C>, activity: &Activity) {
        let mut counted = self.counted;
        let mut watchdog = Watchdog::new(self.limits);
        let mut closing = pin!(self.drains.closing());
        // Once, so that it wakes us; to ask it again takes a lock that all connections share.
        let mut drained = poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx).is_ready())).await;
        let (mut told, mut overdue) = (false, None);
        let result = poll_fn(|cx| {
            loop {
                drained =
                    drained || (self.drains.has_begun() && closing.as_mut().poll(cx).is_ready());
                // What has begun to come is still answered.
                if drained && !told && !activity.is_partial() {
                    told = true;
                    connection.as_mut().end();
                }
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                let Poll::Ready(what) = watchdog.poll(cx, activity, &mut counted) else {
                    return Poll::Pending;
                };
                if what == Overdue::Rest {
                    // Of a head that is not judged, hyper may have read some.
                    if self.heads == Heads::Judged {
                        connection.as_mut().rest();
                    }
                    continue;
                }
                let first = overdue.is_none();
                overdue.get_or_insert(what);
                match what {
                    Overdue::Phase(Phase::Head(_)) if first && activity.refuse_overdue() => {}
                    // Where streams go on beside the one that takes too long, they may end.
                    Overdue::Phase(Phase::Opening | Phase::Idle(_) | Phase::Streams(_))
                    | Overdue::Stall
                        if first =>
                    {
                        activity.close();
                        connection.as_mut().end();
                    }
                    _ => return Poll::Ready(None),
                }
            }
        });
        let result = result.await;
        if let Some(Err(error)) = &result {
            tracing::debug!(peer = %self.peer.address, %error, "a connection ended early");
        }
        counted.close(match overdue.and_then(CloseReason::of_overdue) {
            _ if self.admission == Admission::Refused => CloseReason::Refused,
            Some(timeout) => timeout,
            None if activity.refusal().is_some() => CloseReason::BadRequest,
            None => match result {
                Some(Err(error)) if error.is_parse() => CloseReason::BadRequest,
                Some(Err(_)) => CloseReason::Error,
                _ if drained || self.drains.has_begun() => CloseReason::Drained,
                _ => CloseReason::Client,
            },
        });
    }
}

// === impl Service ===

impl<H: Handler> Service<H> {
    /// Begins at once, so that whoever polls the connection sees that a request has come.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answer<H::Body>>, Infallible>> {
        let unseen = self.protocol == Protocol::Http2 || self.heads == Heads::AsTheyCome;
        let stream = if unseen { self.activity.open() } else { 0 };
        let answering = Answering::new(Arc::clone(&self.activity), stream);
        self.respond(request, answering)
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        answering: Answering,
    ) -> Result<Response<Answer<H::Body>>, Infallible> {
        let has_body = !request.body().is_end_stream();
        let is_stream = self.protocol == Protocol::Http2;
        // hyper leaves the content of an answer to HEAD out by itself, but not with HTTP/2.
        let is_head = is_stream && *request.method() == Method::HEAD;
        let (mut response, last) = match self.verdict(&request) {
            Ok(()) => {
                let answer = self.handler.handle(request, self.peer()).await;
                let answer = answer.map(|body| Answer::of_handler(body, answering));
                // Nothing is read after a body: it might not end where we think.
                (answer, has_body && self.heads == Heads::Judged)
            }
            Err(refusal) => {
                tracing::debug!(peer = %self.peer.address, ?refusal, "a request was refused");
                let answer = refusal.answer(request.uri().path(), request.headers());
                (answer.map(|body| Answer::of_edge(body, answering)), true)
            }
        };
        if self.protocol == Protocol::Http1 && (last || self.drains.has_begun()) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(if is_head {
            without_content(response)
        } else if is_stream {
            response.map(Answer::in_pieces)
        } else {
            response
        })
    }

    /// The client, whose certificate may have lapsed since it was shown.
    fn peer(&self) -> Peer {
        let mut peer = self.peer.clone();
        if self.drains.certificate_has_lapsed() {
            peer.certificate_name = None;
        }
        peer
    }

    fn verdict(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        if let Some(refusal) = self.activity.ask() {
            return Err(refusal);
        }
        if self.admission == Admission::Refused {
            return Err(Refusal::Full);
        }
        if self.heads == Heads::AsTheyCome {
            return Ok(());
        }
        let verdict = refusal::check(request);
        if let (Err(refusal), Protocol::Http1) = (verdict, self.protocol) {
            self.activity.note(refusal);
        }
        verdict
    }
}

/// The answer to HEAD: the size of what GET would get, and none of it (RFC 9110 §9.3.2).
fn without_content<B>(mut response: Response<Answer<B>>) -> Response<Answer<B>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let size = response.body().size_hint().exact();
    if let Some(size) = size.filter(|size| *size > 0) {
        let headers = response.headers_mut().entry(header::CONTENT_LENGTH);
        headers.or_insert(size.into());
    }
    response.map(Answer::withheld)
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

// === impl Ends ===

impl<S, V, B> Ends for RestingConnection<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: hyper::service::HttpService<Incoming, ResBody = B> + Unpin,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.get_mut().end();
    }

    fn rest(self: Pin<&mut Self>) {
        self.get_mut().rest();
    }
}

impl<S, I, B, E> Ends for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Tells HTTP/2 by its first bytes, which are then in `begun`.
async fn sniff(stream: &mut (impl AsyncRead + Unpin), begun: &mut Vec<u8>) -> io::Result<Protocol> {
    let mut space = [0; PREFACE.len()];
    loop {
        let wanted = space.get_mut(begun.len()..).unwrap_or_default();
        if wanted.is_empty() {
            return Ok(Protocol::Http2);
        }
        let came = stream.read(wanted).await?;
        begun.extend_from_slice(wanted.get(..came).unwrap_or_default());
        if came == 0 || !PREFACE.starts_with(begun) {
            return Ok(Protocol::Http1);
        }
    }
}
