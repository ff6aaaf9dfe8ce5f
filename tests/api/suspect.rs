//! Doubtful data: what is held is served until the doubt is settled, and says so.

use std::time::Duration;

use jiff::civil::Date;
use usage_proxy::simulator::{CustomerOverride, SimulatedApi, SimulatedRow};

use crate::support::{TestApp, customer};

/// As `cache.fresh_for` and `cache.suspect_confirm_after` are by default.
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// Past `fresh_for + stale_while_revalidate`: the next request asks, and waits.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

const EMPTY: &str = r#"usage_proxy_upstream_suspect_total{reason="empty"}"#;
const SHRUNKEN: &str = r#"usage_proxy_upstream_suspect_total{reason="shrunken"}"#;
const BACKWARDS: &str = r#"usage_proxy_upstream_suspect_total{reason="went-backwards"}"#;

/// One row of each of so many products.
fn products(count: usize, processed: Date) -> CustomerOverride {
    let row = |number| {
        let product = format!("PRODUCT {number}");
        SimulatedRow::new(&product, "Exchange", 5, processed)
    };
    CustomerOverride::Rows((0..count).map(row).collect())
}

/// A service that holds twenty products of customer 0.
async fn holding_twenty(source: &str) -> (TestApp, Date) {
    let app = TestApp::builder()
        .set("upstream.source", source)
        .start()
        .await;
    let date = app.simulator.newest_date();
    app.simulator
        .override_customer(customer(0), products(20, date));
    assert_eq!(count(&app.usage(customer(0)).await), 20);
    (app, date)
}

fn count(reply: &crate::support::Reply) -> usize {
    reply.json()["products"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_good_is_served_in_place_of_nothing_until_that_is_told_again() {
    for source in ["insights", "commercial"] {
        let (app, date) = holding_twenty(source).await;
        app.simulator
            .override_customer(customer(0), products(0, date));
        app.advance(STALE);

        let asked = app.usage(customer(0)).await;
        let held = app.usage(customer(0)).await;
        app.advance(QUARTER - Duration::from_secs(1));
        let still_held = app.usage(customer(0)).await;
        let suspects = app.metric(EMPTY).await;
        app.advance(STALE);
        let confirmed = app.usage(customer(0)).await;

        assert_eq!(count(&asked), 20, "{source}");
        assert_eq!(
            asked.header("cache-status"),
            "usage-proxy; fwd=stale; fwd-status=200; ttl=900; detail=suspect"
        );
        assert_eq!(asked.header("age"), "7200");
        assert_eq!(
            asked.header("cache-control"),
            "private, max-age=8100, stale-while-revalidate=3600"
        );
        let hit = "usage-proxy; hit; ttl=900; detail=suspect";
        assert_eq!(held.header("cache-status"), hit);
        assert_eq!(still_held.header("age"), "8099", "age goes on");
        assert!((suspects - 1.0).abs() < f64::EPSILON, "asked once");
        assert_eq!(count(&confirmed), 0, "{source}: told again, so believed");
        assert!(!confirmed.header("cache-status").contains("suspect"));
    }
}

#[tokio::test]
async fn nine_tenths_gone_are_doubted_and_what_comes_back_ends_it() {
    let (app, date) = holding_twenty("insights").await;
    app.simulator
        .override_customer(customer(0), products(2, date));
    app.advance(STALE);
    let doubted = app.usage(customer(0)).await;

    app.simulator
        .override_customer(customer(0), products(21, date));
    app.advance(STALE);
    let back = app.usage(customer(0)).await;

    assert_eq!(count(&doubted), 20);
    assert!(doubted.header("cache-status").contains("detail=suspect"));
    assert_eq!(count(&back), 21);
    assert!(!back.header("cache-status").contains("suspect"));
    assert!((app.metric(SHRUNKEN).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn rows_that_go_one_by_one_are_believed() {
    let (app, date) = holding_twenty("insights").await;
    app.simulator
        .override_customer(customer(0), products(3, date));
    app.advance(STALE);

    let fewer = app.usage(customer(0)).await;

    assert_eq!(count(&fewer), 3, "17 of 20 are gone: less than nine tenths");
}

#[tokio::test]
async fn a_refresh_behind_a_stale_answer_brings_no_doubtful_data_either() {
    let (app, date) = holding_twenty("insights").await;
    app.simulator
        .override_customer(customer(0), products(0, date));
    app.advance(QUARTER);

    app.usage(customer(0)).await;
    app.wait_for_metric(EMPTY, 1.0).await;
    app.wait_until_filled().await;
    let after = app.usage(customer(0)).await;

    assert_eq!(count(&after), 20);
    assert_eq!(
        after.header("cache-status"),
        "usage-proxy; hit; ttl=900; detail=suspect"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn the_native_form_is_kept_with_its_entry() {
    let (app, date) = holding_twenty("insights").await;
    let before = app.native(customer(0)).await;
    app.simulator
        .override_customer(customer(0), products(0, date));
    app.advance(STALE);

    let after = app.native(customer(0)).await;

    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
    assert!(after.header("cache-status").contains("detail=suspect"));
}

#[tokio::test]
async fn a_hard_purge_takes_whatever_comes_next() {
    let (app, date) = holding_twenty("insights").await;
    app.simulator
        .override_customer(customer(0), products(0, date));
    app.advance(STALE);
    app.usage(customer(0)).await;

    app.admin_post("/cache/purge?hard=true").await;
    let after = app.usage(customer(0)).await;

    assert_eq!(count(&after), 0);
}

#[tokio::test]
async fn an_older_date_is_counted_and_said() {
    let (app, date) = holding_twenty("insights").await;
    let older = date.yesterday().unwrap();
    app.simulator
        .override_customer(customer(0), products(20, older));
    app.advance(STALE);

    let doubted = app.usage(customer(0)).await;

    assert_eq!(doubted.json()["processedDate"], date.to_string());
    assert!(doubted.header("cache-status").contains("detail=suspect"));
    assert!((app.metric(BACKWARDS).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn one_empty_answer_for_a_date_does_not_replace_its_data() {
    for soft_purge in [true, false] {
        let (app, date) = holding_twenty("insights").await;
        let older = date.yesterday().unwrap();
        let path = format!("/v1/customers/{}/usage?processedDate={older}", customer(0));
        app.simulator
            .override_customer(customer(0), products(20, older));
        let before = app.get(&path).await;
        app.simulator
            .override_customer(customer(0), products(0, older));
        app.advance(QUARTER);
        let headers: &[_] = if soft_purge {
            app.admin_post("/cache/purge").await;
            &[]
        } else {
            &[("cache-control", "no-cache")]
        };

        let doubted = app.get_with(&path, headers).await;
        let meanwhile = app.get(&path).await;
        app.advance(QUARTER);
        let confirmed = app.get(&path).await;
        let after = app.get(&path).await;

        assert_eq!(count(&before), 20);
        assert_eq!(count(&doubted), 20, "soft purge: {soft_purge}");
        assert!(
            doubted
                .header("cache-status")
                .ends_with("fwd-status=200; ttl=900; detail=suspect"),
            "{doubted:?}"
        );
        assert_eq!(
            meanwhile.header("cache-status"),
            "usage-proxy; hit; ttl=900; detail=suspect"
        );
        confirmed.problem(404, "nothing-processed");
        after.problem(404, "nothing-processed");
        assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 3);
    }
}

#[tokio::test]
async fn nine_tenths_gone_from_a_date_are_doubted_too() {
    let (app, date) = holding_twenty("insights").await;
    let older = date.yesterday().unwrap();
    let path = format!("/v1/customers/{}/usage?processedDate={older}", customer(0));
    app.simulator
        .override_customer(customer(0), products(20, older));
    app.get(&path).await;
    app.simulator
        .override_customer(customer(0), products(2, older));
    app.admin_post("/cache/purge").await;

    let doubted = app.get(&path).await;
    app.advance(QUARTER);
    let confirmed = app.get(&path).await;

    assert_eq!(count(&doubted), 20);
    assert!(doubted.header("cache-status").ends_with("detail=suspect"));
    assert_eq!(count(&confirmed), 2);
}

#[tokio::test]
async fn counts_that_grow_implausibly_are_doubted_until_they_are_told_again() {
    let (app, date) = holding_twenty("insights").await;
    let path = format!("/v1/customers/{}/usage?processedDate={date}", customer(0));
    app.get_with(&path, &[("cache-control", "no-cache")]).await;
    let grown = SimulatedRow::new("PRODUCT 0", "Exchange", 85, date);
    let CustomerOverride::Rows(mut rows) = products(20, date) else {
        unreachable!()
    };
    rows[0] = grown;
    app.simulator
        .override_customer(customer(0), CustomerOverride::Rows(rows));
    app.admin_post("/cache/purge").await;

    for path in [format!("/v1/customers/{}/usage", customer(0)), path] {
        let doubted = app.get(&path).await;

        assert_eq!(qualified(&doubted), 100, "{path}");
        assert!(doubted.header("cache-status").ends_with("detail=suspect"));
    }
    app.advance(STALE);
    let confirmed = app.usage(customer(0)).await;

    assert_eq!(qualified(&confirmed), 180);
    assert!(!confirmed.header("cache-status").contains("suspect"));
}

fn qualified(reply: &crate::support::Reply) -> u64 {
    reply.json()["workloads"][0]["licensesQualified"]
        .as_u64()
        .unwrap()
}
