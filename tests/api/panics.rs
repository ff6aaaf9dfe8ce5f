//! A panic in a handler: an error of one request, and of nothing else.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use jiff::Timestamp;
use usage_proxy::clock::{Clock, SharedClock};

use crate::{logs::Log, support::prelude::*};

/// The message of the panics, which no caller may read.
const MESSAGE: &str = "canary-panic";

/// A clock whose next reading panics, once a test asks for that.
#[derive(Debug)]
struct BreakableClock {
    clock: SharedClock,
    breaks: Breaks,
}

/// The readings that panic. Clones share them.
#[derive(Clone, Debug, Default)]
struct Breaks {
    now: Arc<AtomicBool>,
    wall: Arc<AtomicBool>,
}

// === impl BreakableClock ===

impl Clock for BreakableClock {
    fn now(&self) -> Instant {
        assert!(!self.breaks.now.swap(false, Relaxed), "{MESSAGE}");
        self.clock.now()
    }

    fn wall_time(&self) -> Timestamp {
        assert!(!self.breaks.wall.swap(false, Relaxed), "{MESSAGE}");
        self.clock.wall_time()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.clock.sleep_until(deadline)
    }
}

async fn app() -> (TestApp, Breaks) {
    let breaks = Breaks::default();
    let of_clock = breaks.clone();
    let app = TestApp::builder()
        .clock(move |clock| {
            Arc::new(BreakableClock {
                clock,
                breaks: of_clock,
            })
        })
        .start()
        .await;
    (app, breaks)
}

/// Sends two requests in one connection, the first of which meets the panic.
async fn two_requests(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let first = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let second = first.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all((first + &second).as_bytes())
        .await
        .unwrap();
    let mut answers = Vec::new();
    // The connection is closed after the second answer.
    in_time(stream.read_to_end(&mut answers)).await.unwrap();
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn a_panic_in_a_handler_of_the_api_fails_only_its_own_request() {
    let log = Log::start();
    let (app, breaks) = app().await;
    let path = dated_path(DOCUMENTED, "2017-03-09");

    breaks.wall.store(true, Relaxed);
    let reply = app.get_with(&path, &[("x-request-id", "broken")]).await;
    breaks.wall.store(true, Relaxed);
    let answers = two_requests(app.api, &path).await;

    let problem = reply.problem(500, "internal-error");
    assert_eq!(problem["requestId"], "broken");
    assert_eq!(reply.header("x-request-id"), "broken");
    assert!(!reply.text().contains(MESSAGE), "{problem}");
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
    let route = "route=\"/v1/customers/{customer_id}/usage\"";
    let counted =
        format!("usage_proxy_http_requests_total{{method=\"GET\",{route},status=\"500\"}}");
    assert_eq!(app.metric(&counted).await, 2.0);
    let panics = "usage_proxy_handler_panics_total{listener=\"api\"}";
    assert_eq!(app.metric(panics).await, 2.0);
    assert_eq!(app.metric("usage_proxy_http_requests_in_flight").await, 0.0);
    let line = &log.requests()[0];
    assert_eq!(line["level"], "ERROR", "{line}");
    assert_eq!(line["status"], 500, "{line}");
    assert_eq!(line["problem"], "internal-error", "{line}");
    assert_eq!(line["request_id"], "broken", "{line}");
}

#[tokio::test]
async fn a_panic_in_a_handler_of_the_admin_listener_fails_only_its_own_request() {
    let log = Log::start();
    let (app, breaks) = app().await;
    app.usage(DOCUMENTED).await;
    let path = format!("/cache?customer={DOCUMENTED}");

    breaks.now.store(true, Relaxed);
    let answers = two_requests(app.admin, &path).await;

    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert!(answers.contains("urn:usage-proxy:problem:internal-error"));
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
    assert!(!answers.contains(MESSAGE), "{answers}");
    let panics = "usage_proxy_handler_panics_total{listener=\"admin\"}";
    assert_eq!(app.metric(panics).await, 1.0);
    let logged = log.with_message("a handler of the admin listener panicked");
    let line = &logged[0];
    assert_eq!(line["level"], "ERROR", "{line}");
    assert_eq!(line["path"], "/cache", "{line}");
    assert!(answers.contains(line["request_id"].as_str().unwrap()));
}
