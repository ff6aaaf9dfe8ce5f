//! After the revalidation window, upstream is asked, and cached data is served if that fails.

use crate::support::prelude::*;

/// The age at which an answer is too old to be served after a failure: freshness, and seven days.
const EXPIRED: Duration = Duration::from_secs(900 + 7 * 24 * 60 * 60);

#[tokio::test]
async fn cached_data_is_served_for_every_inconclusive_failure() {
    for (failure, faults, forward_status) in [
        ("an internal error", failing(500), "; fwd-status=500"),
        ("unavailable", failing(503), "; fwd-status=503"),
        ("a bad request", failing(400), "; fwd-status=400"),
        ("throttled", throttling("57"), "; fwd-status=429"),
        ("no multi-factor proof", no_mfa(), "; fwd-status=401"),
        ("a connection that breaks", broken_off(), ""),
        ("HTML", bad_body(BodyFault::Html), "; fwd-status=200"),
    ] {
        let app = TestApp::without_retries().await;
        let before = app.usage(customer(0)).await;
        app.advance(STALE);
        app.set_faults(faults);

        let stale = app.usage(customer(0)).await;
        let again = app.usage(customer(0)).await;

        let fetched = format!("fwd=stale{forward_status}; ttl=-6300; detail=stale-if-error");
        assert_eq!(stale.status, 200, "{failure}");
        assert_eq!(stale.cache_status(), fetched, "{failure}");
        assert_eq!(stale.header("age"), "7200", "{failure}");
        assert_eq!(stale.body, before.body, "{failure}");
        assert_ne!(stale.header("ms-requestid"), "", "{failure}");
        let hit = "hit; ttl=-6300; detail=stale-if-error";
        assert_eq!(again.cache_status(), hit, "{failure}");
        assert_eq!(again.header("ms-requestid"), "", "{failure}");
        let served = "usage_proxy_stale_served_total{reason=\"if-error\"}";
        assert_eq!(app.metric(served).await, 2.0, "{failure}");
    }
}

#[tokio::test]
async fn after_the_window_the_failure_is_returned() {
    for (age, status, detail) in [
        (EXPIRED - SECOND, 200, "ttl=-604799; detail=stale-if-error"),
        (EXPIRED, 503, "detail=unavailable"),
    ] {
        let app = TestApp::without_retries().await;
        app.usage(customer(0)).await;
        app.advance(age);
        app.set_faults(failing(503));

        let reply = app.usage(customer(0)).await;

        let forwarded = format!("fwd=stale; fwd-status=503; {detail}");
        assert_eq!(reply.status, status, "at {age:?}");
        assert_eq!(reply.cache_status(), forwarded, "at {age:?}");
        let retry_after = if status == 503 { "1" } else { "" };
        assert_eq!(reply.header("retry-after"), retry_after);
    }
}

#[tokio::test]
async fn definite_refusals_of_partner_center_are_never_covered_by_cached_data() {
    for (status, code, kind) in [
        (404, "1000", "unknown-customer"),
        (403, "2032", "no-relationship"),
    ] {
        let app = TestApp::without_retries().await;
        app.usage(customer(0)).await;
        app.set_refusal(customer(0), status, code);
        app.advance(STALE);

        let settled = app.usage(customer(0)).await;
        app.set_faults(failing(503));
        app.advance(30 * SECOND);
        let later = app.usage(customer(0)).await;

        settled.problem(status, kind);
        later.problem(503, "unavailable");
    }
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_customer_drops_nothing() {
    for [status, code, kind] in rows(
        r#"403 | "900308"              | credentials-refused
           403 | 900309                | credentials-refused
           403 | "900329"              | credentials-refused
           403 | "90000"               | credentials-refused
           403 | "900416"              | credentials-refused
           401 | "900420"              | credentials-refused
           403 | 4711                  | rejected
           403 | "AuthorizationFailed" | rejected
           403 | null                  | rejected
           404 | "2032"                | rejected
           404 | 4711                  | rejected
           404 | null                  | rejected"#,
    ) {
        let app = TestApp::without_retries().await;
        app.usage(customer(0)).await;
        for customer in [customer(0), customer(1)] {
            app.set_refusal(customer, status.parse().unwrap(), code);
        }
        app.advance(STALE);

        let cached = app.usage(customer(0)).await;
        app.advance(30 * SECOND);
        let later = app.usage(customer(0)).await;
        let uncached = app.usage(customer(1)).await;

        assert_eq!((cached.status, later.status), (200, 200), "{status} {code}");
        let stale = later.cache_status().ends_with("detail=stale-if-error");
        assert!(stale, "{status} {code}: {later:?}");
        uncached.problem(502, kind);
    }
}

#[tokio::test]
async fn a_recovery_is_noticed_after_a_second() {
    let app = TestApp::without_retries().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.set_faults(failing(503));
    app.usage(customer(0)).await;
    app.clear_faults();
    app.advance(SECOND);

    let recovered = app.usage(customer(0)).await;

    assert_eq!(recovered.cache_status(), STORED_AGAIN);
    assert_eq!(recovered.header("age"), "0");
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn no_call_is_made_while_a_throttle_lasts() {
    let app = TestApp::without_retries().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.set_faults(Faults {
        times: Some(1),
        ..throttling("57")
    });
    app.usage(customer(0)).await;
    app.advance(56 * SECOND);

    let throttled = app.usage(customer(0)).await;
    app.advance(SECOND);
    let admitted = app.usage(customer(0)).await;

    assert_eq!(throttled.status, 200);
    assert!(
        throttled.cache_status().starts_with("hit;"),
        "{throttled:?}"
    );
    assert_eq!(admitted.cache_status(), STORED_AGAIN);
    assert_eq!(app.calls(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn without_a_window_no_cached_data_is_served_after_a_failure() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .set("cache.stale_while_revalidate", "0s")
        .set("cache.stale_if_error", "0s")
        .start()
        .await;
    app.usage(customer(0)).await;
    app.advance(900 * SECOND);
    app.set_faults(failing(503));

    let reply = app.usage(customer(0)).await;

    reply.problem(503, "unavailable");
}
