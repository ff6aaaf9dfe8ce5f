//! Access to the admin listener: with one of its keys, or open if it has none.

use usage_proxy::access_key::KeyHash;

use crate::support::prelude::*;

const KEY: &str = "up_the-one-in-use";
const NEXT_KEY: &str = "up_its-successor";
const REFUSED: &str = "usage_proxy_admin_authentication_failures_total";

fn with_keys() -> Builder {
    let hashes = [KEY, NEXT_KEY].map(|key| KeyHash::of_key(key.as_bytes()).to_string());
    TestApp::builder().set("admin.key_sha256", &hashes.join(","))
}

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Reply {
    app.admin_call(Method::GET, path, headers).await
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[tokio::test]
async fn without_a_key_only_probes_are_answered() {
    let app = with_keys().start().await;
    app.usage(customer(0)).await;

    for (method, path) in [
        (Method::GET, "/cache"),
        (Method::GET, "/metrics"),
        (Method::HEAD, "/metrics"),
        (Method::GET, "/nothing"),
        (Method::GET, "/healthz/"),
        (Method::POST, "/cache/purge?hard=true"),
        (Method::DELETE, "/cache"),
    ] {
        let reply = app.admin_call(method.clone(), path, &[]).await;

        assert_eq!(reply.status, 401, "{method} {path}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        if method != Method::HEAD {
            let problem = reply.problem(401, "not-authenticated");
            assert_eq!(problem["requestId"], reply.header("x-request-id"));
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&app, path, &[]).await.status, 200, "{path}");
    }
    let reply = app.usage(customer(0)).await;
    assert_eq!(reply.cache_status(), HIT);
}

#[tokio::test]
async fn no_response_may_be_cached() {
    let app = with_keys().start().await;
    let authorization = bearer(KEY);
    let key = [("authorization", authorization.as_str())];

    for (method, path, headers, status) in [
        (Method::GET, "/metrics", &key[..], 200),
        (Method::GET, "/healthz", &[], 200),
        (Method::GET, "/readyz", &[], 200),
        (Method::GET, "/cache", &key, 200),
        (Method::HEAD, "/cache", &key, 200),
        (Method::POST, "/cache/purge", &key, 200),
        (Method::GET, "/cache", &[], 401),
        (Method::GET, "/nothing", &key, 404),
        (Method::DELETE, "/cache", &key, 405),
    ] {
        let reply = app.admin_call(method, path, headers).await;

        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
    }
}

#[tokio::test]
async fn each_key_is_accepted_for_everything_in_either_header() {
    let app = with_keys().start().await;

    for key in [KEY, NEXT_KEY] {
        let authorization = bearer(key);
        for header in [
            ("authorization", authorization.as_str()),
            ("x-api-key", key),
        ] {
            for path in ["/cache", "/metrics", "/healthz", "/readyz"] {
                assert_eq!(get(&app, path, &[header]).await.status, 200, "{path}");
            }
            get(&app, "/nothing", &[header])
                .await
                .problem(404, "not-found");
            let purged = app
                .admin_call(Method::POST, "/cache/purge", &[header])
                .await;
            assert_eq!(purged.status, 200);
        }
    }
}

#[tokio::test]
async fn invalid_keys_get_401_with_the_reason_and_are_counted() {
    let app = with_keys().start().await;
    let hash = KeyHash::of_key(KEY.as_bytes()).to_string();
    let (right, cut, twice) = (bearer(KEY), bearer(&KEY[..KEY.len() - 1]), bearer(&hash));

    for (headers, challenge) in [
        (&[][..], "Bearer"),
        (
            &[("authorization", cut.as_str())],
            "Bearer error=\"invalid_token\"",
        ),
        (
            &[("authorization", twice.as_str())],
            "Bearer error=\"invalid_token\"",
        ),
        (&[("x-api-key", "")], "Bearer error=\"invalid_token\""),
        (
            &[("authorization", "Basic dXA6dXA=")],
            "Bearer error=\"invalid_request\"",
        ),
        (
            &[("authorization", right.as_str()), ("x-api-key", NEXT_KEY)],
            "Bearer error=\"invalid_request\"",
        ),
    ] {
        let reply = get(&app, "/cache", headers).await;

        reply.problem(401, "not-authenticated");
        assert_eq!(reply.header("www-authenticate"), challenge, "{headers:?}");
    }
    let scrape = get(&app, "/metrics", &[("authorization", &right)]).await;
    for (reason, count) in [("missing", 1), ("unknown", 3), ("malformed", 2)] {
        let sample = format!("{REFUSED}{{reason=\"{reason}\"}} {count}\n");
        assert!(scrape.text().contains(&sample), "{sample}");
    }
}

#[tokio::test]
async fn metrics_alone_can_be_configured_to_need_no_key() {
    let app = with_keys()
        .set("admin.metrics_need_key", "false")
        .start()
        .await;

    assert_eq!(get(&app, "/metrics", &[]).await.status, 200);
    get(&app, "/cache", &[])
        .await
        .problem(401, "not-authenticated");
}

#[tokio::test]
async fn without_configured_keys_none_is_checked() {
    let app = TestApp::start().await;

    for headers in [&[][..], &[("authorization", "Basic dXA6dXA=")]] {
        assert_eq!(get(&app, "/cache", headers).await.status, 200);
    }
    for reason in ["missing", "malformed", "unknown"] {
        let sample = format!("{REFUSED}{{reason=\"{reason}\"}}");
        assert_eq!(app.metric(&sample).await, 0.0, "there from the start");
    }
}

#[tokio::test]
async fn a_web_page_needs_a_key_to_purge() {
    let (open, keyed) = (TestApp::start().await, with_keys().start().await);
    let (page, key) = (("origin", "https://evil.example.com"), bearer(KEY));
    open.usage(customer(0)).await;

    let without_key = open
        .admin_call(Method::POST, "/cache/purge?hard=true", &[page])
        .await;
    let with_key = keyed
        .admin_call(
            Method::POST,
            "/cache/purge",
            &[page, ("authorization", &key)],
        )
        .await;

    without_key.problem(403, "not-for-pages");
    assert_eq!(open.entries().await, 1);
    assert_eq!(with_key.status, 200);
}
