//! The first sign-in, which `usage-proxy consent` guides a person through: the `authorization_code`
//! grant (RFC 6749 §4.1) with PKCE (RFC 7636).
//!
//! See [the v2 protocol](https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow).

use std::{io, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::{TryRng as _, rngs::SysError};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{
    deps::UpstreamStartError,
    metrics::UpstreamMetrics,
    probe::{ProbeAnswer, ProbeFailure, ProbedToken, UpstreamProbe},
    token::{
        GrantFailure, GrantFailureKind, GrantForm, RedeemedCode, ReplaceError, SecretFile,
        TokenEndpoint, offline_scope, person_action,
    },
};
use crate::{
    clock::SharedClock,
    config::{GrantConfig, TokenAudience, UpstreamConfig},
    text::to_printable_line,
};

/// The way from a sign-in to a refresh token in its file.
#[derive(Debug)]
pub struct ConsentFlow {
    endpoint: TokenEndpoint,
    file: SecretFile,
    probe: UpstreamProbe,
}

/// A sign-in in progress.
#[derive(Debug)]
pub struct SignInRequest {
    /// The address to open in a browser.
    pub url: Url,
    redirect_uri: String,
    state: SecretString,
    verifier: SecretString,
}

/// The tokens of a sign-in. They do not print.
#[derive(Debug)]
pub struct ConsentResult {
    /// The access token.
    pub access: ProbedToken,
    refresh_token: SecretString,
}

/// A sign-in that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The authorization endpoint is unknown.
    #[error(
        "upstream.auth.token_url does not end in /token, so the address to sign in at is unknown; \
         expected such as https://login.microsoftonline.com/TENANT/oauth2/v2.0/token"
    )]
    UnknownEndpoint,
    /// The system's source of randomness failed.
    #[error("the system gives no random numbers")]
    NoRandomness(#[from] SysError),
}

// === impl ConsentFlow ===

impl ConsentFlow {
    /// Prepares a sign-in for a refresh token in `file`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`], as at the start of the service.
    pub fn new(
        config: &UpstreamConfig,
        grant: &GrantConfig,
        file: &Path,
        clock: SharedClock,
    ) -> Result<Self, UpstreamStartError> {
        let probe = UpstreamProbe::new(config, clock)?;
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new())?;
        let timeout = config.attempt_timeout;
        Ok(Self {
            endpoint: TokenEndpoint::new(grant, probe.http().clone(), timeout, None, metrics),
            file: SecretFile::new(file, "upstream.auth.refresh_token_file"),
            probe,
        })
    }

    /// Starts a sign-in that redirects to `redirect_uri`.
    ///
    /// # Errors
    ///
    /// [`SignInError`].
    pub fn begin(&self, redirect_uri: String) -> Result<SignInRequest, SignInError> {
        let (state, verifier) = (random_text()?, random_text()?);
        Ok(SignInRequest {
            url: self.sign_in_url(&redirect_uri, &state, &verifier)?,
            redirect_uri,
            state,
            verifier,
        })
    }

    /// Returns the URL of the authorization endpoint, which is beside the token endpoint.
    fn sign_in_url(
        &self,
        redirect_uri: &str,
        state: &SecretString,
        verifier: &SecretString,
    ) -> Result<Url, SignInError> {
        let GrantConfig {
            token_url,
            client_id,
            audience,
            ..
        } = &self.endpoint.grant;
        let parent = token_url.path().strip_suffix("/token");
        let mut url = token_url.clone();
        url.set_path(&format!(
            "{}/authorize",
            parent.ok_or(SignInError::UnknownEndpoint)?
        ));
        let challenge = Sha256::digest(verifier.expose_secret());
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", client_id)
            .append_pair("response_type", "code")
            .append_pair("response_mode", "query")
            .append_pair("redirect_uri", redirect_uri);
        match audience {
            TokenAudience::Resource(resource) => query.append_pair("resource", resource),
            TokenAudience::Scope(scope) => query.append_pair("scope", &offline_scope(scope)),
        };
        query
            .append_pair("state", state.expose_secret())
            .append_pair("code_challenge", &BASE64_URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256")
            // A session without multi-factor authentication may be open in the browser.
            .append_pair("prompt", "login");
        drop(query);
        Ok(url)
    }

    /// Redeems the code of a sign-in, once.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what a person must do.
    pub async fn redeem(
        &self,
        sign_in: SignInRequest,
        code: SecretString,
    ) -> Result<ConsentResult, ProbeFailure> {
        let code = RedeemedCode {
            code,
            verifier: sign_in.verifier,
            redirect_uri: sign_in.redirect_uri,
        };
        let credential = self
            .endpoint
            .credential()
            .await
            .map_err(GrantFailure::from)?;
        let granted = self
            .endpoint
            .redeem(&credential, GrantForm::AuthorizationCode(&code))
            .await
            .map_err(|mut failure| {
                // The endpoint calls a code a grant, as it does a refresh token.
                if failure.kind == GrantFailureKind::RefreshTokenRefused {
                    failure.detail = REFUSED_CODE.into();
                }
                failure
            })?;
        let access = granted.access?;
        let refresh_token = granted.refresh_token.ok_or_else(|| {
            GrantFailure::refused(
                "there was no refresh token: check that upstream.auth.scope names Partner Center's \
                 user_impersonation, and that the tenant allows offline_access",
                "the token endpoint sent only an access token",
            )
        })?;
        Ok(ConsentResult {
            access: access.into(),
            refresh_token,
        })
    }

    /// Asks Partner Center for a page with one customer, and whether the token has multi-factor proof.
    ///
    /// # Errors
    ///
    /// As [`UpstreamProbe::call`].
    pub async fn call(
        &self,
        consented: &ConsentResult,
    ) -> Result<ProbeAnswer, (ProbeFailure, Option<bool>)> {
        self.probe.call(&consented.access, None).await
    }

    /// Writes the refresh token durably, for its owner alone. Returns a warning where a crash of the
    /// machine may still lose it.
    ///
    /// # Errors
    ///
    /// If the folder is not writable. The file is then unchanged.
    pub async fn save(&self, consented: &ConsentResult) -> io::Result<Option<String>> {
        match self.file.replace(&consented.refresh_token).await {
            Ok(()) => Ok(None),
            Err(ReplaceError::Unwritten(error)) => Err(error),
            Err(ReplaceError::Unflushed(error)) => Ok(Some(format!(
                "The folder of the refresh token cannot be flushed to disk ({error}): if this \
                 machine crashes, the token may be gone; check the disk."
            ))),
        }
    }
}

const REFUSED_CODE: &str = "the code of the sign-in is refused: run `usage-proxy consent` again, and \
                            finish the sign-in within minutes";

// === impl SignInRequest ===

impl SignInRequest {
    /// Returns true if an answer with this `state` belongs to this sign-in (RFC 6749 §10.12).
    pub fn is_answered_by(&self, state: &str) -> bool {
        let expected = self.state.expose_secret().as_bytes();
        expected.ct_eq(state.as_bytes()).into()
    }
}

// === impl ProbeFailure ===

impl ProbeFailure {
    /// Explains an error that Microsoft Entra ID redirects with instead of a code (RFC 6749 §4.1.2.1).
    pub fn of_sign_in(error: &str, description: &str) -> Self {
        let codes: Vec<u64> = description
            .split("AADSTS")
            .skip(1)
            .filter_map(|rest| {
                rest.split(|c: char| !c.is_ascii_digit())
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        let action = match error {
            "access_denied" => {
                "the sign-in was cancelled or the consent declined: run `usage-proxy consent` \
                 again, and accept what Microsoft asks for"
            }
            _ => person_action(error, &codes),
        };
        let first_line = description.lines().next().unwrap_or_default();
        Self {
            said: format!(
                "{}: {}",
                to_printable_line(error, 64),
                to_printable_line(first_line, 300)
            ),
            action: Some(action.to_owned()),
            throttled: false,
        }
    }
}

/// Returns 256 random bits as text that fits a URL: 43 characters, the shortest verifier (RFC 7636 §4.1).
fn random_text() -> Result<SecretString, SysError> {
    let mut bits = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bits)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_access_is_requested_once() {
        assert_eq!(offline_scope("a"), "a offline_access openid");
        assert_eq!(offline_scope("offline_access a"), "offline_access a openid");
    }

    #[test]
    fn a_sign_in_that_entra_refuses_is_explained() {
        for (error, description, expected) in [
            ("access_denied", "AADSTS65004: User declined.", "cancelled"),
            (
                "invalid_client",
                "AADSTS650052: x\r\nTrace ID: 1",
                "credentials are refused",
            ),
            ("consent_required", "AADSTS65001: x", "administrator"),
            ("server_error", "", "refuses the request"),
        ] {
            let ProbeFailure { said, action, .. } = ProbeFailure::of_sign_in(error, description);

            assert!(said.starts_with(error), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(action.unwrap().contains(expected), "{error}");
        }
    }
}
