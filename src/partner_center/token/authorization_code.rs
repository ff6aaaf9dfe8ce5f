//! The first sign-in, whose code is redeemed for the refresh token that the service needs.

use std::{io, path::Path, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{
    endpoint::{GrantForm, RedeemedCode, TokenEndpoint, lasting, person_action},
    outcome::{GrantFailure, ObtainedToken},
    secret_file::{ReplaceError, SecretFile},
};
use crate::{
    config::{GrantConfig, TokenAudience},
    http_client::HttpClient,
    partner_center::metrics::UpstreamMetrics,
    text::to_printable_line,
};

/// The `authorization_code` grant (RFC 6749 §4.1) with PKCE (RFC 7636).
///
/// See [the v2 protocol](https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow).
#[derive(Debug)]
pub(in crate::partner_center) struct AuthorizationCode {
    grant: GrantConfig,
    endpoint: TokenEndpoint,
    file: SecretFile,
}

/// The parameters of a request for a code.
#[derive(Clone, Copy, Debug)]
pub(in crate::partner_center) struct CodeRequest<'a> {
    pub(in crate::partner_center) redirect_uri: &'a str,
    pub(in crate::partner_center) state: &'a str,
    /// The S256 transformation of the verifier (RFC 7636 §4.2).
    pub(in crate::partner_center) challenge: &'a str,
}

// === impl AuthorizationCode ===

impl AuthorizationCode {
    pub(in crate::partner_center) fn new(
        http: &HttpClient,
        grant: &GrantConfig,
        refresh_token_file: &Path,
        timeout: Duration,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            grant: grant.clone(),
            endpoint: TokenEndpoint::new((http.clone(), None), grant, timeout, metrics),
            file: SecretFile::new(refresh_token_file, "upstream.auth.refresh_token_file"),
        }
    }

    /// The address to sign in at: the authorization endpoint beside the configured token endpoint.
    ///
    /// `None` where the token URL does not end in `/token`, so that its neighbour is unknown.
    pub(in crate::partner_center) fn sign_in_url(&self, request: CodeRequest<'_>) -> Option<Url> {
        let mut url = self.grant.token_url.clone();
        let path = format!("{}/authorize", url.path().strip_suffix("/token")?);
        url.set_path(&path);
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", &self.grant.client_id)
            .append_pair("response_type", "code")
            .append_pair("response_mode", "query")
            .append_pair("redirect_uri", request.redirect_uri);
        match &self.grant.audience {
            TokenAudience::Resource(resource) => query.append_pair("resource", resource),
            TokenAudience::Scope(scope) => query.append_pair("scope", &lasting(scope)),
        };
        query
            .append_pair("state", request.state)
            .append_pair("code_challenge", request.challenge)
            .append_pair("code_challenge_method", "S256")
            // A session without multi-factor authentication may be open in the browser.
            .append_pair("prompt", "login");
        drop(query);
        Some(url)
    }

    /// Redeems a code for an access token and the refresh token that comes with it.
    ///
    /// # Errors
    ///
    /// [`GrantFailure`] where either is missing.
    pub(in crate::partner_center) async fn redeem(
        &self,
        code: &RedeemedCode,
    ) -> Result<(ObtainedToken, SecretString), GrantFailure> {
        let credential = self.endpoint.credential().await?;
        let granted = self
            .endpoint
            .redeem(&credential, GrantForm::AuthorizationCode(code))
            .await
            .map_err(|mut failure| {
                // The endpoint calls it a grant, as it does a refresh token.
                if failure.refuses_refresh_token() {
                    failure.detail = REFUSED_CODE.into();
                }
                failure
            })?;
        let access = granted.access?;
        let refresh_token = granted.refresh_token.ok_or_else(|| {
            GrantFailure::refused(
                "no refresh token came: check that upstream.auth.scope names Partner Center's \
                 user_impersonation, and that the tenant allows offline_access",
                "the token endpoint sent an access token alone".to_owned(),
            )
        })?;
        Ok((access, refresh_token))
    }

    /// Writes the refresh token durably, for its owner alone. Returns a warning where a crash of the
    /// machine may still lose it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to. The file is then as it was.
    pub(in crate::partner_center) async fn save(
        &self,
        refresh_token: &SecretString,
    ) -> io::Result<Option<String>> {
        match self.file.replace(refresh_token).await {
            Ok(()) => Ok(None),
            Err(ReplaceError::Unwritten(error)) => Err(error),
            Err(ReplaceError::Unflushed(error)) => Ok(Some(format!(
                "The folder of the refresh token cannot be flushed to disk ({error}): if this \
                 machine crashes, the token may be gone; check the disk."
            ))),
        }
    }
}

const REFUSED_CODE: &str = "the code of the sign-in is refused: run `usage-proxy consent` again, \
                            and finish the sign-in within minutes";

/// Explains an error that Microsoft Entra ID redirects with instead of a code (RFC 6749 §4.1.2.1):
/// the error itself, and what a person must do.
pub(in crate::partner_center) fn refused_sign_in(
    error: &str,
    description: &str,
) -> (String, String) {
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
    let said = format!(
        "{}: {}",
        to_printable_line(error, 64),
        to_printable_line(description.lines().next().unwrap_or_default(), 300)
    );
    let action = match error {
        "access_denied" => {
            "the sign-in was cancelled or the consent declined: run `usage-proxy consent` again, \
             and accept what Microsoft asks for"
        }
        _ => person_action(error, &codes),
    };
    (said, action.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_access_is_asked_for_once() {
        assert_eq!(lasting("a"), "a offline_access openid");
        assert_eq!(lasting("offline_access a"), "offline_access a openid");
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
            let (said, action) = refused_sign_in(error, description);

            assert!(said.starts_with(error), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(action.contains(expected), "{action}");
        }
    }
}
