use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::*;
use crate::clock::{Clock, SystemClock};

fn answer(status: u16, body: &str) -> HttpReply {
    HttpReply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        unread: None,
    }
}

fn granted(body: &Value) -> Result<GrantResponse, GrantFailure> {
    parse_granted(&answer(200, &body.to_string()), SystemClock.now())
}

fn failure(status: u16, body: &str) -> GrantFailure {
    let secret = SecretString::from("s3cret");
    parse_failure(&answer(status, body), SystemClock.wall_time(), &[&secret])
}

#[test]
fn a_lifetime_is_a_number_or_text_or_has_a_default() {
    for (expires_in, seconds) in [
        (json!(3599), 3599),
        (json!("3599"), 3599),
        (json!(null), 300),
        (json!("soon"), 300),
        (json!(u64::MAX), 604_800),
    ] {
        let body = json!({ "access_token": "a", "token_type": "bearer", "expires_in": expires_in });

        let lifetime = granted(&body).unwrap().access.unwrap().lifetime;

        assert_eq!(lifetime, Some(Duration::from_secs(seconds)), "{body}");
    }
}

#[test]
fn a_rotated_refresh_token_is_returned_without_an_access_token() {
    let body = json!({ "access_token": "", "refresh_token": "refresh-2" });

    let granted = granted(&body).unwrap();

    assert!(granted.access.is_err());
    assert_eq!(granted.refresh_token.unwrap().expose_secret(), "refresh-2");
}

#[test]
fn a_reply_without_a_token_is_a_transient_failure() {
    for body in [
        json!({}),
        json!({ "access_token": "" }),
        json!({ "access_token": "a", "token_type": "pop" }),
        json!({ "access_token": "a", "expires_in": 0 }),
        json!("<html>"),
    ] {
        let failure = granted(&body)
            .and_then(|granted| granted.access)
            .unwrap_err();

        assert!(
            matches!(failure.kind, GrantFailureKind::Transient { .. }),
            "{body}"
        );
    }
}

#[test]
fn a_refusal_says_what_a_person_must_do() {
    for (error, code, action) in [
        ("invalid_grant", 50173, "consent again"),
        ("invalid_grant", 50076, "multi-factor"),
        ("invalid_client", 7_000_222, "expired"),
        ("invalid_client", 0, "client_secret_file"),
        ("unauthorized_client", 700_016, "client_id"),
        ("interaction_required", 0, "consent again"),
        ("something_new", 0, "upstream.auth"),
    ] {
        let body = json!({ "error": error, "error_codes": [code] }).to_string();

        let failure = failure(400, &body);

        assert!(
            !matches!(failure.kind, GrantFailureKind::Transient { .. }),
            "{body}"
        );
        assert!(
            failure.detail.contains(action),
            "{body}: {}",
            failure.detail
        );
    }
}

#[test]
fn transient_failures_are_recognized() {
    for (status, body) in [
        (400, r#"{"error":"temporarily_unavailable"}"#),
        (400, r#"{"error":"invalid_grant","error_codes":[90033]}"#),
        (400, r#"{"error":"invalid_grant","error_codes":[90055]}"#),
        (429, r#"{"error":"invalid_request"}"#),
        (503, ""),
        (403, "<html>Forbidden</html>"),
    ] {
        let failure = failure(status, body);

        assert!(
            matches!(failure.kind, GrantFailureKind::Transient { .. }),
            "{body}"
        );
    }
}

#[test]
fn a_request_loop_is_transient() {
    let body = r#"{"error":"invalid_grant","error_codes":[50196]}"#;

    let failure = failure(400, body);

    let retry_after = Some(Duration::from_secs(60));
    assert_eq!(failure.kind, GrantFailureKind::Transient { retry_after });
    assert!(failure.detail.contains("AADSTS50196"), "{}", failure.detail);
    assert!(!failure.detail.contains("consent"), "{}", failure.detail);
}

#[test]
fn the_cause_is_the_first_line_without_secrets() {
    let body = json!({
        "error": "invalid_client",
        "error_codes": [7_000_215],
        "error_description": "AADSTS7000215: Invalid secret s3cret provided.\r\nTrace ID: 1",
        "correlation_id": "c-1",
    });

    let cause = failure(401, &body.to_string()).cause;

    assert_eq!(
        cause,
        "invalid_client [7000215], correlation id c-1: AADSTS7000215: Invalid secret [redacted] \
         provided."
    );
}
