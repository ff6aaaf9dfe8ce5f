//! What a service stored is served by the next one, before any upstream call.

use std::{fs, path::Path};

use futures_util::future::join_all;
use jiff::ToSpan;
use tempfile::TempDir;
use usage_proxy::simulator::SimulatedApi;

use crate::support::prelude::*;

const TEN_MINUTES_LATER: &str = "2026-11-22T12:10:00Z";

const HOUR: Duration = Duration::from_secs(60 * 60);

const TEN_HOURS_LATER: &str = "2026-11-22T22:00:00Z";

fn with_store(folder: impl AsRef<Path>) -> Builder {
    let url = format!("sqlite:{}", file(folder.as_ref()));
    TestApp::builder()
        .set("store.url", &url)
        .set("store.flush_within", "1ms")
}

fn file(folder: &Path) -> String {
    folder.join("usage.db").to_string_lossy().into_owned()
}

/// Ends the service, and everything that waits to be stored is.
async fn end(app: TestApp) {
    app.shutdown.drain();
    in_time(app.running).await.unwrap();
}

/// The next service on the same store, while upstream is down.
async fn restarted(folder: &TempDir, at: &'static str) -> TestApp {
    with_store(folder)
        .started_at(at)
        .simulator(|options| options.faults = failing(503))
        .start()
        .await
}

#[tokio::test]
async fn a_stored_answer_is_served_with_its_true_age_while_upstream_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    let before = app.usage(customer(0)).await;
    let native = app.native(customer(0)).await;
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;
    let after = app.usage(customer(0)).await;

    assert_eq!(after.status, 200);
    assert!(
        after.cache_status().starts_with("hit;"),
        "{}",
        after.cache_status()
    );
    assert_eq!(after.header("age"), "600");
    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(app.native(customer(0)).await.body, native.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_stored_answer_is_stale_when_its_age_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    app.usage(customer(0)).await;
    end(app).await;

    let app = restarted(&folder, TEN_HOURS_LATER).await;
    let after = app.usage(customer(0)).await;

    assert_eq!(after.status, 200);
    assert!(
        after.cache_status().contains("detail=stale-if-error"),
        "{}",
        after.cache_status()
    );
    assert_eq!(after.header("age"), "36000");
}

#[tokio::test]
async fn a_stored_date_is_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    let date = app.simulator.newest_date().yesterday().unwrap();
    let before = app.dated(customer(0), date).await;
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;
    let after = app.dated(customer(0), date).await;

    assert_eq!(after.body, before.body);
    assert!(
        after.cache_status().starts_with("hit;"),
        "{}",
        after.cache_status()
    );
}

#[tokio::test]
async fn nothing_stored_before_a_hard_purge_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    app.usage(customer(0)).await;
    app.admin_post(&format!("/cache/purge?customer={}&hard=true", customer(0)))
        .await;
    app.set_faults(failing(503));
    app.usage(customer(0)).await.problem(503, "unavailable");
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;

    app.usage(customer(0)).await.problem(503, "unavailable");
}

#[tokio::test]
async fn a_soft_purge_asks_upstream_and_falls_back_on_the_stored_answer() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    let before = app.usage(customer(0)).await;
    app.admin_post("/cache/purge").await;
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;
    let after = app.usage(customer(0)).await;

    assert_eq!(after.body, before.body);
    assert!(
        after.cache_status().contains("fwd=stale"),
        "{}",
        after.cache_status()
    );
}

#[tokio::test]
async fn the_fleet_has_its_true_age_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    app.get("/v1/customers").await;
    app.usage(customer(0)).await;
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;
    let fleet = app.get("/v1/usage").await;

    assert_eq!(fleet.json()["customers"]["current"], 1);
    assert_eq!(fleet.header("age"), "600");
}

fn all_of_date(app: &TestApp) -> String {
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    format!("/v1/usage?processedDate={date}")
}

#[tokio::test]
async fn concurrent_requests_for_a_stored_date_of_all_customers_share_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    let path = all_of_date(&app);
    let before = app.get(&path).await;
    end(app).await;

    let app = restarted(&folder, TEN_MINUTES_LATER).await;
    let replies = join_all((0..8).map(|_| app.get(&path))).await;

    for reply in replies {
        assert!(reply.cache_status().starts_with("hit;"), "{reply:?}");
        assert_eq!(reply.json(), before.json());
    }
    let reads = r#"usage_proxy_store_operations_total{operation="all-of-date",outcome="success"}"#;
    assert_eq!(app.metric(reads).await, 1.0);
}

#[tokio::test]
async fn rows_that_were_fetched_while_the_store_was_gone_replace_none_that_are_stored() {
    let root = tempfile::tempdir().unwrap();
    let (folder, aside) = (root.path().join("store"), root.path().join("aside"));
    fs::create_dir(&folder).unwrap();
    let app = with_store(&folder).start().await;
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    let products = |count: usize| -> Vec<_> {
        let names = (0..count).map(|number| format!("PRODUCT {number}"));
        names
            .map(|name| SimulatedRow::new(&name, "Exchange", 5, date))
            .collect()
    };
    let path = format!(
        "/v1/usage/unused?processedDate={date}&customer={}",
        customer(0)
    );
    let count = |reply: &Reply| reply.json()["items"].as_array().unwrap().len();
    app.set_rows(customer(0), products(20));
    let before = app.get(&path).await;
    end(app).await;
    fs::rename(&folder, &aside).unwrap();

    let app = with_store(&folder).start().await;
    app.set_rows(customer(0), products(2));
    let fetched = app.get(&path).await;
    fs::rename(&aside, &folder).unwrap();
    wait_until("the store is open", async || {
        app.advance(SECOND);
        app.metric("usage_proxy_store_up").await == 1.0
    })
    .await;
    app.wait_until_stored().await;
    app.advance(STALE);
    let after = app.get(&path).await;

    assert_eq!(
        (count(&before), count(&fetched), count(&after)),
        (20, 2, 20)
    );
    assert!(after.cache_status().starts_with("hit;"), "{after:?}");
}

/// A date before the first that the simulator has.
const NOTHING_PROCESSED: &str = "/v1/usage?processedDate=2001-01-01";

#[tokio::test]
async fn a_date_that_nothing_was_processed_on_is_not_asked_for_again_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    app.usage(customer(0)).await;
    app.get(NOTHING_PROCESSED)
        .await
        .problem(404, "nothing-processed");
    app.advance(12 * HOUR);
    app.get(NOTHING_PROCESSED)
        .await
        .problem(404, "nothing-processed");
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 1);
    end(app).await;

    let app = with_store(&folder)
        .started_at("2026-11-23T11:59:00Z")
        .start()
        .await;
    let absent = app.get(NOTHING_PROCESSED).await;
    let calls = app.simulator.request_count(SimulatedApi::FleetPage);
    app.advance(2 * 60 * SECOND);
    let asked_again = app.get(NOTHING_PROCESSED).await;

    absent.problem(404, "nothing-processed");
    asked_again.problem(404, "nothing-processed");
    assert_eq!(calls, 0);
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 1);
}

#[tokio::test]
async fn a_date_that_nothing_was_processed_on_is_asked_for_again_by_no_cache_and_after_a_purge() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    app.usage(customer(0)).await;
    app.get(NOTHING_PROCESSED).await;
    app.advance(60 * SECOND);
    app.get_with(NOTHING_PROCESSED, &[("cache-control", "no-cache")])
        .await;
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 2);
    app.admin_post("/cache/purge").await;
    end(app).await;

    let app = with_store(&folder)
        .started_at(TEN_MINUTES_LATER)
        .start()
        .await;
    app.get(NOTHING_PROCESSED).await;

    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 1);
}

#[tokio::test]
async fn a_customer_that_is_not_listed_any_more_counts_in_no_total_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).start().await;
    let mut listed = app.get("/v1/customers").await.json()["items"].clone();
    for id in [customer(0), customer(1)] {
        app.usage(id).await;
    }
    let before = app.get("/v1/usage").await.json();
    let listed = listed.as_array_mut().unwrap();
    listed.retain(|item| item["id"] != customer(1).to_string());
    app.simulator.override_customer_list(listed.clone());

    app.advance(STALE);
    app.get("/v1/customers").await;
    let after = app.get("/v1/usage").await.json();
    end(app).await;
    let app = restarted(&folder, TEN_HOURS_LATER).await;
    let restarted = app.get("/v1/usage").await.json();

    assert_eq!(before["customers"]["current"], 2);
    assert_eq!(after["customers"]["current"], 1);
    assert_eq!(after["customers"]["total"], listed.len());
    assert_eq!(restarted["customers"], after["customers"]);
    assert_eq!(restarted["totals"], after["totals"]);
}

#[tokio::test]
async fn a_customer_whose_rows_are_gone_for_good_has_none_after_a_restart_either() {
    let folder = tempfile::tempdir().unwrap();
    let refreshing = || {
        let builder = with_store(&folder).set("upstream.source", "commercial");
        builder.set("fleet.refresh", "true")
    };
    let refreshes = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;
    let app = refreshing().start().await;
    app.wait_for_metric(refreshes, 1.0).await;
    app.set_rows(customer(0), []);
    app.simulator.advance_day();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(refreshes, 2.0).await;
    app.clock.advance_when_sleeping(HOUR / 4).await;
    app.wait_for_metric(refreshes, 3.0).await;
    let usage = app.usage(customer(0)).await;
    let fleet = app.get("/v1/usage").await.json();
    end(app).await;

    let app = refreshing()
        .started_at(TEN_HOURS_LATER)
        .simulator(|options| options.faults = failing(503))
        .start()
        .await;

    assert_eq!(usage.json()["products"], json!([]));
    assert_eq!(app.usage(customer(0)).await.body, usage.body);
    let after = app.get("/v1/usage").await.json();
    assert_eq!(after["customers"], fleet["customers"]);
}
