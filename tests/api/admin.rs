//! The admin listener: the cache, wrong parameters, and its separation from the API.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestApp, customer};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn neither_listener_has_the_paths_of_the_other() {
    let app = TestApp::start().await;
    let usage = format!("/v1/customers/{}/usage", customer(0));
    let native = format!("/v1/customers/{}/analytics/licenses/usage", customer(0));

    for path in ["/metrics", "/healthz", "/readyz", "/cache"] {
        app.get(path).await.problem(404, "not-found");
        assert_eq!(app.admin_get(path).await.status, 200, "{path}");
    }
    app.call(Method::POST, "/cache/purge", &[])
        .await
        .problem(404, "not-found");
    for path in [&usage, &native] {
        app.admin_get(path).await.problem(404, "not-found");
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_overview_of_the_cache_is_shown() {
    let app = TestApp::start().await;

    let empty = app.admin_get("/cache").await.json();
    for index in [0, 1, 0, 0] {
        app.usage(customer(index)).await;
    }
    app.get(&format!(
        "/v1/customers/{}/usage?processedDate=2026-11-10",
        customer(0)
    ))
    .await;
    let held = app.admin_get("/cache").await.json();

    assert_eq!(
        empty,
        json!({
            "entries": 0,
            "customers": 0,
            "bytes": 0,
            "capacityBytes": 256 * 1024 * 1024,
            "hitRatio": Value::Null,
            "newestProcessedDate": Value::Null,
        })
    );
    assert_eq!(held["entries"], 3);
    assert_eq!(held["customers"], 2);
    assert_eq!(held["hitRatio"], 0.4, "two hits of five");
    assert_eq!(held["newestProcessedDate"], "2026-11-19");
    assert!(held["bytes"].as_u64().unwrap() > 1_000, "{held}");
}

#[tokio::test]
async fn entries_of_a_customer_are_shown_with_age_and_next_refresh() {
    let app = TestApp::start().await;
    let path = format!("/cache?customer={}", customer(0));
    app.usage(customer(0)).await;
    app.get(&format!(
        "/v1/customers/{}/usage?processedDate=2026-11-10",
        customer(0)
    ))
    .await;
    app.usage(customer(1)).await;

    for (after, freshness, refresh_in) in [
        (60 * SECOND, "fresh", 840),
        (840 * SECOND, "stale-while-revalidate", 0),
        (3_600 * SECOND, "stale-if-error", 0),
        (7 * 24 * 60 * 60 * SECOND, "expired", 0),
    ] {
        app.advance(after);
        let held = app.admin_get(&path).await.json();

        assert_eq!(held["customerId"], customer(0).to_string());
        let [newest, past] = held["holdings"].as_array().unwrap().as_slice() else {
            panic!("two dates are held: {held}");
        };
        assert_eq!(newest["processedDate"], "2026-11-19");
        assert_eq!(newest["source"], "insights");
        assert_eq!(newest["newest"], true);
        assert_eq!(newest["freshness"], freshness, "{after:?} on");
        assert_eq!(newest["refreshInSeconds"], refresh_in, "{after:?} on");
        assert_eq!(past["processedDate"], "2026-11-10");
        assert_eq!(past["source"], "commercial");
        assert_eq!(past["newest"], false);
        assert_eq!(past["freshness"], "fresh", "{after:?} on");
        assert_eq!(past["refreshInSeconds"], Value::Null, "{after:?} on");
        assert_eq!(past["ageSeconds"], newest["ageSeconds"], "{after:?} on");
    }
    let held = app.admin_get(&path).await.json();
    assert_eq!(
        held["holdings"][0]["ageSeconds"],
        900 + 3_600 + 7 * 24 * 60 * 60
    );
}

#[tokio::test]
async fn a_customer_that_was_never_requested_has_no_entries() {
    let app = TestApp::start().await;
    let nobody = Uuid::from_u128(7);

    let reply = app.admin_get(&format!("/cache?customer={nobody}")).await;

    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"customerId": nobody.to_string(), "holdings": []})
    );
}

#[tokio::test]
async fn a_bad_query_gets_400_and_purges_nothing() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    let twice = format!("customer={0}&customer={0}", customer(0));

    for (method, path, said) in [
        (
            Method::GET,
            "/cache?customer=nobody",
            "customer is \"nobody\"",
        ),
        (Method::GET, "/cache?customer=", "customer is \"\""),
        (Method::GET, "/cache?hard=true", "\"hard\""),
        (
            Method::GET,
            &format!("/cache?{twice}"),
            "customer more than once",
        ),
        (
            Method::POST,
            "/cache/purge?customer=nobody",
            "customer is \"nobody\"",
        ),
        (
            Method::POST,
            "/cache/purge?processedDate=2026-02-30",
            "processedDate is \"2026-02-30\"",
        ),
        (
            Method::POST,
            "/cache/purge?hard=yes",
            "expected true or false",
        ),
        (Method::POST, "/cache/purge?hard", "expected true or false"),
        (Method::POST, "/cache/purge?soft=true", "\"soft\""),
        (
            Method::POST,
            &format!("/cache/purge?hard=true&{twice}"),
            "customer more than once",
        ),
    ] {
        let reply = match method {
            Method::POST => app.admin_post(path).await,
            _ => app.admin_get(path).await,
        };

        let problem = reply.problem(400, "bad-request");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{method} {path}: {detail}");
        assert_eq!(problem["requestId"], reply.header("x-request-id"));
    }
    assert_eq!(
        app.usage(customer(0)).await.header("cache-status"),
        "usage-proxy; hit; ttl=900"
    );
}

#[tokio::test]
async fn other_methods_get_405_with_the_allowed_ones() {
    let app = TestApp::start().await;

    for (reply, allow) in [
        (app.admin_get("/cache/purge").await, "POST"),
        (app.admin_post("/cache").await, "GET, HEAD"),
        (app.admin_post("/metrics").await, "GET, HEAD"),
    ] {
        reply.problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), allow);
    }
}
