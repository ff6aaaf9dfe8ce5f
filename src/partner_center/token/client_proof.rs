//! How the application proves to the token endpoint who it is.
//!
//! By a secret, or by an assertion (RFC 7523 §2.2) that it signs with the key of a registered
//! certificate or that a federated issuer gave it; see
//! [certificate credentials](https://learn.microsoft.com/entra/identity-platform/certificate-credentials).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use super::{
    outcome::GrantFailure,
    secret_file::{SecretFile, UnreadableSecret},
};
use crate::{certificate, config::ClientAuthConfig as ClientProofConfig};

const SECRET: &str = "upstream.auth.client_secret_file";
const CERTIFICATE: &str = "upstream.auth.client_certificate_file";
const KEY: &str = "upstream.auth.client_key_file";
const FEDERATED_TOKEN: &str = "upstream.auth.federated_token_file";

/// `client_assertion_type` of both kinds of assertion.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion may be used: it is sent at once. Microsoft advises 5 to 10 minutes.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Where the proof lies.
#[derive(Clone, Debug)]
pub(super) enum ClientProof {
    Secret(SecretFile),
    Certificate {
        certificate: SecretFile,
        key: SecretFile,
    },
    FederatedToken(SecretFile),
}

/// The proof as the files hold it now.
#[derive(Clone, Debug)]
pub(super) enum ClientCredential {
    Secret(SecretString),
    Certificate {
        certificate: SecretString,
        key: SecretString,
    },
    FederatedToken(SecretString),
}

/// What is sent of it.
#[derive(Debug)]
pub(super) enum SentCredential {
    /// `client_secret`.
    Secret(SecretString),
    /// `client_assertion`.
    Assertion(SecretString),
}

/// Who is sending the assertion, where to, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct CredentialSender<'a> {
    pub(super) client_id: &'a str,
    pub(super) token_url: &'a Url,
    pub(super) now: Timestamp,
}

/// Claims of RFC 7523 §3, as Microsoft wants them.
#[derive(Serialize)]
struct AssertionClaims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: i64,
    exp: i64,
}

// === impl ClientProof ===

impl ClientProof {
    pub(super) fn new(config: &ClientProofConfig) -> Self {
        match config {
            ClientProofConfig::Secret { client_secret_file } => {
                Self::Secret(SecretFile::new(client_secret_file, SECRET))
            }
            ClientProofConfig::Certificate {
                client_certificate_file,
                client_key_file,
            } => Self::Certificate {
                certificate: SecretFile::new(client_certificate_file, CERTIFICATE),
                key: SecretFile::new(client_key_file, KEY),
            },
            ClientProofConfig::FederatedToken {
                federated_token_file,
            } => Self::FederatedToken(SecretFile::new(federated_token_file, FEDERATED_TOKEN)),
        }
    }

    /// Reads the files, which may have been replaced since the last time.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] says which of them cannot be read.
    pub(super) async fn read(&self) -> Result<ClientCredential, UnreadableSecret> {
        Ok(match self {
            Self::Secret(file) => ClientCredential::Secret(file.read().await?),
            Self::Certificate { certificate, key } => ClientCredential::Certificate {
                certificate: certificate.read().await?,
                key: key.read().await?,
            },
            Self::FederatedToken(file) => ClientCredential::FederatedToken(file.read().await?),
        })
    }
}

// === impl Credential ===

impl ClientCredential {
    /// Everything that tells it from another.
    pub(super) fn parts(&self) -> Vec<&SecretString> {
        match self {
            Self::Secret(secret) | Self::FederatedToken(secret) => vec![secret],
            Self::Certificate { certificate, key } => vec![certificate, key],
        }
    }

    /// When the certificate expires, in Unix time; `None` for the other kinds, and for what is no
    /// certificate.
    pub(super) fn expires_at(&self) -> Option<i64> {
        let Self::Certificate { certificate, .. } = self else {
            return None;
        };
        let pem = certificate.expose_secret().as_bytes();
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        certificate::expires_at(&der).ok()
    }

    /// What is sent of it: a secret and a federated token as they are, a certificate as a fresh
    /// assertion.
    ///
    /// # Errors
    ///
    /// [`GrantFailure`] names the file that does not hold what it should.
    pub(super) fn show(
        &self,
        sender: CredentialSender<'_>,
    ) -> Result<SentCredential, GrantFailure> {
        match self {
            Self::Secret(secret) => Ok(SentCredential::Secret(secret.clone())),
            Self::FederatedToken(token) => Ok(SentCredential::Assertion(token.clone())),
            Self::Certificate { certificate, key } => sign(certificate, key, sender),
        }
    }
}

// === impl Shown ===

impl SentCredential {
    /// What no answer may be quoted with.
    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Secret(secret) | Self::Assertion(secret) => secret,
        }
    }
}

fn sign(
    certificate: &SecretString,
    key: &SecretString,
    sender: CredentialSender<'_>,
) -> Result<SentCredential, GrantFailure> {
    let der = CertificateDer::from_pem_slice(certificate.expose_secret().as_bytes())
        .map_err(|_| unusable(CERTIFICATE, "a certificate in PEM"))?;
    let key = EncodingKey::from_rsa_pem(key.expose_secret().as_bytes())
        .map_err(|_| unusable(KEY, "an RSA key in PEM, unencrypted"))?;
    let nbf = sender.now.as_second();
    let claims = AssertionClaims {
        aud: sender.token_url.as_str(),
        iss: sender.client_id,
        sub: sender.client_id,
        jti: Uuid::new_v4().to_string(),
        nbf,
        exp: nbf.saturating_add_unsigned(ASSERTION_LIFETIME.as_secs()),
    };
    let header = Header {
        x5t_s256: Some(URL_SAFE_NO_PAD.encode(Sha256::digest(&der))),
        ..Header::new(Algorithm::PS256)
    };
    jsonwebtoken::encode(&header, &claims, &key)
        .map(|assertion| SentCredential::Assertion(assertion.into()))
        .map_err(|_| unusable(KEY, "an RSA key of 2048 bits or more"))
}

/// The faults of the libraries could quote what they read.
fn unusable(key: &str, expected: &str) -> GrantFailure {
    let fault = format!("{key}: expected {expected}");
    let action = format!("a credential cannot be used: {fault}");
    GrantFailure::refused(&action, fault)
}

#[cfg(test)]
mod tests;
