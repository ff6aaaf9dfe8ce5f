use super::*;
use crate::{
    auth::{TokenCallers, jwt::claims::LEEWAY},
    domain::{Scope, samples},
};

#[tokio::test]
async fn a_token_is_for_us_from_our_issuer_and_valid_now() {
    let signer = Signer::ed("d");
    let test = Test::start(&[&signer]).await;
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();

    for (changes, expected) in [
        (json!({"exp": null}), Some(Rejection::Expired)),
        (json!({"exp": "soon"}), Some(Rejection::Expired)),
        (json!({"exp": -1}), Some(Rejection::Expired)),
        (json!({"exp": NOW - leeway}), Some(Rejection::Expired)),
        (json!({"exp": NOW - leeway + 1}), None),
        (json!({"exp": (NOW - leeway) as f64 + 0.5}), None),
        (json!({"exp": u64::MAX}), None),
        (json!({"nbf": null}), None),
        (json!({"nbf": NOW + leeway}), None),
        (
            json!({"nbf": NOW + leeway + 1}),
            Some(Rejection::NotYetValid),
        ),
        (json!({"nbf": "now"}), Some(Rejection::Malformed)),
        (json!({"iss": null}), Some(Rejection::Issuer)),
        (
            json!({"iss": "https://issuer.example/tenant/v2.0/"}),
            Some(Rejection::Issuer),
        ),
        (
            json!({"iss": "HTTPS://issuer.example/tenant/v2.0"}),
            Some(Rejection::Issuer),
        ),
        (json!({"iss": 1}), Some(Rejection::Issuer)),
        (json!({"iss": [ISSUER]}), Some(Rejection::Issuer)),
        (json!({"aud": null}), Some(Rejection::Audience)),
        (json!({"aud": "api://other"}), Some(Rejection::Audience)),
        (json!({"aud": []}), Some(Rejection::Audience)),
        (
            json!({"aud": ["api://other", "account"]}),
            Some(Rejection::Audience),
        ),
        (json!({"aud": ["account", AUDIENCE]}), None),
        (json!({"sub": null}), Some(Rejection::Subject)),
        (json!({"sub": ""}), Some(Rejection::Subject)),
        (json!({"sub": 7}), Some(Rejection::Subject)),
        (json!({"sub": "a\nb"}), Some(Rejection::Subject)),
        (json!({"sub": "s".repeat(257)}), Some(Rejection::Subject)),
    ] {
        let token = signer.token("EdDSA", &with(good(), changes.clone()));

        assert_eq!(test.rejection(&token).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn configured_claims_say_who_and_what() {
    let signer = Signer::ed("d");
    let issuer = Issuer::start(&[&signer]).await;
    let test = Test::start_with(issuer, |config| {
        config.subject_claim = "azp".to_owned();
        config.scopes_claim = Some("roles".to_owned());
        config.customers_claim = Some("customers".to_owned());
    });
    let customer = samples::customer();
    let only = |these: &[_]| Customers::Only(Arc::new(these.iter().copied().collect()));
    let both = || Scopes::from_iter(Scope::ALL);
    let read = || Scopes::from_iter([Scope::UsageRead]);

    for (claims, scopes, customers) in [
        (json!({}), Scopes::default(), only(&[])),
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
            Scopes::default(),
            only(&[]),
        ),
        (
            json!({"roles": {"usage:read": true}}),
            Scopes::default(),
            only(&[]),
        ),
        (json!({"customers": "*"}), Scopes::default(), Customers::All),
        (json!({"customers": []}), Scopes::default(), only(&[])),
        (
            json!({"customers": [customer.to_string()]}),
            Scopes::default(),
            only(&[customer]),
        ),
        (
            json!({"customers": [customer.to_string(), "*"]}),
            Scopes::default(),
            Customers::All,
        ),
    ] {
        let token = signer.token(
            "EdDSA",
            &with(with(good(), json!({"azp": "a"})), claims.clone()),
        );

        let verified = test.verifier.verify(&token).await.unwrap();

        let expected = Verified::new("a", Some(scopes), Some(customers));
        assert_eq!(*verified, expected, "{claims}");
    }
    for customers in [
        json!("x"),
        json!(["x", "*"]),
        json!(["*", "x"]),
        json!([1]),
        json!(1),
    ] {
        let claims = with(good(), json!({"azp": "a", "customers": customers}));

        let rejection = test.rejection(&signer.token("EdDSA", &claims)).await;

        assert_eq!(rejection, Some(Rejection::Customers), "{customers}");
    }
    assert_eq!(
        test.rejection(&signer.token("EdDSA", &good())).await,
        Some(Rejection::Subject),
    );
}

#[tokio::test]
async fn claims_that_are_not_configured_are_not_read() {
    let signer = Signer::ed("d");
    let test = Test::start(&[&signer]).await;
    let claims = with(good(), json!({"roles": "usage:read", "customers": "x"}));

    let verified = test.verifier.verify(&signer.token("EdDSA", &claims)).await;

    let verified = verified.unwrap();
    assert_eq!((verified.scopes, &verified.customers), (None, &None));
}

#[tokio::test]
async fn each_subject_that_the_callers_file_does_not_name_has_its_own_unsent_bytes() {
    let signer = Signer::ed("d");
    let issuer = Issuer::start(&[&signer]).await;
    let test = Test::start_with(issuer, |config| {
        config.scopes_claim = Some("roles".to_owned());
        config.customers_claim = Some("customers".to_owned());
    });
    let callers = TokenCallers::new(test.verifier.clone());
    let unsent = async |changes: Value| {
        let rights = json!({"roles": "usage:read", "customers": "*"});
        let token = signer.token("EdDSA", &with(with(good(), rights), changes));
        let identified = callers.identify(token.as_bytes(), None);
        let identified = tokio::time::timeout(PATIENCE, identified).await;
        Arc::clone(identified.expect("it is answered").unwrap().unsent())
    };
    assert!(unsent(json!({"sub": "one"})).await.take(9));

    let again = unsent(json!({"sub": "one", "exp": NOW + 300})).await;
    let other = unsent(json!({"sub": "other"})).await;

    assert_eq!(again.used(), 9, "by whichever of its tokens");
    assert_eq!(other.used(), 0);
}
