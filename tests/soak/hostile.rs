//! Clients that mean no good: slow ones, ones that leave, ones that send too much of everything.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::target::{Dice, Source, Target, closed_windows, known, native_request, request};

/// The number of clients of each kind at a time.
const IDLERS: usize = 500;
const SLOW_READERS: usize = 20;
const SLOW_WRITERS: usize = 200;
const WITHHOLDERS: usize = 100;
const STALLERS: usize = 8;
const LEAVERS: usize = 8;
const OVERSIZERS: usize = 4;

/// The number of customers that they ask for. Most of so few are cached, so the flood keeps upstream
/// to itself.
const CUSTOMERS: usize = 500;

/// Counts of what the hostile clients did, and of how the service reacted.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Connections that said nothing.
    idle: AtomicU64,
    /// Bytes of answers that were read one at a time.
    sipped: AtomicU64,
    /// Bytes of requests that were written one at a time.
    dripped: AtomicU64,
    /// Slow readers that the service had enough of.
    readers_cut: AtomicU64,
    /// Slow writers that it had enough of.
    writers_cut: AtomicU64,
    /// Heads as long as they may be, and without an end, that it had enough of.
    withholders_cut: AtomicU64,
    /// Streams of HTTP/2 whose windows stayed closed, that it reset.
    streams_reset: AtomicU64,
    /// Connections left in the middle of a request or of its answer.
    left: AtomicU64,
    /// Requests with too much of something.
    oversized: AtomicU64,
    /// Those of them that were refused, by an answer or by closing.
    refused: AtomicU64,
}

/// A request with too much of something, in pieces that are sent one after another.
struct Oversized {
    head: String,
    piece: Vec<u8>,
    pieces: usize,
}

pub(crate) async fn run(target: &Target) -> Arc<Report> {
    let report = Arc::new(Report::default());
    let mut clients = JoinSet::new();
    let both = || (target.clone(), Arc::clone(&report));
    start(&mut clients, IDLERS, both, idle);
    start(&mut clients, SLOW_READERS, both, read_slowly);
    start(&mut clients, SLOW_WRITERS, both, write_slowly);
    start(&mut clients, WITHHOLDERS, both, withhold);
    start(&mut clients, STALLERS, both, stall);
    start(&mut clients, LEAVERS, both, leave);
    start(&mut clients, OVERSIZERS, both, oversize);
    clients.join_all().await;
    report
}

/// Starts so many clients of a kind, each with a number of its own.
fn start<F: Future<Output = ()> + Send + 'static>(
    clients: &mut JoinSet<()>,
    count: usize,
    both: impl Fn() -> (Target, Arc<Report>),
    client: impl Fn(Target, Arc<Report>, usize) -> F,
) {
    for seed in 0..count {
        let (target, report) = both();
        clients.spawn(client(target, report, seed));
    }
}

/// Connects and says nothing; comes back a while after it was cut off.
async fn idle(target: Target, report: Arc<Report>, seed: usize) {
    target.pause(2 * seed as u64).await;
    while !target.is_over() {
        if let Some(mut stream) = target.connect(Source(2)).await {
            report.idle.fetch_add(1, Ordering::Relaxed);
            target.meanwhile(stream.read(&mut [0])).await;
        }
        target.pause(1_000).await;
    }
}

/// Asks for answers without end and takes them a byte at a time, through a tiny window.
async fn read_slowly(target: Target, report: Arc<Report>, seed: usize) {
    /// The receive buffer in bytes. The system uses a little more.
    const WINDOW: u32 = 2_048;

    let requests = native_request(known(seed)).repeat(100);
    while !target.is_over() {
        let small = |socket: &tokio::net::TcpSocket| socket.set_recv_buffer_size(WINDOW).unwrap();
        let Some(stream) = target.connect_with(Source(3), small).await else {
            target.pause(100).await;
            continue;
        };
        let (mut reader, mut writer) = stream.into_split();
        // More than the systems of both sides hold, so that answers wait in the service. Writing
        // fails as soon as the connection is cut; reading does when all that came has been read.
        let ask = async { while writer.write_all(requests.as_bytes()).await.is_ok() {} };
        let sip = async {
            while reader.read_u8().await.is_ok() {
                report.sipped.fetch_add(1, Ordering::Relaxed);
                target.pause(50).await;
            }
        };
        let either = async {
            tokio::select! { () = ask => {}, () = sip => {} }
        };
        if target.meanwhile(either).await.is_some() {
            report.readers_cut.fetch_add(1, Ordering::Relaxed);
        }
        // Filling the buffers of both systems takes thousands of hits each time: this is about slow
        // readers, not about a flood of hits.
        target.pause(5_000).await;
    }
}

/// Sends a head a byte at a time, and never its end.
async fn write_slowly(target: Target, report: Arc<Report>, seed: usize) {
    let head = request(known(seed));
    let never_ending = head.trim_end().bytes().chain(std::iter::repeat(b'x'));
    while !target.is_over() {
        let Some(mut stream) = target.connect(Source(4)).await else {
            target.pause(100).await;
            continue;
        };
        let drip = async {
            for byte in never_ending.clone() {
                let mut answer = [0];
                tokio::select! {
                    _ = stream.read(&mut answer) => return,
                    () = target.pause(200) => {}
                }
                if stream.write_u8(byte).await.is_err() {
                    return;
                }
                report.dripped.fetch_add(1, Ordering::Relaxed);
            }
        };
        if target.meanwhile(drip).await.is_some() {
            report.writers_cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends nearly as long a head as may be, at once, and never its end.
async fn withhold(target: Target, report: Arc<Report>, seed: usize) {
    /// With the rest of the head just short of the 32 KiB that are looked at.
    const LENGTH: usize = 32_000;

    let head = request(known(seed));
    let head = format!("{}\r\nX-Long: {}", head.trim_end(), "x".repeat(LENGTH));
    while !target.is_over() {
        let Some(mut stream) = target.connect(Source(7)).await else {
            target.pause(100).await;
            continue;
        };
        let wait = async {
            if stream.write_all(head.as_bytes()).await.is_ok() {
                drop(stream.read_to_end(&mut Vec::new()).await);
            }
        };
        if target.meanwhile(wait).await.is_some() {
            report.withholders_cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks for as many answers at once as HTTP/2 allows and takes nothing of any, until all are reset.
async fn stall(target: Target, report: Arc<Report>, seed: usize) {
    /// As many as the service allows on a connection.
    const STREAMS: usize = 32;
    const RST_STREAM: u8 = 3;

    while !target.is_over() {
        let Some(mut stream) = target.connect(Source(8)).await else {
            target.pause(100).await;
            continue;
        };
        let requests = (0..STREAMS).map(|index| known(seed * STREAMS + index));
        let stalled = async {
            stream.write_all(&closed_windows(requests)).await?;
            let mut reset = 0;
            while reset < STREAMS {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                stream.read_exact(&mut vec![0; length as usize]).await?;
                if head[3] == RST_STREAM {
                    report.streams_reset.fetch_add(1, Ordering::Relaxed);
                    reset += 1;
                }
            }
            std::io::Result::Ok(())
        };
        target.meanwhile(stalled).await;
    }
}

/// Leaves: in the middle of a request, right after it, or in the middle of the answer; in order, or
/// by a reset.
async fn leave(target: Target, report: Arc<Report>, seed: usize) {
    let mut dice = Dice(seed as u64);
    while !target.is_over() {
        if let Some(mut stream) = target.connect(Source(5)).await {
            let request = request(known(dice.below(CUSTOMERS)));
            let sent = dice.below(2 * request.len()).min(request.len());
            let read = dice.below(2_000);
            let visit = async {
                stream.write_all(&request.as_bytes()[..sent]).await?;
                if sent == request.len() {
                    stream.read_exact(&mut vec![0; read]).await?;
                }
                std::io::Result::Ok(())
            };
            let patience = Duration::from_millis(dice.roll() % 20);
            drop(tokio::time::timeout(patience, visit).await);
            if dice.below(2) == 0 {
                stream.set_zero_linger().unwrap();
            }
            report.left.fetch_add(1, Ordering::Relaxed);
        }
        target.pause(5).await;
    }
}

/// Sends requests with too much of something, each kind in its turn.
async fn oversize(target: Target, report: Arc<Report>, seed: usize) {
    let mut dice = Dice(seed as u64);
    while !target.is_over() {
        let request = Oversized::any(&mut dice);
        if let Some(stream) = target.connect(Source(6)).await
            && let Some(status) = target.meanwhile(request.send(stream)).await
        {
            report.oversized.fetch_add(1, Ordering::Relaxed);
            if status.is_none_or(|status| status >= 400) {
                report.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        target.pause(20).await;
    }
}

// === impl Oversized ===

impl Oversized {
    fn any(dice: &mut Dice) -> Self {
        let customer = known(dice.below(CUSTOMERS));
        let path = format!("/v1/customers/{customer}/usage");
        let kilobyte = vec![b'x'; 1_024];
        let (head, piece, pieces) = match dice.below(6) {
            // A URI of 16 KiB to 4 MiB.
            0 => (format!("GET {path}?"), kilobyte, 16 << dice.below(9)),
            // One header of as much.
            1 => (
                format!("GET {path} HTTP/1.1\r\nHost: soak\r\nX-Large: "),
                kilobyte,
                32 << dice.below(8),
            ),
            // A hundred headers to 25,000.
            2 => (
                format!("GET {path} HTTP/1.1\r\nHost: soak\r\n"),
                b"X-Many: x\r\n".to_vec(),
                100 << dice.below(9),
            ),
            // A customer id of as much as a URI above.
            3 => (
                "GET /v1/customers/".to_owned(),
                kilobyte,
                16 << dice.below(9),
            ),
            // A body of 4 MiB that a method has which is not there.
            4 => (
                format!("POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: 4194304\r\n\r\n"),
                kilobyte,
                4_096,
            ),
            // The same in chunks.
            _ => (
                format!("PUT {path} HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"),
                [b"400\r\n", kilobyte.as_slice(), b"\r\n"].concat(),
                4_096,
            ),
        };
        Self {
            head,
            piece,
            pieces,
        }
    }

    /// Sends it, as far as it is taken, and ends it; the status of the answer, where there is one.
    async fn send(&self, stream: TcpStream) -> Option<u16> {
        let (mut reader, mut writer) = stream.into_split();
        let write = async {
            writer.write_all(self.head.as_bytes()).await?;
            for _ in 0..self.pieces {
                writer.write_all(&self.piece).await?;
            }
            writer.write_all(b" HTTP/1.1\r\nHost: soak\r\n\r\n").await
        };
        let mut answer = [0; 12];
        let read = async {
            reader.read_exact(&mut answer).await.ok()?;
            std::str::from_utf8(&answer[9..12]).unwrap().parse().ok()
        };
        let (_sent, status) = tokio::join!(write, read);
        status
    }
}

// === impl Report ===

impl Report {
    /// That each kind did its worst, that none of the slow ones was put up with, and that nothing
    /// oversized was let through.
    pub(crate) fn check(&self) {
        for (what, count) in self.counts() {
            assert!(count > 0, "no {what}: {self}");
        }
        let (oversized, refused) = (&self.oversized, &self.refused);
        assert_eq!(
            oversized.load(Ordering::Relaxed),
            refused.load(Ordering::Relaxed),
            "something oversized was accepted"
        );
    }

    fn counts(&self) -> [(&'static str, u64); 10] {
        [
            ("idle connections", &self.idle),
            ("bytes read one at a time", &self.sipped),
            ("bytes written one at a time", &self.dripped),
            ("slow readers cut off", &self.readers_cut),
            ("slow writers cut off", &self.writers_cut),
            ("withheld heads cut off", &self.withholders_cut),
            ("stalled streams reset", &self.streams_reset),
            ("left midway", &self.left),
            ("oversized requests", &self.oversized),
            ("of these refused", &self.refused),
        ]
        .map(|(what, count)| (what, count.load(Ordering::Relaxed)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hostile clients: ")?;
        let counts = self.counts().map(|(what, count)| format!("{count} {what}"));
        write!(f, "{}", counts.join(", "))
    }
}
