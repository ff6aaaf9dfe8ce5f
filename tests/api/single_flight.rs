//! Concurrent misses: one upstream call, whose result all share, its failure too.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
    task::JoinHandle,
};

use crate::support::prelude::*;

const CALLERS: usize = 1_000;

const IN_FLIGHT: &str = "usage_proxy_http_requests_in_flight";
const COLLAPSED: &str = "usage_proxy_collapsed_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_make_one_call_although_its_leader_disconnects() {
    let app = TestApp::start().await;
    let mut crowd = Crowd::asks(&app).await;

    let leader = crowd.leader(&app);
    crowd.hang_up(leader);
    for caller in crowd.ids().into_iter().step_by(10) {
        crowd.hang_up(caller);
    }
    let waiting = crowd.callers.len();
    app.wait_for_metric(IN_FLIGHT, waiting as f64).await;
    app.simulator.release_calls();
    let answers = crowd.answers().await;

    assert!(waiting >= CALLERS * 9 / 10 - 1);
    assert_eq!(answers.len(), waiting);
    let status = "fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=900";
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&cache_status(status)), "{answer}");
        assert!(
            !answer.contains("ms-requestid"),
            "it made no call: {answer}"
        );
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    assert_eq!(app.metric(COLLAPSED).await, (CALLERS - 1) as f64);
    assert_eq!(app.metric(IN_FLIGHT).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_share_one_failure() {
    let app = TestApp::without_retries().await;
    app.set_faults(failing(503));
    let crowd = Crowd::asks(&app).await;

    app.simulator.release_calls();
    let answers = crowd.answers().await;

    assert_eq!(answers.len(), CALLERS);
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    }
    let status = cache_status("fwd=uri-miss; fwd-status=503; collapsed; detail=unavailable");
    let followers = answers.iter().filter(|answer| answer.contains(&status));
    assert_eq!(followers.count(), CALLERS - 1);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn a_call_without_waiting_callers_is_still_cached() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let closed_tab = ask(&app, customer(0), Uuid::new_v4()).await;
    app.wait_for_calls(SimulatedApi::Insights, 1).await;
    drop(closed_tab);
    app.wait_for_metric(IN_FLIGHT, 0.0).await;

    app.simulator.release_calls();
    app.wait_until_filled().await;
    let next = app.usage(customer(0)).await;

    assert_eq!(next.cache_status(), HIT);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn both_forms_of_the_newest_date_wait_for_one_call() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let release = async {
        app.wait_for_metric(COLLAPSED, 1.0).await;
        app.simulator.release_calls();
    };

    let (simplified, native, ()) =
        tokio::join!(app.usage(customer(0)), app.native(customer(0)), release);

    assert_eq!((simplified.status, native.status), (200, 200));
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn customers_and_dates_do_not_wait_for_one_another() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let past = dated_path(customer(0), "2026-11-10");
    let release = async {
        app.wait_for_calls(SimulatedApi::Insights, 2).await;
        app.wait_for_calls(SimulatedApi::Commercial, 1).await;
        app.simulator.release_calls();
    };

    let (one, other, dated, ()) = tokio::join!(
        app.usage(customer(0)),
        app.usage(customer(1)),
        app.get(&past),
        release
    );

    assert_eq!(one.json()["customerId"], customer(0).to_string());
    assert_eq!(other.json()["customerId"], customer(1).to_string());
    assert_eq!(dated.json()["processedDate"], "2026-11-10");
    assert_eq!(app.metric(COLLAPSED).await, 0.0);
}

#[tokio::test]
async fn a_stale_answer_is_refreshed_by_one_call_for_all_waiting_callers() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.set_rows(customer(0), seats(6, app.simulator.newest_date()));
    app.advance(std::time::Duration::from_secs(4_500));
    app.simulator.hold_calls();
    let release = async {
        app.wait_for_metric(COLLAPSED, 1.0).await;
        app.simulator.release_calls();
    };

    let (one, other, ()) = tokio::join!(app.usage(customer(0)), app.usage(customer(0)), release);

    assert_eq!(one.json()["products"][0]["licensesQualified"], 6);
    assert_eq!(one.body, other.body);
    let mut statuses = [one.cache_status(), other.cache_status()];
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [
            "fwd=stale; fwd-status=200; stored; collapsed; ttl=900",
            STORED_AGAIN,
        ]
    );
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

/// A thousand callers, each on a connection of its own, that asked for one customer at the same
/// moment. The simulator holds the answer. Each caller takes two file descriptors.
struct Crowd {
    /// By the correlation id that each sent.
    callers: HashMap<Uuid, JoinHandle<String>>,
}

impl Crowd {
    /// Returns once all of them wait.
    async fn asks(app: &TestApp) -> Self {
        app.simulator.hold_calls();
        let barrier = Arc::new(Barrier::new(CALLERS));
        let mut callers = HashMap::new();
        for _ in 0..CALLERS {
            let id = Uuid::new_v4();
            let request = request(customer(0), id);
            let mut stream = TcpStream::connect(app.api)
                .await
                .expect("a connection; see ulimit -n");
            stream.set_zero_linger().unwrap();
            let barrier = Arc::clone(&barrier);
            let caller = tokio::spawn(async move {
                barrier.wait().await;
                stream.write_all(request.as_bytes()).await.unwrap();
                read(stream).await
            });
            callers.insert(id, caller);
        }
        app.wait_for_metric(COLLAPSED, (CALLERS - 1) as f64).await;
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        Self { callers }
    }

    /// Returns the caller that made the call: upstream received its correlation id.
    fn leader(&self, app: &TestApp) -> Uuid {
        let calls = app.calls_made(SimulatedApi::Insights);
        let id = calls[0].header("ms-correlationid");
        id.unwrap().parse().unwrap()
    }

    fn ids(&self) -> Vec<Uuid> {
        self.callers.keys().copied().collect()
    }

    /// Resets a caller's connection: closing its half would not end its wait (RFC 9112 §9.6).
    fn hang_up(&mut self, caller: Uuid) {
        self.callers
            .remove(&caller)
            .expect("someone who waits")
            .abort();
    }

    async fn answers(self) -> Vec<String> {
        let mut answers = Vec::new();
        for caller in self.callers.into_values() {
            answers.push(in_time(caller).await.unwrap());
        }
        answers
    }
}

/// Sends a request on a connection of its own, which is reset when it is dropped.
async fn ask(app: &TestApp, customer: Uuid, correlation_id: Uuid) -> TcpStream {
    let mut stream = TcpStream::connect(app.api).await.unwrap();
    stream.set_zero_linger().unwrap();
    let request = request(customer, correlation_id);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

fn request(customer: Uuid, correlation_id: Uuid) -> String {
    format!(
        "GET /v1/customers/{customer}/usage HTTP/1.1\r\nHost: localhost\r\n\
         X-Correlation-Id: {correlation_id}\r\nConnection: close\r\n\r\n"
    )
}

/// The line of an answer that has `Cache-Status`.
fn cache_status(status: &str) -> String {
    format!("cache-status: usage-proxy; {status}\r\n")
}

async fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
