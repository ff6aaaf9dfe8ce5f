//! Callers with tokens of an issuer, and their rights.

use self::issuer::{TestIssuer, TestSigner, hmac_token};
use crate::support::prelude::*;

#[expect(dead_code, reason = "the unit tests need more of it")]
#[path = "../../src/auth/jwt/support.rs"]
mod issuer;

const ISSUER: &str = "https://issuer.example/tenant/v2.0";
const AUDIENCE: &str = "api://usage-proxy";

/// A caller whose tokens have the subject `portal`.
const PORTAL: &str = r#"
    [[caller]]
    name = "the-portal"
    jwt_subject = "portal"
    customers = ["4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04"]
    scopes = ["usage:read", "cache:refresh"]
    [[caller]]
    name = "nobody"
    jwt_subject = "nobody"
    customers = ["*"]
    scopes = ["cache:refresh"]
"#;

/// A service that accepts tokens of an issuer.
struct Test {
    app: TestApp,
    issuer: TestIssuer,
    signer: TestSigner,
}

/// The claims that are configured.
#[derive(Clone, Copy)]
enum Claims {
    None,
    Scopes,
    Both,
}

impl Test {
    async fn start(callers: Option<&str>, claims: Claims) -> Self {
        let signer = TestSigner::ec("key");
        let issuer = TestIssuer::start(&[&signer]).await;
        let app = builder(&issuer, callers, claims).start().await;
        Self {
            app,
            issuer,
            signer,
        }
    }

    /// Returns valid claims of this subject, and others.
    fn claims(&self, subject: &str, more: &Value) -> Value {
        let now = usage_proxy::clock::Clock::wall_time(&*self.app.clock).as_second();
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "nbf": now, "exp": now + 3600,
        });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        claims
    }

    fn token(&self, subject: &str, more: &Value) -> String {
        self.signer.token("ES256", &self.claims(subject, more))
    }

    async fn usage(&self, token: &str, customer: impl Display) -> Reply {
        let bearer = format!("Bearer {token}");
        self.app
            .usage_with(customer, &[("authorization", &bearer)])
            .await
    }

    /// Asserts the status of this subject's requests for the documented customer and another one.
    async fn assert_rights(&self, subject: &str, claims: &str, statuses: [&str; 2]) {
        let claims = claims
            .replace("OWN", &format!("{DOCUMENTED:?}"))
            .replace("OTHER", &format!("\"{}\"", customer(0)));
        let token = self.token(subject, &serde_json::from_str(&claims).unwrap());
        let own = self.usage(&token, DOCUMENTED).await.status;
        let other = self.usage(&token, customer(0)).await.status;
        assert_eq!(
            [own, other].map(|status| status.to_string()),
            statuses,
            "{claims}"
        );
    }
}

fn builder(issuer: &TestIssuer, callers: Option<&str>, claims: Claims) -> Builder {
    let mut builder = TestApp::builder()
        .set("callers.jwt.issuer", ISSUER)
        .set("callers.jwt.audience", AUDIENCE)
        .set("callers.jwt.jwks_url", &issuer.url);
    if let Some(callers) = callers {
        builder = builder.callers_file(callers);
    }
    if let Claims::Scopes | Claims::Both = claims {
        builder = builder.set("callers.jwt.scopes_claim", "scope");
    }
    if let Claims::Both = claims {
        builder = builder.set("callers.jwt.customers_claim", "customers");
    }
    builder
}

#[tokio::test]
async fn microsofts_sdk_may_send_a_callers_token_instead_of_its_own() {
    let test = Test::start(Some(PORTAL), Claims::None).await;
    let bearer = format!("Bearer {}", test.token("portal", &json!({})));
    let headers = [
        ("authorization", &*bearer),
        ("accept", "application/json"),
        ("ms-requestid", "25b6edd5-1f53-456b-b48c-c64f60ec2dda"),
        ("ms-correlationid", "6492b9d6-5629-429b-934c-040b1946e760"),
        ("x-locale", "en-US"),
        ("ms-partnercenter-client", "Partner Center .NET SDK"),
        ("ms-sdkversion", "3.4.0.0"),
    ];

    let list = test.app.get_with("/v1/customers?size=0", &headers).await;

    assert_eq!(list.json()["totalCount"], 1);
    assert_eq!(list.json()["items"][0]["id"], DOCUMENTED);
    let all = "/v1/analytics/licenses/usage";
    test.app
        .get_with(all, &headers)
        .await
        .problem(403, "not-allowed");
}

fn failures(reason: &str) -> String {
    format!("usage_proxy_authentication_failures_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_token_gives_its_subject_the_rights_of_the_callers_file() {
    let test = Test::start(Some(PORTAL), Claims::None).await;
    let portal = test.token("portal", &json!({}));
    let unlisted = test.token("nobody", &json!({"scope": "usage:read", "customers": "*"}));

    for (token, customer, status) in [
        (&portal, DOCUMENTED.to_owned(), 200),
        (&portal, customer(0).to_string(), 403),
        (&unlisted, DOCUMENTED.to_owned(), 403),
    ] {
        // Once more, when the token is remembered.
        for _ in 0..2 {
            let reply = test.usage(token, &customer).await;
            assert_eq!(reply.status, status, "{customer}");
        }
    }
    assert_eq!(test.issuer.fetches(), 1);
}

#[tokio::test]
async fn an_invalid_token_gets_401_with_the_reason() {
    let test = Test::start(Some(PORTAL), Claims::None).await;
    let good = test.claims("portal", &json!({}));
    let with = |more: Value| test.token("portal", &more);
    let stranger = TestSigner::ec("key").token("ES256", &good);
    let unsigned = issuer::message(&json!({"alg": "none"}), &good);

    for (reason, token) in [
        ("token-signature", stranger),
        ("token-algorithm", format!("{unsigned}.")),
        (
            "token-algorithm",
            hmac_token("key", &test.signer.public_der(), &good),
        ),
        ("token-key", TestSigner::ec("other").token("ES256", &good)),
        ("token-expired", with(json!({"exp": 1_000_000_000}))),
        (
            "token-not-yet-valid",
            with(json!({"nbf": 9_000_000_000_u64})),
        ),
        ("token-issuer", with(json!({"iss": "https://evil.example"}))),
        ("token-audience", with(json!({"aud": "api://other"}))),
        ("token-subject", with(json!({"sub": null}))),
        ("token-malformed", "eyJhbGciOiJFUzI1NiJ9.e30".to_owned()),
        ("unknown-subject", with(json!({"sub": "stranger"}))),
        ("unknown-subject", with(json!({"sub": "the-portal"}))),
    ] {
        let before = test.app.metric(&failures(reason)).await;

        let reply = test.usage(&token, DOCUMENTED).await;

        assert_eq!(reply.status, 401, "{reason}");
        let challenge = reply.headers["www-authenticate"].to_str().unwrap();
        let beginning =
            "Bearer realm=\"usage-proxy\", error=\"invalid_token\", error_description=\"the token";
        assert!(challenge.starts_with(beginning), "{reason}: {challenge}");
        let answer = format!("{challenge}{}", reply.text());
        let leaked = token
            .split('.')
            .filter(|part| !part.is_empty())
            .any(|part| answer.contains(part));
        assert!(!leaked, "{answer}");
        let after = test.app.metric(&failures(reason)).await;
        assert_eq!(after - before, 1.0, "{reason}");
    }
    assert_eq!(test.app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_subject_has_only_rights_that_its_token_grants() {
    let test = Test::start(Some(PORTAL), Claims::Both).await;

    for [claims, own, other] in rows(
        r#"{"scope": "usage:read", "customers": "*"}     | 200 | 403
           {"scope": ["usage:read"], "customers": [OWN]} | 200 | 403
           {"scope": "usage:read", "customers": [OTHER]} | 403 | 403
           {"scope": "usage:read", "customers": []}      | 403 | 403
           {"scope": "usage:read", "customers": ["x"]}   | 401 | 401
           {"scope": "usage:read"}                       | 403 | 403
           {"scope": "cache:refresh", "customers": "*"}  | 403 | 403
           {"customers": "*"}                            | 403 | 403"#,
    ) {
        test.assert_rights("portal", claims, [own, other]).await;
    }
}

#[tokio::test]
async fn refreshing_needs_the_scope_in_both_token_and_file() {
    let test = Test::start(Some(PORTAL), Claims::Scopes).await;
    let path = usage_path(DOCUMENTED);
    let mut calls = Vec::new();

    for scope in ["usage:read", "usage:read cache:refresh"] {
        let token = test.token("portal", &json!({"scope": scope}));
        test.usage(&token, DOCUMENTED).await;
        test.app.advance(Duration::from_secs(31));
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("cache-control", "no-cache")];
        test.app.get_with(&path, &headers).await;
        calls.push(test.app.calls(SimulatedApi::Insights));
    }

    assert_eq!(calls, [1, 2]);
}

#[tokio::test]
async fn a_subject_outside_the_file_has_the_rights_of_its_token() {
    for callers in [None, Some(PORTAL)] {
        let test = Test::start(callers, Claims::Both).await;

        for [claims, own, other] in rows(
            r#"{"scope": "usage:read", "customers": "*"}    | 200 | 200
               {"scope": "usage:read", "customers": [OWN]}  | 200 | 403
               {"scope": "cache:refresh", "customers": "*"} | 403 | 403
               {"scope": "openid", "customers": "*"}        | 401 | 401
               {"scope": "usage:read", "customers": []}     | 401 | 401
               {"scope": "usage:read"}                      | 401 | 401
               {"customers": "*"}                           | 401 | 401"#,
        ) {
            test.assert_rights("stranger", claims, [own, other]).await;
        }
        assert_eq!(test.app.usage(DOCUMENTED).await.status, 401);
        assert_eq!(test.app.get_with_key("key", "/").await.status, 401);
    }
}

#[tokio::test]
async fn scopes_alone_do_not_admit_a_subject_outside_the_file() {
    let test = Test::start(Some(PORTAL), Claims::Scopes).await;
    let claims = json!({"scope": "usage:read", "customers": "*"});

    let reply = test
        .usage(&test.token("stranger", &claims), DOCUMENTED)
        .await;

    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn while_the_issuer_is_down_tokens_get_503_and_keys_still_work() {
    let signer = TestSigner::ec("key");
    let issuer = TestIssuer::start(&[]).await;
    issuer.set_response(500, "");
    let callers = format!("{PORTAL}{}", callers_file(&[TestCaller::named("grafana")]));
    let app = builder(&issuer, Some(&callers), Claims::None).start().await;
    let test = Test {
        app,
        issuer,
        signer,
    };
    let token = test.token("portal", &json!({}));

    let reply = test.usage(&token, DOCUMENTED).await;

    reply.problem(503, "issuer-unavailable");
    assert_eq!(reply.header("retry-after"), "10");
    assert!(!reply.headers.contains_key("www-authenticate"));
    let counted = test.app.metric(&failures("issuer-unavailable")).await;
    assert_eq!(counted, 1.0);
    let keyed = test.app.usage_for("grafana", DOCUMENTED).await;
    assert_eq!(keyed.status, 200);
}

#[tokio::test]
async fn a_caller_removed_from_the_file_is_rejected_at_once() {
    let test = Test::start(Some(PORTAL), Claims::None).await;
    let token = test.token("portal", &json!({}));
    assert_eq!(test.usage(&token, DOCUMENTED).await.status, 200);

    test.app
        .write_callers(&PORTAL.replace("jwt_subject = \"portal\"", "jwt_subject = \"p\""));
    test.app.reload.trigger();

    let rejected = async || test.usage(&token, DOCUMENTED).await.status == 401;
    wait_until("the caller is rejected", rejected).await;
}

#[tokio::test]
async fn without_a_configured_issuer_a_token_is_an_unknown_key() {
    let signer = TestSigner::ec("key");
    let app = TestApp::builder().callers_file(PORTAL).start().await;
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "portal", "exp": 9_000_000_000_u64});
    let token = signer.token("ES256", &claims);

    let reply = app.get_with_key(&token, &usage_path(DOCUMENTED)).await;

    assert_eq!(reply.status, 401);
    assert_eq!(app.metric(&failures("unknown-key")).await, 1.0);
    assert_ne!(token, key_of("the-portal"));
}
