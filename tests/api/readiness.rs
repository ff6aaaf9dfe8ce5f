//! `/readyz`: whether we can answer, as gates that say what they wait for.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use usage_proxy::simulator::{Faults, Override};

use crate::support::{Reply, TestApp, customer};

/// Longer than a token lives.
const HOURS: Duration = Duration::from_secs(2 * 60 * 60);

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

const CAN_ANSWER: &str = "usage_proxy_ready{gate=\"can-answer\"}";

const REFUSED_REFRESHES: &str = "usage_proxy_token_refresh_total{result=\"refused\"}";
const UNAVAILABLE_REFRESHES: &str = "usage_proxy_token_refresh_total{result=\"unavailable\"}";

#[tokio::test]
async fn a_service_with_a_token_is_ready() {
    let app = TestApp::start().await;

    let reply = app.admin_get("/readyz").await;

    assert_eq!(reply.status, 200);
    let mut told = reply.json();
    let account = told.as_object_mut().unwrap().remove("account").unwrap();
    assert_eq!(
        told,
        json!({"ready": true, "gates": [
            {"name": "running", "ready": true},
            {"name": "can-answer", "ready": true},
        ]})
    );
    // Which account it is before, and nothing of it that could be used.
    let account = account.as_str().unwrap();
    assert_eq!(account.len(), 16);
    assert!(account.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[tokio::test]
async fn a_service_without_token_and_data_is_not_ready_until_it_gets_a_token() {
    let app = TestApp::builder()
        .simulator(|options| options.faults.token_status = Some(UNAVAILABLE))
        .start_without_waiting()
        .await;
    app.wait_for_metric(UNAVAILABLE_REFRESHES, 1.0).await;

    let not_ready = app.admin_get("/readyz").await;
    let gates = (
        app.metric("usage_proxy_ready{gate=\"running\"}").await,
        app.metric(CAN_ANSWER).await,
    );
    let alive = app.admin_get("/healthz").await;
    app.simulator.set_faults(Faults::default());
    app.advance(HOURS);
    app.wait_until_ready().await;

    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.json()["ready"], false);
    assert_eq!(gates, (1.0, 0.0));
    assert_eq!(app.metric(CAN_ANSWER).await, 1.0);
    let gate = can_answer(&not_ready);
    assert_eq!(gate["ready"], false);
    let waits_for = gate["waitsFor"].as_str().unwrap();
    assert!(waits_for.contains("access token"), "{waits_for}");
    assert_eq!((alive.status, alive.json()), (200, json!({"status": "ok"})));
}

#[tokio::test]
async fn refused_credentials_close_the_gate_and_say_what_a_person_must_do() {
    let app = TestApp::builder()
        .simulator(|options| options.faults.token_error = Some("invalid_grant".to_owned()))
        .start_without_waiting()
        .await;
    app.wait_for_metric(REFUSED_REFRESHES, 1.0).await;

    let reply = app.admin_get("/readyz").await;

    assert_eq!(reply.status, 503);
    let gate = can_answer(&reply);
    let waits_for = gate["waitsFor"].as_str().unwrap();
    assert!(waits_for.contains("consent"), "{waits_for}");
}

#[tokio::test]
async fn a_service_with_data_stays_ready_while_its_credentials_are_refused() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.simulator.set_faults(Faults {
        token_error: Some("invalid_grant".to_owned()),
        ..Faults::default()
    });
    app.advance(HOURS);
    app.wait_for_metric(REFUSED_REFRESHES, 1.0).await;

    let reply = app.admin_get("/readyz").await;
    let served = app.usage(customer(0)).await;

    assert_eq!(reply.status, 200);
    let gate = can_answer(&reply);
    assert_eq!(gate["ready"], true);
    assert!(gate["note"].as_str().unwrap().contains("consent"), "{gate}");
    assert_eq!(served.status, 200);
}

#[tokio::test]
async fn missing_multi_factor_proof_is_told_by_whether_there_is_data() {
    for (held, status, told_in) in [(false, 503, "waitsFor"), (true, 200, "note")] {
        let app = TestApp::start().await;
        if held {
            app.usage(customer(0)).await;
        }
        app.simulator.set_faults(Faults {
            mfa_required: true,
            ..Faults::default()
        });

        let refused = app.usage(customer(1)).await;
        let reply = app.admin_get("/readyz").await;

        refused.problem(502, "credentials-refused");
        assert_eq!(reply.status, status, "with data: {held}");
        let gate = can_answer(&reply);
        assert!(
            gate[told_in].as_str().unwrap().contains("multi-factor"),
            "with data: {held}: {gate}"
        );
    }
}

#[tokio::test]
async fn a_token_without_multi_factor_proof_is_told_of_before_it_is_refused() {
    for (asks, told) in [("true", true), ("false", false)] {
        let app = TestApp::builder()
            .set("upstream.validate_mfa", asks)
            .start()
            .await;
        app.simulator.set_faults(Faults {
            mfa_missing: true,
            ..Faults::default()
        });

        let served = app.usage(customer(0)).await;
        let before = app.admin_get("/readyz").await;
        app.simulator.set_faults(Faults::default());
        app.usage(customer(1)).await;
        let after = app.admin_get("/readyz").await;

        assert_eq!((served.status, before.status), (200, 200));
        let note = can_answer(&before)["note"].as_str().map(str::to_owned);
        assert_eq!(
            note.is_some_and(|note| note.contains("consent again")),
            told,
            "validate_mfa = {asks}"
        );
        assert!(can_answer(&after).get("note").is_none());
    }
}

#[tokio::test]
async fn three_customers_without_a_row_suggest_the_commercial_call() {
    for (source, speaks_at, suggested) in [
        ("insights", None, [false, false, true, true]),
        ("insights", Some(3), [false, false, true, false]),
        ("commercial", None, [false; 4]),
    ] {
        let app = TestApp::builder()
            .set("upstream.source", source)
            .start()
            .await;
        for index in (0..4).filter(|index| Some(*index) != speaks_at) {
            app.simulator
                .replace(customer(index), Override::Rows(Vec::new()));
        }

        let mut notes = Vec::new();
        for index in 0..4 {
            app.usage(customer(index)).await;
            let reply = app.admin_get("/readyz").await;
            assert_eq!(reply.status, 200, "silence is no reason to leave rotation");
            notes.push(
                can_answer(&reply)["note"]
                    .as_str()
                    .is_some_and(|note| note.contains("upstream.source = \"commercial\"")),
            );
        }

        assert_eq!(notes, suggested, "{source}, a row at {speaks_at:?}");
    }
}

fn can_answer(reply: &Reply) -> Value {
    let report = reply.json();
    let gates = report["gates"].as_array().unwrap().iter();
    gates
        .clone()
        .find(|gate| gate["name"] == "can-answer")
        .unwrap_or_else(|| panic!("{report}"))
        .clone()
}
