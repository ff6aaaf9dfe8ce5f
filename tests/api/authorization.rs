//! The data that an identified caller may read.

use crate::support::prelude::*;

const DENIED: &str = "usage_proxy_authorization_denied_total";

/// Returns the headers and the document of a refusal, without the parts that name the request.
fn said(reply: &Reply) -> (Vec<String>, serde_json::Value) {
    let mut problem = reply.problem(403, "not-allowed");
    for own in ["instance", "requestId", "correlationId"] {
        problem.as_object_mut().unwrap().remove(own);
    }
    let own = ["x-request-id", "date", "content-length"];
    let headers = reply.headers.iter();
    let headers = headers.filter(|(name, _)| !own.contains(&name.as_str()));
    (headers.map(|line| format!("{line:?}")).collect(), problem)
}

#[tokio::test]
async fn a_caller_sees_its_customers_and_the_same_error_for_any_other() {
    let (its, cached, uncached) = (customer(0), customer(1), customer(2));
    let unknown = Uuid::from_u128(1);
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&[its]),
        TestCaller::named("grafana"),
    ])
    .await;
    app.usage_for("grafana", cached).await;
    app.usage_for("grafana", unknown).await;
    let calls = app.calls(SimulatedApi::Insights);

    let own = app.usage_for("portal", its).await;
    let refused = [
        app.usage_for("portal", cached).await,
        app.usage_for("portal", uncached).await,
        app.usage_for("portal", unknown).await,
        app.get_as("portal", &native_path(cached)).await,
        app.get_as("portal", &dated_path(cached, "2020-01-01"))
            .await,
    ];

    assert_eq!(own.status, 200);
    for reply in &refused {
        assert_eq!(said(reply), said(&refused[0]));
        let status = reply.cache_status();
        assert_eq!(status, "detail=not-consulted");
        assert!(!reply.text().contains("processed"), "{}", reply.text());
    }
    assert_eq!(app.calls(SimulatedApi::Insights), calls + 1);
    assert_eq!(app.metric(DENIED).await, refused.len() as f64);
}

#[tokio::test]
async fn a_denied_caller_does_not_join_a_fetch() {
    let (its, other) = (customer(0), customer(1));
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&[its]),
        TestCaller::named("grafana"),
    ])
    .await;
    app.simulator.hold_calls();

    let (answered, refused) = tokio::join!(app.usage_for("grafana", other), async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        // The simulator holds the fetch, so a request that gets an answer now did not wait for it.
        let request = app.usage_for("portal", other);
        let refused = in_time(request).await;
        app.simulator.release_calls();
        refused
    });

    assert_eq!(answered.status, 200);
    refused.problem(403, "not-allowed");
}

#[tokio::test]
async fn without_the_scope_nothing_is_read() {
    let refresher = TestCaller::named("refresher").with_scopes(&["cache:refresh"]);
    let app = TestApp::with_callers(&[refresher]).await;

    let reply = app.usage_for("refresher", customer(0)).await;

    reply.problem(403, "not-allowed");
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn no_cache_fetches_only_with_the_refresh_scope() {
    let app = TestApp::with_callers(&[
        TestCaller::named("grafana"),
        TestCaller::named("portal").with_scopes(&["usage:read", "cache:refresh"]),
    ])
    .await;
    let path = usage_path(customer(0));
    let (grafana, portal) = (key_of("grafana"), key_of("portal"));
    let no_cache = async |key: &str| {
        let headers = [("x-api-key", key), ("cache-control", "no-cache")];
        app.get_with(&path, &headers).await
    };

    let absent = no_cache(&grafana).await;
    app.advance(Duration::from_secs(60));
    let fresh = no_cache(&grafana).await;
    let calls = app.calls(SimulatedApi::Insights);
    let allowed = no_cache(&portal).await;
    app.advance(Duration::from_secs(20 * 60));
    let stale = no_cache(&grafana).await;

    for (reply, status) in [
        (
            absent,
            "fwd=uri-miss; fwd-status=200; stored; ttl=900; detail=refresh-not-allowed",
        ),
        (fresh, "hit; ttl=840; detail=refresh-not-allowed"),
        (allowed, "fwd=request; fwd-status=200; stored; ttl=900"),
        (stale, "hit; ttl=-300; detail=refresh-not-allowed"),
    ] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.cache_status(), status);
    }
    assert_eq!(calls, 1, "a fresh answer is enough for who may not refresh");
}
