//! Given dates cost few upstream calls: absences of past dates are remembered, and callers that may
//! not refresh the cache cause only so many.

use jiff::ToSpan;

use crate::support::prelude::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn path(date: impl std::fmt::Display) -> String {
    dated_path(customer(0), date)
}

#[tokio::test]
async fn an_absence_of_a_date_before_the_newest_is_remembered_for_a_day() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    app.usage(customer(0)).await;
    let (past, coming) = (path("2020-01-01"), path(newest.tomorrow().unwrap()));
    let makes_a_call = async |path: &str| {
        let before = app.calls(SimulatedApi::Commercial);
        app.get(path).await.problem(404, "nothing-processed");
        app.calls(SimulatedApi::Commercial) > before
    };

    assert!(makes_a_call(&past).await);
    assert!(makes_a_call(&coming).await);
    app.advance(30 * SECOND);
    assert!(!makes_a_call(&past).await);
    assert!(
        makes_a_call(&coming).await,
        "it may be processed any moment"
    );
    app.advance(24 * HOUR - 31 * SECOND);
    assert!(!makes_a_call(&past).await);
    app.advance(SECOND);
    assert!(makes_a_call(&past).await);
}

#[tokio::test]
async fn no_cache_repeats_the_call_for_a_past_date_without_data() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    let ask = async || {
        let headers = [("cache-control", "no-cache")];
        let reply = app.get_with(&path("2020-01-01"), &headers).await;
        reply.problem(404, "nothing-processed");
        app.calls(SimulatedApi::Commercial)
    };

    assert_eq!(ask().await, 1);
    assert_eq!(ask().await, 1, "within cache.min_refresh_interval");
    app.advance(HOUR);
    assert_eq!(ask().await, 2);
    assert_eq!(ask().await, 2);
}

#[tokio::test]
async fn a_purge_forgets_the_absence_of_a_past_date() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.get(&path("2020-01-01")).await;

    app.admin_post("/cache/purge").await;
    app.get(&path("2020-01-01")).await;

    assert_eq!(app.calls(SimulatedApi::Commercial), 2);
}

#[tokio::test]
async fn a_caller_that_may_not_refresh_causes_sixty_calls_for_given_dates_a_minute() {
    let callers = [
        TestCaller::named("grafana"),
        TestCaller::named("portal"),
        TestCaller::named("operator").with_scopes(&["usage:read", "cache:refresh"]),
    ];
    let app = TestApp::with_callers(&callers).await;
    let newest = app.simulator.newest_date();
    let ask = async |caller: &str, days_before: i32| -> Reply {
        let date = newest.checked_sub(days_before.days()).unwrap();
        app.get_as(caller, &path(date)).await
    };
    for days_before in 0..60 {
        let reply = ask("grafana", days_before).await;
        assert_eq!(reply.status, 200, "{days_before}");
    }

    let refused = ask("grafana", 60).await;
    let hit = ask("grafana", 0).await;
    let another = ask("portal", 60).await;
    let operator = ask("operator", 61).await;
    app.advance(SECOND);
    let admitted = ask("grafana", 62).await;
    let refused_again = ask("grafana", 63).await;

    refused.problem_with(429, "rate-limited", &["60 calls"]);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.cache_status(), "detail=rate-limited");
    assert!(hit.cache_status().starts_with("hit;"));
    for reply in [another, operator, admitted] {
        assert_eq!(reply.status, 200);
    }
    refused_again.problem(429, "rate-limited");
    assert_eq!(app.calls(SimulatedApi::Commercial), 63);
}
