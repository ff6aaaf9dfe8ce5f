//! Purging: soft keeps an answer for a failure, hard drops it, and either wins over a fetch.

use usage_proxy::simulator::SimulatedApi;

use crate::support::{TestApp, customer, seats};

#[tokio::test]
async fn a_softly_purged_date_is_asked_for_once_though_insights_told_it_first() {
    let app = TestApp::start().await;
    let by_name = format!(
        "/v1/customers/{}/usage?processedDate=2026-11-19",
        customer(0)
    );
    app.usage(customer(0)).await;
    app.admin_post("/cache/purge").await;

    let asked = app.get(&by_name).await;
    let held = app.get(&by_name).await;

    assert_eq!(
        asked.header("cache-status"),
        "usage-proxy; fwd=stale; fwd-status=200; stored; ttl=900"
    );
    assert_eq!(held.header("cache-status"), "usage-proxy; hit; ttl=900");
    assert_eq!(app.simulator.count(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn an_older_date_told_after_a_soft_purge_ends_the_asking_too() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let before = app.usage(customer(0)).await;
    app.simulator
        .replace(customer(0), seats(5, newest.yesterday().unwrap()));
    app.admin_post("/cache/purge").await;

    let asked = app.usage(customer(0)).await;
    let held = app.usage(customer(0)).await;

    assert_eq!(asked.body, before.body, "the newest date stays the newest");
    assert_eq!(held.header("cache-status"), "usage-proxy; hit; ttl=900");
    assert_eq!(app.simulator.count(SimulatedApi::Insights), 2);
}
