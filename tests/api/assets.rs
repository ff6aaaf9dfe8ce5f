//! Files that are the same for everybody: cached, compressed, and had without a credential.

use crate::support::prelude::*;

const FILE: &str = "/openapi.json";

#[tokio::test]
async fn public_files_need_no_credential_and_other_paths_do() {
    let app = TestApp::with_callers(&[TestCaller::named("grafana")]).await;

    for path in [FILE, "/openapi.json?v=1"] {
        let reply = app.get(path).await;

        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), "application/json");
    }
    for path in [
        "/openapi.json/",
        "//openapi.json",
        "/openapi%2ejson",
        "/nowhere",
    ] {
        app.get(path).await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn files_may_be_cached_publicly_and_run_no_scripts() {
    let app = TestApp::start().await;

    let reply = app
        .get_with(FILE, &[("x-request-id", "a-request-of-mine")])
        .await;

    for (name, value) in [
        ("cache-control", "public, max-age=300"),
        ("vary", "accept-encoding"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("x-request-id", "a-request-of-mine"),
        ("cache-status", "usage-proxy; detail=not-consulted"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn every_coding_of_a_file_has_a_validator_that_gets_304() {
    let app = TestApp::start().await;
    let mut etags = std::collections::HashSet::new();

    for coding in ["identity", "gzip", "br", "zstd"] {
        let reply = app.get_with(FILE, &[("accept-encoding", coding)]).await;
        let etag = reply.header("etag").to_owned();
        let again = [
            ("accept-encoding", coding),
            ("if-none-match", etag.as_str()),
        ];
        let not_modified = app.get_with(FILE, &again).await;

        let expected = if coding == "identity" { "" } else { coding };
        assert_eq!(reply.header("content-encoding"), expected);
        assert_eq!(not_modified.status, 304, "{coding}");
        assert!(not_modified.body.is_empty());
        assert_eq!(not_modified.header("etag"), etag);
        assert_eq!(not_modified.header("cache-control"), "public, max-age=300");
        assert!(etags.insert(etag), "{coding} shares its validator");
    }
}

#[tokio::test]
async fn files_accept_only_get_and_head() {
    let app = TestApp::start().await;
    let length = app.get(FILE).await.body.len();

    let head = app.call(Method::HEAD, FILE, &[]).await;
    let post = app.call(Method::POST, FILE, &[]).await;

    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), length.to_string());
    post.problem(405, "method-not-allowed");
    assert_eq!(post.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn files_are_counted_by_their_route() {
    let app = TestApp::start().await;

    app.get(FILE).await;

    let sample =
        "usage_proxy_http_requests_total{method=\"GET\",route=\"/openapi.json\",status=\"200\"}";
    assert_eq!(app.metric(sample).await, 1.0);
}
