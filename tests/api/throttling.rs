//! Throttled by Partner Center: silence until it is over, for as many as ask.

use std::sync::Arc;

use crate::support::prelude::*;

const THROTTLED: &str =
    r#"usage_proxy_upstream_requests_total{api="insights",code="none",status_class="4xx"}"#;

fn throttle(retry_after: &str, times: Option<u64>) -> Faults {
    Faults {
        api: FaultScope::Insights,
        times,
        ..throttling(retry_after)
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn nothing_is_sent_until_retry_after_has_passed() {
    let app = TestApp::start().await;
    // Two customers: it is the partner who is over the limit.
    app.set_faults(throttle("60", Some(2)));
    let customers = app.simulator.customers();

    let first = [1, 2].map(|index| customers[index]);
    for customer in first {
        let refused = app.usage(customer).await;
        let problem = refused.problem(503, "throttled");
        assert_eq!(problem["upstream"]["status"], 429);
        assert_eq!(refused.header("retry-after"), "60");
    }

    for (customer, pause, left) in [
        (customers[1], 0, "60"),
        (customers[3], 0, "60"),
        // A second more than a call may wait.
        (customers[4], 34, "26"),
    ] {
        app.advance(seconds(pause));
        let refused = app.usage(customer).await;
        refused.problem(503, "throttled");
        assert_eq!(refused.header("retry-after"), left, "{customer}");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 2);

    app.advance(seconds(26));
    let after = app.usage(customers[3]).await;

    assert_eq!(after.status, 200);
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn a_customer_over_its_own_limit_pauses_no_other() {
    let app = TestApp::start().await;
    app.set_faults(throttle("60", Some(1)));
    let customers = app.simulator.customers();
    app.usage(customers[1]).await.problem(503, "throttled");

    let other = app.usage(customers[2]).await;
    // No remembered failure is to answer.
    app.admin_post("/cache/purge").await;
    let same = app.usage(customers[1]).await;

    assert_eq!(other.status, 200);
    same.problem(503, "throttled");
    assert_eq!(same.header("retry-after"), "60");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn a_throttled_call_does_not_pause_the_other_call() {
    let app = TestApp::start().await;
    app.set_faults(throttle("60", None));
    app.usage(DOCUMENTED).await.problem(503, "throttled");

    let dated = app.dated(DOCUMENTED, "2017-03-09").await;

    assert_eq!(dated.status, 200);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let app = TestApp::start().await;
    let in_a_minute = "Sun, 22 Nov 2026 12:01:00 GMT";
    app.set_faults(throttle(in_a_minute, Some(1)));

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(503, "throttled");
    assert_eq!(reply.header("retry-after"), "60");
    let until = app
        .metric("usage_proxy_upstream_throttled_until_timestamp_seconds")
        .await;
    let expected: jiff::Timestamp = "2026-11-22T12:01:00Z".parse().unwrap();
    assert_eq!(until, expected.as_second() as f64);
}

#[tokio::test]
async fn a_short_pause_is_waited_for_by_all() {
    let app = Arc::new(TestApp::start().await);
    app.set_faults(throttle("2", Some(2)));
    let customers = app.simulator.customers();
    let ask = |customer| {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.usage(customer).await })
    };

    let first = ask(customers[1]);
    app.wait_for_metric(THROTTLED, 1.0).await;
    let second = ask(customers[2]);
    app.wait_for_metric(THROTTLED, 2.0).await;
    let third = ask(customers[3]);
    app.wait_for_metric("usage_proxy_fills_in_flight", 3.0)
        .await;
    app.advance(seconds(1));
    // A whole call of the other kind: time enough for a request that came too early.
    app.dated(DOCUMENTED, "2017-03-09").await;
    let before = app.calls(SimulatedApi::Insights);
    app.advance(seconds(1));

    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(third.await.unwrap().status, 200);
    assert_eq!(before, 2);
    assert_eq!(app.calls(SimulatedApi::Insights), 5);
}

#[tokio::test]
async fn a_pause_that_reaches_the_deadline_fails_at_once() {
    let app = TestApp::builder()
        .set("upstream.connect_timeout", "250ms")
        .set("upstream.attempt_timeout", "1s")
        .set("upstream.deadline", "2s")
        .start()
        .await;
    app.set_faults(throttle("2", Some(1)));

    let refused = app.usage(DOCUMENTED).await;

    refused.problem(503, "throttled");
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn repeated_throttling_ends_when_the_retries_are_used_up() {
    let app = Arc::new(TestApp::with("upstream.retries", "2").await);
    app.set_faults(throttle("2", None));

    let shared = Arc::clone(&app);
    let reply = tokio::spawn(async move { shared.usage(DOCUMENTED).await });
    for refusals in [1.0, 2.0] {
        app.wait_for_metric(THROTTLED, refusals).await;
        app.advance(seconds(2));
    }

    let reply = reply.await.unwrap();
    reply.problem(503, "throttled");
    assert_eq!(reply.header("retry-after"), "2");
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn exceeding_a_limit_costs_two_calls() {
    let app = TestApp::start().await;
    app.set_faults(Faults {
        calls_per_minute: Some(2),
        ..Faults::default()
    });
    let customers = app.simulator.customers();

    let mut statuses = Vec::new();
    for customer in &customers[1..=6] {
        statuses.push(app.usage(customer).await.status);
    }
    app.advance(seconds(60));
    let after = app.usage(customers[3]).await;

    assert_eq!(statuses, [200, 200, 503, 503, 503, 503]);
    assert_eq!(after.status, 200);
    // The two that were refused, and the one after the pause.
    assert_eq!(app.calls(SimulatedApi::Insights), 2 + 2 + 1);
}
