//! Past dates are fetched into the store, in the background.

use serde_json::Value;
use tempfile::TempDir;
use usage_proxy::simulator::SimulatedApi;

use crate::support::prelude::*;

async fn with_store(folder: &TempDir) -> TestApp {
    let file = folder.path().join("usage.db");
    TestApp::builder()
        .set("store.url", &format!("sqlite:{}", file.to_string_lossy()))
        .set("upstream.source", "commercial")
        .set("upstream.retries", "0")
        .start()
        .await
}

async fn call(app: &TestApp, method: Method, query: &str) -> Reply {
    let path = format!("/backfill{query}");
    app.admin_call(method, &path, &[]).await
}

async fn progress(app: &TestApp) -> Value {
    call(app, Method::GET, "").await.json()
}

async fn wait_for_state(app: &TestApp, state: &str) -> Value {
    let is_in_state = async || progress(app).await["state"] == state;
    wait_until(&format!("the backfill is {state}"), is_in_state).await;
    progress(app).await
}

#[tokio::test]
async fn each_past_date_is_one_call_and_is_skipped_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).await;
    let to = app.simulator.newest_date();
    let from = to.yesterday().unwrap().yesterday().unwrap();
    let range = format!("?from={from}&to={to}");
    app.simulator.clear_requests();

    let started = call(&app, Method::POST, &range).await;
    let done = wait_for_state(&app, "done").await;

    assert_eq!(started.status, 202);
    assert_eq!((&done["dates"], &done["fetched"]), (&3.into(), &3.into()));
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 3);
    app.shutdown.drain();
    in_time(app.running).await.unwrap();
    let app = with_store(&folder).await;
    let past = app.dated(customer(0), from).await;
    call(&app, Method::POST, &range).await;
    let again = wait_for_state(&app, "done").await;

    assert!(past.cache_status().starts_with("hit;"));
    assert_eq!(
        (&again["skipped"], &again["fetched"]),
        (&3.into(), &0.into())
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 0);
}

#[tokio::test]
async fn a_date_that_fails_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).await;
    let date = app.simulator.newest_date();
    app.set_faults(failing(503));

    call(&app, Method::POST, &format!("?from={date}&to={date}")).await;
    wait_until("a call failed", async || {
        progress(&app).await["retried"]["error"].is_string()
    })
    .await;
    app.clear_faults();
    app.clock
        .advance_when_sleeping(Duration::from_secs(5))
        .await;
    let done = wait_for_state(&app, "done").await;

    assert_eq!(
        (&done["fetched"], &done["retried"]),
        (&1.into(), &Value::Null)
    );
}

#[tokio::test]
async fn a_date_whose_answers_are_wrong_keeps_no_other_from_being_tried() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).await;
    let newest = app.simulator.newest_date();
    let before = newest.yesterday().unwrap();
    app.set_faults(Faults {
        body: Some(BodyFault::WrongTotal),
        ..Faults::default()
    });

    call(&app, Method::POST, &format!("?from={before}&to={newest}")).await;
    for date in [newest, before] {
        for (attempt, pause) in [(1, 5), (2, 10)] {
            wait_until("an attempt failed", async || {
                let retried = &progress(&app).await["retried"];
                retried["processedDate"] == date.to_string() && retried["attempts"] == attempt
            })
            .await;
            let pause = Duration::from_secs(pause);
            app.clock.advance_when_sleeping(pause).await;
        }
    }
    let ended = wait_for_state(&app, "failed").await;

    for (failed, date) in ended["failed"]
        .as_array()
        .unwrap()
        .iter()
        .zip([newest, before])
    {
        assert_eq!(failed["processedDate"], date.to_string());
        assert_eq!(failed["attempts"], 3);
        assert!(failed["error"].as_str().unwrap().starts_with("malformed: "));
    }
    assert_eq!(ended["failed"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_backfill_can_be_stopped_and_only_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).await;
    let date = app.simulator.newest_date();
    let range = format!("?from={date}&to={date}");
    app.simulator.hold_calls();

    call(&app, Method::POST, &range).await;
    let second = call(&app, Method::POST, &range).await;
    let stopped = call(&app, Method::DELETE, "").await;
    app.simulator.release_calls();

    second.problem_with(409, "backfill-rejected", &["running already"]);
    assert_eq!(stopped.json()["state"], "stopped");
}

#[tokio::test]
async fn wrong_dates_and_a_missing_store_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_store(&folder).await;
    let without_store = TestApp::start().await;

    for [query, words] in rows(
        "?from=2026-11-01 | from or to is missing
         ?from=2026-11-02&to=2026-11-01 | from not after to
         ?from=2026-11-01&to=2026-12-24 | not after today
         ?from=2020-01-01&to=2026-11-01 | keeps 13 months
         ?from=yesterday&to=2026-11-01 | YYYY-MM-DD
         ?from=2026-11-01&to=2026-11-01&dates=3 | expected from, to, customer or none",
    ) {
        let reply = call(&app, Method::POST, query).await;
        reply.problem_with(400, "bad-request", &[words]);
    }
    let reply = call(&app, Method::GET, "?dates=3").await;
    reply.problem_with(400, "bad-request", &["expected no parameter"]);
    let reply = call(
        &without_store,
        Method::POST,
        "?from=2026-11-01&to=2026-11-02",
    )
    .await;
    reply.problem_with(409, "backfill-rejected", &["no store", "store.url"]);
    assert_eq!(progress(&app).await["state"], "none");
}
