//! The proof of who the application is, for the token endpoint.
//!
//! It is a secret, or an assertion (RFC 7523 §2.2): signed with the key of a registered certificate, or
//! obtained from a federated issuer; see
//! [certificate credentials](https://learn.microsoft.com/entra/identity-platform/certificate-credentials).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    outcome::GrantFailure,
    secret_file::{SecretFile, UnreadableSecret},
};
use crate::{
    certificate,
    config::{ClientAuthConfig, GrantConfig},
};

const SECRET: &str = "upstream.auth.client_secret_file";
const CERTIFICATE: &str = "upstream.auth.client_certificate_file";
const KEY: &str = "upstream.auth.client_key_file";
const FEDERATED_TOKEN: &str = "upstream.auth.federated_token_file";

/// The lifetime of an assertion, which is sent at once. Microsoft advises 5 to 10 minutes.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The content of the files that prove who the application is.
#[derive(Clone, Debug)]
pub(crate) enum ClientCredential {
    Secret(SecretString),
    Certificate {
        certificate: SecretString,
        key: SecretString,
    },
    FederatedToken(SecretString),
}

/// The form fields of a proof.
#[derive(Debug)]
pub(crate) enum ClientProof {
    /// `client_secret`.
    Secret(SecretString),
    /// `client_assertion`.
    Assertion(SecretString),
}

/// The claims of RFC 7523 §3, as Microsoft wants them.
#[derive(Serialize)]
struct AssertionClaims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: i64,
    exp: i64,
}

// === impl ClientCredential ===

impl ClientCredential {
    /// Reads the files, which may have been replaced since the last time.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] names the key of the unreadable file.
    pub(crate) async fn read(config: &ClientAuthConfig) -> Result<Self, UnreadableSecret> {
        Ok(match config {
            ClientAuthConfig::Secret { client_secret_file } => {
                Self::Secret(SecretFile::new(client_secret_file, SECRET).read().await?)
            }
            ClientAuthConfig::Certificate {
                client_certificate_file,
                client_key_file,
            } => Self::Certificate {
                certificate: SecretFile::new(client_certificate_file, CERTIFICATE)
                    .read()
                    .await?,
                key: SecretFile::new(client_key_file, KEY).read().await?,
            },
            ClientAuthConfig::FederatedToken {
                federated_token_file,
            } => {
                let file = SecretFile::new(federated_token_file, FEDERATED_TOKEN);
                Self::FederatedToken(file.read().await?)
            }
        })
    }

    /// The secrets of which it consists.
    pub(crate) fn secrets(&self) -> Vec<&SecretString> {
        match self {
            Self::Secret(secret) | Self::FederatedToken(secret) => vec![secret],
            Self::Certificate { certificate, key } => vec![certificate, key],
        }
    }

    /// The expiry of the certificate, in Unix time, if there is a valid one.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        let Self::Certificate { certificate, .. } = self else {
            return None;
        };
        let pem = certificate.expose_secret().as_bytes();
        certificate::expires_at(&CertificateDer::from_pem_slice(pem).ok()?).ok()
    }

    /// Returns the proof to send. That of a certificate is a new assertion each time.
    ///
    /// # Errors
    ///
    /// [`GrantFailure`] names the key of the file with the wrong content.
    pub(crate) fn prove(
        &self,
        grant: &GrantConfig,
        now: Timestamp,
    ) -> Result<ClientProof, GrantFailure> {
        match self {
            Self::Secret(secret) => Ok(ClientProof::Secret(secret.clone())),
            Self::FederatedToken(token) => Ok(ClientProof::Assertion(token.clone())),
            Self::Certificate { certificate, key } => {
                sign_assertion(certificate, key, grant, now).map(ClientProof::Assertion)
            }
        }
    }
}

// === impl ClientProof ===

impl ClientProof {
    pub(crate) fn secret(&self) -> &SecretString {
        match self {
            Self::Secret(secret) | Self::Assertion(secret) => secret,
        }
    }
}

fn sign_assertion(
    certificate: &SecretString,
    key: &SecretString,
    grant: &GrantConfig,
    now: Timestamp,
) -> Result<SecretString, GrantFailure> {
    let der = CertificateDer::from_pem_slice(certificate.expose_secret().as_bytes())
        .map_err(|_| unusable(CERTIFICATE, "a certificate in PEM"))?;
    let key = EncodingKey::from_rsa_pem(key.expose_secret().as_bytes())
        .map_err(|_| unusable(KEY, "an RSA key in PEM, unencrypted"))?;
    let nbf = now.as_second();
    let claims = AssertionClaims {
        aud: grant.token_url.as_str(),
        iss: &grant.client_id,
        sub: &grant.client_id,
        jti: Uuid::new_v4().to_string(),
        nbf,
        exp: nbf.saturating_add_unsigned(ASSERTION_LIFETIME.as_secs()),
    };
    let header = Header {
        x5t_s256: Some(URL_SAFE_NO_PAD.encode(Sha256::digest(&der))),
        ..Header::new(Algorithm::PS256)
    };
    jsonwebtoken::encode(&header, &claims, &key)
        .map(SecretString::from)
        .map_err(|_| unusable(KEY, "an RSA key of 2048 bits or more"))
}

/// The errors of the libraries could quote the file.
fn unusable(key: &str, expected: &str) -> GrantFailure {
    let cause = format!("{key}: expected {expected}");
    GrantFailure::refused(
        &format!("a credential cannot be used: {cause}"),
        cause.clone(),
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::TokenAudience;

    fn sign(certificate: &str, key: &str) -> Result<SecretString, GrantFailure> {
        let grant = GrantConfig {
            token_url: "https://login.example/t/oauth2/token".parse().unwrap(),
            client_id: "the-client".to_owned(),
            client_auth: ClientAuthConfig::Secret {
                client_secret_file: "unused".into(),
            },
            audience: TokenAudience::Scope("s".to_owned()),
        };
        sign_assertion(
            &certificate.into(),
            &key.into(),
            &grant,
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn a_file_with_the_wrong_content_is_named_but_not_quoted() {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = CertificateParams::new(vec!["usage-proxy".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let elliptic = KeyPair::generate().unwrap().serialize_pem();
        for (certificate, key, named) in [
            ("s3cret", &*key, CERTIFICATE),
            (&*key, &*key, CERTIFICATE),
            (&*certificate, "s3cret", KEY),
            (&*certificate, &*certificate, KEY),
            (&*certificate, &*elliptic, KEY),
        ] {
            let failure = sign(certificate, key).unwrap_err();

            assert!(failure.detail.contains(named), "{}", failure.detail);
            assert!(failure.detail.contains("expected"), "{}", failure.detail);
            for text in [&*failure.detail, &*failure.cause] {
                assert!(!text.contains("s3cret"), "{text}");
            }
        }
        assert!(sign(&certificate, &key).is_ok());
    }
}
