use super::*;
use crate::{
    auth::{TokenAuthenticator, jwt::claims::LEEWAY},
    domain::{CallerScope, ScopeSet, samples},
};

#[tokio::test]
async fn issuer_audience_and_validity_are_checked() {
    let signer = TestSigner::ed("d");
    let test = VerifierTest::start(&[&signer]).await;
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();

    for (changes, expected) in [
        (json!({"exp": null}), Some(TokenRejection::Expired)),
        (json!({"exp": "soon"}), Some(TokenRejection::Expired)),
        (json!({"exp": -1}), Some(TokenRejection::Expired)),
        (json!({"exp": NOW - leeway}), Some(TokenRejection::Expired)),
        (json!({"exp": NOW - leeway + 1}), None),
        (json!({"exp": (NOW - leeway) as f64 + 0.5}), None),
        (json!({"exp": u64::MAX}), None),
        (json!({"nbf": null}), None),
        (json!({"nbf": NOW + leeway}), None),
        (
            json!({"nbf": NOW + leeway + 1}),
            Some(TokenRejection::NotYetValid),
        ),
        (json!({"nbf": "now"}), Some(TokenRejection::Malformed)),
        (json!({"iss": null}), Some(TokenRejection::Issuer)),
        (
            json!({"iss": "https://issuer.example/tenant/v2.0/"}),
            Some(TokenRejection::Issuer),
        ),
        (
            json!({"iss": "HTTPS://issuer.example/tenant/v2.0"}),
            Some(TokenRejection::Issuer),
        ),
        (json!({"iss": 1}), Some(TokenRejection::Issuer)),
        (json!({"iss": [ISSUER]}), Some(TokenRejection::Issuer)),
        (json!({"aud": null}), Some(TokenRejection::Audience)),
        (
            json!({"aud": "api://other"}),
            Some(TokenRejection::Audience),
        ),
        (json!({"aud": []}), Some(TokenRejection::Audience)),
        (
            json!({"aud": ["api://other", "account"]}),
            Some(TokenRejection::Audience),
        ),
        (json!({"aud": ["account", AUDIENCE]}), None),
        (json!({"sub": null}), Some(TokenRejection::Subject)),
        (json!({"sub": ""}), Some(TokenRejection::Subject)),
        (json!({"sub": 7}), Some(TokenRejection::Subject)),
        (json!({"sub": "a\nb"}), Some(TokenRejection::Subject)),
        (
            json!({"sub": "s".repeat(257)}),
            Some(TokenRejection::Subject),
        ),
    ] {
        let token = signer.token("EdDSA", &with_changes(valid_claims(), changes.clone()));

        assert_eq!(test.rejection(&token).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn configured_claims_give_subject_scopes_and_customers() {
    let signer = TestSigner::ed("d");
    let issuer = TestIssuer::start(&[&signer]).await;
    let test = VerifierTest::start_with(issuer, |config| {
        config.subject_claim = "azp".to_owned();
        config.scopes_claim = Some("roles".to_owned());
        config.customers_claim = Some("customers".to_owned());
    });
    let customer = samples::customer();
    let only = |these: &[_]| CustomerAccess::Only(Arc::new(these.iter().copied().collect()));
    let both = || ScopeSet::from_iter(CallerScope::ALL);
    let read = || ScopeSet::from_iter([CallerScope::UsageRead]);

    for (claims, scopes, customers) in [
        (json!({}), ScopeSet::default(), only(&[])),
        (json!({"roles": "usage:read"}), read(), only(&[])),
        (
            json!({"roles": "openid cache:refresh usage:read "}),
            both(),
            only(&[]),
        ),
        (
            json!({"roles": ["usage:read", "usage:write"]}),
            read(),
            only(&[]),
        ),
        (
            json!({"roles": [["usage:read"]]}),
            ScopeSet::default(),
            only(&[]),
        ),
        (
            json!({"roles": {"usage:read": true}}),
            ScopeSet::default(),
            only(&[]),
        ),
        (
            json!({"customers": "*"}),
            ScopeSet::default(),
            CustomerAccess::All,
        ),
        (json!({"customers": []}), ScopeSet::default(), only(&[])),
        (
            json!({"customers": [customer.to_string()]}),
            ScopeSet::default(),
            only(&[customer]),
        ),
        (
            json!({"customers": [customer.to_string(), "*"]}),
            ScopeSet::default(),
            CustomerAccess::All,
        ),
    ] {
        let token = signer.token(
            "EdDSA",
            &with_changes(
                with_changes(valid_claims(), json!({"azp": "a"})),
                claims.clone(),
            ),
        );

        let verified = test.verifier.verify(&token).await.unwrap();

        let expected = VerifiedToken::new("a", Some(scopes), Some(customers));
        assert_eq!(*verified, expected, "{claims}");
    }
    for customers in [
        json!("x"),
        json!(["x", "*"]),
        json!(["*", "x"]),
        json!([1]),
        json!(1),
    ] {
        let claims = with_changes(valid_claims(), json!({"azp": "a", "customers": customers}));

        let rejection = test.rejection(&signer.token("EdDSA", &claims)).await;

        assert_eq!(rejection, Some(TokenRejection::Customers), "{customers}");
    }
    assert_eq!(
        test.rejection(&signer.token("EdDSA", &valid_claims()))
            .await,
        Some(TokenRejection::Subject),
    );
}

#[tokio::test]
async fn claims_that_are_not_configured_are_not_read() {
    let signer = TestSigner::ed("d");
    let test = VerifierTest::start(&[&signer]).await;
    let claims = with_changes(
        valid_claims(),
        json!({"roles": "usage:read", "customers": "x"}),
    );

    let verified = test.verifier.verify(&signer.token("EdDSA", &claims)).await;

    let verified = verified.unwrap();
    assert_eq!((verified.scopes, &verified.customers), (None, &None));
}

#[tokio::test]
async fn subjects_outside_the_callers_file_have_separate_unsent_budgets() {
    let signer = TestSigner::ed("d");
    let issuer = TestIssuer::start(&[&signer]).await;
    let test = VerifierTest::start_with(issuer, |config| {
        config.scopes_claim = Some("roles".to_owned());
        config.customers_claim = Some("customers".to_owned());
    });
    let callers = TokenAuthenticator::new(test.verifier.clone());
    let unsent = async |changes: Value| {
        let rights = json!({"roles": "usage:read", "customers": "*"});
        let token = signer.token(
            "EdDSA",
            &with_changes(with_changes(valid_claims(), rights), changes),
        );
        let identified = callers.identify(token.as_bytes(), None);
        let identified = tokio::time::timeout(WAIT_TIMEOUT, identified).await;
        Arc::clone(identified.expect("it is answered").unwrap().unsent())
    };
    assert!(unsent(json!({"sub": "one"})).await.acquire(9));

    let again = unsent(json!({"sub": "one", "exp": NOW + 300})).await;
    let other = unsent(json!({"sub": "other"})).await;

    assert_eq!(again.used(), 9, "by whichever of its tokens");
    assert_eq!(other.used(), 0);
}
