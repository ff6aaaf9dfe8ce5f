//! The target of the soak, its end, and connections to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use uuid::Uuid;

/// The API listener, and when the soak ends.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    until: Instant,
}

/// The address that a kind of client connects from. Each kind has its own, so that none runs out of
/// ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source(pub(crate) u8);

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

// === impl Target ===

impl Target {
    pub(crate) fn new(api: &str, duration: Duration) -> Self {
        Self {
            address: api.strip_prefix("http://").unwrap().parse().unwrap(),
            until: Instant::now() + duration,
        }
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// A connection; `None` where it is refused, or where the soak ends first.
    pub(crate) async fn connect(&self, source: Source) -> Option<TcpStream> {
        self.connect_with(source, |_| ()).await
    }

    /// A connection of a socket that is prepared first.
    pub(crate) async fn connect_with(
        &self,
        Source(number): Source,
        prepare: impl FnOnce(&TcpSocket),
    ) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        prepare(&socket);
        let from = Ipv4Addr::new(127, 0, 1, number);
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let connecting = socket.connect(self.address);
        tokio::time::timeout_at(self.until, connecting)
            .await
            .ok()?
            .ok()
    }

    /// `future`, unless the soak ends first.
    pub(crate) async fn meanwhile<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.until, future).await.ok()
    }

    /// Waits, but not past the end.
    pub(crate) async fn pause(&self, milliseconds: u64) {
        let pause = Instant::now() + Duration::from_millis(milliseconds);
        tokio::time::sleep_until(pause.min(self.until)).await;
    }
}

// === impl Dice ===

impl Dice {
    /// SplitMix64.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap()
    }
}

/// The key of everybody that means no good.
pub(crate) const STRANGERS_KEY: &str = "up_stranger";

/// A customer that the simulator knows.
pub(crate) fn known(index: usize) -> Uuid {
    usage_proxy::simulator::customer_id(1, index)
}

/// A stranger's `GET` of the simplified usage.
pub(crate) fn request(customer: Uuid) -> String {
    get(&format!("/v1/customers/{customer}/usage"))
}

/// A stranger's `GET` of the native usage, the longest answer that there is.
pub(crate) fn native_request(customer: Uuid) -> String {
    get(&format!(
        "/v1/customers/{customer}/analytics/licenses/usage"
    ))
}

/// HTTP/2 from its beginning: a stranger's `GET`s of the native usage, each a stream, by a client that
/// takes nothing.
pub(crate) fn closed_windows(customers: impl Iterator<Item = Uuid>) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE
    let window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &window].concat();
    for (customer, stream) in customers.zip((1..).step_by(2)) {
        // :method GET, :scheme http
        let mut block = vec![0x82, 0x86];
        let path = format!("/v1/customers/{customer}/analytics/licenses/usage");
        for (name, value) in [
            (&[0x04][..], &*path),
            (&[0x01], "soak"),
            (b"\0\x09x-api-key", STRANGERS_KEY),
        ] {
            block.extend_from_slice(name);
            block.push(u8::try_from(value.len()).unwrap());
            block.extend_from_slice(value.as_bytes());
        }
        // END_STREAM, END_HEADERS
        bytes.extend(frame(1, 0x5, stream, &block));
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: soak\r\nX-Api-Key: {STRANGERS_KEY}\r\n\r\n")
}
