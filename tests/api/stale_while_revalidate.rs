//! Past freshness, within the revalidation window: served at once, one refresh behind it.

use crate::support::prelude::*;

const FRESH_FOR: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_stale_answer_is_served_at_once_while_one_refresh_runs() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date();
    app.set_rows(customer(0), seats(5, date));
    let before = app.usage(customer(0)).await;
    app.set_rows(customer(0), seats(6, date));
    app.advance(FRESH_FOR + 60 * SECOND);
    app.simulator.hold_calls();

    for _ in 0..5 {
        let stale = app.usage(customer(0)).await;

        assert_eq!(stale.status, 200);
        assert_eq!(
            stale.cache_status(),
            "hit; ttl=-60; detail=stale-while-revalidate"
        );
        let etag = before.header("etag");
        stale.assert_headers(&[("age", "960"), ("etag", etag), ("ms-requestid", "")]);
        assert_eq!(stale.body, before.body);
    }
    app.wait_for_calls(SimulatedApi::Insights, 2).await;
    app.simulator.release_calls();
    app.wait_until_filled().await;
    let refreshed = app.usage(customer(0)).await;

    assert_eq!(refreshed.cache_status(), HIT);
    assert_eq!(refreshed.header("age"), "0");
    assert_eq!(refreshed.json()["products"][0]["licensesQualified"], 6);
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
    let served = "usage_proxy_stale_served_total{reason=\"while-revalidate\"}";
    assert_eq!(app.metric(served).await, 5.0);
}

#[tokio::test]
async fn the_age_of_an_answer_decides_what_is_done_with_it() {
    for (age, cache_status, own_call) in [
        (899, "hit; ttl=1", false),
        (900, "hit; ttl=0; detail=stale-while-revalidate", false),
        (
            4_499,
            "hit; ttl=-3599; detail=stale-while-revalidate",
            false,
        ),
        (4_500, STORED_AGAIN, true),
    ] {
        let app = TestApp::start().await;
        app.usage(customer(0)).await;
        app.advance(age * SECOND);

        let reply = app.usage(customer(0)).await;

        assert_eq!(reply.cache_status(), cache_status, "at {age} s");
        let called = !reply.header("ms-requestid").is_empty();
        assert_eq!(called, own_call, "at {age} s");
    }
}

#[tokio::test]
async fn without_a_revalidation_window_a_stale_answer_waits_for_upstream() {
    let app = TestApp::with("cache.stale_while_revalidate", "0s").await;
    app.usage(customer(0)).await;
    app.advance(FRESH_FOR);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.cache_status(), STORED_AGAIN);
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_made_again_by_every_poll() {
    const POLL: Duration = Duration::from_millis(100);
    let app = TestApp::without_retries().await;
    app.usage(customer(0)).await;
    app.set_faults(failing(503));
    app.advance(FRESH_FOR);

    app.usage(customer(0)).await;
    app.wait_for_calls(SimulatedApi::Insights, 2).await;
    app.wait_until_filled().await;
    for _ in 0..5 {
        app.advance(POLL);
        let polled = app.usage(customer(0)).await;
        assert_eq!(
            polled.cache_status(),
            "hit; ttl=0; detail=stale-while-revalidate"
        );
    }
    app.wait_until_filled().await;

    assert_eq!(app.calls(SimulatedApi::Insights), 2);

    app.advance(SECOND - 5 * POLL);
    app.usage(customer(0)).await;
    app.wait_for_calls(SimulatedApi::Insights, 3).await;
}

#[tokio::test]
async fn a_refresh_that_finds_no_customer_ends_stale_answers() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.set_refusal(customer(0), 404, "1000");
    app.advance(FRESH_FOR);

    let last = app.usage(customer(0)).await;
    app.wait_for_calls(SimulatedApi::Insights, 2).await;
    app.wait_until_filled().await;
    let gone = app.usage(customer(0)).await;

    assert_eq!(last.status, 200);
    gone.problem(404, "unknown-customer");
    assert_eq!(gone.cache_status(), "hit; ttl=30; detail=unknown-customer");
}
