//! The first sign-in, which `usage-proxy consent` guides a person through.

use std::{io, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::{TryRng as _, rngs::SysError};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{
    ObtainedToken, ProbeAnswer, ProbeFailure, ProbedToken, UpstreamMetrics, UpstreamProbe,
    UpstreamStartError,
};
use crate::{
    clock::SharedClock,
    config::{GrantConfig, UpstreamConfig},
    partner_center::token::{AuthorizationCode, CodeRequest, RedeemedCode, refused_sign_in},
};

/// The way from a sign-in to a refresh token in its file.
#[derive(Debug)]
pub struct ConsentFlow {
    grant: AuthorizationCode,
    probe: UpstreamProbe,
}

/// One sign-in that is under way.
#[derive(Debug)]
pub struct SignInRequest {
    /// The address to open in a browser.
    pub url: Url,
    redirect_uri: String,
    state: SecretString,
    verifier: SecretString,
}

/// The tokens of a sign-in; they do not print.
#[derive(Debug)]
pub struct ConsentResult {
    /// The access token.
    pub access: ProbedToken,
    refresh_token: SecretString,
}

/// A sign-in that cannot begin.
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

// === impl Consent ===

impl ConsentFlow {
    /// Sets up what is needed for a refresh token of `grant` in `file`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`], as the service's start would fail.
    pub fn new(
        config: &UpstreamConfig,
        grant: &GrantConfig,
        file: &Path,
        clock: SharedClock,
    ) -> Result<Self, UpstreamStartError> {
        let probe = UpstreamProbe::new(config, clock)?;
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new())?;
        let timeout = config.attempt_timeout;
        let grant = AuthorizationCode::new(&probe.http, grant, file, timeout, metrics);
        Ok(Self { grant, probe })
    }

    /// Begins a sign-in whose answer comes to `redirect_uri`.
    ///
    /// # Errors
    ///
    /// [`SignInError`].
    pub fn begin(&self, redirect_uri: String) -> Result<SignInRequest, SignInError> {
        let (state, verifier) = (random()?, random()?);
        let challenge = Sha256::digest(verifier.expose_secret());
        let request = CodeRequest {
            redirect_uri: &redirect_uri,
            state: state.expose_secret(),
            challenge: &BASE64_URL_SAFE_NO_PAD.encode(challenge),
        };
        Ok(SignInRequest {
            url: self
                .grant
                .sign_in_url(request)
                .ok_or(SignInError::UnknownEndpoint)?,
            redirect_uri,
            state,
            verifier,
        })
    }

    /// Redeems the code that a sign-in brought, once.
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
        let (access, refresh_token) = self.grant.redeem(&code).await?;
        let ObtainedToken {
            token, lifetime, ..
        } = access;
        Ok(ConsentResult {
            access: ProbedToken { token, lifetime },
            refresh_token,
        })
    }

    /// Asks Partner Center for a page with one customer, and whether the token carries multi-factor
    /// proof.
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

    /// Writes the refresh token to `upstream.auth.refresh_token_file`: durably, for its owner alone.
    /// Returns a warning where a crash of the machine may still lose it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to. The file is then as it was.
    pub async fn save(&self, consented: &ConsentResult) -> io::Result<Option<String>> {
        self.grant.save(&consented.refresh_token).await
    }
}

// === impl SignIn ===

impl SignInRequest {
    /// Returns true if an answer with this `state` belongs to this sign-in (RFC 6749 §10.12).
    pub fn is_answered_by(&self, state: &str) -> bool {
        let expected = self.state.expose_secret().as_bytes();
        expected.ct_eq(state.as_bytes()).into()
    }
}

// === impl Trouble ===

impl ProbeFailure {
    /// Explains an error that Microsoft Entra ID redirects with instead of a code.
    pub fn of_sign_in(error: &str, description: &str) -> Self {
        let (said, action) = refused_sign_in(error, description);
        Self {
            said,
            action: Some(action),
            throttled: false,
        }
    }
}

/// 256 bits, as text that fits a URL: 43 characters, the shortest verifier (RFC 7636 §4.1).
fn random() -> Result<SecretString, SysError> {
    let mut bits = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bits)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bits).into())
}
