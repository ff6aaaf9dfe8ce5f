//! Past the revalidation window: upstream is asked, and what is held stands in for its failure.

use std::time::Duration;

use http::StatusCode;
use usage_proxy::simulator::{BodyFault, CustomerOverride, Faults, SimulatedApi};

use crate::support::{TestApp, customer};

const SECOND: Duration = Duration::from_secs(1);

/// Past freshness and the revalidation window.
const STALE: Duration = Duration::from_secs(4_560);

/// When an answer is too old to stand in: freshness, and seven days more.
const EXPIRED: Duration = Duration::from_secs(900 + 7 * 24 * 60 * 60);

#[tokio::test]
async fn what_is_held_stands_in_for_every_failure_that_settles_nothing() {
    let status = |status| Faults {
        status: Some(status),
        ..Faults::default()
    };
    for (failure, faults, forward_status) in [
        (
            "an internal error",
            status(StatusCode::INTERNAL_SERVER_ERROR),
            "; fwd-status=500",
        ),
        (
            "unavailable",
            status(StatusCode::SERVICE_UNAVAILABLE),
            "; fwd-status=503",
        ),
        (
            "a bad request",
            status(StatusCode::BAD_REQUEST),
            "; fwd-status=400",
        ),
        (
            "throttled",
            Faults {
                retry_after: Some("57".into()),
                ..status(StatusCode::TOO_MANY_REQUESTS)
            },
            "; fwd-status=429",
        ),
        (
            "no multi-factor proof",
            Faults {
                mfa_required: true,
                ..Faults::default()
            },
            "; fwd-status=401",
        ),
        (
            "a connection that breaks",
            Faults {
                close_mid_body: true,
                ..Faults::default()
            },
            "",
        ),
        (
            "a page instead of usage",
            Faults {
                body: Some(BodyFault::Html),
                ..Faults::default()
            },
            "; fwd-status=200",
        ),
    ] {
        let app = failing_fast().await;
        let before = app.usage(customer(0)).await;
        app.advance(STALE);
        app.simulator.set_faults(faults);

        let stood_in = app.usage(customer(0)).await;
        let remembered = app.usage(customer(0)).await;

        assert_eq!(stood_in.status, 200, "{failure}");
        assert_eq!(
            stood_in.header("cache-status"),
            format!("usage-proxy; fwd=stale{forward_status}; ttl=-3660; detail=stale-if-error"),
            "{failure}"
        );
        assert_eq!(stood_in.header("age"), "4560", "{failure}");
        assert_eq!(stood_in.body, before.body, "{failure}");
        assert_ne!(stood_in.header("ms-requestid"), "", "{failure}");
        assert_eq!(
            remembered.header("cache-status"),
            "usage-proxy; hit; ttl=-3660; detail=stale-if-error",
            "{failure}"
        );
        assert_eq!(remembered.header("ms-requestid"), "", "{failure}");
        let served = "usage_proxy_stale_served_total{reason=\"if-error\"}";
        assert_eq!(app.metric(served).await, 2.0, "{failure}");
    }
}

#[tokio::test]
async fn past_the_window_the_failure_is_the_answer() {
    for (age, status) in [(EXPIRED - SECOND, 200), (EXPIRED, 503)] {
        let app = failing_fast().await;
        app.usage(customer(0)).await;
        app.advance(age);
        app.simulator.set_faults(unavailable());

        let reply = app.usage(customer(0)).await;

        assert_eq!(reply.status, status, "at {age:?}");
    }
}

#[tokio::test]
async fn the_failure_of_an_expired_answer_says_when_to_come_back() {
    let app = failing_fast().await;
    app.usage(customer(0)).await;
    app.advance(EXPIRED);
    app.simulator.set_faults(unavailable());

    let reply = app.usage(customer(0)).await;

    reply.problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(
        reply.header("cache-status"),
        "usage-proxy; fwd=stale; fwd-status=503; detail=unavailable"
    );
}

#[tokio::test]
async fn what_upstream_settled_is_never_covered_by_what_is_held() {
    for (status, code, kind) in [
        (StatusCode::NOT_FOUND, "1000", "unknown-customer"),
        (StatusCode::FORBIDDEN, "2032", "no-relationship"),
    ] {
        let app = failing_fast().await;
        app.usage(customer(0)).await;
        app.simulator.override_customer(
            customer(0),
            CustomerOverride::Status {
                status,
                body: format!(r#"{{"code": {code}, "description": "settled"}}"#).into(),
                headers: http::HeaderMap::new(),
            },
        );
        app.advance(STALE);

        let settled = app.usage(customer(0)).await;
        app.simulator.set_faults(unavailable());
        app.advance(30 * SECOND);
        let later = app.usage(customer(0)).await;

        settled.problem(status.as_u16(), kind);
        later.problem(503, "unavailable");
    }
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_customer_drops_nothing() {
    const NO_CODE: &str = "null";
    for (status, code, kind) in [
        (403, "\"900308\"", "credentials-refused"),
        (403, "900309", "credentials-refused"),
        (403, "\"900329\"", "credentials-refused"),
        (403, "\"90000\"", "credentials-refused"),
        (403, "\"900416\"", "credentials-refused"),
        (401, "\"900420\"", "credentials-refused"),
        (403, "4711", "rejected"),
        (403, "\"AuthorizationFailed\"", "rejected"),
        (403, NO_CODE, "rejected"),
        (404, "\"2032\"", "rejected"),
        (404, "4711", "rejected"),
        (404, NO_CODE, "rejected"),
    ] {
        let app = failing_fast().await;
        app.usage(customer(0)).await;
        for customer in [customer(0), customer(1)] {
            app.simulator.override_customer(
                customer,
                CustomerOverride::Status {
                    status: StatusCode::from_u16(status).unwrap(),
                    body: format!(r#"{{"code": {code}, "description": "no"}}"#).into(),
                    headers: http::HeaderMap::new(),
                },
            );
        }
        app.advance(STALE);

        let cached = app.usage(customer(0)).await;
        app.advance(30 * SECOND);
        let later = app.usage(customer(0)).await;
        let uncached = app.usage(customer(1)).await;

        assert_eq!((cached.status, later.status), (200, 200), "{status} {code}");
        let cache_status = later.header("cache-status");
        assert!(
            cache_status.ends_with("detail=stale-if-error"),
            "{status} {code}: {cache_status}"
        );
        uncached.problem(502, kind);
    }
}

#[tokio::test]
async fn a_recovery_is_noticed_after_a_second() {
    let app = failing_fast().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.simulator.set_faults(unavailable());
    app.usage(customer(0)).await;
    app.simulator.set_faults(Faults::default());
    app.advance(SECOND);

    let recovered = app.usage(customer(0)).await;

    assert_eq!(
        recovered.header("cache-status"),
        "usage-proxy; fwd=stale; fwd-status=200; stored; ttl=900"
    );
    assert_eq!(recovered.header("age"), "0");
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn a_throttle_costs_no_call_for_as_long_as_it_lasts() {
    let app = failing_fast().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.simulator.set_faults(Faults {
        status: Some(StatusCode::TOO_MANY_REQUESTS),
        retry_after: Some("57".into()),
        times: Some(1),
        ..Faults::default()
    });
    app.usage(customer(0)).await;
    app.advance(56 * SECOND);

    let throttled = app.usage(customer(0)).await;
    app.advance(SECOND);
    let admitted = app.usage(customer(0)).await;

    assert_eq!(throttled.status, 200);
    assert!(
        throttled
            .header("cache-status")
            .starts_with("usage-proxy; hit;"),
        "{throttled:?}"
    );
    assert_eq!(
        admitted.header("cache-status"),
        "usage-proxy; fwd=stale; fwd-status=200; stored; ttl=900"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 3);
}

#[tokio::test]
async fn without_a_window_nothing_stands_in() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .set("cache.stale_while_revalidate", "0s")
        .set("cache.stale_if_error", "0s")
        .start()
        .await;
    app.usage(customer(0)).await;
    app.advance(900 * SECOND);
    app.simulator.set_faults(unavailable());

    let reply = app.usage(customer(0)).await;

    reply.problem(503, "unavailable");
}

/// A retry would wait for the clock, which stands still.
async fn failing_fast() -> TestApp {
    TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await
}

fn unavailable() -> Faults {
    Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        ..Faults::default()
    }
}
