//! Authentication of callers by keys.

use http::Version;
use usage_proxy::reload::POLL_INTERVAL;

use crate::support::prelude::*;

const SUCCESSFUL: &str = "usage_proxy_callers_last_reload_successful";
const CALLERS: &str = "usage_proxy_callers";

/// The origin of a page that may read responses.
const ORIGIN: (&str, &str) = ("origin", "https://dash.example.com");

fn grafana() -> TestCaller {
    TestCaller::named("grafana")
}

fn failures(reason: &str) -> String {
    format!("usage_proxy_authentication_failures_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_key_is_accepted_in_either_header() {
    let app = TestApp::with_callers(&[grafana()]).await;
    let path = usage_path(DOCUMENTED);
    let (key, bearer) = (key_of("grafana"), format!("Bearer {}", key_of("grafana")));

    for headers in [
        &[("authorization", &*bearer)][..],
        &[("x-api-key", &*key)],
        &[("authorization", &*bearer), ("x-api-key", &*key)],
    ] {
        let reply = app.get_with(&path, headers).await;

        assert_eq!(reply.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn requests_without_a_valid_key_get_401_on_every_path() {
    const BARE: &str = "Bearer realm=\"usage-proxy\"";
    const REFUSED: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_token\"";
    const AMBIGUOUS: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_request\"";

    let app = TestApp::with_callers(&[grafana()]).await;
    let bearer = format!("Bearer {}", key_of("grafana"));
    let longer = format!("{}x", key_of("grafana"));
    let usage = usage_path(DOCUMENTED);
    app.usage_for("grafana", DOCUMENTED).await;

    let two = [("authorization", &*bearer), ("x-api-key", "canary")];

    for (reason, headers, status, challenge) in [
        ("no-credential", &[][..], 401, BARE),
        (
            "malformed",
            &[("authorization", "Basic Z3JhZmFuYQ==")],
            401,
            BARE,
        ),
        ("malformed", &[("authorization", "Bearer ")], 401, BARE),
        ("unknown-key", &[("x-api-key", "canary")], 401, REFUSED),
        ("unknown-key", &[("x-api-key", &*longer)], 401, REFUSED),
        ("unknown-key", &[("x-api-key", "")], 401, REFUSED),
        (
            "unknown-key",
            &[("authorization", "Bearer canary")],
            401,
            REFUSED,
        ),
        ("several", &two, 400, AMBIGUOUS),
    ] {
        for path in [
            &*usage,
            "/v1/customers/no-guid/usage",
            "/no/such/path",
            "/assets",
        ] {
            let before = app.metric(&failures(reason)).await;

            let reply = app.get_with(path, headers).await;

            let kind = match status {
                401 => "unauthenticated",
                _ => "several-credentials",
            };
            let problem = reply.problem(status, kind);
            assert_eq!(reply.header("www-authenticate"), challenge, "{headers:?}");
            assert_eq!(reply.cache_status(), "detail=not-consulted");
            assert!(!problem.to_string().contains("canary"), "{problem}");
            assert_eq!(app.metric(&failures(reason)).await, before + 1.0);
        }
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn every_method_and_http_version_needs_a_key() {
    let app = TestApp::builder()
        .callers(&[grafana()])
        .set("server.http2_cleartext", "true")
        .set("server.cors_origins", ORIGIN.1)
        .start()
        .await;
    let client = || reqwest::Client::builder().no_proxy();
    app.usage_for("grafana", DOCUMENTED).await;
    let usage = usage_path(DOCUMENTED);

    for (version, client) in [
        (Version::HTTP_11, client()),
        (Version::HTTP_2, client().http2_prior_knowledge()),
    ] {
        let client = client.build().unwrap();
        for (method, headers) in [
            (Method::GET, &[][..]),
            (Method::HEAD, &[]),
            (Method::POST, &[]),
            (Method::OPTIONS, &[]),
            // Without Access-Control-Request-Method it asks for no leave but is a request itself.
            (Method::OPTIONS, &[ORIGIN]),
            (
                Method::GET,
                &[ORIGIN, ("access-control-request-method", "GET")],
            ),
        ] {
            for path in [&*usage, "/v1/customers/no-guid/usage", "/nowhere"] {
                let mut request =
                    client.request(method.clone(), format!("http://{}{path}", app.api));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }

                let answer = request.send().await.unwrap();

                let case = format!("{method} {path} {headers:?} by {version:?}");
                assert_eq!(answer.version(), version, "{case}");
                assert_eq!(answer.status(), 401, "{case}");
                assert!(answer.headers().contains_key("www-authenticate"), "{case}");
                let body = answer.text().await.unwrap();
                assert!(!body.contains("workloads"), "{case}: {body}");
            }
        }
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn the_hash_in_the_file_is_not_accepted_as_a_key() {
    let app = TestApp::with_callers(&[grafana()]).await;
    let hash = usage_proxy::access_key::KeyHash::of_key(key_of("grafana").as_bytes());

    let reply = app.get_with_key(&hash.to_string(), "/nowhere").await;

    reply.problem(401, "unauthenticated");
}

#[tokio::test]
async fn without_configured_callers_credentials_are_ignored() {
    let app = TestApp::start().await;
    let path = usage_path(DOCUMENTED);

    let reply = app
        .get_with(&path, &[("authorization", "Bearer of-an-sdk")])
        .await;

    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_key_is_rotated_without_a_failed_request() {
    let (old, new) = ("up_canary-old", "up_canary-new");
    let app = TestApp::with_callers(&[grafana().with_keys(&[old])]).await;
    let path = usage_path(DOCUMENTED);
    assert_eq!(app.get_with_key(old, &path).await.status, 200);
    assert_eq!(app.get_with_key(new, &path).await.status, 401);

    for (keys, old_is, new_is) in [(&[old, new][..], 200, 200), (&[new], 401, 200)] {
        app.reload_callers(&[grafana().with_keys(keys)]).await;

        assert_eq!(app.get_with_key(old, &path).await.status, old_is);
        assert_eq!(app.get_with_key(new, &path).await.status, new_is);
    }
}

#[tokio::test]
async fn a_changed_callers_file_is_reloaded() {
    let app = TestApp::with_callers(&[grafana()]).await;
    app.clock.wait_for_sleepers_until(1, POLL_INTERVAL).await;

    app.write_callers(&callers_file(&[grafana(), TestCaller::named("portal")]));
    app.advance(POLL_INTERVAL);

    app.wait_for_metric(CALLERS, 2.0).await;
    assert_eq!(app.usage_for("portal", DOCUMENTED).await.status, 200);
}

#[tokio::test]
async fn an_invalid_callers_file_keeps_the_previous_callers() {
    let app = TestApp::with_callers(&[grafana()]).await;
    let info = |scrape: &str| {
        let of_file = |line: &&str| line.starts_with("usage_proxy_callers_info{");
        let lines: Vec<_> = scrape.lines().filter(of_file).collect();
        lines.join("\n")
    };
    let live = info(&app.admin_get("/metrics").await.text());
    assert_eq!(app.metric(SUCCESSFUL).await, 1.0);

    app.write_callers("[[caller]]\nname = \"intruder\"\n");
    app.reload.trigger();
    app.wait_for_metric(SUCCESSFUL, 0.0).await;

    assert_eq!(app.usage_for("grafana", DOCUMENTED).await.status, 200);
    assert_eq!(app.metric(CALLERS).await, 1.0);
    assert_eq!(info(&app.admin_get("/metrics").await.text()), live);

    app.reload_callers(&[TestCaller::named("portal")]).await;

    assert_eq!(app.usage_for("grafana", DOCUMENTED).await.status, 401);
    assert_eq!(app.usage_for("portal", DOCUMENTED).await.status, 200);
    let now = info(&app.admin_get("/metrics").await.text());
    assert_ne!(now, live);
    assert_eq!(now.lines().count(), 1, "{now}");
}
