//! Bytes that need not be HTTP, sent to the running service: whatever comes, it answers in HTTP, ends
//! the connection, leaves no request unanswered, and takes nothing for a request that is none.

use std::net::SocketAddr;

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestCaseResult, TestRunner},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

use crate::support::prelude::*;

/// Longer than any connection may last here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A path that is asked for in bodies alone.
const SMUGGLED: &str = "/smuggled";

/// The service, and the runtime that it runs on.
struct Target {
    runtime: Runtime,
    api: SocketAddr,
    _app: TestApp,
}

/// The last step of a client that has sent everything.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It closes its half.
    Close,
    /// It leaves that to the service.
    Wait,
}

/// Answers on one connection.
#[derive(Debug)]
struct Answers {
    statuses: Vec<u16>,
    bodies: String,
    /// The last one said that no other follows.
    closed: bool,
}

// === impl Target ===

impl Target {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let app = runtime.block_on(TestApp::start());
        Self {
            runtime,
            api: app.api,
            _app: app,
        }
    }

    /// Sends pieces, one after the other, and reads until the service closes.
    fn send(&self, pieces: &[Vec<u8>], then: Then) -> Result<Answers, TestCaseError> {
        let exchange = async {
            let (mut reader, mut writer) = TcpStream::connect(self.api).await.unwrap().into_split();
            let mut answers = Vec::new();
            let write = async {
                for piece in pieces {
                    // It may have had enough of us.
                    if writer.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                if then == Then::Close {
                    drop(writer.shutdown().await);
                }
            };
            let (_, read) = tokio::join!(write, reader.read_to_end(&mut answers));
            read.map(|_| answers)
        };
        let exchanged = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
        let answers = exchanged
            .map_err(|_| TestCaseError::fail("the connection does not end"))?
            .map_err(|error| TestCaseError::fail(format!("no orderly end: {error}")))?;
        Answers::parse(&answers)
    }

    /// Asks properly, and must be answered as if nothing had happened.
    fn still_serves(&self) -> TestCaseResult {
        let path = usage_path(DOCUMENTED);
        let request = get(&path, "Connection: close\r\n");
        let answers = self.send(&[request], Then::Wait)?;
        prop_assert_eq!(&answers.statuses, &[200]);
        prop_assert!(answers.bodies.contains(DOCUMENTED), "{:?}", answers);
        Ok(())
    }
}

// === impl Answers ===

impl Answers {
    /// Takes everything apart, and finds nothing left over.
    fn parse(mut bytes: &[u8]) -> Result<Self, TestCaseError> {
        let mut answers = Self {
            statuses: Vec::new(),
            bodies: String::new(),
            closed: false,
        };
        while !bytes.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
                let bytes = String::from_utf8_lossy(bytes);
                return Err(TestCaseError::fail(format!("no head of HTTP: {bytes}")));
            };
            let lengths: Vec<_> = head
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case("content-length"))
                .map(|header| std::str::from_utf8(header.value).unwrap().parse().unwrap())
                .collect();
            prop_assert!(lengths.len() <= 1, "{:?}", lengths);
            let end = length + lengths.first().copied().unwrap_or(0_usize);
            prop_assert!(bytes.len() >= end, "less than the promised {end} bytes");
            answers.closed = head.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case("connection") && header.value == b"close"
            });
            answers.statuses.push(head.code.unwrap());
            answers
                .bodies
                .push_str(&String::from_utf8_lossy(&bytes[length..end]));
            bytes = &bytes[end..];
        }
        Ok(answers)
    }

    /// Each of so many requests has its answer, up to the one after which the service closes.
    fn check_complete(&self, requests: usize) -> TestCaseResult {
        let answered = self.statuses.len();
        prop_assert!(
            answered >= requests || (answered > 0 && self.closed),
            "{} requests: {:?}",
            requests,
            self
        );
        Ok(())
    }
}

/// Counts the whole requests of HTTP/1.1 without a body at the front.
fn plain_requests(mut bytes: &[u8]) -> usize {
    let mut requests = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
            return requests;
        };
        let has = |name: &str| {
            let mut headers = head.headers.iter();
            headers.any(|header| header.name.eq_ignore_ascii_case(name))
        };
        if head.version != Some(1) || has("content-length") || has("transfer-encoding") {
            return requests;
        }
        // hyper closes without an answer where the preface of HTTP/2 follows a malformed target.
        let is_malformed = head.path.unwrap().parse::<http::Uri>().is_err();
        if is_malformed && bytes[length..].starts_with(b"PRI * HTTP/2.0") {
            return requests;
        }
        requests += 1;
        bytes = &bytes[length..];
    }
}

/// A `GET` with more lines in its head.
fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").into_bytes()
}

/// A request with a body that is a request too, in every way in which a body may be announced,
/// rightly or not.
fn with_a_body() -> impl Strategy<Value = Vec<u8>> {
    let smuggled = String::from_utf8(get(SMUGGLED, "")).unwrap();
    let size = smuggled.len();
    let whole = format!("Content-Length: {size}\r\n");
    let chunked = format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n");
    let coding = "Transfer-Encoding: chunked\r\n";
    let announced = prop_oneof![
        Just((whole.clone(), smuggled.clone())),
        Just((coding.to_owned(), chunked.clone())),
        Just((format!("{whole}{coding}"), chunked.clone())),
        Just((format!("{coding}{whole}"), chunked.clone())),
        Just((format!("{whole}Content-Length: 0\r\n"), smuggled.clone())),
        Just((format!("Content-Length: 0\r\n{whole}"), smuggled.clone())),
        Just((format!("Content-Length: +{size}\r\n"), smuggled.clone())),
        Just((
            "Transfer-Encoding: identity\r\n".to_owned(),
            smuggled.clone()
        )),
        Just((
            "Transfer-Encoding: chunked, x\r\n".to_owned(),
            chunked.clone()
        )),
        Just(("Transfer-Encoding : chunked\r\n".to_owned(), chunked)),
    ];
    let line = (method(), path()).prop_map(|(method, path)| format!("{method} {path} HTTP/1.1"));
    (line, announced).prop_map(|(line, (headers, body))| {
        format!("{line}\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
    })
}

/// No HEAD: whose answer has a length and no content.
fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "POST", "PUT", "OPTIONS", "DELETE", "BREW"])
}

fn path() -> impl Strategy<Value = String> {
    let usage = usage_path(DOCUMENTED);
    prop_oneof![
        Just(usage.clone()),
        Just(format!("{usage}?processedDate=x")),
        Just("*".to_owned()),
        Just("http://x/".to_owned()),
        "/[a-zA-Z0-9%/?&=.-]{0,40}",
    ]
}

/// Good and bad bytes in place of a request.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let line = "[A-Za-z-]{1,12} ?:[ -~]{0,40}\r?\n";
    let head = (method(), path(), prop::collection::vec(line, 0..70));
    let head = head.prop_map(|(method, path, lines)| {
        format!("{method} {path} HTTP/1.1\r\n{}\r\n", lines.concat()).into_bytes()
    });
    prop_oneof![
        4 => path().prop_map(|path| get(&path, "")),
        4 => with_a_body(),
        2 => head,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0_usize..40_000).prop_map(|length| get(&format!("/{}", "x".repeat(length)), "")),
        1 => Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        1 => Just(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
    ]
}

/// Bytes in place of others, with their positions.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n\t :,;\0/%0".to_vec()),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), byte), 0..4)
}

/// The positions at which the sent bytes are cut in pieces.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..6)
}

fn pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .map(|end| bytes[std::mem::replace(&mut start, end)..end].to_vec())
        .collect()
}

/// The seeds of cases that failed are kept, as those of other properties are.
fn runner(seeds: &'static str) -> TestRunner {
    TestRunner::new(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        // Milliseconds: each case that does not end takes all the patience that there is.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })
}

#[test]
fn any_input_gets_an_http_response_and_the_connection_ends() {
    let target = Target::start();
    let sent = (prop::collection::vec(anything(), 1..4), mutations(), cuts());

    let run = runner("tests/regressions/api/raw_http.txt").run(&sent, |(sent, mutations, cuts)| {
        let mut bytes = sent.concat();
        for (at, byte) in mutations
            .into_iter()
            .filter(|_| !bytes.is_empty())
            .collect::<Vec<_>>()
        {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }

        let answers = target.send(&pieces(&bytes, &cuts), Then::Close)?;

        answers.check_complete(plain_requests(&bytes))?;
        target.still_serves()
    });

    run.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let target = Target::start();
    let sent = (prop::collection::vec(with_a_body(), 1..4), cuts());

    let run = runner("tests/regressions/api/raw_http_bodies.txt").run(&sent, |(sent, cuts)| {
        let answers = target.send(&pieces(&sent.concat(), &cuts), Then::Wait)?;

        prop_assert!(!answers.bodies.contains(SMUGGLED), "{:?}", answers);
        prop_assert!(
            (1..=sent.len()).contains(&answers.statuses.len()),
            "{:?}",
            answers
        );
        Ok(())
    });

    run.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Sends requests, closes its half at once, and reads what comes.
async fn ask_and_close(api: SocketAddr, requests: Vec<u8>) -> Answers {
    let exchange = async {
        let mut stream = TcpStream::connect(api).await.unwrap();
        stream.write_all(&requests).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        Answers::parse(&answers).unwrap()
    };
    let answers = tokio::time::timeout(PATIENCE, exchange).await;
    answers.expect("the connection ends")
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_answered_from_the_cache() {
    let app = TestApp::start().await;
    let request = get(&usage_path(DOCUMENTED), "");
    app.usage(DOCUMENTED).await;

    for _ in 0..50 {
        let answers = ask_and_close(app.api, request.repeat(2)).await;

        assert_eq!(answers.statuses, [200, 200]);
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_waits_for_partner_center_like_any_other() {
    let app = TestApp::start().await;
    let request = get(&usage_path(DOCUMENTED), "");
    app.simulator.hold_calls();

    let asking = tokio::spawn(ask_and_close(app.api, request.repeat(2)));
    app.wait_for_calls(SimulatedApi::Insights, 1).await;
    app.simulator.release_calls();
    let answers = asking.await.unwrap();

    assert_eq!(answers.statuses, [200, 200]);
    let gone = "usage_proxy_http_requests_total{method=\"GET\",\
                route=\"/v1/customers/{customer_id}/usage\",status=\"499\"}";
    assert_eq!(app.metric(gone).await, 0.0);
}
