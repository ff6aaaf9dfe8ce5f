//! Doubtful data: cached data is served, and marked, until the doubt is settled.

use jiff::civil::Date;

use crate::support::prelude::*;

/// As `cache.fresh_for` and `cache.suspect_confirm_after` are by default.
const QUARTER: Duration = Duration::from_secs(15 * 60);

const EMPTY: &str = r#"usage_proxy_upstream_suspect_total{reason="empty"}"#;
const SHRUNKEN: &str = r#"usage_proxy_upstream_suspect_total{reason="shrunken"}"#;
const BACKWARDS: &str = r#"usage_proxy_upstream_suspect_total{reason="went-backwards"}"#;

/// One row of each of so many products.
fn products(count: usize, processed: Date) -> Vec<SimulatedRow> {
    let row = |number| {
        let product = format!("PRODUCT {number}");
        SimulatedRow::new(&product, "Exchange", 5, processed)
    };
    (0..count).map(row).collect()
}

/// A service that has cached twenty products of customer 0.
async fn holding_twenty(source: &str) -> (TestApp, Date) {
    let app = TestApp::with("upstream.source", source).await;
    let date = app.simulator.newest_date();
    app.set_rows(customer(0), products(20, date));
    assert_eq!(count(&app.usage(customer(0)).await), 20);
    (app, date)
}

#[track_caller]
fn assert_suspect(reply: &Reply) {
    assert!(
        reply.cache_status().ends_with("detail=suspect"),
        "{reply:?}"
    );
}

fn count(reply: &Reply) -> usize {
    reply.json()["products"].as_array().unwrap().len()
}

#[tokio::test]
async fn cached_rows_are_served_until_a_second_empty_answer_confirms_the_first() {
    for source in ["insights", "commercial"] {
        let (app, date) = holding_twenty(source).await;
        app.set_rows(customer(0), products(0, date));
        app.advance(STALE);

        let first = app.usage(customer(0)).await;
        let second = app.usage(customer(0)).await;
        app.advance(QUARTER - SECOND);
        let still_cached = app.usage(customer(0)).await;
        let suspects = app.metric(EMPTY).await;
        app.advance(STALE);
        let confirmed = app.usage(customer(0)).await;

        assert_eq!(count(&first), 20, "{source}");
        assert_eq!(
            first.cache_status(),
            "fwd=stale; fwd-status=200; ttl=900; detail=suspect"
        );
        first.assert_headers(&[
            ("age", "7200"),
            (
                "cache-control",
                "private, max-age=8100, stale-while-revalidate=3600",
            ),
        ]);
        let hit = "hit; ttl=900; detail=suspect";
        assert_eq!(second.cache_status(), hit);
        assert_eq!(still_cached.header("age"), "8099", "age goes on");
        assert_eq!(suspects, 1.0, "asked once");
        assert_eq!(count(&confirmed), 0, "{source}: confirmed");
        assert!(!confirmed.cache_status().contains("suspect"));
    }
}

#[tokio::test]
async fn losing_nine_tenths_is_suspect_until_the_rows_return() {
    let (app, date) = holding_twenty("insights").await;
    app.set_rows(customer(0), products(2, date));
    app.advance(STALE);
    let doubted = app.usage(customer(0)).await;

    app.set_rows(customer(0), products(21, date));
    app.advance(STALE);
    let back = app.usage(customer(0)).await;

    assert_eq!(count(&doubted), 20);
    assert_suspect(&doubted);
    assert_eq!(count(&back), 21);
    assert!(!back.cache_status().contains("suspect"));
    assert_eq!(app.metric(SHRUNKEN).await, 1.0);
}

#[tokio::test]
async fn rows_that_disappear_one_by_one_are_accepted() {
    let (app, date) = holding_twenty("insights").await;
    app.set_rows(customer(0), products(3, date));
    app.advance(STALE);

    let fewer = app.usage(customer(0)).await;

    assert_eq!(count(&fewer), 3, "17 of 20 are gone: less than nine tenths");
}

#[tokio::test]
async fn a_background_refresh_stores_no_suspect_data_either() {
    let (app, date) = holding_twenty("insights").await;
    app.set_rows(customer(0), products(0, date));
    app.advance(QUARTER);

    app.usage(customer(0)).await;
    app.wait_for_metric(EMPTY, 1.0).await;
    app.wait_until_filled().await;
    let after = app.usage(customer(0)).await;

    assert_eq!(count(&after), 20);
    assert_eq!(after.cache_status(), "hit; ttl=900; detail=suspect");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn the_native_form_stays_with_its_entry() {
    let (app, date) = holding_twenty("insights").await;
    let before = app.native(customer(0)).await;
    app.set_rows(customer(0), products(0, date));
    app.advance(STALE);

    let after = app.native(customer(0)).await;

    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_suspect(&after);
}

#[tokio::test]
async fn after_a_hard_purge_any_answer_is_accepted() {
    let (app, date) = holding_twenty("insights").await;
    app.set_rows(customer(0), products(0, date));
    app.advance(STALE);
    app.usage(customer(0)).await;

    app.admin_post("/cache/purge?hard=true").await;
    let after = app.usage(customer(0)).await;

    assert_eq!(count(&after), 0);
}

#[tokio::test]
async fn the_newest_date_never_goes_backwards() {
    let (app, date) = holding_twenty("insights").await;
    let before = app.usage(customer(0)).await;
    app.set_rows(customer(0), products(20, date.yesterday().unwrap()));
    app.advance(STALE);

    let suspect = app.usage(customer(0)).await;
    let again = app.usage(customer(0)).await;

    assert_suspect(&suspect);
    assert_eq!(suspect.body, before.body);
    assert_eq!(suspect.header("etag"), before.header("etag"));
    assert_eq!(app.metric(BACKWARDS).await, 1.0);
    // A doubtful answer counts as an answer: upstream is not asked again at once.
    assert_eq!(again.cache_status(), "hit; ttl=900; detail=suspect");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn one_empty_answer_for_a_date_does_not_replace_its_data() {
    for soft_purge in [true, false] {
        let (app, date) = holding_twenty("insights").await;
        let path = dated_path(customer(0), date.yesterday().unwrap());
        app.set_rows(customer(0), products(20, date.yesterday().unwrap()));
        let before = app.get(&path).await;
        app.set_rows(customer(0), []);
        app.advance(QUARTER);
        let headers: &[_] = if soft_purge {
            app.admin_post("/cache/purge").await;
            &[]
        } else {
            &[("cache-control", "no-cache")]
        };

        let suspect = app.get_with(&path, headers).await;
        let meanwhile = app.get(&path).await;
        app.advance(QUARTER);
        let confirmed = app.get(&path).await;
        let after = app.get(&path).await;

        assert_eq!(count(&before), 20);
        assert_eq!(count(&suspect), 20, "soft purge: {soft_purge}");
        let forwarded = "fwd-status=200; ttl=900; detail=suspect";
        assert!(suspect.cache_status().ends_with(forwarded), "{suspect:?}");
        assert_eq!(meanwhile.cache_status(), "hit; ttl=900; detail=suspect");
        confirmed.problem(404, "nothing-processed");
        after.problem(404, "nothing-processed");
        assert_eq!(app.calls(SimulatedApi::Commercial), 3);
    }
}

#[tokio::test]
async fn losing_nine_tenths_of_a_date_is_suspect_too() {
    let (app, date) = holding_twenty("insights").await;
    let older = date.yesterday().unwrap();
    let path = dated_path(customer(0), older);
    app.set_rows(customer(0), products(20, older));
    app.get(&path).await;
    app.set_rows(customer(0), products(2, older));
    app.admin_post("/cache/purge").await;

    let doubted = app.get(&path).await;
    app.advance(QUARTER);
    let confirmed = app.get(&path).await;

    assert_eq!(count(&doubted), 20);
    assert_suspect(&doubted);
    assert_eq!(count(&confirmed), 2);
}

#[tokio::test]
async fn implausible_growth_is_suspect_until_upstream_repeats_it() {
    let (app, date) = holding_twenty("insights").await;
    let path = dated_path(customer(0), date);
    app.get_with(&path, &[("cache-control", "no-cache")]).await;
    let grown = SimulatedRow::new("PRODUCT 0", "Exchange", 85, date);
    let mut rows = products(20, date);
    rows[0] = grown;
    app.set_rows(customer(0), rows);
    app.admin_post("/cache/purge").await;

    for path in [usage_path(customer(0)), path] {
        let doubted = app.get(&path).await;

        assert_eq!(qualified(&doubted), 100, "{path}");
        assert_suspect(&doubted);
    }
    app.advance(STALE);
    let confirmed = app.usage(customer(0)).await;

    assert_eq!(qualified(&confirmed), 180);
    assert!(!confirmed.cache_status().contains("suspect"));
}

fn qualified(reply: &Reply) -> u64 {
    reply.json()["workloads"][0]["licensesQualified"]
        .as_u64()
        .unwrap()
}
