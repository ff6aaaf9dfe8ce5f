//! Access tokens: kept ahead of expiry, and the refresh token never lost.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use usage_proxy::config::{AuthConfig, TokenAudience};

use crate::support::prelude::*;

/// The lifetime of the simulator's access tokens.
const LIFETIME: Duration = Duration::from_secs(3_599);

const SUCCESSES: &str = r#"usage_proxy_token_refresh_total{result="success"}"#;
const REFUSED_REFRESHES: &str = "usage_proxy_token_refresh_total{result=\"refused\"}";

/// Longer than a token lives.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const UNSAVED: &str = "usage_proxy_refresh_token_unsaved";

/// The credentials that calls of this kind have had so far.
fn shown(app: &TestApp, api: SimulatedApi) -> Vec<String> {
    let calls = app.calls_made(api);
    let credential = |call: &RecordedRequest| call.header("authorization").unwrap().to_owned();
    calls.iter().map(credential).collect()
}

fn on_disk(app: &TestApp) -> String {
    fs::read_to_string(app.refresh_token_file()).unwrap()
}

/// Returns the gauges of refused credentials, of the token endpoint and of Partner Center.
async fn refused_by(app: &TestApp) -> (f64, f64) {
    let by = |who: &str| format!("usage_proxy_credentials_refused{{refuser=\"{who}\"}}");
    (
        app.metric(&by("token-endpoint")).await,
        app.metric(&by("partner-center")).await,
    )
}

/// Returns the action that a person must take before the service can answer.
async fn action(app: &TestApp) -> String {
    let (ready, action) = app.readiness().await;
    assert!(!ready, "it can answer");
    action
}

/// Has the refresh token rotate while its folder is elsewhere, so that not even root could write it.
/// Returns where the folder was, and where it is.
async fn rotate_unwritten(app: &TestApp) -> (PathBuf, PathBuf) {
    let here = app.refresh_token_file().parent().unwrap().to_owned();
    let away = here.with_extension("away");
    app.simulator.hold_tokens();
    app.advance(LIFETIME.mul_f64(0.8));
    // By then its secrets are read.
    app.wait_for_calls(SimulatedApi::Token, 2).await;
    fs::rename(&here, &away).unwrap();
    app.simulator.release_tokens();
    app.wait_for_metric(UNSAVED, 1.0).await;
    app.wait_for_metric(SUCCESSES, 2.0).await;
    (here, away)
}

#[tokio::test]
async fn a_rotated_refresh_token_is_in_its_file_before_the_access_token_is_used() {
    let app = TestApp::start().await;
    let before = on_disk(&app);
    app.simulator.revoke_access_tokens();
    app.simulator.hold_calls();

    let (reply, (after, mode, live)) = tokio::join!(app.usage(DOCUMENTED), async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        app.simulator.release_calls();
        app.simulator.hold_calls();
        // The first use of the new access token, not answered yet.
        app.wait_for_calls(SimulatedApi::Insights, 2).await;
        let metadata = fs::metadata(app.refresh_token_file()).unwrap();
        let looked_at = (
            on_disk(&app),
            metadata.permissions().mode() & 0o777,
            app.simulator.live_refresh_tokens(),
        );
        app.simulator.release_calls();
        looked_at
    });

    assert_eq!(reply.status, 200);
    assert_ne!(after, before, "it has rotated");
    assert_eq!(live, [after], "the file has the one that is still good");
    assert_eq!(mode, 0o600);
    assert_eq!(app.simulator.reused_refresh_tokens(), 0);
}

#[tokio::test]
async fn a_rotated_token_that_cannot_be_written_serves_and_is_written_later() {
    let app = TestApp::start().await;
    let spent = on_disk(&app);
    let (here, away) = rotate_unwritten(&app).await;
    app.simulator.revoke_refresh_token(&spent);

    let meanwhile = app.usage(DOCUMENTED).await;
    fs::rename(&away, &here).unwrap();
    let still_spent = on_disk(&app);
    app.advance(Duration::from_secs(30));
    app.wait_for_metric(UNSAVED, 0.0).await;

    assert_eq!(meanwhile.status, 200);
    assert_eq!(still_spent, spent, "what could not be replaced is whole");
    assert_eq!(app.simulator.live_refresh_tokens(), [on_disk(&app)]);
    let mode = fs::metadata(app.refresh_token_file()).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_unwritten_refresh_token_is_the_one_redeemed_next() {
    let app = TestApp::start().await;
    let (here, away) = rotate_unwritten(&app).await;
    fs::rename(&away, &here).unwrap();
    app.set_faults(Faults {
        strict_rotation: true,
        ..Faults::default()
    });

    app.advance(LIFETIME.mul_f64(0.8));
    app.wait_for_metric(SUCCESSES, 3.0).await;

    assert_eq!(app.simulator.reused_refresh_tokens(), 0);
    assert_eq!(app.simulator.live_refresh_tokens(), [on_disk(&app)]);
}

#[tokio::test]
async fn the_old_token_serves_while_the_next_one_is_fetched_ahead_of_expiry() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    app.advance(LIFETIME.mul_f64(0.7));
    app.usage(customers[1]).await;
    let early = app.calls(SimulatedApi::Token);
    app.simulator.hold_tokens();

    app.advance(LIFETIME.mul_f64(0.15));
    app.wait_for_calls(SimulatedApi::Token, 2).await;
    let meanwhile = app.usage(customers[2]).await;
    app.simulator.release_tokens();
    app.wait_for_metric(SUCCESSES, 2.0).await;
    let afterwards = app.usage(customers[3]).await;

    assert_eq!(early, 1, "70 % of a token's life is no reason for another");
    assert_eq!((meanwhile.status, afterwards.status), (200, 200));
    let shown = shown(&app, SimulatedApi::Insights);
    assert_eq!(shown[1], shown[0], "nobody waited");
    assert_ne!(shown[2], shown[1], "the next one is used once it is there");
    assert_eq!(app.calls(SimulatedApi::Token), 2);
}

#[tokio::test]
async fn a_401_is_answered_with_one_fresh_token_and_one_more_try() {
    let app = TestApp::start().await;
    app.simulator.revoke_access_tokens();

    let reply = app.usage(DOCUMENTED).await;

    assert_eq!(reply.status, 200);
    let shown = shown(&app, SimulatedApi::Insights);
    assert_eq!(shown.len(), 2);
    assert_ne!(shown[0], shown[1]);
    assert_eq!(app.calls(SimulatedApi::Token), 2);
    let retries = r#"usage_proxy_upstream_retries_total{reason="unauthorized"}"#;
    assert_eq!(app.metric(retries).await, 1.0);
}

#[tokio::test]
async fn a_repeated_401_causes_no_repeated_token_requests() {
    let app = TestApp::start().await;
    app.set_faults(refusing(401, "800001"));
    let customers = app.simulator.customers();

    for customer in &customers[1..=4] {
        let problem = app.usage(customer).await;
        let problem = problem.problem(502, "credentials-refused");
        assert_eq!(problem["upstream"]["code"], "800001", "{customer}");
    }

    assert_eq!(app.calls(SimulatedApi::Token), 2);
    // The first call is tried twice, the others once.
    assert_eq!(app.calls(SimulatedApi::Insights), 5);
    let action = action(&app).await;
    assert!(action.contains("a person must"), "{action}");
    app.clear_faults();
    assert_eq!(app.usage(customers[5]).await.status, 200);
    assert_eq!(app.admin_get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_token_endpoint_may_be_down_while_the_token_is_valid() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    app.set_faults(Faults {
        token_status: Some(StatusCode::SERVICE_UNAVAILABLE),
        ..Faults::default()
    });
    app.advance(LIFETIME.mul_f64(0.9));
    let failures = r#"usage_proxy_token_refresh_total{result="unavailable"}"#;
    app.wait_for_metric(failures, 1.0).await;

    let while_good = app.usage(customers[1]).await;
    let readiness = app.admin_get("/readyz").await;
    app.advance(LIFETIME.mul_f64(0.1));
    let ended = app.usage(customers[2]).await;
    app.clear_faults();
    app.advance(Duration::from_secs(60));
    app.wait_for_metric(SUCCESSES, 2.0).await;
    let again = app.usage(customers[2]).await;

    assert_eq!(while_good.status, 200);
    assert_eq!(readiness.status, 200, "{}", readiness.text());
    ended.problem(503, "unavailable");
    assert!(ended.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn credentials_refused_by_the_token_endpoint_are_not_sent_again() {
    for (error, advice) in [
        ("invalid_grant", "consent again"),
        ("interaction_required", "consent again, with multi-factor"),
    ] {
        let app = TestApp::with_token_error(error).await;
        let customers = app.simulator.customers();

        for customer in &customers[1..=4] {
            let reply = app.usage(customer).await;
            reply.problem_with(502, "credentials-refused", &["a person must"]);
            assert_eq!(reply.header("retry-after"), "", "no use waiting");
            app.advance(Duration::from_secs(60));
        }

        assert_eq!(app.calls(SimulatedApi::Token), 1, "{error}");
        let action = action(&app).await;
        for part in ["a person must", advice, "upstream.auth.refresh_token_file"] {
            assert!(action.contains(part), "{error}: {part} in {action}");
        }
        assert_eq!(app.metric(REFUSED_REFRESHES).await, 1.0, "{error}");
    }
}

#[tokio::test]
async fn a_new_refresh_token_is_noticed_without_a_restart_and_without_a_request() {
    let app = TestApp::with_token_error("invalid_grant").await;
    let refused = app.usage(DOCUMENTED).await;
    refused.problem(502, "credentials-refused");
    app.clear_faults();

    app.renew_refresh_token();
    app.advance(Duration::from_secs(30));
    app.wait_for_metric(SUCCESSES, 1.0).await;

    assert_eq!(app.admin_get("/readyz").await.status, 200);
    assert_eq!(app.usage(DOCUMENTED).await.status, 200);
}

#[tokio::test]
async fn missing_multi_factor_proof_is_final() {
    let app = TestApp::start().await;
    app.set_faults(no_mfa());
    let customers = app.simulator.customers();

    for customer in &customers[1..=3] {
        let reply = app.usage(customer).await;
        let advice = ["900421", "a person must", "multi-factor", "consent"];
        let problem = reply.problem_with(502, "credentials-refused", &advice);
        assert_eq!(problem["upstream"]["code"], "900421");
    }

    assert_eq!(app.calls(SimulatedApi::Token), 1);
    assert_eq!(app.calls(SimulatedApi::Insights), 3, "one each");
    let action = action(&app).await;
    assert!(action.contains("900421"), "{action}");
    assert!(action.contains("consent again"), "{action}");
    assert_eq!(app.metric("usage_proxy_upstream_mfa_compliant").await, 0.0);
    assert_eq!(refused_by(&app).await, (0.0, 1.0));
}

#[tokio::test]
async fn a_refusal_for_missing_multi_factor_proof_ends_once_a_token_is_accepted() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    app.set_faults(no_mfa());
    app.usage(customers[1]).await;
    app.clear_faults();

    let served = app.usage(customers[2]).await;

    assert_eq!(served.status, 200);
    assert_eq!(refused_by(&app).await, (0.0, 0.0));
    assert_eq!(app.metric("usage_proxy_upstream_mfa_compliant").await, -1.0);
    let ready = app.admin_get("/readyz").await.text();
    assert!(!ready.contains("multi-factor"), "{ready}");
}

#[tokio::test]
async fn credentials_stay_refused_until_others_are_accepted() {
    let app = TestApp::with_token_error("invalid_grant").await;
    app.wait_for_metric(REFUSED_REFRESHES, 1.0).await;

    app.advance(DAY);
    let after_hours = refused_by(&app).await;
    app.clear_faults();
    app.renew_refresh_token();
    app.advance(DAY);
    app.wait_until_ready().await;

    assert_eq!(after_hours, (1.0, 0.0));
    assert_eq!(refused_by(&app).await, (0.0, 0.0));
}

#[tokio::test]
async fn the_first_version_of_the_token_endpoint_is_understood() {
    // It wants `resource`, which the simulator insists on, and tells the lifetime as a string.
    let app = TestApp::builder()
        .config(|config| {
            let AuthConfig::RefreshToken { grant, .. } = &mut config.upstream.auth else {
                panic!("the default of these tests");
            };
            grant.token_url.set_path("/tenant/oauth2/token");
            grant.audience = TokenAudience::Resource("https://api.example".to_owned());
        })
        .start()
        .await;

    let reply = app.usage(DOCUMENTED).await;

    assert_eq!(reply.status, 200);
    let start: jiff::Timestamp = START.parse().unwrap();
    let expiry = app.metric("usage_proxy_token_expiry_timestamp_seconds");
    assert_eq!(expiry.await, (start + LIFETIME).as_second() as f64);
    let requests = app.simulator.requests();
    let paths: Vec<_> = requests.iter().map(|request| &*request.path).collect();
    assert_eq!(paths[0], "/tenant/oauth2/token");
}

async fn app_only() -> TestApp {
    TestApp::builder()
        .set("upstream.source", "commercial")
        .config(|config| {
            let grant = config.upstream.auth.grant().unwrap().clone();
            config.upstream.auth = AuthConfig::ClientCredentials { grant };
        })
        .start()
        .await
}

#[tokio::test]
async fn a_refused_app_only_token_is_reported_as_needing_a_user() {
    let app = app_only().await;

    let refused = app.usage(DOCUMENTED).await;

    let problem = refused.problem(502, "credentials-refused");
    assert_eq!(problem["upstream"]["code"], "900329");
    let action = action(&app).await;
    assert!(action.contains("App+User"), "{action}");
    assert_eq!(refused_by(&app).await, (0.0, 1.0));
}

#[tokio::test]
async fn app_only_access_works_for_the_commercial_call_where_it_is_allowed() {
    let app = app_only().await;
    app.simulator.allow_app_only();
    let untouched = on_disk(&app);

    let simplified = app.usage(DOCUMENTED).await;
    let native = app.native(DOCUMENTED).await;

    assert_eq!(simplified.status, 200);
    // Insights wants a user, and says so.
    native.problem(502, "credentials-refused");
    assert_eq!(on_disk(&app), untouched);
    assert_eq!(app.simulator.live_refresh_tokens(), [untouched]);
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_appears_or_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access-token");
    let token_file = file.clone();
    let app = TestApp::builder()
        .config(|config| config.upstream.auth = AuthConfig::TokenFile { token_file })
        .start_without_waiting()
        .await;
    let customers = app.simulator.customers();
    let issue = async || {
        let endpoint = format!("http://{}/tenant/oauth2/v2.0/token", app.simulator_address);
        let refresh_token = app.simulator.issue_refresh_token();
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "sidecar"),
            ("client_secret", CLIENT_SECRET),
            ("scope", "https://api.example/user_impersonation"),
            ("refresh_token", &refresh_token),
        ];
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(endpoint).form(&form).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    };
    let (first, second) = (issue().await, issue().await);

    let before = app.usage(customers[1]).await;
    let waits_for = action(&app).await;
    fs::write(&file, format!("{first}\n")).unwrap();
    app.advance(SECOND);
    app.wait_until_ready().await;
    let with_first = app.usage(customers[1]).await;
    fs::write(&file, &second).unwrap();
    app.advance(SECOND);
    let with_second = app.usage(customers[2]).await;

    before.problem(503, "unavailable");
    let key = "upstream.auth.token_file";
    assert!(waits_for.contains(key), "{waits_for}");
    assert_eq!((with_first.status, with_second.status), (200, 200));
    let expected = [first, second].map(|token| format!("Bearer {token}"));
    assert_eq!(shown(&app, SimulatedApi::Insights), expected);
    // Those of the other program, and none of the service.
    assert_eq!(app.calls(SimulatedApi::Token), 2);
}

#[tokio::test]
async fn misses_share_one_token_request_that_a_disconnected_caller_does_not_cancel() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    app.simulator.hold_tokens();
    app.advance(DAY);

    let in_flight = "usage_proxy_fills_in_flight";
    tokio::select! {
        _reply = app.usage(customers[0]) => panic!("there is no token yet"),
        () = app.wait_for_metric(in_flight, 1.0) => {}
    }
    let (one, other, ()) = tokio::join!(app.usage(customers[1]), app.usage(customers[2]), async {
        app.wait_for_metric(in_flight, 3.0).await;
        app.simulator.release_tokens();
    });

    assert_eq!((one.status, other.status), (200, 200));
    assert_eq!(app.calls(SimulatedApi::Token), 2);
}

#[tokio::test]
async fn a_fresh_token_without_a_retry_left_serves_the_next_call() {
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    // Ten retries are all there are, with so few calls.
    for customer in &customers[1..=10] {
        app.set_faults(Faults {
            times: Some(1),
            ..failing(500)
        });
        assert_eq!(app.usage(customer).await.status, 200);
    }
    app.simulator.revoke_access_tokens();

    let refused = app.usage(customers[11]).await;
    let next = app.usage(customers[12]).await;

    refused.problem(503, "unavailable");
    assert_eq!(next.status, 200);
    assert_eq!(app.admin_get("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_unwritten_refresh_token_is_written_when_the_service_drains() {
    let app = TestApp::start().await;
    let file = app.refresh_token_file();
    let (here, away) = rotate_unwritten(&app).await;
    fs::rename(&away, &here).unwrap();
    let live = app.simulator.live_refresh_tokens();

    app.shutdown.drain();
    let ended = in_time(app.running).await;

    ended.unwrap();
    assert_eq!(live, [fs::read_to_string(file).unwrap()]);
}
