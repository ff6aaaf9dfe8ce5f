use super::*;
use crate::auth::jwt::support::{hmac_token, message};

#[tokio::test]
async fn tokens_of_each_accepted_algorithm_are_valid() {
    let (rsa, ec, ed) = (
        TestSigner::rsa("r"),
        TestSigner::ec("e"),
        TestSigner::ed("d"),
    );
    let test = VerifierTest::start(&[&rsa, &ec, &ed]).await;

    for (signer, algorithm) in [
        (&rsa, "RS256"),
        (&rsa, "PS256"),
        (&ec, "ES256"),
        (&ed, "EdDSA"),
    ] {
        let token = signer.token(algorithm, &valid_claims());

        assert_eq!(
            test.verify(&token).await.as_deref(),
            Ok("portal"),
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn unsigned_and_hmac_tokens_are_rejected() {
    let rsa = TestSigner::rsa("r");
    let test = VerifierTest::start(&[&rsa]).await;
    let jwk = rsa.jwk();
    let unsigned = message(&json!({"alg": "none", "kid": "r"}), &valid_claims());

    for token in [
        format!("{unsigned}."),
        format!("{unsigned}.c2ln"),
        // The classic confusion: the public key, in one form or another, as the shared secret.
        hmac_token("r", &rsa.public_der(), &valid_claims()),
        hmac_token("r", jwk["n"].as_str().unwrap().as_bytes(), &valid_claims()),
        hmac_token("r", jwk.to_string().as_bytes(), &valid_claims()),
        hmac_token("r", b"", &valid_claims()),
        rsa.token("RS384", &valid_claims()),
        rsa.token("RS512", &valid_claims()),
        rsa.token("PS384", &valid_claims()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(TokenRejection::Algorithm),
            "{token}"
        );
    }
}

#[tokio::test]
async fn a_key_is_used_only_with_its_own_algorithm() {
    let (rsa, ec) = (TestSigner::rsa("r"), TestSigner::ec("e"));
    let issuer = TestIssuer::start(&[]).await;
    let mut pinned = rsa.jwk();
    pinned["alg"] = "RS256".into();
    issuer.set_response(200, &json!({"keys": [pinned, ec.jwk()]}).to_string());
    let test = VerifierTest::start_with(issuer, |_| {});

    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    for token in [
        rsa.token("PS256", &valid_claims()),
        rsa.token_with(&header("RS256", "e"), "RS256", &valid_claims()),
        ec.token_with(&header("ES256", "r"), "ES256", &valid_claims()),
        ec.token_with(&header("EdDSA", "e"), "ES256", &valid_claims()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(TokenRejection::Key),
            "{token}"
        );
    }
    let token = rsa.token("RS256", &valid_claims());
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn tokens_signed_by_another_key_or_changed_are_rejected() {
    let (ours, theirs) = (TestSigner::ec("e"), TestSigner::ec("e"));
    let test = VerifierTest::start(&[&ours]).await;
    let token = ours.token("ES256", &valid_claims());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": "e"});
    let promoted = message(
        &header,
        &with_changes(valid_claims(), json!({"sub": "admin"})),
    );

    for token in [
        theirs.token("ES256", &valid_claims()),
        format!("{promoted}.{signature}"),
        format!("{}.", message(&header, &valid_claims())),
        // The key that the token itself brings along is nobody's.
        theirs.token_with(
            &with_changes(header.clone(), json!({"jwk": theirs.jwk()})),
            "ES256",
            &valid_claims(),
        ),
        theirs.token_with(
            &with_changes(header.clone(), json!({"jku": "https://evil.example/keys"})),
            "ES256",
            &valid_claims(),
        ),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(TokenRejection::Signature),
            "{token}"
        );
    }
}
