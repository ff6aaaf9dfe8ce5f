//! `/readyz`: whether we can answer, as gates that say what they wait for.

use crate::{logs::Log, support::prelude::*};

/// After so long a service without data checks a refused token by itself, jitter being off.
const CHECK: Duration = Duration::from_secs(5);

/// Longer than a token lives.
const HOURS: Duration = Duration::from_secs(2 * 60 * 60);

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

const CAN_ANSWER: &str = "usage_proxy_ready{gate=\"can-answer\"}";

const REFUSED_BY_PARTNER_CENTER: &str =
    "usage_proxy_credentials_refused{refuser=\"partner-center\"}";

const REFUSED_REFRESHES: &str = "usage_proxy_token_refresh_total{result=\"refused\"}";
const UNAVAILABLE_REFRESHES: &str = "usage_proxy_token_refresh_total{result=\"unavailable\"}";

#[tokio::test]
async fn a_service_with_a_token_is_ready() {
    let app = TestApp::start().await;

    let reply = app.admin_get("/readyz").await;

    assert_eq!(reply.status, 200);
    let mut report = reply.json();
    let account = report.as_object_mut().unwrap().remove("account").unwrap();
    let gates = ["running", "can-answer"].map(|name| json!({"name": name, "ready": true}));
    assert_eq!(report, json!({"ready": true, "gates": gates}));
    // A short id of the account, and no secret of it.
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

    let (ready, waits_for) = app.readiness().await;
    let running = app.metric("usage_proxy_ready{gate=\"running\"}").await;
    let can_answer = app.metric(CAN_ANSWER).await;
    let alive = app.admin_get("/healthz").await;
    app.clear_faults();
    app.advance(HOURS);
    app.wait_until_ready().await;

    assert!(!ready && waits_for.contains("access token"), "{waits_for}");
    assert_eq!((running, can_answer), (1.0, 0.0));
    assert_eq!(app.metric(CAN_ANSWER).await, 1.0);
    assert_eq!((alive.status, alive.json()), (200, json!({"status": "ok"})));
}

#[tokio::test]
async fn refused_credentials_close_the_gate_and_say_what_a_person_must_do() {
    let app = TestApp::with_token_error("invalid_grant").await;
    app.wait_for_metric(REFUSED_REFRESHES, 1.0).await;

    let (ready, waits_for) = app.readiness().await;

    assert!(!ready && waits_for.contains("consent"), "{waits_for}");
}

#[tokio::test]
async fn a_service_with_data_stays_ready_while_its_credentials_are_refused() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.set_faults(Faults {
        token_error: Some("invalid_grant".to_owned()),
        ..Faults::default()
    });
    app.advance(HOURS);
    app.wait_for_metric(REFUSED_REFRESHES, 1.0).await;

    let (ready, note) = app.readiness().await;
    let served = app.usage(customer(0)).await;

    assert!(ready && note.contains("consent"), "{note}");
    assert_eq!(served.status, 200);
}

#[tokio::test]
async fn a_lost_role_is_one_error_in_the_log_and_readiness_says_what_to_do() {
    let log = Log::start();
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.set_faults(refusing(403, "900308"));

    for index in 1..=3 {
        let reply = app.usage(customer(index)).await;
        reply.problem(502, "credentials-refused");
    }
    let (ready, note) = app.readiness().await;
    let refused = app.metric(REFUSED_BY_PARTNER_CENTER).await;
    app.clear_faults();
    app.usage(customer(4)).await;
    let over = app.readiness().await;
    app.set_faults(refusing(403, "900308"));
    app.usage(customer(5)).await;

    let levels: Vec<_> = log
        .upstream_calls()
        .iter()
        .filter(|call| call["outcome"] == "credentials-refused")
        .map(|call| call["level"].as_str().unwrap().to_owned())
        .collect();
    // One error for each time that it begins.
    assert_eq!(levels, ["ERROR", "WARN", "WARN", "ERROR"]);
    assert!(ready, "there is data");
    for part in ["900308", "a person must"] {
        assert!(note.contains(part), "{part} in {note}");
    }
    assert_eq!(refused, 1.0, "which the alert looks at");
    assert_eq!(over, (true, String::new()));
}

#[tokio::test]
async fn a_service_without_data_becomes_ready_by_itself_once_its_token_is_accepted() {
    for (status, code) in [
        (401, "800001"),
        (401, "900421"),
        (401, "900420"),
        (403, "900308"),
    ] {
        let app = TestApp::start().await;
        app.set_faults(refusing(status, code));
        let refused = app.usage(customer(0)).await;
        refused.problem(502, "credentials-refused");
        let refused = app.admin_get("/readyz").await;
        app.simulator.clear_requests();

        check_passes(&app).await;
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        in_time(app.clock.wait_for_sleepers_until(1, CHECK)).await;
        let still_refused = app.admin_get("/readyz").await;
        app.clear_faults();
        check_passes(&app).await;
        in_time(app.wait_until_ready()).await;

        assert_eq!(refused.status, 503, "{code}");
        assert_eq!(still_refused.status, 503, "{code}");
        assert_eq!(app.metric(REFUSED_BY_PARTNER_CENTER).await, 0.0, "{code}");
    }
}

#[tokio::test]
async fn a_refused_call_about_an_unknown_customer_shows_all_the_same_that_the_token_is_accepted() {
    let app = TestApp::start().await;
    app.set_faults(refusing(401, "900421"));
    let refused = app.usage(uuid::Uuid::nil()).await;
    refused.problem(502, "credentials-refused");

    app.clear_faults();
    check_passes(&app).await;
    in_time(app.wait_until_ready()).await;
}

#[tokio::test]
async fn a_service_with_data_does_not_probe_a_refused_token() {
    let app = TestApp::start().await;
    app.usage(customer(0)).await;
    app.set_faults(refusing(401, "900421"));
    let refused = app.usage(customer(1)).await;
    refused.problem(502, "credentials-refused");
    app.simulator.clear_requests();

    for _ in 0..3 {
        check_passes(&app).await;
    }
    in_time(app.clock.wait_for_sleepers_until(1, CHECK)).await;

    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

/// Moves the time on to the next check by itself.
async fn check_passes(app: &TestApp) {
    in_time(app.clock.advance_when_sleeping(CHECK)).await;
}

#[tokio::test]
async fn missing_multi_factor_proof_closes_the_gate_only_where_there_is_no_data() {
    for cached in [false, true] {
        let app = TestApp::start().await;
        if cached {
            app.usage(customer(0)).await;
        }
        app.set_faults(no_mfa());

        let refused = app.usage(customer(1)).await;
        let (ready, reason) = app.readiness().await;

        refused.problem(502, "credentials-refused");
        assert_eq!(ready, cached);
        assert!(reason.contains("multi-factor"), "{cached}: {reason}");
    }
}

#[tokio::test]
async fn a_token_without_multi_factor_proof_is_reported_before_it_is_refused() {
    for (asks, reported) in [("true", true), ("false", false)] {
        let app = TestApp::with("upstream.validate_mfa", asks).await;
        app.set_faults(Faults {
            mfa_missing: true,
            ..Faults::default()
        });

        let served = app.usage(customer(0)).await;
        let (ready, note) = app.readiness().await;
        app.clear_faults();
        app.usage(customer(1)).await;
        let after = app.readiness().await;

        assert_eq!((served.status, ready), (200, true));
        assert_eq!(note.contains("consent again"), reported, "{asks}: {note}");
        assert_eq!(after, (true, String::new()));
    }
}

#[tokio::test]
async fn three_customers_without_a_row_suggest_the_commercial_call() {
    for (source, speaks_at, suggested) in [
        ("insights", None, [false, false, true, true]),
        ("insights", Some(3), [false, false, true, false]),
        ("commercial", None, [false; 4]),
    ] {
        let app = TestApp::with("upstream.source", source).await;
        for index in (0..4).filter(|index| Some(*index) != speaks_at) {
            app.set_rows(customer(index), []);
        }

        let mut notes = Vec::new();
        for index in 0..4 {
            app.usage(customer(index)).await;
            let (ready, note) = app.readiness().await;
            assert!(ready, "silence is no reason to leave rotation");
            notes.push(note.contains("upstream.source = \"commercial\""));
        }

        assert_eq!(notes, suggested, "{source}, a row at {speaks_at:?}");
    }
}
