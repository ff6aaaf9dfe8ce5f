//! The end: not ready, no new connections, what is under way finished or cut.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use usage_proxy::simulator::SimulatedApi;

use crate::support::{TestApp, customer};

/// Longer than an ending takes, so that a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn draining_answers_what_is_under_way_and_lets_nobody_in() {
    let app = TestApp::start().await;
    let mut under_way = held_request(&app).await;

    app.shutdown.drain();
    let probe = app.admin_get("/readyz").await;
    let alive = app.admin_get("/healthz").await;
    let refused = refusal(&app).await;
    app.simulator.release_calls();
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, app.running).await;

    assert_eq!(probe.status, 503);
    let report = probe.json();
    assert_eq!(report["gates"][0]["name"], "running");
    assert_eq!(report["gates"][0]["ready"], false);
    assert_eq!(report["gates"][1]["ready"], true);
    assert_eq!(alive.status, 200);
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains(&customer(0).to_string()),
        "the whole body: {answer}"
    );
    ended.expect("the service ends").unwrap();
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_timeout_is_cut() {
    let app = TestApp::builder()
        .set("server.drain_timeout", "50ms")
        .start()
        .await;
    let mut under_way = held_request(&app).await;

    app.shutdown.drain();
    let ended = tokio::time::timeout(PATIENCE, app.running).await;
    let mut answer = Vec::new();
    let read = under_way.read_to_end(&mut answer).await;

    ended.expect("the service ends, held up by nobody").unwrap();
    assert!(
        read.is_err() || answer.is_empty(),
        "the connection ends without an answer: {answer:?}"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn an_idle_connection_holds_up_nobody() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    let _idle = TcpStream::connect(app.api).await.unwrap();

    app.shutdown.drain();
    let ended = tokio::time::timeout(PATIENCE, app.running).await;

    ended.expect("the service ends").unwrap();
}

/// A request that has reached upstream, whose answer is held.
async fn held_request(app: &TestApp) -> TcpStream {
    app.simulator.hold_calls();
    let mut stream = TcpStream::connect(app.api).await.unwrap();
    let request = format!(
        "GET /v1/customers/{}/usage HTTP/1.1\r\nHost: localhost\r\n\r\n",
        customer(0)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    app.simulator
        .wait_for_requests(SimulatedApi::Insights, 1)
        .await;
    stream
}

/// How a new connection fails, once the listener is closed.
async fn refusal(app: &TestApp) -> ErrorKind {
    let refused = async {
        loop {
            match TcpStream::connect(app.api).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error.kind(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("connections are refused")
}
