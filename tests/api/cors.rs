//! Web pages of other origins: whose may read answers, and which parts of them.

use crate::support::prelude::*;

const DASHBOARD: &str = "https://dash.example.com";
const OTHER: &str = "http://localhost:3000";

/// The header by which a browser asks if a page may send `Authorization`.
const ASKING: (&str, &str) = ("access-control-request-headers", "authorization");
const GET: (&str, &str) = ("access-control-request-method", "GET");

async fn configured() -> TestApp {
    TestApp::builder()
        .set("server.cors_origins", &format!("{DASHBOARD},{OTHER}"))
        .start()
        .await
}

fn path() -> String {
    usage_path(customer(0))
}

fn cors_headers(reply: &Reply) -> Vec<&str> {
    let names = reply.headers.keys().map(http::HeaderName::as_str);
    names
        .filter(|name| name.starts_with("access-control-"))
        .collect()
}

fn list<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    reply.header(name).split(", ").collect()
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_read_every_answer() {
    let app = configured().await;
    let etag = app.get(&path()).await.header("etag").to_owned();

    for origin in [DASHBOARD, OTHER] {
        for (path, headers, status) in [
            (path(), None, 200),
            (path(), Some(("if-none-match", etag.as_str())), 304),
            (path(), Some(("accept", "image/png")), 406),
            (format!("{}?date=today", path()), None, 400),
            (usage_path(uuid::Uuid::from_u128(7)), None, 404),
            ("/nothing".to_owned(), None, 404),
        ] {
            let headers: Vec<_> = [("origin", origin)].into_iter().chain(headers).collect();

            let reply = app.get_with(&path, &headers).await;

            assert_eq!(reply.status, status, "{path}");
            assert_eq!(reply.header("access-control-allow-origin"), origin);
            assert!(list(&reply, "vary").contains(&"Origin"), "{reply:?}");
            let exposed = list(&reply, "access-control-expose-headers");
            for name in ["ETag", "Age", "Cache-Status", "Retry-After", "X-Request-Id"] {
                assert!(exposed.contains(&name), "{status}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn other_pages_may_read_nothing_and_no_cache_mixes_them_up() {
    let app = configured().await;

    for headers in [
        &[][..],
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("origin", "https://DASH.example.com")],
        &[("origin", "https://dash.example.com.evil.example")],
        &[("origin", "https://dash.example.com:8443")],
        &[("origin", "http://dash.example.com")],
        &[("origin", "https://dash.example.com, https://evil.example")],
        &[("origin", "*")],
    ] {
        let data = app.get_with(&path(), headers).await;
        let error = app.get_with("/nothing", headers).await;

        assert_eq!(data.status, 200, "{headers:?}: only pages are kept out");
        assert_eq!(data.header("vary"), "Accept, Accept-Encoding, Origin");
        assert_eq!(error.header("vary"), "Origin");
        assert_eq!(cors_headers(&data), [""; 0], "{headers:?}");
        assert_eq!(cors_headers(&error), [""; 0], "{headers:?}");
    }
}

#[tokio::test]
async fn vary_names_the_headers_that_an_answer_depends_on() {
    let open = configured().await;
    let keyed = TestApp::builder()
        .set("server.cors_origins", DASHBOARD)
        .callers(&[TestCaller::named("grafana")])
        .start()
        .await;
    let key = key_of("grafana");
    let proof = ("x-api-key", key.as_str());
    let origin = ("origin", DASHBOARD);

    for path in ["/v1/customers", "/v1/customers?size=3"] {
        let anonymous = open.get_with(path, &[origin]).await;
        let own = keyed.get_with(path, &[origin, proof]).await;

        assert_eq!((anonymous.status, own.status), (200, 200), "{path}");
        let vary = "Accept, Accept-Encoding, MS-ContinuationToken, Origin";
        anonymous.assert_headers(&[("vary", vary)]);
        let vary =
            "Accept, Accept-Encoding, Authorization, X-Api-Key, MS-ContinuationToken, Origin";
        own.assert_headers(&[("vary", vary)]);
    }
    let usage = path();
    for path in [
        &*usage,
        &format!("{usage}/chart.svg"),
        &format!("{usage}/table.csv"),
        &native_path(customer(0)),
        "/v1/analytics/licenses/deployment",
    ] {
        let first = keyed.get_with(path, &[origin, proof]).await;
        let known = ("if-none-match", first.header("etag"));
        let again = keyed.get_with(path, &[origin, proof, known]).await;

        assert_eq!((first.status, again.status), (200, 304), "{path}");
        for reply in [first, again] {
            let vary = "Accept, Accept-Encoding, Authorization, X-Api-Key, Origin";
            reply.assert_headers(&[("vary", vary)]);
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_with_what_a_page_may_send() {
    let app = configured().await;

    for path in [path(), "/nothing".to_owned()] {
        let headers = [("origin", DASHBOARD), GET, ASKING];

        let reply = app.call(Method::OPTIONS, &path, &headers).await;

        assert_eq!(reply.status, 204, "{path}");
        assert_eq!(reply.body, b"");
        reply.assert_headers(&[
            ("access-control-allow-origin", DASHBOARD),
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-max-age", "7200"),
            ("vary", "Origin"),
        ]);
        let allowed = list(&reply, "access-control-allow-headers");
        for name in [
            "Authorization",
            "X-Api-Key",
            "If-None-Match",
            "Cache-Control",
            "MS-ContinuationToken",
        ] {
            assert!(allowed.contains(&name), "{name}");
        }
        assert_eq!(reply.cache_status(), "detail=not-consulted");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
    let counted =
        r#"usage_proxy_http_requests_total{method="other",route="unmatched",status="204"}"#;
    assert_eq!(app.metric(counted).await, 1.0);
}

#[tokio::test]
async fn a_preflight_of_another_page_is_refused_and_says_why() {
    let app = configured().await;
    let headers = [("origin", "https://evil.example.com"), GET, ASKING];

    let reply = app.call(Method::OPTIONS, &path(), &headers).await;

    reply.problem_with(403, "origin-not-allowed", &["server.cors_origins"]);
    assert_eq!(cors_headers(&reply), [""; 0]);
    assert_eq!(reply.header("vary"), "Origin");
}

#[tokio::test]
async fn other_options_requests_stay_what_they_are() {
    let (with, without) = (configured().await, TestApp::start().await);

    for (app, headers) in [
        (&with, &[("origin", DASHBOARD)][..]),
        (&with, &[GET]),
        (&with, &[]),
        (&without, &[("origin", DASHBOARD), GET, ASKING]),
    ] {
        let reply = app.call(Method::OPTIONS, &path(), headers).await;

        reply.problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "GET, HEAD", "{headers:?}");
    }
}

#[tokio::test]
async fn without_configured_origins_no_cors_headers_are_sent() {
    let app = TestApp::start().await;

    let reply = app.get_with(&path(), &[("origin", DASHBOARD)]).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("vary"), "Accept, Accept-Encoding");
    assert_eq!(cors_headers(&reply), [""; 0]);
}

#[tokio::test]
async fn no_answer_allows_credentials_that_a_browser_adds_by_itself() {
    let app = configured().await;

    for method in [Method::GET, Method::OPTIONS] {
        let headers = [("origin", DASHBOARD), GET];

        let reply = app.call(method, &path(), &headers).await;

        reply.assert_headers(&[("access-control-allow-credentials", "")]);
        assert_ne!(reply.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn a_page_without_a_key_gets_its_preflight_and_may_read_its_refusal() {
    let app = TestApp::builder()
        .set("server.cors_origins", DASHBOARD)
        .callers(&[TestCaller::named("dashboard")])
        .start()
        .await;
    let origin = ("origin", DASHBOARD);
    let key = ("x-api-key", &*key_of("dashboard"));

    let preflight = app
        .call(Method::OPTIONS, &path(), &[origin, GET, ASKING])
        .await;
    let refused = app.get_with(&path(), &[origin]).await;
    let answered = app.get_with(&path(), &[origin, key]).await;

    assert_eq!(preflight.status, 204);
    assert_eq!(refused.status, 401);
    assert_eq!(answered.status, 200);
    for reply in [preflight, refused, answered] {
        assert_eq!(reply.header("access-control-allow-origin"), DASHBOARD);
    }
}
