//! Tests over real sockets: every limit and every rejection.

mod drain;
mod heads;
mod http2;
mod timeouts;
mod tls;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::{Registry, TextEncoder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, oneshot},
};

use super::*;
use crate::peer::Peer;

/// Longer than anything takes, so that a test fails instead of hanging.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

const GET: &str = "GET /path HTTP/1.1\r\nHost: x\r\n\r\n";

/// A listener with a handler that answers `ok`, or what it is asked for.
struct ListenerFixture {
    address: SocketAddr,
    registry: Registry,
    request_count: Arc<AtomicUsize>,
    /// Lets one request of `/release_later` be answered.
    release_later: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<usize>,
}

/// A connection, and what has come over it.
struct RawClient {
    stream: TcpStream,
    received: Vec<u8>,
}

// === impl ListenerFixture ===

impl ListenerFixture {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ListenerConfig)) -> Self {
        let registry = Registry::new();
        let mut config = ListenerConfig {
            metrics: ConnectionMetrics::new(&registry).unwrap(),
            ..ListenerConfig::new(RequestValidation::Strict)
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let request_count = Arc::new(AtomicUsize::new(0));
        let later = Arc::new(Notify::new());
        let (stop, stopped) = oneshot::channel();
        let handler = handler(Arc::clone(&request_count), Arc::clone(&later));
        let mut running = JoinSet::new();
        running.spawn(async move {
            let stop = async {
                let _stopped_or_dropped = stopped.await;
            };
            serve(listener, config, handler, stop, TEST_TIMEOUT).await
        });
        Self {
            address,
            registry,
            request_count,
            release_later: later,
            stop: Some(stop),
            running,
        }
    }

    async fn connect(&self) -> RawClient {
        RawClient {
            stream: TcpStream::connect(self.address).await.unwrap(),
            received: Vec::new(),
        }
    }

    /// Sends these bytes and reads until the connection is closed.
    async fn send_raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.read_to_end().await
    }

    fn requests(&self) -> usize {
        self.request_count.load(Ordering::Relaxed)
    }

    fn sample(&self, name: &str) -> f64 {
        sample(&self.registry, name)
    }

    async fn wait_for_requests(&self, times: usize) {
        let reached = async {
            while self.requests() < times {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(TEST_TIMEOUT, reached).await;
        reached.unwrap_or_else(|_| panic!("asked {} times, not {times}", self.requests()));
    }

    async fn wait_for(&self, sample: &str, value: f64) {
        wait_for(&self.registry, sample, value).await;
    }

    /// Waits until a connection was closed for this reason, and none for another.
    async fn wait_for_close_reason(&self, reason: &str) {
        self.wait_for(&closed(reason), 1.0).await;
        for other in [
            "client",
            "bad-request",
            "header-timeout",
            "idle-timeout",
            "stall-timeout",
            "error",
        ] {
            if other != reason {
                assert_eq!(self.sample(&closed(other)), 0.0, "{other}");
            }
        }
    }
}

// === impl Client ===

impl RawClient {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything that comes until the connection is closed.
    async fn read_to_end(mut self) -> String {
        let reading = self.stream.read_to_end(&mut self.received);
        let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;
        read.expect("the connection is closed").unwrap();
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Waits until so many bytes have come.
    async fn receive_bytes(&mut self, bytes: usize) -> Vec<u8> {
        let mut received = vec![0; bytes];
        let read = tokio::time::timeout(TEST_TIMEOUT, self.stream.read_exact(&mut received)).await;
        read.expect("they come").unwrap();
        received
    }

    /// Waits until this has come.
    async fn receive(&mut self, text: &str) {
        let reading = async {
            while !String::from_utf8_lossy(&self.received).contains(text) {
                let read = self.stream.read_buf(&mut self.received).await.unwrap();
                assert_ne!(read, 0, "closed after {:?}", self.received);
            }
        };
        let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;
        read.unwrap_or_else(|_| panic!("{text} does not come"));
        self.received.clear();
    }
}

fn handler(request_count: Arc<AtomicUsize>, later: Arc<Notify>) -> impl RequestHandler {
    move |request: Request<Incoming>, peer: Peer| {
        request_count.fetch_add(1, Ordering::Relaxed);
        let later = Arc::clone(&later);
        async move {
            let body = match request.uri().path() {
                "/large" => Bytes::from(vec![b'x'; 64 << 20]),
                "/never" => std::future::pending::<Bytes>().await,
                "/later" => {
                    later.notified().await;
                    Bytes::from_static(b"ok /later")
                }
                "/who" => Bytes::from(format!("{:?}", peer.certificate_name)),
                path => Bytes::from(format!("ok {path}")),
            };
            Ok(Response::new(Full::<Bytes>::from(body)))
        }
    }
}

/// One sample of a scrape, by its name and labels as they are written.
fn sample(registry: &Registry, sample: &str) -> f64 {
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {sample} in {text}"))
        .parse()
        .unwrap()
}

async fn wait_for(registry: &Registry, name: &str, value: f64) {
    let reached = async {
        while (sample(registry, name) - value).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(TEST_TIMEOUT, reached).await.is_err() {
        panic!("{name} is {}, not {value}", sample(registry, name));
    }
}

fn closed(reason: &str) -> String {
    format!("usage_proxy_connections_closed_total{{reason=\"{reason}\"}}")
}

/// The statuses of the answers on a connection, in their order.
fn statuses(answers: &str) -> Vec<u16> {
    answers
        .split("HTTP/1.")
        .skip(1)
        .map(|answer| answer[2..5].parse().unwrap())
        .collect()
}

#[tokio::test]
async fn a_connection_over_the_limit_gets_503_until_another_ends() {
    let server =
        ListenerFixture::start_with(|config| config.limits.max_connections = NonZeroUsize::MIN)
            .await;
    let mut first = server.connect().await;
    first.send(GET).await;
    first.receive("ok /path").await;

    let refused = server.send_raw(GET).await;
    drop(first);
    server.wait_for(&closed("client"), 1.0).await;
    let mut next = server.connect().await;
    next.send(GET).await;

    assert_eq!(statuses(&refused), [503], "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("urn:usage-proxy:problem:too-many-connections"));
    assert!(refused.contains("x-request-id: "), "{refused}");
    next.receive("ok /path").await;
    assert_eq!(server.requests(), 2);
    server.wait_for(&closed("refused"), 1.0).await;
}

#[tokio::test]
async fn connections_are_counted_by_state() {
    let server = ListenerFixture::start().await;
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.receive("ok /path").await;
    let mut active = server.connect().await;
    active.send(GET.replace("/path", "/never")).await;

    for state in ["idle", "active"] {
        let sample = format!("usage_proxy_connections{{state=\"{state}\"}}");
        server.wait_for(&sample, 1.0).await;
    }
    // While it is answered, only a reset shows that a client has left.
    active.stream.set_zero_linger().unwrap();
    drop((idle, active));

    for state in ["idle", "active"] {
        let sample = format!("usage_proxy_connections{{state=\"{state}\"}}");
        server.wait_for(&sample, 0.0).await;
    }
}

#[tokio::test]
async fn ended_connections_are_reaped_while_new_ones_arrive() {
    let registry = Registry::new();
    let config = ListenerConfig {
        metrics: ConnectionMetrics::new(&registry).unwrap(),
        ..ListenerConfig::new(RequestValidation::Strict)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut house = ConnectionPool::new(config, handler(Arc::default(), Arc::default()));

    for number in 1..=20 {
        drop(TcpStream::connect(address).await.unwrap());
        let (stream, peer) = listener.accept().await.unwrap();
        house.accept(stream, peer);
        wait_for(&registry, &closed("client"), f64::from(number)).await;
        // The task ends right after its connection has been counted.
        tokio::task::yield_now().await;

        assert_eq!(house.connections.len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_disconnects_mid_response_is_counted() {
    let server = ListenerFixture::start().await;
    let mut client = server.connect().await;
    client.send(GET.replace("/path", "/large")).await;
    client.receive("200 OK").await;

    // With bytes unread, it resets the connection.
    drop(client);

    server.wait_for_close_reason("error").await;
}
