use super::*;
use crate::clock::{Clock as _, SystemClock};

const V1_PATH: &str = "/tenant/oauth2/token";
const V2_PATH: &str = "/tenant/oauth2/v2.0/token";

async fn redeem_refresh_token(simulator: &TestSimulator, refresh_token: &str) -> Response {
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
    ];
    simulator.request_token(V1_PATH, &form).await
}

#[tokio::test]
async fn redeeming_a_refresh_token_uses_it_up_and_reuse_is_counted() {
    let simulator = TestSimulator::start().await;
    let first = simulator.handle.issue_refresh_token();

    let granted = json(redeem_refresh_token(&simulator, &first).await).await;
    let second = granted["refresh_token"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(redeem_refresh_token(&simulator, second).await.status(), 200);
    assert_eq!(simulator.handle.reused_refresh_tokens(), 0);
    assert_eq!(redeem_refresh_token(&simulator, &first).await.status(), 200);

    assert_eq!(simulator.handle.reused_refresh_tokens(), 1);
    assert!(!simulator.handle.live_refresh_tokens().contains(&first));
}

#[tokio::test]
async fn strict_rotation_rejects_reuse() {
    let simulator = TestSimulator::start().await;
    simulator.handle.set_faults(Faults {
        strict_rotation: true,
        ..Faults::default()
    });

    let first = redeem_refresh_token(&simulator, "brought along").await;
    let again = redeem_refresh_token(&simulator, "brought along").await;

    assert_eq!(first.status(), 200);
    assert_eq!(again.status(), 400);
    let body = json(again).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(body["error_codes"][0], 50173);
    let description = body["error_description"].as_str().unwrap();
    assert!(description.starts_with("AADSTS50173: "), "{description}");
    for name in ["timestamp", "trace_id", "correlation_id"] {
        assert!(body[name].is_string(), "{name}");
    }
}

#[tokio::test]
async fn graceful_rotation_rejects_reuse_once_a_successor_is_used() {
    let simulator = TestSimulator::start().await;
    simulator.handle.set_faults(Faults {
        graceful_rotation: true,
        ..Faults::default()
    });
    let successor = async |token| {
        let granted = json(redeem_refresh_token(&simulator, token).await).await;
        granted["refresh_token"].as_str().unwrap().to_owned()
    };

    let lost = successor("first").await;
    let second = successor("first").await;
    let third = successor(&second).await;

    for (token, status) in [
        ("first", 400),
        (second.as_str(), 200),
        (lost.as_str(), 200),
        (third.as_str(), 200),
        (second.as_str(), 400),
    ] {
        assert_eq!(
            redeem_refresh_token(&simulator, token).await.status(),
            status
        );
    }
    assert_eq!(simulator.handle.reused_refresh_tokens(), 4);
}

#[tokio::test]
async fn under_graceful_rotation_an_access_token_counts_as_a_successor() {
    let mut simulator = TestSimulator::start().await;
    simulator.handle.set_faults(Faults {
        graceful_rotation: true,
        ..Faults::default()
    });
    let granted = json(redeem_refresh_token(&simulator, "first").await).await;
    simulator.token = granted["access_token"].as_str().unwrap().to_owned();

    let unused = redeem_refresh_token(&simulator, "first").await;
    simulator.get("/v1/customers").await;
    let used = redeem_refresh_token(&simulator, "first").await;

    assert_eq!(
        (unused.status(), used.status()),
        (200.try_into().unwrap(), 400.try_into().unwrap())
    );
}

#[tokio::test]
async fn a_missing_parameter_is_named_in_the_error() {
    let options = SimulatorOptions {
        client_secret: Some("secret".into()),
        ..SimulatorOptions::default()
    };
    let simulator = TestSimulator::start_with(options).await;
    let app = ("grant_type", "client_credentials");
    let user = ("grant_type", "refresh_token");

    for (path, form, status, error) in [
        (V1_PATH, vec![], 400, "invalid_request"),
        (
            V1_PATH,
            vec![("grant_type", "password")],
            400,
            "unsupported_grant_type",
        ),
        (V1_PATH, vec![user], 400, "invalid_request"),
        (
            V1_PATH,
            vec![app, ("client_id", "")],
            400,
            "invalid_request",
        ),
        (V1_PATH, vec![app, ("resource", "")], 400, "invalid_request"),
        (V2_PATH, vec![app, ("scope", "")], 400, "invalid_request"),
        (
            V1_PATH,
            vec![app, ("client_secret", "")],
            401,
            "invalid_client",
        ),
        (
            V1_PATH,
            vec![app, ("client_secret", "wrong")],
            401,
            "invalid_client",
        ),
    ] {
        let answer = simulator.request_token(path, &form).await;

        assert_eq!(answer.status(), status, "{form:?}");
        assert_eq!(json(answer).await["error"], error, "{form:?}");
    }
}

#[tokio::test]
async fn a_call_without_a_valid_token_is_rejected() {
    let simulator = TestSimulator::start().await;
    let url = simulator.url(&insights_path(DOCUMENTED_CUSTOMER));
    let none = simulator.client.get(url.clone()).send().await.unwrap();
    let wrong = simulator.client.get(url).bearer_auth("wrong");

    assert_eq!(none.status(), 401);
    assert_eq!(json(none).await["code"], "800001");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    assert_eq!(simulator.insights(DOCUMENTED_CUSTOMER).await.status(), 200);
    simulator.handle.revoke_access_tokens();
    assert_eq!(simulator.insights(DOCUMENTED_CUSTOMER).await.status(), 401);
}

#[tokio::test]
async fn an_app_only_token_works_for_customers_and_only_optionally_for_commercial() {
    let mut simulator = TestSimulator::start().await;
    let form = [("grant_type", "client_credentials")];
    let granted = json(simulator.request_token(V2_PATH, &form).await).await;
    simulator.token = granted["access_token"].as_str().unwrap().into();

    let commercial = simulator.commercial(&[]).await;
    let insights = simulator.insights(DOCUMENTED_CUSTOMER).await.status();
    let partner = simulator.get("/v1/analytics/licenses/usage").await.status();
    let customers = simulator.get("/v1/customers").await.status();
    simulator.handle.allow_app_only();
    let allowed = simulator.commercial(&[]).await.status();
    let still_refused = simulator.insights(DOCUMENTED_CUSTOMER).await.status();

    assert_eq!(commercial.status(), 403);
    assert_eq!(json(commercial).await["code"], "900329");
    assert_eq!((insights.as_u16(), partner.as_u16()), (403, 403));
    assert_eq!(customers, 200);
    assert_eq!((allowed.as_u16(), still_refused.as_u16()), (200, 403));
}

/// A simulator where a certificate is registered, and the key to sign with.
async fn start_with_certificate() -> (TestSimulator, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let simulator = TestSimulator::start_with(SimulatorOptions {
        client_certificate: Some(RegisteredCertificate {
            thumbprint: "the-thumbprint".to_owned(),
            public_key: key.public_key_pem(),
        }),
        ..SimulatorOptions::default()
    })
    .await;
    (simulator, key)
}

async fn send_assertion(simulator: &TestSimulator, assertion: &str) -> Response {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_secret", ""),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion),
    ];
    simulator.request_token(V2_PATH, &form).await
}

#[tokio::test]
async fn an_assertion_is_accepted_once_and_only_if_entirely_valid() {
    use jsonwebtoken::Algorithm::{PS256, PS512};

    let (simulator, key) = start_with_certificate().await;
    let now = SystemClock.wall_time().as_second();
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
    let sign = |claims: &Value, thumbprint: &str, algorithm| {
        let header = jsonwebtoken::Header {
            x5t_s256: Some(thumbprint.to_owned()),
            ..jsonwebtoken::Header::new(algorithm)
        };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    };
    let claims = || {
        serde_json::json!({
            "aud": format!("https://login.example.com{V2_PATH}"), "iss": "usage-proxy",
            "sub": "usage-proxy", "jti": Uuid::new_v4().to_string(), "nbf": now, "exp": now + 300,
        })
    };
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        sign(&claims, "the-thumbprint", PS256)
    };
    let sound = changed("exp", (now + 300).into());

    assert_eq!(send_assertion(&simulator, &sound).await.status(), 200);
    for (what, code, assertion) in [
        ("used before", 700_023, sound.clone()),
        (
            "another certificate",
            700_027,
            sign(&claims(), "other", PS256),
        ),
        (
            "another algorithm",
            700_027,
            sign(&claims(), "the-thumbprint", PS512),
        ),
        ("cut short", 700_027, sound[..sound.len() - 4].to_owned()),
        ("no assertion", 700_027, "s3cret".to_owned()),
        (
            "another endpoint",
            700_023,
            changed("aud", "https://login.example.com/".into()),
        ),
        ("another issuer", 700_021, changed("iss", "other".into())),
        ("another subject", 700_021, changed("sub", "other".into())),
        ("over", 700_024, changed("exp", (now - 400).into())),
        ("not yet", 700_024, changed("nbf", (now + 400).into())),
        ("too long", 700_024, changed("exp", (now + 3_600).into())),
    ] {
        let refused = send_assertion(&simulator, &assertion).await;

        assert_eq!(refused.status(), 401, "{what}");
        let body = json(refused).await;
        assert_eq!(body["error"], "invalid_client", "{what}");
        assert_eq!(body["error_codes"][0], code, "{what}");
    }
}
