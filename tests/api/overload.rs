//! More customers asked for than Partner Center can answer. Hits are still served. Requests that
//! would wait too long get a time to come back.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::support::prelude::*;

const WAITING: &str = "usage_proxy_fills_waiting";
const IN_FLIGHT: &str = "usage_proxy_fills_in_flight";
const SHED: &str = r#"usage_proxy_shed_total{reason="caller"}"#;

const PLACES: usize = 2;

/// A service with few places, in which the documented customer is cached and a call has taken five
/// seconds.
async fn slow_app() -> Arc<TestApp> {
    let app = TestApp::builder()
        .set("upstream.max_concurrency", &PLACES.to_string())
        .start()
        .await;
    let app = Arc::new(app);
    app.simulator.hold_calls();
    let first = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.usage(DOCUMENTED).await })
    };
    app.wait_for_calls(SimulatedApi::Insights, 1).await;
    app.advance(Duration::from_secs(5));
    app.simulator.release_calls();
    assert_eq!(first.await.unwrap().status, 200);
    app.simulator.hold_calls();
    app
}

/// Sends requests for unknown customers. Returns once all of them are under way.
async fn flood(app: &Arc<TestApp>, requests: usize) -> JoinSet<Reply> {
    let mut flood = JoinSet::new();
    for _ in 0..requests {
        let app = Arc::clone(app);
        flood.spawn(async move { app.usage(Uuid::new_v4()).await });
    }
    app.wait_for_metric(IN_FLIGHT, requests as f64).await;
    flood
}

#[tokio::test]
async fn requests_that_would_miss_the_deadline_are_shed_and_hits_are_not() {
    let app = slow_app().await;
    // Two places, five seconds each: eight are served in 20 s, and 5 more make the deadline.
    let waiting = flood(&app, PLACES + 8).await;

    let shed = app.usage(customer(1)).await;
    let hit = app.usage(DOCUMENTED).await;

    let problem = shed.problem(503, "overloaded");
    assert_eq!(shed.header("retry-after"), "23", "22.5 s, rounded up");
    assert_eq!(shed.cache_status(), "detail=overloaded");
    assert!(problem.get("upstream").is_none());
    assert_eq!(hit.status, 200);
    assert!(hit.cache_status().starts_with("hit;"));
    assert_eq!(app.metric(SHED).await, 1.0);
    let calls = app.calls(SimulatedApi::Insights);
    assert_eq!(calls, 1 + PLACES);
    app.simulator.release_calls();
    for reply in waiting.join_all().await {
        reply.problem(404, "unknown-customer");
    }
    assert_eq!(app.usage(customer(1)).await.status, 200);
}

#[tokio::test]
async fn requests_that_wait_too_long_get_503_or_504_in_time() {
    let app = slow_app().await;
    let mut waiting = flood(&app, PLACES + 1).await;
    app.wait_for_calls(SimulatedApi::Insights, 1 + PLACES).await;
    app.wait_for_metric(WAITING, 1.0).await;

    // Attempts end after ten seconds, and are repeated at once; calls end after twenty-five.
    for attempts in 1..=3 {
        let calls = 1 + attempts * PLACES;
        app.wait_for_calls(SimulatedApi::Insights, calls).await;
        app.advance(Duration::from_secs(if attempts < 3 { 10 } else { 5 }));
    }

    let mut kinds = Vec::new();
    while let Some(reply) = waiting.join_next().await {
        let reply = reply.unwrap();
        assert!(matches!(reply.status, 503 | 504), "{}", reply.status);
        assert!(!reply.header("retry-after").is_empty());
        kinds.push(reply.json()["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "urn:usage-proxy:problem:overloaded",
            "urn:usage-proxy:problem:timed-out",
            "urn:usage-proxy:problem:timed-out",
        ]
    );
}

#[tokio::test]
async fn stale_data_is_served_where_a_miss_would_be_shed() {
    let app = slow_app().await;
    app.advance(Duration::from_secs(2 * 60 * 60));
    let _waiting = flood(&app, PLACES + 8).await;

    let stale = app.usage(DOCUMENTED).await;

    assert_eq!(stale.status, 200);
    assert_eq!(
        stale.cache_status(),
        "hit; ttl=-6300; detail=stale-if-error"
    );
}

#[tokio::test]
async fn unknown_customers_are_remembered_beside_cached_data() {
    const UNKNOWN: &str = r#"usage_proxy_failures_remembered{kind="absence"}"#;
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    let stranger = Uuid::new_v4();

    for _ in 0..3 {
        app.usage(stranger).await.problem(404, "unknown-customer");
    }
    app.usage(Uuid::new_v4()).await;

    assert_eq!(app.entries().await, 1);
    assert_eq!(app.metric(UNKNOWN).await, 2.0);
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}
