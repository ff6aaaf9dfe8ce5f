//! Past the revalidation window no caller waits long for a slow upstream: stale data is served, and
//! the call continues.

use crate::support::prelude::*;

/// `cache.soft_timeout`, by default.
const SOFT_TIMEOUT: Duration = Duration::from_secs(2);

const SERVED: &str = r#"usage_proxy_stale_served_total{reason="soft-timeout"}"#;

#[tokio::test]
async fn a_caller_with_stale_data_waits_no_longer_than_the_soft_timeout() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.simulator.hold_calls();
    let soft_timeout = async {
        app.wait_for_calls(SimulatedApi::Insights, 2).await;
        app.clock.wait_for_sleepers_until(2, SOFT_TIMEOUT).await;
        app.advance(SOFT_TIMEOUT);
    };

    let (one, other, ()) =
        tokio::join!(app.usage(customer(0)), app.usage(customer(0)), soft_timeout);
    app.simulator.release_calls();
    app.wait_until_filled().await;
    let after = app.usage(customer(0)).await;

    let mut statuses = [one.cache_status(), other.cache_status()];
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [
            "fwd=stale; collapsed; ttl=-6302; detail=soft-timeout",
            "fwd=stale; ttl=-6302; detail=soft-timeout",
        ]
    );
    assert_eq!((one.status, one.header("age")), (200, "7202"));
    assert_eq!(
        after.cache_status(),
        HIT,
        "the call went on, and its answer was stored"
    );
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
    assert_eq!(app.metric(SERVED).await, 2.0);
}

#[tokio::test]
async fn a_caller_without_cached_data_waits_for_upstream() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let longer = async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        app.advance(2 * SOFT_TIMEOUT);
        app.simulator.release_calls();
    };

    let (reply, ()) = tokio::join!(app.usage(customer(0)), longer);

    assert_eq!(reply.cache_status(), STORED);
}

#[tokio::test]
async fn a_caller_whose_stale_data_is_purged_waits_for_upstream() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.advance(STALE);
    app.simulator.hold_calls();
    let purge = async {
        app.wait_for_calls(SimulatedApi::Insights, 2).await;
        app.clock.wait_for_sleepers_until(1, SOFT_TIMEOUT).await;
        app.admin_post("/cache/purge?hard=true").await;
        app.advance(SOFT_TIMEOUT);
        app.simulator.release_calls();
    };

    let (reply, ()) = tokio::join!(app.usage(customer(0)), purge);

    assert_eq!(reply.header("age"), "0");
    assert!(!reply.cache_status().contains("soft-timeout"));
}
