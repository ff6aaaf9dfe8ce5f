//! Purging: soft keeps an answer for a failure, hard drops it, and either wins over a fetch.

use crate::support::prelude::*;

const NOT_STORED: &str = "fwd=uri-miss; fwd-status=200; ttl=900";
const PURGED_BY_HAND: &str = "usage_proxy_cache_evictions_total{cause=\"purge\"}";

#[tokio::test]
async fn the_next_request_after_a_soft_purge_fetches() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;

    let purged = app.admin_post("/cache/purge").await;
    let first = app.usage(customer(0)).await;
    let second = app.usage(customer(0)).await;

    assert_eq!(purged.status, 200);
    assert_eq!(
        purged.json(),
        json!({"purged": 1, "mode": "soft", "replicas": 1, "confirmed": 1})
    );
    assert_eq!(first.cache_status(), STORED_AGAIN);
    assert_eq!(second.cache_status(), HIT);
    assert_eq!(app.metric(PURGED_BY_HAND).await, 0.0);
}

#[tokio::test]
async fn data_is_served_after_a_failure_if_its_purge_was_soft_and_not_if_it_was_hard() {
    let stale = "fwd=stale; fwd-status=503; ttl=0; detail=stale-if-error";
    let failed = "fwd=uri-miss; fwd-status=503; detail=unavailable";
    for (path, cache_status, status) in [
        ("/cache/purge", stale, 200),
        ("/cache/purge?hard=false", stale, 200),
        ("/cache/purge?hard=true", failed, 503),
    ] {
        let app = TestApp::without_retries().await;
        app.usage(customer(0)).await;
        app.set_faults(failing(503));

        app.admin_post(path).await;
        let reply = app.usage(customer(0)).await;

        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.cache_status(), cache_status, "{path}");
    }
}

#[tokio::test]
async fn a_hard_purge_removes_entries_and_is_counted() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.usage(customer(1)).await;

    let purged = app.admin_post("/cache/purge?hard=true").await;

    assert_eq!(
        purged.json(),
        json!({"purged": 2, "mode": "hard", "replicas": 1, "confirmed": 1})
    );
    assert_eq!(app.metric("usage_proxy_cache_entries").await, 0.0);
    assert_eq!(app.metric("usage_proxy_cache_weight_bytes").await, 0.0);
    assert_eq!(app.metric(PURGED_BY_HAND).await, 2.0);
}

#[tokio::test]
async fn a_purge_affects_only_what_it_names() {
    let (one, other) = (customer(0), customer(1));
    let paths = [
        usage_path(one),
        usage_path(other),
        dated_path(one, "2026-11-10"),
        dated_path(other, "2026-11-10"),
    ];
    // One column for each path: `yes` if it is purged.
    for [query, purged] in rows(
        "                                      | yes yes yes yes
         customer=ONE                          | yes no  yes no
         customer=ONE&processedDate=2026-11-10 | no  no  yes no
         customer=ONE&processedDate=2026-11-19 | yes no  no  no
         processedDate=2026-11-10              | no  no  yes yes
         customer=THIRD                        | no  no  no  no
         customer=ONE&processedDate=2026-01-01 | no  no  no  no",
    ) {
        let query = query
            .replace("ONE", &one.to_string())
            .replace("THIRD", &customer(2).to_string());
        let purged: Vec<_> = purged
            .split_whitespace()
            .map(|word| word == "yes")
            .collect();
        for mode in ["hard=false", "hard=true"] {
            let app = TestApp::start().await;
            for path in &paths {
                app.get(path).await;
            }

            let purge = format!("/cache/purge?{mode}&{query}");
            let reply = app.admin_post(&purge).await;

            let count = purged.iter().filter(|purged| **purged).count();
            assert_eq!(reply.json()["purged"], count, "{purge}");
            for (path, purged) in paths.iter().zip(&purged) {
                let reply = app.get(path).await;
                let was_purged = reply.cache_status() != HIT;
                assert_eq!(was_purged, *purged, "{path} after {purge}");
            }
        }
    }
}

#[tokio::test]
async fn a_purge_wins_over_the_fetch_that_it_overtakes() {
    for mode in ["hard=false", "hard=true"] {
        let app = TestApp::start().await;
        app.simulator.hold_calls();
        let purge = async {
            app.wait_for_calls(SimulatedApi::Insights, 1).await;
            app.admin_post(&format!("/cache/purge?{mode}")).await;
            app.simulator.release_calls();
        };

        let (overtaken, ()) = tokio::join!(app.usage(customer(0)), purge);
        let next = app.usage(customer(0)).await;

        assert_eq!(overtaken.status, 200, "{mode}: who waited has the answer");
        assert_eq!(overtaken.cache_status(), NOT_STORED, "{mode}");
        assert_eq!(next.cache_status(), STORED, "{mode}");
        assert_eq!(app.calls(SimulatedApi::Insights), 2, "{mode}");
    }
}

#[tokio::test]
async fn requests_after_a_purge_do_not_join_an_earlier_fetch() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let purge = async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        app.admin_post("/cache/purge?hard=true").await;
        let release = async {
            app.wait_for_calls(SimulatedApi::Insights, 2).await;
            app.simulator.release_calls();
        };
        tokio::join!(app.usage(customer(0)), release).0
    };

    let (before, after) = tokio::join!(app.usage(customer(0)), purge);

    assert_eq!(before.cache_status(), NOT_STORED);
    assert_eq!(after.cache_status(), STORED);
    assert_eq!(app.metric("usage_proxy_collapsed_total").await, 0.0);
}

#[tokio::test]
async fn a_purge_removes_remembered_absences() {
    let app = TestApp::start().await;
    let new = Uuid::from_u128(7);
    app.usage(new).await.problem(404, "unknown-customer");
    app.set_rows(new, seats(5, app.simulator.newest_date()));

    app.admin_post(&format!("/cache/purge?customer={new}"))
        .await;
    let reply = app.usage(new).await;

    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_softly_purged_date_that_came_from_insights_is_fetched_once() {
    let app = TestApp::start().await;
    let by_name = dated_path(customer(0), "2026-11-19");
    app.usage(customer(0)).await;
    app.admin_post("/cache/purge").await;

    let first = app.get(&by_name).await;
    let second = app.get(&by_name).await;

    assert_eq!(first.cache_status(), STORED_AGAIN);
    assert_eq!(second.cache_status(), HIT);
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn an_older_date_after_a_soft_purge_is_not_fetched_again() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let before = app.usage(customer(0)).await;
    app.set_rows(customer(0), seats(5, newest.yesterday().unwrap()));
    app.admin_post("/cache/purge").await;

    let first = app.usage(customer(0)).await;
    let second = app.usage(customer(0)).await;

    assert_eq!(first.body, before.body, "the newest date stays the newest");
    assert_eq!(second.cache_status(), "hit; ttl=900; detail=suspect");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}
