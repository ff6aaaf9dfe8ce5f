//! The hosts that a listener on the loopback answers to: a web page that has its own name resolve to
//! this machine (DNS rebinding) reads nothing.

use std::net::Ipv4Addr;

use usage_proxy::access_key::KeyHash;

use crate::support::prelude::*;

const FOREIGN: &str = "rebind.example:8080";
const FRONT: &str = "usage.example.com";

#[track_caller]
fn assert_misdirected(reply: &Reply) {
    let key = "server.allowed_hosts";
    let problem = reply.problem_with(421, "misdirected-request", &[key]);
    assert_eq!(problem["requestId"], reply.header("x-request-id"));
    assert_eq!(reply.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_foreign_host_gets_421_for_any_path_of_either_listener() {
    let app = TestApp::with("server.cors_origins", "https://dash.example.com").await;
    app.usage(DOCUMENTED).await;

    for path in [
        &*usage_path(DOCUMENTED),
        "/v1/customers",
        "/",
        "/openapi.json",
        "/nowhere",
    ] {
        let reply = app.get_with(path, &[("host", FOREIGN)]).await;

        assert_misdirected(&reply);
        assert_eq!(reply.cache_status(), "detail=not-consulted");
    }
    let preflight = [
        ("host", FOREIGN),
        ("origin", "https://dash.example.com"),
        ("access-control-request-method", "GET"),
    ];
    assert_misdirected(
        &app.call(Method::OPTIONS, &usage_path(DOCUMENTED), &preflight)
            .await,
    );
    for (method, path) in [
        (Method::GET, "/cache"),
        (Method::GET, "/metrics"),
        (Method::GET, "/readyz"),
        (Method::POST, "/cache/purge?hard=true"),
    ] {
        let reply = app.admin_call(method, path, &[("host", FOREIGN)]).await;

        assert_misdirected(&reply);
    }
    assert_eq!(app.entries().await, 1, "nothing was purged");
}

#[tokio::test]
async fn hosts_of_the_loopback_and_configured_ones_are_answered_on_any_port() {
    let app = TestApp::with("server.allowed_hosts", FRONT).await;

    for host in [
        "localhost",
        "dash.localhost:3000",
        "[::1]:1",
        FRONT,
        "usage.example.com:8443",
    ] {
        let usage = app.usage_with(DOCUMENTED, &[("host", host)]).await;
        let cache = app
            .admin_call(Method::GET, "/cache", &[("host", host)])
            .await;

        assert_eq!((usage.status, cache.status), (200, 200), "{host}");
    }
}

#[tokio::test]
async fn a_host_in_an_absolute_target_or_of_http_2_is_checked_too() {
    let app = TestApp::with("server.http2_cleartext", "true").await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .resolve("rebind.example", app.api)
        .resolve("dash.localhost", app.api);
    let client = client.build().unwrap();

    let absolute = app.raw(
        b"GET http://rebind.example/v1/customers HTTP/1.1\r\nHost: rebind.example\r\n\
          Connection: close\r\n\r\n",
    );
    let absolute = absolute.await;
    let by_http_2 = |host| {
        client
            .get(format!("http://{host}:{}/v1/customers", app.api.port()))
            .send()
    };
    let (foreign, own) = (by_http_2("rebind.example"), by_http_2("dash.localhost"));
    let (foreign, own) = (foreign.await.unwrap(), own.await.unwrap());

    assert!(absolute.starts_with("HTTP/1.1 421 "), "{absolute}");
    assert_eq!(
        (foreign.status().as_u16(), own.status().as_u16()),
        (421, 200)
    );
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn any_host_is_accepted_if_callers_are_identified() {
    let key = key_of("grafana");
    let app = TestApp::builder()
        .callers(&[TestCaller::named("grafana")])
        .set(
            "admin.key_sha256",
            &KeyHash::of_key(key.as_bytes()).to_string(),
        )
        .start()
        .await;
    let headers = [("host", FOREIGN), ("x-api-key", &*key)];

    let usage = app.usage_with(DOCUMENTED, &headers).await;
    let cache = app.admin_call(Method::GET, "/cache", &headers).await;

    assert_eq!((usage.status, cache.status), (200, 200));
}

#[tokio::test]
async fn a_listener_that_others_reach_answers_to_any_host() {
    let app = TestApp::builder()
        .config(|config| {
            config.callers.anonymous = true;
            config.server.listen.set_ip(Ipv4Addr::UNSPECIFIED.into());
        })
        .start()
        .await;

    let usage = app.usage_with(DOCUMENTED, &[("host", FOREIGN)]).await;

    assert_eq!(usage.status, 200);
}
