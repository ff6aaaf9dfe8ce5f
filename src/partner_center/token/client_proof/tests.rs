use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::*;

const CLIENT: &str = "the-client";
const NOW: &str = "2026-03-15T12:00:00Z";

fn token_url() -> Url {
    "https://login.microsoftonline.com/t/oauth2/v2.0/token"
        .parse()
        .unwrap()
}

fn key_pair() -> (String, KeyPair) {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["usage-proxy".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    (certificate.pem(), key)
}

fn show(certificate: &str, key: &str) -> Result<SentCredential, GrantFailure> {
    let credential = ClientCredential::Certificate {
        certificate: certificate.into(),
        key: key.into(),
    };
    credential.show(CredentialSender {
        client_id: CLIENT,
        token_url: &token_url(),
        now: NOW.parse().unwrap(),
    })
}

#[test]
fn an_assertion_says_who_asks_whom_for_how_long_and_never_twice_the_same() {
    let (certificate, key) = key_pair();
    let public = DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).unwrap();
    let mut ids = HashSet::new();

    for _ in 0..3 {
        let shown = show(&certificate, &key.serialize_pem()).unwrap();

        let assertion = shown.secret().expose_secret();
        let mut validation = Validation::new(Algorithm::PS256);
        validation.validate_exp = false;
        validation.set_audience(&[token_url()]);
        let signed = jsonwebtoken::decode::<Value>(assertion, &public, &validation).unwrap();
        let claims = signed.claims;
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&CLIENT.into(), &CLIENT.into())
        );
        let now = NOW.parse::<Timestamp>().unwrap().as_second();
        assert_eq!(claims["nbf"], now);
        assert_eq!(claims["exp"], now + 300);
        assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()));
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&der));
        assert_eq!(signed.header.x5t_s256, Some(thumbprint));
    }
}

#[test]
fn a_file_that_holds_something_else_is_named_and_not_quoted() {
    let (certificate, key) = key_pair();
    let key = key.serialize_pem();
    let elliptic = KeyPair::generate().unwrap().serialize_pem();
    for (certificate, key, named) in [
        ("s3cret", &*key, CERTIFICATE),
        (&*key, &*key, CERTIFICATE),
        (&*certificate, "s3cret", KEY),
        (&*certificate, &*certificate, KEY),
        (&*certificate, &*elliptic, KEY),
    ] {
        let failure = show(certificate, key).unwrap_err();

        assert!(failure.detail.contains(named), "{}", failure.detail);
        assert!(failure.detail.contains("expected"), "{}", failure.detail);
        for told in [&*failure.detail, &*failure.cause] {
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}
