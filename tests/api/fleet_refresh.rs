//! All customers are refreshed together, by a few calls of the commercial kind.

use usage_proxy::simulator::SimulatedApi;

use crate::support::prelude::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

async fn refreshed() -> TestApp {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
        .start()
        .await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 1.0).await;
    app
}

const SUCCESSFUL_REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;
const SUCCESSFUL_CHECKS: &str = r#"usage_proxy_fleet_checks_total{outcome="success"}"#;

#[tokio::test]
async fn every_customer_is_a_hit_after_a_refresh() {
    let app = refreshed().await;
    app.simulator.clear_requests();

    for id in app.simulator.customers() {
        let reply = app.usage(id).await;

        assert_eq!(reply.status, 200, "{id}");
        assert!(reply.cache_status().starts_with("hit;"), "{id}");
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn a_check_without_a_newer_date_keeps_every_customer_fresh() {
    let app = refreshed().await;
    let before = app.usage(customer(0)).await;
    let first = before.header("cache-control").to_owned();
    app.simulator.clear_requests();

    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_CHECKS, 1.0).await;
    let after = app.usage(customer(0)).await;

    assert!(after.cache_status().starts_with("hit;"));
    assert_eq!(after.header("age"), "0");
    assert_eq!(after.header("etag"), before.header("etag"));
    assert!(
        first.contains("max-age=4500"),
        "an hour and cache.fresh_for: {first}"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn a_newer_date_is_fetched_for_all_customers_by_one_call() {
    let app = refreshed().await;
    let before = app.usage(customer(0)).await;
    app.simulator.clear_requests();
    app.simulator.advance_day();

    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;
    let after = app.usage(customer(0)).await;

    assert!(after.cache_status().starts_with("hit;"));
    assert_ne!(
        after.json()["processedDate"],
        before.json()["processedDate"]
    );
    assert_eq!(
        after.json()["processedDate"],
        app.simulator.newest_date().to_string()
    );
    assert_eq!(
        app.simulator.request_count(SimulatedApi::Commercial),
        2,
        "check and refresh"
    );
}

#[tokio::test]
async fn a_failed_check_leaves_the_data_in_place_and_is_retried() {
    let app = refreshed().await;
    app.set_faults(failing(500));
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(r#"usage_proxy_fleet_checks_total{outcome="failure"}"#, 1.0)
        .await;

    let reply = app.usage(customer(0)).await;

    assert!(reply.cache_status().starts_with("hit;"));
    app.set_faults(Faults::default());
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_CHECKS, 1.0).await;
}
