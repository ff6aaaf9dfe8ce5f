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
const FAILED_REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="failure"}"#;
/// The pause after a failure without jitter.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const FAILED_CHECKS: &str = r#"usage_proxy_fleet_checks_total{outcome="failure"}"#;
const QUARTER: Duration = Duration::from_secs(15 * 60);
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
    assert_eq!(app.simulator.requests().len(), 0);
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
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetCheck), 1);
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 0);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
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
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 1);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
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
    app.clear_faults();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_CHECKS, 1.0).await;
}

#[tokio::test]
async fn pages_that_do_not_belong_together_leave_the_data_in_place_and_are_fetched_again() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
        .set("upstream.retries", "0")
        .simulator(|options| options.page_size = 50)
        .start()
        .await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 1.0).await;
    let before = app.usage(customer(0)).await;
    app.simulator.advance_day();

    app.clock.advance(HOUR - RETRY_PAUSE);
    let mut failures = 0.0;
    for body in [
        BodyFault::RepeatedPage,
        BodyFault::ShiftedRows,
        BodyFault::ShrunkTotal,
        BodyFault::CutShort,
        BodyFault::Truncated,
    ] {
        app.set_faults(Faults {
            page: Some(2),
            ..bad_body(body)
        });
        app.clock.advance_when_sleeping(RETRY_PAUSE).await;
        failures += 1.0;
        app.wait_for_metric(FAILED_REFRESHES, failures).await;

        let reply = app.usage(customer(0)).await;

        assert_eq!(reply.header("etag"), before.header("etag"), "{body:?}");
    }
    app.clear_faults();
    app.clock.advance_when_sleeping(RETRY_PAUSE).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;

    let after = app.usage(customer(0)).await;
    assert_ne!(after.header("etag"), before.header("etag"));
}

#[tokio::test]
async fn a_customer_that_loses_its_rows_keeps_them_until_a_second_look() {
    let app = refreshed().await;
    let before = app.usage(customer(0)).await;
    let no_rows = CustomerOverride::Rows(Vec::new());
    app.simulator.override_customer(customer(0), no_rows);
    app.simulator.advance_day();

    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;
    let kept = app.usage(customer(0)).await;
    app.clock.advance_when_sleeping(QUARTER).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 3.0).await;
    let confirmed = app.usage(customer(0)).await;

    assert_eq!(kept.body, before.body);
    assert!(kept.cache_status().contains("detail=suspect"));
    assert_eq!(confirmed.json()["products"], serde_json::json!([]));
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn customers_whose_data_is_late_keep_their_newest_date() {
    let app = refreshed().await;
    app.simulator.delay_customers([customer(0)]);
    app.simulator.advance_day();

    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;
    let late = app.usage(customer(0)).await.json();
    let on_time = app.usage(customer(1)).await.json();

    let newest = app.simulator.newest_date();
    assert_eq!(
        late["processedDate"],
        newest.yesterday().unwrap().to_string()
    );
    assert_eq!(on_time["processedDate"], newest.to_string());
    let stale = r#"usage_proxy_fleet_customers{status="stale"}"#;
    assert_eq!(app.metric(stale).await, 2.0, "and the documented customer");
}

#[tokio::test]
async fn a_hard_purge_is_followed_by_a_refresh() {
    let app = refreshed().await;
    app.admin_post("/cache/purge?hard=true").await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;

    assert!(
        app.usage(customer(0))
            .await
            .cache_status()
            .starts_with("hit;")
    );
}

#[tokio::test]
async fn with_insights_the_customers_are_walked_over_a_day() {
    let app = TestApp::builder()
        .set("fleet.refresh", "true")
        .simulator(|options| options.customers = 3)
        .start()
        .await;
    app.simulator
        .wait_for_requests(SimulatedApi::Insights, 1)
        .await;
    app.wait_for_metric(SUCCESSFUL_CHECKS, 1.0).await;

    for asked in 2..=4 {
        app.clock.advance_when_sleeping(6 * HOUR - SECOND).await;
        let too_early = app.metric(SUCCESSFUL_CHECKS).await;
        app.clock.advance_when_sleeping(SECOND).await;
        app.wait_for_metric(SUCCESSFUL_CHECKS, f64::from(asked))
            .await;

        assert_eq!(too_early, f64::from(asked - 1));
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 4);
    let current = r#"usage_proxy_fleet_customers{status="current"}"#;
    assert_eq!(app.metric(current).await, 3.0);
}

#[tokio::test]
async fn a_check_without_any_rows_confirms_nothing() {
    let app = refreshed().await;
    for id in app.simulator.customers() {
        let no_rows = CustomerOverride::Rows(Vec::new());
        app.simulator.override_customer(id, no_rows);
    }

    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(FAILED_CHECKS, 1.0).await;

    let reply = app.usage(customer(0)).await;
    assert_eq!(reply.header("age"), "3600");
}

#[tokio::test]
async fn the_newest_date_does_not_go_backwards_after_a_purge() {
    let app = refreshed().await;
    let newest = app.simulator.newest_date();
    let all = app.simulator.customers();
    app.simulator.delay_customers(all);

    app.admin_post(&format!("/cache/purge?customer={}", customer(0)))
        .await;
    app.wait_for_metric(FAILED_REFRESHES, 1.0).await;

    let fleet = app.get("/v1/usage").await.json();
    assert_eq!(fleet["processedDate"], newest.to_string());
}

#[tokio::test]
async fn a_date_with_missing_customers_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!(
        "sqlite:{}",
        folder.path().join("usage.db").to_string_lossy()
    );
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
        .set("store.url", &url)
        .start()
        .await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 1.0).await;
    let no_rows = CustomerOverride::Rows(Vec::new());
    app.simulator.override_customer(customer(0), no_rows);
    app.simulator.advance_day();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;
    app.simulator.clear_override(customer(0));

    let path = format!("/v1/usage?processedDate={}", app.simulator.newest_date());
    let date = app.get(&path).await.json();

    assert_eq!(
        date["customers"]["empty"], 2,
        "a customer without licenses, and the documented one"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 3);
}

#[tokio::test]
async fn a_customer_that_nobody_knows_leaves_nothing_behind() {
    let app = refreshed().await;
    let before = app.get("/v1/usage").await.json()["customers"].clone();

    app.usage("11111111-2222-4333-8444-555555555555").await;
    app.simulator.advance_day();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;

    assert_eq!(app.get("/v1/usage").await.json()["customers"], before);
}
