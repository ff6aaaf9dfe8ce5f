//! A flood of requests, no customer twice: nearly all of them unknown, some not.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    CUSTOMERS,
    target::{Source, Target, known, request},
};

/// Connections that flood, four times what upstream may be asked at once.
const CONNECTIONS: usize = 64;

/// Requests that a connection sends before it reads their answers.
const PIPELINED: u64 = 8;

/// One request of so many is for a customer that there is, while there are any left.
const KNOWN_OF: u64 = 16;

/// The first customer that only the flood asks for.
const FIRST_KNOWN: u64 = 500;

/// Enough: after as many the flood is over. How far it comes is a matter of time, since upstream is
/// asked about each; the report tells.
const GOAL: u64 = 1_000_000;

/// The results of the flood.
#[derive(Debug, Default)]
pub(crate) struct Report {
    statuses: BTreeMap<u16, u64>,
    cut_off: u64,
}

/// Hands out customers, none of them twice.
struct Customers(AtomicU64);

/// Answers, taken apart as far as to see where each ends.
struct Answers {
    bytes: Vec<u8>,
}

pub(crate) async fn run(target: &Target) -> Report {
    let customers = Arc::new(Customers(AtomicU64::new(0)));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (target, customers) = (target.clone(), Arc::clone(&customers));
        connections.spawn(async move { connection(&target, &customers).await });
    }
    let reports = connections.join_all().await;
    reports.into_iter().fold(Report::default(), Report::with)
}

async fn connection(target: &Target, customers: &Customers) -> Report {
    let mut report = Report::default();
    while !target.is_over() && !customers.are_enough() {
        let Some(mut stream) = target.connect(Source(1)).await else {
            target.pause(10).await;
            continue;
        };
        let mut answers = Answers { bytes: Vec::new() };
        while !customers.are_enough() {
            let exchange = async {
                let requests: String = (0..PIPELINED).map(|_| request(customers.next())).collect();
                stream.write_all(requests.as_bytes()).await.ok()?;
                for _ in 0..PIPELINED {
                    let status = answers.next(&mut stream).await?;
                    *report.statuses.entry(status).or_default() += 1;
                }
                Some(())
            };
            match target.meanwhile(exchange).await {
                Some(Some(())) => {}
                Some(None) => {
                    report.cut_off += 1;
                    break;
                }
                None => return report,
            }
        }
    }
    report
}

// === impl Report ===

impl Report {
    /// Each request has a customer of its own, so this counts customers too.
    fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    fn with(mut self, other: Self) -> Self {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.cut_off += other.cut_off;
        self
    }

    /// That it was a flood, and that every answer was one that such a flood may be given.
    pub(crate) fn check(&self, duration: Duration) {
        /// Far below the 80 to 250 that a debug build does; less would be no flood.
        const LEAST_A_SECOND: u64 = 20;

        let least = (LEAST_A_SECOND * duration.as_secs()).min(GOAL);
        assert!(self.answers() >= least, "{self}; at least {least} expected");
        for status in self.statuses.keys() {
            assert!([200, 404, 429, 503].contains(status), "{self}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the flood: {} distinct customers (goal {GOAL}), answered {:?}; {} connections cut off",
            self.answers(),
            self.statuses,
            self.cut_off
        )
    }
}

// === impl Customers ===

impl Customers {
    fn next(&self) -> Uuid {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let index = FIRST_KNOWN + number / KNOWN_OF;
        match usize::try_from(index) {
            Ok(index) if number.is_multiple_of(KNOWN_OF) && index < CUSTOMERS => known(index),
            _ => Uuid::from_u128(0x50a4 << 112 | u128::from(number)),
        }
    }

    fn are_enough(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= GOAL
    }
}

// === impl Answers ===

impl Answers {
    /// The status of the next answer; `None` where the connection ends first.
    async fn next(&mut self, stream: &mut tokio::net::TcpStream) -> Option<u16> {
        loop {
            if let Some((status, end)) = whole(&self.bytes) {
                self.bytes.drain(..end);
                return Some(status);
            }
            if stream.read_buf(&mut self.bytes).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The status of the answer that `bytes` begin with, and where it ends, if it is all there.
fn whole(bytes: &[u8]) -> Option<(u16, usize)> {
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).unwrap();
    let status = head.get(9..12)?.parse().unwrap();
    let body = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().unwrap());
    (bytes.len() >= head_end + body).then_some((status, head_end + body))
}
