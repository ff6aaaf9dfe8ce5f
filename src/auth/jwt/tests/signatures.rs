use super::*;
use crate::auth::jwt::support::{hmac_token, message};

#[tokio::test]
async fn each_algorithm_that_is_accepted_lets_its_caller_in() {
    let (rsa, ec, ed) = (Signer::rsa("r"), Signer::ec("e"), Signer::ed("d"));
    let test = Test::start(&[&rsa, &ec, &ed]).await;

    for (signer, algorithm) in [
        (&rsa, "RS256"),
        (&rsa, "PS256"),
        (&ec, "ES256"),
        (&ed, "EdDSA"),
    ] {
        let token = signer.token(algorithm, &good());

        assert_eq!(
            test.verify(&token).await.as_deref(),
            Ok("portal"),
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn unsigned_tokens_and_shared_secrets_let_nobody_in() {
    let rsa = Signer::rsa("r");
    let test = Test::start(&[&rsa]).await;
    let jwk = rsa.jwk();
    let unsigned = message(&json!({"alg": "none", "kid": "r"}), &good());

    for token in [
        format!("{unsigned}."),
        format!("{unsigned}.c2ln"),
        // The classic confusion: the public key, in one form or another, as the shared secret.
        hmac_token("r", &rsa.public_der(), &good()),
        hmac_token("r", jwk["n"].as_str().unwrap().as_bytes(), &good()),
        hmac_token("r", jwk.to_string().as_bytes(), &good()),
        hmac_token("r", b"", &good()),
        rsa.token("RS384", &good()),
        rsa.token("RS512", &good()),
        rsa.token("PS384", &good()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Algorithm),
            "{token}"
        );
    }
}

#[tokio::test]
async fn the_key_says_which_algorithm_it_is_for() {
    let (rsa, ec) = (Signer::rsa("r"), Signer::ec("e"));
    let issuer = Issuer::start(&[]).await;
    let mut pinned = rsa.jwk();
    pinned["alg"] = "RS256".into();
    issuer.answer(200, &json!({"keys": [pinned, ec.jwk()]}).to_string());
    let test = Test::start_with(issuer, |_| {});

    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    for token in [
        rsa.token("PS256", &good()),
        rsa.token_with(&header("RS256", "e"), "RS256", &good()),
        ec.token_with(&header("ES256", "r"), "ES256", &good()),
        ec.token_with(&header("EdDSA", "e"), "ES256", &good()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Key),
            "{token}"
        );
    }
    let token = rsa.token("RS256", &good());
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn what_another_key_has_signed_or_somebody_changed_is_refused() {
    let (ours, theirs) = (Signer::ec("e"), Signer::ec("e"));
    let test = Test::start(&[&ours]).await;
    let token = ours.token("ES256", &good());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": "e"});
    let promoted = message(&header, &with(good(), json!({"sub": "admin"})));

    for token in [
        theirs.token("ES256", &good()),
        format!("{promoted}.{signature}"),
        format!("{}.", message(&header, &good())),
        // The key that the token itself brings along is nobody's.
        theirs.token_with(
            &with(header.clone(), json!({"jwk": theirs.jwk()})),
            "ES256",
            &good(),
        ),
        theirs.token_with(
            &with(header.clone(), json!({"jku": "https://evil.example/keys"})),
            "ES256",
            &good(),
        ),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Signature),
            "{token}"
        );
    }
}
