//! The newest date of a customer never goes backwards, also after its data was evicted.

use jiff::civil::Date;

use crate::support::prelude::*;

/// A service that has served data of this date for customer 0, and has evicted it since.
async fn evicted() -> (TestApp, Date) {
    let app = TestApp::small().await;
    let date = app.simulator.newest_date();
    assert_eq!(
        app.usage(customer(0)).await.json()["processedDate"],
        date.to_string()
    );
    app.fill().await;
    let cached = app
        .admin_get(&format!("/cache?customer={}", customer(0)))
        .await;
    assert_eq!(cached.json()["holdings"].as_array().unwrap().len(), 0);
    app.simulator.clear_requests();
    (app, date)
}

/// Partner Center takes the day before for the newest, and still has this date.
fn go_backwards(app: &TestApp, date: Date) {
    let rows = [date, date.yesterday().unwrap()]
        .map(|processed| SimulatedRow::new("PRODUCT", "Exchange", 5, processed));
    let newest = date.yesterday().unwrap();
    app.set_answer(
        customer(0),
        CustomerOverride::History {
            newest,
            rows: rows.to_vec(),
        },
    );
}

/// Partner Center has no rows for the newest date, and still has this date.
fn lose_the_rows(app: &TestApp, date: Date) {
    let rows = vec![SimulatedRow::new("PRODUCT", "Exchange", 5, date)];
    let newest = date.tomorrow().unwrap();
    app.set_answer(customer(0), CustomerOverride::History { newest, rows });
}

fn date_of(reply: &Reply) -> String {
    reply.json()["processedDate"].as_str().unwrap().to_owned()
}

fn assert_suspect(reply: &Reply) {
    let status = reply.cache_status();
    assert!(status.ends_with("; detail=suspect"), "{status}");
}

#[tokio::test]
async fn an_older_date_after_an_eviction_causes_a_dated_call_for_the_newest() {
    let (app, date) = evicted().await;
    go_backwards(&app, date);

    let reply = app.usage(customer(0)).await;
    let again = app.usage(customer(0)).await;
    let older = date.yesterday().unwrap();
    let path = dated_path(customer(0), older);
    let by_name = app.get(&path).await;

    assert_eq!(date_of(&reply), date.to_string());
    assert_suspect(&reply);
    assert_eq!(date_of(&again), date.to_string());
    assert_suspect(&again);
    assert!(again.cache_status().starts_with("hit;"));
    assert_eq!(
        date_of(&by_name),
        older.to_string(),
        "the older answer is stored for its own date"
    );
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn without_the_newest_date_an_older_one_is_refused_as_suspect() {
    let (app, date) = evicted().await;
    go_backwards(&app, date);
    app.set_faults(Faults {
        api: FaultScope::Commercial,
        status: Some(http::StatusCode::BAD_REQUEST),
        ..Faults::default()
    });

    let reply = app.usage(customer(0)).await;
    let again = app.usage(customer(0)).await;
    app.clear_faults();
    app.admin_post("/cache/purge").await;
    let after_a_soft_purge = app.usage(customer(0)).await;

    reply.problem(502, "suspect");
    assert_suspect(&reply);
    again.problem(502, "suspect");
    assert_suspect(&again);
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
    assert_eq!(date_of(&after_a_soft_purge), date.to_string());
}

#[tokio::test]
async fn a_suspect_answer_is_not_cached_for_the_retry_after_of_the_dated_call() {
    let (app, date) = evicted().await;
    go_backwards(&app, date);
    app.set_faults(Faults {
        api: FaultScope::Commercial,
        ..throttling("900")
    });

    let refused = app.usage(customer(0)).await;
    app.advance(Duration::from_secs(30));
    let again = app.usage(customer(0)).await;

    refused.problem(502, "suspect");
    again.problem(502, "suspect");
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn a_hard_purge_accepts_an_older_date() {
    let (app, date) = evicted().await;
    go_backwards(&app, date);

    app.admin_post("/cache/purge?hard=true").await;
    let reply = app.usage(customer(0)).await;

    assert_eq!(date_of(&reply), date.yesterday().unwrap().to_string());
    assert!(!reply.cache_status().contains("suspect"));
}

#[tokio::test]
async fn an_answer_without_rows_is_suspect_after_the_eviction_too() {
    let (app, date) = evicted().await;
    lose_the_rows(&app, date);

    let reply = app.usage(customer(0)).await;
    app.advance(std::time::Duration::from_secs(24 * 60 * 60));
    let confirmed = app.usage(customer(0)).await;
    let cached = app.usage(customer(0)).await;

    assert_eq!(date_of(&reply), date.to_string());
    assert_suspect(&reply);
    for reply in [confirmed, cached] {
        assert_eq!(reply.json()["processedDate"], serde_json::Value::Null);
        assert!(!reply.cache_status().contains("suspect"));
    }
}

#[tokio::test]
async fn an_answer_without_rows_is_accepted_if_the_newest_date_is_empty_too() {
    let (app, _) = evicted().await;
    app.set_rows(customer(0), []);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.json()["processedDate"], serde_json::Value::Null);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    assert_eq!(app.calls(SimulatedApi::Commercial), 1);
}

#[tokio::test]
async fn the_native_form_is_refused_where_only_the_dated_call_has_the_newest_date() {
    let (app, date) = evicted().await;
    go_backwards(&app, date);
    app.usage(customer(0)).await;

    let native = app.native(customer(0)).await;
    app.simulator.clear_override(customer(0));
    app.admin_post("/cache/purge").await;
    let recovered = app.native(customer(0)).await;

    native.problem(502, "suspect");
    assert_suspect(&native);
    assert_eq!(recovered.status, 200);
}
