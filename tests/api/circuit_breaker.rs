//! A Partner Center that fails one call after the other: left alone, and probed.

use crate::support::prelude::*;

/// The time that an open circuit refuses at first.
const PAUSE: Duration = Duration::from_secs(5);

fn failing_insights(times: Option<u64>) -> Faults {
    Faults {
        api: FaultScope::Insights,
        times,
        ..failing(500)
    }
}

/// A service whose insights call has failed five times in a row, for two customers.
async fn with_an_open_circuit() -> TestApp {
    let app = TestApp::start().await;
    app.usage(app.simulator.customers()[1]).await;
    app.set_faults(failing_insights(None));
    for index in [2, 3] {
        let reply = app.usage(app.simulator.customers()[index]).await;
        reply.problem(503, "unavailable");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1 + 4 + 1);
    app
}

async fn state(app: &TestApp, api: &str) -> &'static str {
    let mut current = Vec::new();
    for state in ["closed", "open", "half-open"] {
        let sample = format!("usage_proxy_circuit_state{{api=\"{api}\",state=\"{state}\"}}");
        if (app.metric(&sample).await - 1.0).abs() < f64::EPSILON {
            current.push(state);
        }
    }
    assert_eq!(current.len(), 1, "{current:?}");
    current[0]
}

#[tokio::test]
async fn an_open_circuit_refuses_at_once_with_retry_after() {
    let app = with_an_open_circuit().await;

    let reply = app.usage(app.simulator.customers()[4]).await;

    let problem = reply.problem(503, "circuit-open");
    assert_eq!(reply.header("retry-after"), "5");
    assert!(problem.get("upstream").is_none(), "nothing was asked");
    assert_eq!(reply.header("ms-requestid"), "");
    assert_eq!(app.calls(SimulatedApi::Insights), 6);
    assert_eq!(state(&app, "insights").await, "open");
}

#[tokio::test]
async fn cached_data_is_served_while_the_circuit_is_open() {
    let app = with_an_open_circuit().await;
    let customer = app.simulator.customers()[1];

    let hit = app.usage(customer).await;
    let forced = app
        .usage_with(customer, &[("cache-control", "no-cache")])
        .await;

    assert!(hit.cache_status().starts_with("hit"));
    assert_eq!((hit.status, forced.status), (200, 200));
    assert_eq!(app.calls(SimulatedApi::Insights), 6);
}

#[tokio::test]
async fn one_failing_call_does_not_affect_the_other() {
    let app = with_an_open_circuit().await;

    let dated = app.dated(DOCUMENTED, "2017-03-09").await;

    assert_eq!(dated.status, 200);
    assert_eq!(state(&app, "commercial").await, "closed");
}

#[tokio::test]
async fn the_first_call_after_the_pause_probes_and_its_success_closes_the_circuit() {
    let app = with_an_open_circuit().await;
    app.clear_faults();
    app.advance(PAUSE);
    let due = state(&app, "insights").await;

    let probe = app.usage(app.simulator.customers()[4]).await;
    let next = app.usage(app.simulator.customers()[5]).await;

    assert_eq!(due, "half-open");
    assert_eq!((probe.status, next.status), (200, 200));
    assert_eq!(state(&app, "insights").await, "closed");
}

#[tokio::test]
async fn a_probe_is_one_call_and_its_failure_doubles_the_pause() {
    let app = with_an_open_circuit().await;
    let customers = app.simulator.customers();
    app.advance(PAUSE);
    app.simulator.hold_calls();

    let (probe, ()) = tokio::join!(app.usage(customers[4]), async {
        app.wait_for_calls(SimulatedApi::Insights, 7).await;
        let meanwhile = app.usage(customers[5]).await;
        meanwhile.problem(503, "circuit-open");
        assert_eq!(meanwhile.header("retry-after"), "1");
        app.simulator.release_calls();
    });
    let after = app.usage(customers[6]).await;

    probe.problem(503, "unavailable");
    after.problem(503, "circuit-open");
    assert_eq!(after.header("retry-after"), "10");
    assert_eq!(app.calls(SimulatedApi::Insights), 7);
}

#[tokio::test]
async fn one_failing_customer_does_not_affect_the_others() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    for _ in 0..3 {
        app.set_faults(failing_insights(Some(4)));
        app.usage(customers[1]).await.problem(503, "unavailable");
        // Or a remembered failure would answer.
        app.admin_post("/cache/purge").await;
    }
    app.clear_faults();

    let other = app.usage(customers[2]).await;

    assert_eq!(other.status, 200);
    assert_eq!(state(&app, "insights").await, "closed");
}

#[tokio::test]
async fn all_calls_together_retry_no_more_than_the_budget() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    // Every call fails once, and succeeds when asked again: no circuit opens.
    let mut statuses = Vec::new();
    for customer in &customers[1..=12] {
        app.set_faults(failing_insights(Some(1)));
        statuses.push(app.usage(customer).await.status);
    }

    assert_eq!(statuses[..10], [200; 10]);
    assert_eq!(statuses[10..], [503; 2]);
    let left = app.metric("usage_proxy_retry_budget_remaining_ratio").await;
    assert!(left.abs() < f64::EPSILON, "{left}");
}
