//! Problem documents for everything that can go wrong (RFC 9457; `design.md`, Errors).

use crate::support::prelude::*;

/// A customer that does not exist.
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

const CORRELATION_ID: &str = "11111111-2222-4333-8444-555555555555";

#[tokio::test]
async fn a_refusal_is_reported_in_partner_centers_own_words() {
    for [refusal, code, status, kind] in rows(
        "404 | 1000   | 404 | unknown-customer
         403 | 2032   | 403 | no-relationship
         400 | 2100   | 502 | rejected
         302 | 302    | 502 | rejected
         401 | 800001 | 502 | credentials-refused
         401 | 900421 | 502 | credentials-refused
         500 | 500    | 503 | unavailable
         501 | 501    | 503 | unavailable
         503 | 503    | 503 | unavailable",
    ) {
        let refusal: u16 = refusal.parse().unwrap();
        let app = TestApp::start().await;
        app.set_faults(refusing(refusal, code));

        let headers = [("x-correlation-id", CORRELATION_ID)];
        let reply = app.usage_with(DOCUMENTED, &headers).await;

        let problem = reply.problem(status.parse().unwrap(), kind);
        let calls = app.calls_made(SimulatedApi::Insights);
        let description = problem["upstream"]["description"].as_str().unwrap();
        assert!(!description.is_empty(), "{kind}");
        assert_eq!(
            problem["upstream"],
            json!({
                "status": refusal,
                "code": code,
                "description": description,
                "requestId": calls.last().unwrap().header("ms-requestid").unwrap(),
                "correlationId": CORRELATION_ID,
            }),
        );
        let forwarded = format!("fwd=uri-miss; fwd-status={refusal}; detail={kind}");
        assert_eq!(reply.cache_status(), forwarded);
    }
}

#[tokio::test]
async fn a_date_without_data_gets_404_and_is_named() {
    let app = TestApp::start().await;

    let reply = app.dated(DOCUMENTED, "2017-03-08").await;

    let problem = reply.problem_with(404, "nothing-processed", &["2017-03-08"]);
    assert!(problem.get("upstream").is_none(), "nobody refused");
}

#[tokio::test]
async fn a_throttle_is_503_until_it_is_over() {
    let app = TestApp::start().await;
    app.set_faults(throttling("57"));

    let first = app.usage(DOCUMENTED).await;
    app.advance(Duration::from_millis(10_500));
    let later = app.usage(DOCUMENTED).await;

    assert_eq!(first.problem(503, "throttled")["upstream"]["status"], 429);
    assert_eq!(first.header("retry-after"), "57");
    later.problem(503, "throttled");
    assert_eq!(later.header("retry-after"), "47", "46.5 s, rounded up");
    assert_eq!(later.cache_status(), "hit; ttl=46; detail=throttled");
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn retry_after_is_at_least_one_second() {
    // No pause is asked for, and none is configured.
    let app = TestApp::with("cache.min_refresh_interval", "0s").await;
    app.set_faults(failing(503));

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_504_after_every_attempt() {
    let app = TestApp::builder()
        .set("upstream.attempt_timeout", "2s")
        .set("upstream.retries", "1")
        .start()
        .await;
    app.simulator.hold_calls();

    let (reply, ()) = tokio::join!(app.usage(DOCUMENTED), async {
        for attempt in 1..=2 {
            app.wait_for_calls(SimulatedApi::Insights, attempt).await;
            app.advance(Duration::from_secs(2));
        }
    });

    let problem = reply.problem(504, "timed-out");
    assert!(problem.get("upstream").is_none(), "nobody answered");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn unknown_paths_get_404() {
    let app = TestApp::start().await;

    for path in [
        "//",
        "/v1",
        &format!("/v1/customers/{DOCUMENTED}"),
        &format!("/v1/customers/{DOCUMENTED}/usage/"),
        &format!("/v1/customers/{DOCUMENTED}/Usage"),
        &format!("/v2/customers/{DOCUMENTED}/usage"),
        "/v1/customers/",
        "/v1/analytics/licenses",
        &format!("/v1/customers/{DOCUMENTED}/analytics/licenses"),
        // The admin listener's, and the simulator's own.
        "/metrics",
        "/healthz",
        "/readyz",
        "/cache",
        "/_simulator/faults",
    ] {
        let reply = app.get(path).await;

        let problem = reply.problem(404, "not-found");
        assert_eq!(problem["instance"], path);
    }
}

#[tokio::test]
async fn other_methods_get_405_with_the_allowed_ones() {
    let app = TestApp::start().await;

    for path in [usage_path(DOCUMENTED), native_path(DOCUMENTED)] {
        for method in [
            "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE",
        ] {
            let with = Method::from_bytes(method.as_bytes()).unwrap();

            let reply = app.call(with, &path, &[]).await;

            reply.problem_with(405, "method-not-allowed", &[method]);
            assert_eq!(reply.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let app = TestApp::start().await;
    let usage = usage_path(DOCUMENTED);
    let query_of = |bytes: usize| format!("{usage}?{}", "x".repeat(bytes - usage.len() - 1));
    let value = "x".repeat(16 * 1024);

    let longest = app.get(&query_of(8 * 1024)).await;
    let longer = app.get(&query_of(8 * 1024 + 1)).await;
    let long_elsewhere = app.get(&format!("/{}", "x".repeat(8 * 1024))).await;
    let heavy = app.get_with(&usage, &[("x-heavy", &value)]).await;
    let administration = app.admin_get(&query_of(8 * 1024 + 1)).await;

    longest.problem(400, "unknown-parameter");
    longer.problem_with(414, "uri-too-long", &["8192"]);
    administration.problem(414, "uri-too-long");
    let problem = long_elsewhere.problem(414, "uri-too-long");
    assert!(problem["instance"].as_str().unwrap().len() < 1024);
    heavy.problem_with(431, "headers-too-large", &["16384"]);
}

#[tokio::test]
async fn every_problem_has_the_id_of_its_request() {
    let app = TestApp::start().await;
    let usage = usage_path(DOCUMENTED);
    let unknown = usage_path(UNKNOWN);

    for (path, query) in [
        (usage.as_str(), "?processedDate=2017-03-08"),
        (&usage, "?processedDate=tomorrow"),
        (&unknown, ""),
        ("/v1/customers/x/usage", ""),
        ("/nowhere", "?a=b"),
    ] {
        let ids = [
            ("x-request-id", "dashboard-7"),
            ("x-correlation-id", CORRELATION_ID),
        ];
        let reply = app.get_with(&format!("{path}{query}"), &ids).await;

        let problem = reply.json();
        assert_eq!(problem["instance"], path);
        assert_eq!(problem["requestId"], "dashboard-7", "{path}{query}");
        assert_eq!(problem["correlationId"], CORRELATION_ID, "{path}{query}");
        assert_eq!(reply.header("x-request-id"), "dashboard-7");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_ne!(reply.cache_status(), "");
    }
}

#[tokio::test]
async fn an_error_names_the_call_that_it_made_and_a_remembered_one_none() {
    let app = TestApp::start().await;

    let first = app.usage(UNKNOWN).await;
    let again = app.usage(UNKNOWN).await;

    let calls = app.calls_made(SimulatedApi::Insights);
    let id = |name| calls[0].header(name).unwrap();
    assert_eq!(first.header("ms-requestid"), id("ms-requestid"));
    assert_eq!(first.json()["correlationId"], id("ms-correlationid"));
    again.problem(404, "unknown-customer");
    assert!(!again.headers.contains_key("ms-requestid"));
    assert!(!again.headers.contains_key("ms-correlationid"));
}

#[tokio::test]
async fn a_token_that_is_echoed_in_a_refusal_is_not_passed_on() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    let requests = app.simulator.requests();
    let bearer = requests.last().unwrap().header("authorization").unwrap();
    let token = bearer.strip_prefix("Bearer ").unwrap();
    // The second is cut to a readable length in the middle of the token.
    for (customer, echo) in [
        (1, format!("The header '{bearer}' is refused.")),
        (2, format!("{}{token}", "x".repeat(290))),
    ] {
        app.set_faults(Faults {
            code: Some(token.into()),
            description: Some(echo),
            ..failing(403)
        });

        let reply = app.usage(app.simulator.customers()[customer]).await;

        let problem = reply.problem(502, "rejected");
        assert_eq!(problem["upstream"]["code"], "[redacted]");
        let description = problem["upstream"]["description"].as_str().unwrap();
        assert!(description.contains("[redacted"), "{description}");
        assert!(!reply.text().contains(&token[..8]), "{problem}");
    }
}
