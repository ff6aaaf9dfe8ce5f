//! The admin listener: the cache, wrong parameters, and its separation from the API.

use crate::support::prelude::*;

#[tokio::test]
async fn neither_listener_has_the_paths_of_the_other() {
    let app = TestApp::start().await;
    let usage = usage_path(customer(0));
    let native = native_path(customer(0));

    for path in ["/metrics", "/healthz", "/readyz", "/cache"] {
        app.get(path).await.problem(404, "not-found");
        assert_eq!(app.admin_get(path).await.status, 200, "{path}");
    }
    let purge = app.call(Method::POST, "/cache/purge", &[]).await;
    purge.problem(404, "not-found");
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
    app.dated(customer(0), "2026-11-10").await;
    let cache = app.admin_get("/cache").await.json();

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
    assert_eq!(cache["entries"], 3);
    assert_eq!(cache["customers"], 2);
    assert_eq!(cache["hitRatio"], 0.4, "two hits of five");
    assert_eq!(cache["newestProcessedDate"], "2026-11-19");
    assert!(cache["bytes"].as_u64().unwrap() > 1_000, "{cache}");
}

#[tokio::test]
async fn entries_of_a_customer_are_shown_with_age_and_next_refresh() {
    let app = TestApp::start().await;
    let path = format!("/cache?customer={}", customer(0));
    app.usage(customer(0)).await;
    app.dated(customer(0), "2026-11-10").await;
    app.usage(customer(1)).await;

    for (after, freshness, refresh_in) in [
        (60 * SECOND, "fresh", 840),
        (840 * SECOND, "stale-while-revalidate", 0),
        (3_600 * SECOND, "stale-if-error", 0),
        (7 * 24 * 60 * 60 * SECOND, "expired", 0),
    ] {
        app.advance(after);
        let cached = app.admin_get(&path).await.json();

        assert_eq!(cached["customerId"], customer(0).to_string());
        let [newest, past] = cached["holdings"].as_array().unwrap().as_slice() else {
            panic!("two dates are cached: {cached}");
        };
        for (entry, fields) in [
            (
                newest,
                json!(["2026-11-19", "insights", true, freshness, refresh_in]),
            ),
            (
                past,
                json!(["2026-11-10", "commercial", false, "fresh", null]),
            ),
        ] {
            let names = [
                "processedDate",
                "source",
                "newest",
                "freshness",
                "refreshInSeconds",
            ];
            assert_eq!(
                json!(names.map(|name| &entry[name])),
                fields,
                "{after:?} on"
            );
        }
        assert_eq!(past["ageSeconds"], newest["ageSeconds"], "{after:?} on");
    }
    let cached = app.admin_get(&path).await.json();
    assert_eq!(
        cached["holdings"][0]["ageSeconds"],
        900 + 3_600 + 7 * 24 * 60 * 60
    );
}

#[tokio::test]
async fn a_customer_that_was_never_requested_has_no_entries() {
    let app = TestApp::start().await;
    let unknown = Uuid::from_u128(7);

    let reply = app.admin_get(&format!("/cache?customer={unknown}")).await;

    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"customerId": unknown.to_string(), "holdings": []})
    );
}

#[tokio::test]
async fn a_bad_query_gets_400_and_purges_nothing() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;

    for [method, path, said] in rows(
        r#"GET  | /cache?customer=nobody                 | customer is "nobody"; expected a GUID
           GET  | /cache?customer=                       | customer is ""
           GET  | /cache?top=1                           | "top"
           GET  | /cache?customer=ID&customer=ID         | customer more than once
           POST | /cache/purge?customer=nobody           | customer is "nobody"; expected a GUID
           POST | /cache/purge?custmer=x                 | "custmer"
           POST | /cache/purge?custmer=x                 | customer, processedDate, hard
           POST | /cache/purge?processedDate=2026-02-30  | processedDate is "2026-02-30"
           POST | /cache/purge?processedDate=today       | YYYY-MM-DD
           POST | /cache/purge?hard=yes                  | hard is "yes"; expected true or false
           POST | /cache/purge?hard                      | expected true or false
           POST | /cache/purge?hard=true&hard=false      | hard more than once"#,
    ) {
        let path = path.replace("ID", DOCUMENTED);

        let reply = app.admin_call(method.parse().unwrap(), &path, &[]).await;

        let problem = reply.problem_with(400, "bad-request", &[said]);
        assert_eq!(problem["instance"], path.split('?').next().unwrap());
    }
    assert_eq!(app.usage(DOCUMENTED).await.cache_status(), HIT);
}

#[tokio::test]
async fn a_problem_has_the_request_id_of_its_response() {
    let app = TestApp::start().await;

    for path in ["/nowhere", "/cache/purge", "/cache?customer=x"] {
        let id = [("x-request-id", "probe-7")];
        let new = app.admin_get(path).await;
        let own = app.admin_call(Method::GET, path, &id).await;

        let request_id = new.header("x-request-id");
        assert!(Uuid::try_parse(request_id).is_ok(), "{path}: {request_id}");
        assert_eq!(new.json()["requestId"], request_id, "{path}");
        assert_eq!(own.header("x-request-id"), "probe-7", "{path}");
        assert_eq!(own.json()["requestId"], "probe-7", "{path}");
    }
}

#[tokio::test]
async fn unknown_admin_paths_get_404_and_other_methods_405_with_allow() {
    let app = TestApp::start().await;

    app.admin_get("/nowhere").await.problem(404, "not-found");
    for (reply, allow) in [
        (app.admin_get("/cache/purge").await, "POST"),
        (app.admin_post("/cache").await, "GET, HEAD"),
        (app.admin_post("/metrics").await, "GET, HEAD"),
    ] {
        reply.problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), allow);
    }
}
