use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::{
    config::ClientAuthConfig,
    partner_center::test_support::{TestCredentials, TestReply, UpstreamFixture, ask_insights, ok},
    service::source::SourceErrorKind,
};

const MINUTE: Duration = Duration::from_secs(60);

fn refused(error: &str, code: u32) -> TestReply {
    let description = format!("AADSTS{code}: no");
    let body = json!({ "error": error, "error_codes": [code], "error_description": description });
    TestReply::json(400, &body)
}

fn unauthorized(code: &str) -> TestReply {
    TestReply::json(401, &json!({ "code": code, "description": "no" }))
}

#[tokio::test]
async fn concurrent_callers_share_one_token_request() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture
        .login
        .replies([TestReply::token("access-1", None).held(&gate)]);
    fixture.api.replies([ok(), ok(), ok()]);
    let partner_center = fixture.start();
    assert!(matches!(
        partner_center.status().token,
        TokenStatus::Waiting { .. }
    ));

    let (a, b, c, ()) = tokio::join!(
        ask_insights(&partner_center),
        ask_insights(&partner_center),
        ask_insights(&partner_center),
        async {
            fixture.login.requested(1).await;
            gate.notify_one();
        }
    );

    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let requests = fixture.login.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].body.contains("grant_type=client_credentials"));
    assert!(requests[0].body.contains("resource=https%3A%2F%2Fapi."));
    assert_eq!(partner_center.status().token, TokenStatus::Usable);
}

#[tokio::test]
async fn a_federated_token_is_read_again_at_each_redemption() {
    let mut fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture.write("federated", "workload-1");
    let federated_token_file = fixture.path("federated");
    fixture.prove_by(ClientAuthConfig::FederatedToken {
        federated_token_file,
    });
    let replies = ["access-1", "access-2"].map(|token| TestReply::token(token, None));
    fixture.login.replies(replies);
    fixture.api.replies([ok(), unauthorized("800001"), ok()]);
    let partner_center = fixture.start();
    ask_insights(&partner_center).await.unwrap();

    fixture.write("federated", "workload-2\n");
    ask_insights(&partner_center).await.unwrap();

    let assertions: Vec<_> = fixture
        .login
        .requests()
        .iter()
        .map(|request| {
            let form = url::form_urlencoded::parse(request.body.as_bytes());
            let form: BTreeMap<_, _> = form.into_owned().collect();
            assert_eq!(
                form["client_assertion_type"],
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            );
            assert!(!form.contains_key("client_secret"));
            form["client_assertion"].clone()
        })
        .collect();
    assert_eq!(assertions, ["workload-1", "workload-2"]);
}

#[tokio::test]
async fn a_fresh_token_that_no_retry_is_left_for_serves_the_next_call() {
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    let replies = ["access-1", "access-2"].map(|token| TestReply::token(token, None));
    fixture.login.replies(replies);
    let partner_center = fixture.start();
    // Ten retries are all there are, with so few calls.
    let failing = [(); 13].map(|()| TestReply::status(500));
    fixture.api.replies(failing);
    fixture.api.replies([ok(), unauthorized("800001"), ok()]);
    for _ in 0..3 {
        ask_insights(&partner_center).await.unwrap_err();
    }
    ask_insights(&partner_center).await.unwrap();

    let refused = ask_insights(&partner_center).await.unwrap_err();
    let next = ask_insights(&partner_center).await;

    let unavailable = SourceErrorKind::Unavailable { retry_after: None };
    assert_eq!(refused.kind, unavailable, "no person need act");
    assert_eq!(partner_center.status().token, TokenStatus::Usable);
    assert!(next.is_ok());
    let requests = fixture.api.requests();
    assert_eq!(requests.len(), 13 + 3);
    assert_eq!(requests[15].header("authorization"), "Bearer access-2");
}

#[tokio::test]
async fn a_rotated_refresh_token_is_on_disk_before_the_access_token_is_used() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    fixture
        .login
        .replies([TestReply::token("access-1", Some("refresh-2"))]);
    fixture.api.replies([ok().held(&gate)]);
    let partner_center = fixture.start();

    let (fetched, on_disk) = tokio::join!(ask_insights(&partner_center), async {
        fixture.api.requested(1).await;
        let on_disk = fixture.read("rotating/refresh");
        gate.notify_one();
        on_disk
    });

    assert!(fetched.is_ok());
    assert_eq!(on_disk, "refresh-2");
    assert!(
        fixture.login.requests()[0]
            .body
            .contains("refresh_token=refresh-1")
    );
}

#[tokio::test]
async fn a_refresh_token_that_a_person_put_there_is_never_written_over() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    fixture
        .login
        .replies([TestReply::token("access-1", Some("refresh-2")).held(&gate)]);
    fixture.api.replies([ok()]);
    let (here, away) = (fixture.path("rotating"), fixture.path("away"));
    let partner_center = fixture.start();
    fixture.login.requested(1).await;
    std::fs::rename(&here, &away).unwrap();
    gate.notify_one();
    ask_insights(&partner_center).await.unwrap();
    std::fs::rename(&away, &here).unwrap();

    fixture.write("rotating/refresh", "of-a-person");
    fixture.clock.advance_when_sleeping(MINUTE / 2).await;
    fixture
        .clock
        .wait_for_sleepers_until(1, MINUTE * 45 - MINUTE / 2)
        .await;

    assert_eq!(fixture.read("rotating/refresh"), "of-a-person");
    assert_eq!(fixture.metric("refresh_token_unsaved", &[]), 0.0);
}

#[tokio::test]
async fn a_refresh_token_that_cannot_be_written_is_kept_and_written_later() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    fixture
        .login
        .replies([TestReply::token("access-1", Some("refresh-2")).held(&gate)]);
    fixture.api.replies([ok()]);
    let (here, away) = (fixture.path("rotating"), fixture.path("away"));
    let partner_center = fixture.start();
    fixture.login.requested(1).await;
    std::fs::rename(&here, &away).unwrap();
    gate.notify_one();

    ask_insights(&partner_center).await.unwrap();
    let unsaved = fixture.metric("refresh_token_unsaved", &[]);
    std::fs::rename(&away, &here).unwrap();
    fixture.clock.advance_when_sleeping(MINUTE / 2).await;
    fixture
        .clock
        .wait_for_sleepers_until(1, MINUTE * 45 - MINUTE / 2)
        .await;

    assert_eq!(unsaved, 1.0);
    assert_eq!(fixture.read("rotating/refresh"), "refresh-2");
    assert_eq!(fixture.metric("refresh_token_unsaved", &[]), 0.0);
}

#[tokio::test]
async fn a_refresh_token_in_memory_alone_is_tried_once_more_at_the_end() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    let reply = TestReply::token("access-1", Some("refresh-2")).held(&gate);
    fixture.login.replies([reply]);
    fixture.api.replies([ok()]);
    let (here, away) = (fixture.path("rotating"), fixture.path("away"));
    let partner_center = fixture.start();
    fixture.login.requested(1).await;
    std::fs::rename(&here, &away).unwrap();
    gate.notify_one();
    ask_insights(&partner_center).await.unwrap();
    std::fs::rename(&away, &here).unwrap();

    fixture.shutdown.drain();
    fixture
        .clock
        .wait_for_sleepers_until(1, MINUTE * 60 - MINUTE / 2)
        .await;

    assert_eq!(fixture.read("rotating/refresh"), "refresh-2");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_no_token_request() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture
        .login
        .replies([TestReply::token("access-1", None).held(&gate)]);
    fixture.api.replies([ok()]);
    let partner_center = fixture.start();

    tokio::select! {
        biased;
        _ = ask_insights(&partner_center) => panic!("there is no token yet"),
        () = fixture.login.requested(1) => {}
    }
    gate.notify_one();
    let fetched = ask_insights(&partner_center).await;

    assert!(fetched.is_ok());
    assert_eq!(fixture.login.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_while_the_old_one_serves() {
    let gate = Arc::new(Notify::new());
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture.login.replies([
        TestReply::token("access-1", None),
        TestReply::token("access-2", None).held(&gate),
    ]);
    fixture.api.replies([ok(), ok()]);
    let partner_center = fixture.start();
    ask_insights(&partner_center).await.unwrap();

    fixture.clock.advance_when_sleeping(45 * MINUTE).await;
    fixture.login.requested(2).await;
    ask_insights(&partner_center).await.unwrap();

    let requests = fixture.api.requests();
    assert_eq!(requests[1].header("authorization"), "Bearer access-1");
}

#[tokio::test]
async fn a_401_is_answered_once_with_a_fresh_token() {
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    let tokens = ["access-1", "access-2"].map(|token| TestReply::token(token, None));
    fixture.login.replies(tokens);
    fixture
        .api
        .replies([unauthorized("800001"), ok(), unauthorized("400")]);
    let partner_center = fixture.start();

    ask_insights(&partner_center).await.unwrap();
    let error = ask_insights(&partner_center).await.unwrap_err();

    let requests = fixture.api.requests();
    assert_eq!(requests[1].header("authorization"), "Bearer access-2");
    assert_eq!(
        requests[0].header("ms-requestid"),
        requests[1].header("ms-requestid")
    );
    assert_eq!(error.kind, SourceErrorKind::CredentialsRejected);
    assert_eq!(
        fixture.login.requests().len(),
        2,
        "a fresh token was refused just now"
    );
}

#[tokio::test]
async fn missing_multi_factor_proof_is_final_and_needs_a_person() {
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture.login.replies([TestReply::token("access-1", None)]);
    fixture.api.replies([unauthorized("900421"), ok()]);
    let partner_center = fixture.start();

    let error = ask_insights(&partner_center).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::CredentialsRejected);
    assert!(error.detail.contains("consent again"));
    assert_eq!(fixture.api.requests().len(), 1);
    assert_eq!(fixture.login.requests().len(), 1);
    let TokenStatus::Refused { action } = partner_center.status().token else {
        panic!("a person must act");
    };
    assert!(action.contains("multi-factor"));
}

#[tokio::test]
async fn refused_credentials_are_shown_again_only_when_they_are_others() {
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    fixture.login.replies([
        refused("invalid_grant", 50173),
        TestReply::token("access-1", None),
    ]);
    fixture.api.replies([ok()]);
    let partner_center = fixture.start();

    let error = ask_insights(&partner_center).await.unwrap_err();
    fixture.clock.advance(MINUTE / 60);
    let again = ask_insights(&partner_center).await.unwrap_err();
    let requests = fixture.login.requests().len();
    fixture.write("rotating/refresh", "refresh-2");
    fixture.clock.advance(MINUTE / 60);
    let fetched = ask_insights(&partner_center).await;

    assert_eq!(error.kind, SourceErrorKind::CredentialsRejected);
    assert!(error.detail.contains("consent again"), "{}", error.detail);
    assert_eq!(error.call_ids, None, "Partner Center was not asked");
    assert_eq!(again.kind, SourceErrorKind::CredentialsRejected);
    assert_eq!(requests, 1);
    assert!(fetched.is_ok());
}

#[tokio::test]
async fn a_passing_failure_fails_waiters_at_once_and_is_tried_again() {
    let fixture = UpstreamFixture::new(TestCredentials::ClientCredentials).await;
    fixture
        .login
        .replies([TestReply::status(503), TestReply::token("access-1", None)]);
    fixture.api.replies([ok()]);
    let partner_center = fixture.start();

    let error = ask_insights(&partner_center).await.unwrap_err();
    fixture.clock.advance_when_sleeping(MINUTE / 60).await;
    let fetched = ask_insights(&partner_center).await;

    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(error.kind, SourceErrorKind::Unavailable { retry_after });
    assert!(fetched.is_ok());
}

#[tokio::test]
async fn another_programs_token_is_read_again_when_it_changes() {
    let fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
    fixture.api.replies([ok(), ok(), unauthorized("400"), ok()]);
    let partner_center = fixture.start();
    ask_insights(&partner_center).await.unwrap();

    fixture.write("token", "access-2\n");
    fixture.clock.advance(MINUTE / 60);
    ask_insights(&partner_center).await.unwrap();
    fixture.write("token", "access-3");
    ask_insights(&partner_center).await.unwrap();

    let shown: Vec<_> = fixture.api.requests();
    let shown: Vec<_> = shown
        .iter()
        .map(|one| one.header("authorization"))
        .collect();
    assert_eq!(
        shown,
        [
            "Bearer access-1",
            "Bearer access-2",
            "Bearer access-2",
            "Bearer access-3"
        ]
    );
}

#[tokio::test]
async fn nothing_that_can_be_printed_tells_a_secret() {
    let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
    fixture
        .login
        .replies([TestReply::token("access-1", Some("refresh-2"))]);
    fixture.api.replies([ok()]);
    let partner_center = fixture.start();
    let fetched = ask_insights(&partner_center).await.unwrap();

    let printed = format!("{partner_center:#?} {fetched:?} {:?}", fixture.config);

    for secret in ["access-1", "refresh-1", "refresh-2", "s3cret"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}
