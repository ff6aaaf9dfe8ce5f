//! Fresh answers, what makes them fresh again, and what a caller may say about it.

use std::time::Duration;

use serde_json::{Value, json};
use usage_proxy::simulator::{
    CustomerOverride, Faults, NO_RELATIONSHIP_CUSTOMER, SimulatedApi, SimulatedRow,
};
use uuid::Uuid;

use crate::support::{DOCUMENTED, TestApp, customer, seats};

const SECOND: Duration = Duration::from_secs(1);

/// Past freshness and the revalidation window: the next request asks upstream and waits.
const STALE: Duration = Duration::from_secs(4_500);

const STORED: &str = "usage-proxy; fwd=uri-miss; fwd-status=200; stored; ttl=900";
const STORED_AGAIN: &str = "usage-proxy; fwd=stale; fwd-status=200; stored; ttl=900";
const HIT: &str = "usage-proxy; hit; ttl=900";

const NO_CACHE: [(&str, &str); 1] = [("cache-control", "no-cache")];
const ONLY_IF_CACHED: [(&str, &str); 1] = [("cache-control", "only-if-cached")];

#[tokio::test]
async fn a_fresh_answer_is_served_without_asking_upstream() {
    let app = TestApp::start().await;

    let first = app.usage(customer(0)).await;
    app.advance(899 * SECOND);
    let last = app.usage(customer(0)).await;

    assert_eq!((first.status, last.status), (200, 200));
    assert_eq!(first.header("cache-status"), STORED);
    assert_eq!(first.header("age"), "0");
    assert_eq!(last.header("cache-status"), "usage-proxy; hit; ttl=1");
    assert_eq!(last.header("age"), "899");
    assert_eq!(last.body, first.body);
    for (header, value) in [
        ("last-modified", "Sun, 22 Nov 2026 12:00:00 GMT"),
        (
            "cache-control",
            "private, max-age=900, stale-while-revalidate=3600",
        ),
        ("vary", "Accept, Accept-Encoding"),
        ("etag", first.header("etag")),
    ] {
        assert_eq!(first.header(header), value, "{header} of the first");
        assert_eq!(last.header(header), value, "{header} of the last");
    }
    let etag = first.header("etag");
    assert!(etag.starts_with('"') && etag.len() > 2, "{etag}");
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn the_ids_of_a_call_come_back_on_its_own_answer_and_on_no_later_one() {
    let app = TestApp::start().await;
    let path = format!("/v1/customers/{}/usage", customer(0));
    let correlation_id = Uuid::new_v4().to_string();
    let traced = [("ms-correlationid", correlation_id.as_str())];

    let made_the_call = app.get_with(&path, &traced).await;
    let hit = app.get_with(&path, &traced).await;
    app.advance(900 * SECOND);
    let stale = app.get_with(&path, &traced).await;

    let calls = app.simulator.requests();
    let call = calls
        .iter()
        .find(|request| request.api == SimulatedApi::Insights)
        .unwrap();
    for header in ["ms-requestid", "ms-correlationid"] {
        assert_eq!(
            Some(made_the_call.header(header)),
            call.header(header),
            "{header}"
        );
        assert_eq!(hit.header(header), "", "{header} on a hit");
        assert_eq!(stale.header(header), "", "{header} on a stale hit");
    }
    assert_eq!(made_the_call.header("ms-correlationid"), correlation_id);
}

#[tokio::test]
async fn the_same_content_renews_freshness_and_keeps_the_validators() {
    let app = TestApp::start().await;
    app.simulator
        .override_customer(customer(0), seats(5, app.simulator.newest_date()));
    let before = app.usage(customer(0)).await;
    app.advance(STALE);

    let confirmed = app.usage(customer(0)).await;

    assert_eq!(confirmed.header("cache-status"), STORED_AGAIN);
    assert_eq!(confirmed.header("age"), "0");
    assert_eq!(confirmed.header("etag"), before.header("etag"));
    assert_eq!(
        confirmed.header("last-modified"),
        before.header("last-modified")
    );
    assert_eq!(app.usage(customer(0)).await.header("cache-status"), HIT);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn the_same_rows_in_another_order_change_the_native_form_alone() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date();
    let mut rows = ["A", "B"].map(|plan| SimulatedRow::new(plan, "Exchange", 5, date));
    app.simulator
        .override_customer(customer(0), CustomerOverride::Rows(rows.to_vec()));
    let before = [app.usage(customer(0)).await, app.native(customer(0)).await];
    rows.reverse();
    app.simulator
        .override_customer(customer(0), CustomerOverride::Rows(rows.to_vec()));
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
async fn other_content_under_the_same_date_replaces_the_entry() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date();
    app.simulator.override_customer(customer(0), seats(5, date));
    let before = app.usage(customer(0)).await;
    app.simulator.override_customer(customer(0), seats(6, date));
    app.advance(STALE);

    let after = app.usage(customer(0)).await;

    assert_eq!(after.header("cache-status"), STORED_AGAIN);
    assert_eq!(after.json()["products"][0]["licensesQualified"], 6);
    assert_eq!(
        after.json()["processedDate"],
        before.json()["processedDate"]
    );
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(
        after.header("last-modified"),
        "Sun, 22 Nov 2026 13:15:00 GMT"
    );
    assert_eq!(app.metric("usage_proxy_cache_entries").await, 1.0);
}

#[tokio::test]
async fn a_newer_date_takes_over_and_the_older_one_stays_held() {
    let app = TestApp::start().await;
    let before = app.usage(customer(0)).await;
    app.simulator.advance_day();
    app.advance(STALE);

    let newest = app.usage(customer(0)).await;
    let older = app.get(&dated(customer(0), "2026-11-19")).await;

    assert_eq!(before.json()["processedDate"], "2026-11-19");
    assert_eq!(newest.json()["processedDate"], "2026-11-20");
    assert_eq!(older.header("cache-status"), HIT);
    assert_eq!(older.body, before.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn the_newest_date_never_goes_backwards() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    app.simulator
        .override_customer(customer(0), seats(6, newest));
    let before = app.usage(customer(0)).await;
    app.simulator
        .override_customer(customer(0), seats(5, newest.yesterday().unwrap()));
    app.advance(STALE);

    let after = app.usage(customer(0)).await;

    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 2);
    let again = app.usage(customer(0)).await;
    assert_eq!(
        again.header("cache-status"),
        "usage-proxy; hit; ttl=900; detail=suspect",
        "an answer is an answer: nobody asks again at once"
    );
}

#[tokio::test]
async fn an_empty_collection_is_data() {
    let app = TestApp::start().await;
    let empty = customer(19);

    let first = app.usage(empty).await;
    let second = app.usage(empty).await;

    assert_eq!(first.status, 200);
    assert_eq!(first.header("cache-status"), STORED);
    let usage = first.json();
    assert_eq!(usage["processedDate"], Value::Null);
    assert_eq!(usage["products"], json!([]));
    assert_eq!(usage["workloads"], json!([]));
    assert_eq!(second.header("cache-status"), HIT);
    assert_eq!(second.body, first.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn rows_of_mixed_dates_are_filed_under_the_newest_and_keep_their_own() {
    let app = TestApp::start().await;
    let mixed = customer(4);

    let usage = app.usage(mixed).await;
    let by_name = app.get(&dated(mixed, "2026-11-19")).await;

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
            dates.iter().all(|held| held == date),
            "{service}: {dates:?}"
        );
    }
    assert_eq!(by_name.header("cache-status"), HIT);
    assert_eq!(by_name.body, usage.body);
}

#[tokio::test]
async fn a_callers_no_cache_asks_at_most_once_per_min_refresh_interval() {
    let app = TestApp::start().await;
    let path = format!("/v1/customers/{}/usage", customer(0));
    app.get(&path).await;

    for (after, cache_status, calls) in [
        (
            29 * SECOND,
            "usage-proxy; hit; ttl=871; detail=min-refresh-interval",
            1,
        ),
        (
            SECOND,
            "usage-proxy; fwd=request; fwd-status=200; stored; ttl=900",
            2,
        ),
        (
            Duration::ZERO,
            "usage-proxy; hit; ttl=900; detail=min-refresh-interval",
            2,
        ),
        (
            30 * SECOND,
            "usage-proxy; fwd=request; fwd-status=200; stored; ttl=900",
            3,
        ),
    ] {
        app.advance(after);
        let reply = app.get_with(&path, &NO_CACHE).await;

        assert_eq!(reply.header("cache-status"), cache_status, "{after:?} on");
        assert_eq!(
            app.simulator.request_count(SimulatedApi::Insights),
            calls,
            "{after:?} on"
        );
    }
}

#[tokio::test]
async fn a_no_cache_that_fails_is_not_repeated_before_its_interval_either() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    let path = format!("/v1/customers/{}/usage", customer(0));
    app.get(&path).await;
    app.advance(30 * SECOND);
    app.simulator.set_faults(Faults {
        status: Some(http::StatusCode::SERVICE_UNAVAILABLE),
        ..Faults::default()
    });

    for (after, status, calls) in [
        (Duration::ZERO, "; fwd=request; fwd-status=503", 2),
        (Duration::ZERO, "; hit; ttl=870; detail=min-refresh", 2),
        (29 * SECOND, "; hit; ttl=841; detail=min-refresh", 2),
        (SECOND, "; fwd=request; fwd-status=503", 3),
    ] {
        app.advance(after);
        let reply = app.get_with(&path, &NO_CACHE).await;

        assert_eq!(reply.status, 200, "{after:?} on");
        let cache_status = reply.header("cache-status");
        assert!(
            cache_status.starts_with(&format!("usage-proxy{status}")),
            "{after:?} on: {cache_status}"
        );
        assert_eq!(
            app.simulator.request_count(SimulatedApi::Insights),
            calls,
            "{after:?} on"
        );
    }
}

#[tokio::test]
async fn only_if_cached_never_asks_upstream() {
    let app = TestApp::start().await;
    let path = format!("/v1/customers/{}/usage", customer(0));

    let nothing_held = app.get_with(&path, &ONLY_IF_CACHED).await;

    nothing_held.problem(504, "not-held");
    assert_eq!(
        nothing_held.header("cache-status"),
        "usage-proxy; detail=only-if-cached"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);

    app.get(&path).await;
    for (after, status, cache_status) in [
        (899 * SECOND, 200, "usage-proxy; hit; ttl=1"),
        (
            SECOND,
            200,
            "usage-proxy; hit; ttl=0; detail=stale-while-revalidate",
        ),
        (
            3_599 * SECOND,
            200,
            "usage-proxy; hit; ttl=-3599; detail=stale-while-revalidate",
        ),
        (SECOND, 504, "usage-proxy; detail=only-if-cached"),
    ] {
        app.advance(after);
        let reply = app.get_with(&path, &ONLY_IF_CACHED).await;

        assert_eq!(reply.status, status, "{after:?} on");
        assert_eq!(reply.header("cache-status"), cache_status, "{after:?} on");
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
    assert_eq!(app.metric("usage_proxy_fills_in_flight").await, 0.0);
}

#[tokio::test]
async fn no_such_customer_and_no_relationship_are_remembered_for_a_while() {
    for (customer, status, kind) in [
        (Uuid::from_u128(7), 404, "unknown-customer"),
        (NO_RELATIONSHIP_CUSTOMER, 403, "no-relationship"),
    ] {
        let app = TestApp::start().await;
        let asked = format!("usage-proxy; fwd=uri-miss; fwd-status={status}; detail={kind}");

        let first = app.usage(customer).await;
        app.advance(29 * SECOND);
        let remembered = app.usage(customer).await;

        first.problem(status, kind);
        assert_eq!(first.header("cache-status"), asked);
        assert_ne!(first.header("ms-requestid"), "", "{kind}");
        remembered.problem(status, kind);
        assert_eq!(
            remembered.header("cache-status"),
            format!("usage-proxy; hit; ttl=1; detail={kind}")
        );
        assert_eq!(remembered.header("ms-requestid"), "", "{kind}");
        assert_eq!(
            app.simulator.request_count(SimulatedApi::Insights),
            1,
            "{kind}"
        );

        app.advance(SECOND);
        let asked_again = app.usage(customer).await;

        assert_eq!(asked_again.header("cache-status"), asked);
        assert_eq!(
            app.simulator.request_count(SimulatedApi::Insights),
            2,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_customer_that_appears_is_served_once_its_absence_is_forgotten() {
    let app = TestApp::start().await;
    let new = Uuid::from_u128(7);
    app.usage(new).await;
    app.simulator
        .override_customer(new, seats(5, app.simulator.newest_date()));
    app.advance(30 * SECOND);

    let reply = app.usage(new).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-status"), STORED);
}

#[tokio::test]
async fn a_past_day_is_had_from_the_commercial_call_once_and_does_not_go_stale() {
    let app = TestApp::start().await;
    let past = dated(customer(0), "2026-11-10");

    let first = app.get(&past).await;
    app.advance(30 * 24 * 60 * 60 * SECOND);
    let a_month_on = app.get(&past).await;

    assert_eq!(first.header("cache-status"), STORED);
    assert_eq!(first.json()["processedDate"], "2026-11-10");
    assert_eq!(first.json()["customerId"], customer(0).to_string());
    assert_eq!(a_month_on.header("cache-status"), HIT);
    assert_eq!(a_month_on.header("age"), "2592000");
    assert_eq!(
        a_month_on.header("cache-control"),
        "private, max-age=2592900, stale-while-revalidate=3600",
        "the whole lifetime, from which a client subtracts the age"
    );
    assert_eq!(a_month_on.body, first.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 1);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn the_newest_date_by_its_name_is_had_from_the_insights_snapshot() {
    let app = TestApp::start().await;
    let newest = app.usage(customer(0)).await;

    let by_name = app.get(&dated(customer(0), "2026-11-19")).await;

    assert_eq!(by_name.header("cache-status"), HIT);
    assert_eq!(by_name.header("etag"), newest.header("etag"));
    assert_eq!(by_name.body, newest.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn no_cache_of_a_dated_answer_takes_the_place_of_the_insights_snapshot() {
    let app = TestApp::start().await;
    let by_name = dated(customer(0), "2026-11-19");
    app.usage(customer(0)).await;
    app.simulator
        .override_customer(customer(0), seats(6, app.simulator.newest_date()));
    app.advance(30 * SECOND);

    let forced = app.get_with(&by_name, &NO_CACHE).await;
    let soon_after = app.get_with(&by_name, &NO_CACHE).await;

    assert_eq!(
        forced.header("cache-status"),
        "usage-proxy; fwd=request; fwd-status=200; stored; ttl=900"
    );
    assert_eq!(
        soon_after.header("cache-status"),
        "usage-proxy; hit; ttl=900; detail=min-refresh-interval"
    );
    assert_eq!(soon_after.body, forced.body);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn with_the_commercial_source_each_form_has_its_own_call_and_entry() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .start()
        .await;

    let simplified = app.usage(customer(0)).await;
    let native = app.native(customer(0)).await;
    let again = [app.usage(customer(0)).await, app.native(customer(0)).await];

    assert_eq!(simplified.header("cache-status"), STORED);
    assert_eq!(native.header("cache-status"), STORED);
    assert_eq!(native.json()["items"][0]["serviceName"], "o365");
    assert!(
        again
            .iter()
            .all(|reply| reply.header("cache-status") == HIT)
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 1);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
    let held = app
        .admin_get(&format!("/cache?customer={}", customer(0)))
        .await
        .json();
    let sources: Vec<_> = held["holdings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|holding| holding["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, ["commercial", "insights"]);
}

#[tokio::test]
async fn with_the_insights_source_both_forms_share_one_call_and_entry() {
    let app = TestApp::start().await;

    let native = app.native(DOCUMENTED).await;
    let simplified = app.usage(DOCUMENTED).await;

    assert_eq!(native.header("cache-status"), STORED);
    assert_eq!(simplified.header("cache-status"), HIT);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
    assert_eq!(app.metric("usage_proxy_cache_entries").await, 1.0);
}

#[tokio::test]
async fn what_upstream_tells_instead_of_nothing_is_fresh_data() {
    let app = TestApp::start().await;
    app.simulator
        .override_customer(customer(0), CustomerOverride::Rows(vec![]));
    app.usage(customer(0)).await;
    app.simulator.clear_override(customer(0));
    app.advance(STALE);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.header("cache-status"), STORED_AGAIN);
    assert_eq!(reply.json()["processedDate"], "2026-11-19");
}

fn dated(customer: Uuid, date: &str) -> String {
    format!("/v1/customers/{customer}/usage?processedDate={date}")
}
