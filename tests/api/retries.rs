//! Passing faults of Partner Center: asked again, as often as allowed and no oftener.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
};

use crate::support::prelude::*;

fn failing_at_first(status: u16, times: u64) -> Faults {
    Faults {
        times: Some(times),
        ..failing(status)
    }
}

#[tokio::test]
async fn two_passing_faults_and_an_answer_are_an_answer() {
    for status in [408, 500, 502, 503, 504] {
        let app = TestApp::start().await;
        app.set_faults(failing_at_first(status, 2));

        let reply = app.usage(DOCUMENTED).await;

        assert_eq!(reply.status, 200, "{status}");
        assert_eq!(app.calls(SimulatedApi::Insights), 3, "{status}");
        let retries = r#"usage_proxy_upstream_retries_total{reason="status"}"#;
        assert_eq!(app.metric(retries).await, 2.0, "{status}");
    }
}

#[tokio::test]
async fn there_are_never_more_retries_than_configured() {
    for retries in [0, 1, 3] {
        let app = TestApp::builder()
            .set("upstream.retries", &retries.to_string())
            .start()
            .await;
        app.set_faults(failing(503));

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(503, "unavailable");
        assert_eq!(problem["upstream"]["status"], 503, "{retries}");
        assert_eq!(reply.header("retry-after"), "1", "{retries}");
        let calls = app.calls(SimulatedApi::Insights);
        assert_eq!(calls, retries + 1, "{retries}");
    }
}

#[tokio::test]
async fn errors_that_a_retry_cannot_fix_are_not_retried() {
    for (status, ours, kind) in [
        (400, 502, "rejected"),
        (403, 502, "rejected"),
        (404, 502, "rejected"),
        (409, 502, "rejected"),
        (501, 503, "unavailable"),
    ] {
        let app = TestApp::start().await;
        app.set_faults(failing(status));

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(ours, kind);
        assert_eq!(problem["upstream"]["status"], status);
        assert_eq!(app.calls(SimulatedApi::Insights), 1, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_retried() {
    let app = TestApp::start().await;
    app.set_faults(Faults {
        times: Some(2),
        ..broken_off()
    });

    let reply = app.native(DOCUMENTED).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, usage_proxy::simulator::documented_body());
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn an_answer_that_always_breaks_off_fails_and_is_not_cached() {
    let app = TestApp::start().await;
    app.set_faults(broken_off());

    let reply = app.native(DOCUMENTED).await;

    reply.problem(503, "unavailable");
    assert_eq!(app.calls(SimulatedApi::Insights), 4);
    assert_eq!(app.entries().await, 0);
}

#[tokio::test]
async fn an_unreachable_partner_center_is_unavailable_and_its_address_is_not_shown() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let app = TestApp::with("upstream.base_url", &format!("http://{address}")).await;

    let reply = app.usage(DOCUMENTED).await;

    let problem = reply.problem(503, "unavailable");
    assert!(problem.get("upstream").is_none(), "nobody answered");
    assert!(!reply.text().contains(&address), "{problem}");
    let retries = r#"usage_proxy_upstream_retries_total{reason="connection"}"#;
    assert_eq!(app.metric(retries).await, 3.0);
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_given_up_and_made_again_until_the_deadline() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();

    let (reply, ()) = tokio::join!(app.usage(DOCUMENTED), async {
        // Two whole attempts of 10 s, and 5 s of a third: the deadline is 25 s.
        for (attempts, pause) in [(1, 10), (2, 10), (3, 5)] {
            app.wait_for_calls(SimulatedApi::Insights, attempts).await;
            app.advance(Duration::from_secs(pause));
        }
    });

    reply.problem(504, "timed-out");
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed() {
    const PLACES: usize = 4;
    let app = TestApp::builder()
        .set("upstream.max_concurrency", &PLACES.to_string())
        .start()
        .await;
    let app = Arc::new(app);
    let customers = app.simulator.customers();
    app.simulator.hold_calls();

    let replies: Vec<_> = customers[1..=3 * PLACES]
        .iter()
        .map(|customer| {
            let (app, customer) = (Arc::clone(&app), *customer);
            tokio::spawn(async move { app.usage(customer).await })
        })
        .collect();
    for round in 1..=3 {
        let waiting = 3 * PLACES - (round - 1) * PLACES;
        app.wait_for_metric("usage_proxy_fills_in_flight", waiting as f64)
            .await;
        app.wait_for_calls(SimulatedApi::Insights, round * PLACES)
            .await;
        assert_eq!(
            app.calls(SimulatedApi::Insights),
            round * PLACES,
            "round {round}"
        );
        // The simulator holds the calls that take the free places again.
        app.simulator.release_calls();
        app.simulator.hold_calls();
    }

    for reply in replies {
        assert_eq!(reply.await.unwrap().status, 200);
    }
}
