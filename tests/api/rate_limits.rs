//! Rate limits of callers.

use crate::support::prelude::*;

const LIMITED: &str = "usage_proxy_rate_limited_total";

fn limited(rate: &'static str) -> [TestCaller; 2] {
    [
        TestCaller::named("grafana").with_rate(rate),
        TestCaller::named("portal"),
    ]
}

async fn app(rate: &'static str) -> TestApp {
    TestApp::with_callers(&limited(rate)).await
}

#[tokio::test]
async fn requests_beyond_the_burst_get_429_with_retry_after() {
    let app = app("3/m").await;

    let mut limits = Vec::new();
    for _ in 0..3 {
        let reply = app.usage_for("grafana", DOCUMENTED).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), "\"default\";q=3;w=60");
        limits.push(reply.header("ratelimit").to_owned());
    }
    let refused = app.usage_for("grafana", DOCUMENTED).await;
    app.advance(Duration::from_secs(19));
    let still = app.usage_for("grafana", DOCUMENTED).await;
    app.advance(SECOND);
    let again = app.usage_for("grafana", DOCUMENTED).await;

    let fields = [2, 1, 0].map(|left| format!("\"default\";r={left};t=20"));
    assert_eq!(limits, fields);
    refused.problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "20");
    assert_eq!(refused.header("ratelimit"), "\"default\";r=0;t=20");
    assert_eq!(refused.header("ratelimit-policy"), "\"default\";q=3;w=60");
    assert_eq!(refused.cache_status(), "detail=not-consulted");
    still.problem(429, "rate-limited");
    assert_eq!(still.header("retry-after"), "1");
    assert_eq!(again.status, 200);
    assert_eq!(app.metric(LIMITED).await, 2.0);
}

#[tokio::test]
async fn every_request_counts_whatever_its_result() {
    let app = app("4/h").await;
    let key = key_of("grafana");

    for path in ["/nowhere", "/v1/customers/no-guid/usage"] {
        app.get_with_key(&key, path).await;
    }
    app.usage_for("grafana", DOCUMENTED).await;
    let hit = app.usage_for("grafana", DOCUMENTED).await;
    let beyond = app.get_with_key(&key, "/nowhere").await;

    assert!(hit.cache_status().starts_with("hit"));
    assert_eq!(hit.header("ratelimit"), "\"default\";r=0;t=900");
    beyond.problem(429, "rate-limited");
}

#[tokio::test]
async fn each_caller_has_its_own_limit() {
    let app = app("1/h").await;
    app.usage_for("grafana", DOCUMENTED).await;
    app.usage_for("grafana", DOCUMENTED)
        .await
        .problem(429, "rate-limited");

    for _ in 0..5 {
        let reply = app.usage_for("portal", DOCUMENTED).await;

        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit"), "");
        assert_eq!(reply.header("ratelimit-policy"), "");
    }
}

#[tokio::test]
async fn a_wrong_key_uses_no_rate_limit() {
    let app = app("1/h").await;

    for _ in 0..5 {
        app.get_with_key("up_wrong", "/nowhere")
            .await
            .problem(401, "unauthenticated");
    }

    assert_eq!(app.usage_for("grafana", DOCUMENTED).await.status, 200);
}

#[tokio::test]
async fn a_reload_keeps_the_state_of_an_unchanged_rate_limit() {
    let app = app("1/h").await;
    app.usage_for("grafana", DOCUMENTED).await;

    for (rate, another, status) in [("1/h", "first", 429), ("2/h", "second", 200)] {
        let callers = [&limited(rate)[..], &[TestCaller::named(another)]];
        app.reload_callers(&callers.concat()).await;

        let reply = app.usage_for("grafana", DOCUMENTED).await;

        assert_eq!(reply.status, status, "{rate}");
    }
}
