//! Fresh answers, what makes them fresh again, and what a caller may say about it.

use crate::support::prelude::*;

const NO_CACHE: [(&str, &str); 1] = [("cache-control", "no-cache")];
const ONLY_IF_CACHED: [(&str, &str); 1] = [("cache-control", "only-if-cached")];

#[tokio::test]
async fn a_fresh_answer_is_served_without_an_upstream_call() {
    let app = TestApp::start().await;

    let first = app.usage(customer(0)).await;
    app.advance(899 * SECOND);
    let last = app.usage(customer(0)).await;

    assert_eq!((first.status, last.status), (200, 200));
    assert_eq!(first.cache_status(), STORED);
    assert_eq!(first.header("age"), "0");
    assert_eq!(last.cache_status(), "hit; ttl=1");
    assert_eq!(last.header("age"), "899");
    assert_eq!(last.body, first.body);
    for name in ["last-modified", "cache-control", "vary", "etag"] {
        assert_eq!(first.header(name), last.header(name), "{name}");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn the_ids_of_a_call_come_back_on_its_own_answer_and_on_no_later_one() {
    let app = TestApp::start().await;
    let correlation_id = Uuid::new_v4().to_string();
    let traced = [("ms-correlationid", correlation_id.as_str())];

    let miss = app.usage_with(customer(0), &traced).await;
    let hit = app.usage_with(customer(0), &traced).await;
    app.advance(900 * SECOND);
    let stale = app.usage_with(customer(0), &traced).await;

    let calls = app.calls_made(SimulatedApi::Insights);
    for name in ["ms-requestid", "ms-correlationid"] {
        assert_eq!(Some(miss.header(name)), calls[0].header(name), "{name}");
        assert_eq!(hit.header(name), "", "{name} on a hit");
        assert_eq!(stale.header(name), "", "{name} on a stale hit");
    }
    assert_eq!(miss.header("ms-correlationid"), correlation_id);
}

#[tokio::test]
async fn the_same_content_renews_freshness_and_keeps_the_validators() {
    let app = TestApp::start().await;
    app.set_rows(customer(0), seats(5, app.simulator.newest_date()));
    let before = app.usage(customer(0)).await;
    app.advance(STALE);

    let confirmed = app.usage(customer(0)).await;

    assert_eq!(confirmed.cache_status(), STORED_AGAIN);
    assert_eq!(confirmed.header("age"), "0");
    for name in ["etag", "last-modified"] {
        assert_eq!(confirmed.header(name), before.header(name), "{name}");
    }
    assert_eq!(app.usage(customer(0)).await.cache_status(), HIT);
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn the_same_rows_in_another_order_change_only_the_native_form() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date();
    let mut rows = ["A", "B"].map(|plan| SimulatedRow::new(plan, "Exchange", 5, date));
    app.set_rows(customer(0), rows.to_vec());
    let before = [app.usage(customer(0)).await, app.native(customer(0)).await];
    rows.reverse();
    app.set_rows(customer(0), rows.to_vec());
    app.advance(STALE);

    let after = [app.usage(customer(0)).await, app.native(customer(0)).await];

    for header in ["etag", "last-modified"] {
        let [(simplified, native), (simplified_after, native_after)] =
            [&before, &after].map(|[one, other]| (one.header(header), other.header(header)));
        assert_eq!(simplified_after, simplified, "{header}, simplified");
        assert_ne!(native_after, native, "{header}, native");
    }
}

#[tokio::test]
async fn a_newer_date_becomes_the_newest_and_the_older_stays_cached() {
    let app = TestApp::start().await;
    let before = app.usage(customer(0)).await;
    app.simulator.advance_day();
    app.advance(STALE);

    let newest = app.usage(customer(0)).await;
    let older = app.get(&dated_path(customer(0), "2026-11-19")).await;

    assert_eq!(before.json()["processedDate"], "2026-11-19");
    assert_eq!(newest.json()["processedDate"], "2026-11-20");
    assert_eq!(older.cache_status(), HIT);
    assert_eq!(older.body, before.body);
    assert_eq!(app.calls(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn rows_of_mixed_dates_are_cached_under_the_newest_and_show_their_own() {
    let app = TestApp::start().await;
    let mixed = customer(4);

    let usage = app.usage(mixed).await;
    let by_name = app.get(&dated_path(mixed, "2026-11-19")).await;

    let document = usage.json();
    assert_eq!(document["processedDate"], "2026-11-19");
    let dates_of = |service: &str| -> Vec<_> {
        let products = document["products"].as_array().unwrap().iter();
        products
            .filter(|product| product["serviceName"] == service)
            .flat_map(|product| product["workloads"].as_array().unwrap())
            .map(|workload| workload["processedDate"].as_str().unwrap().to_owned())
            .collect()
    };
    for (service, date) in [("crm", "2026-11-19"), ("o365", "2026-11-18")] {
        let dates = dates_of(service);
        assert!(!dates.is_empty(), "{service} has rows");
        assert!(
            dates.iter().all(|found| found == date),
            "{service}: {dates:?}"
        );
    }
    assert_eq!(by_name.cache_status(), HIT);
    assert_eq!(by_name.body, usage.body);
}

#[tokio::test]
async fn no_cache_fetches_at_most_once_per_min_refresh_interval() {
    const ASKED: &str = "fwd=request; fwd-status=200; stored; ttl=900";
    let app = TestApp::start().await;
    app.usage(customer(0)).await;

    for (after, cache_status, calls) in [
        (29, "hit; ttl=871; detail=min-refresh-interval", 1),
        (1, ASKED, 2),
        (0, "hit; ttl=900; detail=min-refresh-interval", 2),
        (30, ASKED, 3),
    ] {
        app.advance(after * SECOND);
        let reply = app.usage_with(customer(0), &NO_CACHE).await;

        assert_eq!(reply.cache_status(), cache_status, "{after} s on");
        assert_eq!(app.calls(SimulatedApi::Insights), calls, "{after} s on");
    }
}

#[tokio::test]
async fn a_no_cache_that_fails_is_not_repeated_before_its_interval_either() {
    let app = TestApp::without_retries().await;
    app.usage(customer(0)).await;
    app.advance(30 * SECOND);
    app.set_faults(failing(503));

    for (after, cache_status, calls) in [
        (0, "fwd=request; fwd-status=503", 2),
        (0, "hit; ttl=870; detail=min-refresh", 2),
        (29, "hit; ttl=841; detail=min-refresh", 2),
        (1, "fwd=request; fwd-status=503", 3),
    ] {
        app.advance(after * SECOND);
        let reply = app.usage_with(customer(0), &NO_CACHE).await;

        assert_eq!(reply.status, 200, "{after} s on");
        assert!(reply.cache_status().starts_with(cache_status), "{reply:?}");
        assert_eq!(app.calls(SimulatedApi::Insights), calls, "{after} s on");
    }
}

#[tokio::test]
async fn only_if_cached_makes_no_upstream_call() {
    let app = TestApp::start().await;

    let absent = app.usage_with(customer(0), &ONLY_IF_CACHED).await;

    absent.problem(504, "not-held");
    assert_eq!(absent.cache_status(), "detail=only-if-cached");
    assert_eq!(app.calls(SimulatedApi::Insights), 0);

    app.usage(customer(0)).await;
    for (after, status, cache_status) in [
        (899, 200, "hit; ttl=1"),
        (1, 200, "hit; ttl=0; detail=stale-while-revalidate"),
        (3_599, 200, "hit; ttl=-3599; detail=stale-while-revalidate"),
        (1, 504, "detail=only-if-cached"),
    ] {
        app.advance(after * SECOND);
        let reply = app.usage_with(customer(0), &ONLY_IF_CACHED).await;

        assert_eq!(reply.status, status, "{after} s on");
        assert_eq!(reply.cache_status(), cache_status, "{after} s on");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    assert_eq!(app.metric("usage_proxy_fills_in_flight").await, 0.0);
}

#[tokio::test]
async fn no_such_customer_and_no_relationship_are_remembered_for_a_while() {
    for (customer, status, kind) in [
        (Uuid::from_u128(7), 404, "unknown-customer"),
        (NO_RELATIONSHIP_CUSTOMER, 403, "no-relationship"),
    ] {
        let app = TestApp::start().await;
        let fetched = format!("fwd=uri-miss; fwd-status={status}; detail={kind}");

        let first = app.usage(customer).await;
        app.advance(29 * SECOND);
        let remembered = app.usage(customer).await;
        let calls_so_far = app.calls(SimulatedApi::Insights);
        app.advance(SECOND);
        let fetched_again = app.usage(customer).await;

        for reply in [&first, &remembered, &fetched_again] {
            reply.problem(status, kind);
        }
        let hit = format!("hit; ttl=1; detail={kind}");
        assert_eq!(first.cache_status(), fetched);
        assert_eq!(remembered.cache_status(), hit);
        assert_eq!(fetched_again.cache_status(), fetched);
        assert_ne!(first.header("ms-requestid"), "", "{kind}");
        assert_eq!(remembered.header("ms-requestid"), "", "{kind}");
        let calls = app.calls(SimulatedApi::Insights);
        assert_eq!((calls_so_far, calls), (1, 2), "{kind}");
    }
}

#[tokio::test]
async fn a_customer_that_appears_is_served_once_its_absence_is_forgotten() {
    let app = TestApp::start().await;
    let new = Uuid::from_u128(7);
    app.usage(new).await;
    app.set_rows(new, seats(5, app.simulator.newest_date()));
    app.advance(30 * SECOND);

    let reply = app.usage(new).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.cache_status(), STORED);
}

#[tokio::test]
async fn a_past_date_is_fetched_once_and_does_not_become_stale() {
    let app = TestApp::start().await;
    let past = dated_path(customer(0), "2026-11-10");

    let first = app.get(&past).await;
    app.advance(30 * 24 * 60 * 60 * SECOND);
    let a_month_on = app.get(&past).await;

    assert_eq!(first.cache_status(), STORED);
    assert_eq!(first.json()["processedDate"], "2026-11-10");
    assert_eq!(first.json()["customerId"], customer(0).to_string());
    assert_eq!(a_month_on.cache_status(), HIT);
    // The whole lifetime, from which a client subtracts the age.
    let lifetime = "private, max-age=2592900, stale-while-revalidate=3600";
    a_month_on.assert_headers(&[("age", "2592000"), ("cache-control", lifetime)]);
    assert_eq!(a_month_on.body, first.body);
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn no_cache_for_a_date_replaces_the_insights_snapshot() {
    let app = TestApp::start().await;
    let by_name = dated_path(customer(0), "2026-11-19");
    app.usage(customer(0)).await;
    app.set_rows(customer(0), seats(6, app.simulator.newest_date()));
    app.advance(30 * SECOND);

    let forced = app.get_with(&by_name, &NO_CACHE).await;
    let soon_after = app.get_with(&by_name, &NO_CACHE).await;

    assert_eq!(
        forced.cache_status(),
        "fwd=request; fwd-status=200; stored; ttl=900"
    );
    assert_eq!(
        soon_after.cache_status(),
        "hit; ttl=900; detail=min-refresh-interval"
    );
    assert_eq!(soon_after.body, forced.body);
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn with_the_commercial_source_each_form_has_its_own_call_and_entry() {
    let app = TestApp::with("upstream.source", "commercial").await;

    let simplified = app.usage(customer(0)).await;
    let native = app.native(customer(0)).await;
    let again = [app.usage(customer(0)).await, app.native(customer(0)).await];

    assert_eq!(simplified.cache_status(), STORED);
    assert_eq!(native.cache_status(), STORED);
    assert_eq!(native.json()["items"][0]["serviceName"], "o365");
    assert!(again.iter().all(|reply| reply.cache_status() == HIT));
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    let cached = app
        .admin_get(&format!("/cache?customer={}", customer(0)))
        .await
        .json();
    let sources: Vec<_> = cached["holdings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|holding| holding["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, ["commercial", "insights"]);
}

#[tokio::test]
async fn rows_that_replace_an_empty_answer_are_fresh_data() {
    let app = TestApp::start().await;
    app.set_rows(customer(0), []);
    app.usage(customer(0)).await;
    app.simulator.clear_override(customer(0));
    app.advance(STALE);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.cache_status(), STORED_AGAIN);
    assert_eq!(reply.json()["processedDate"], "2026-11-19");
}
