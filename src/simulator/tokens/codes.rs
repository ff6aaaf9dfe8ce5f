//! Authorization codes (RFC 6749 §4.1, RFC 7636).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::{FormParameters, SimulatedTokenError, TokenApiVersion, required};

/// The issued codes.
#[derive(Debug, Default)]
pub(in crate::simulator) struct IssuedCodes {
    /// `None` once redeemed.
    issued: Mutex<HashMap<String, Option<IssuedCode>>>,
}

/// The parameters of the request for a code.
#[derive(Clone, Debug)]
pub(super) struct IssuedCode {
    client_id: String,
    redirect_uri: String,
    /// `code_challenge`, by S256.
    challenge: Option<String>,
    /// The request is for a refresh token too.
    is_offline: bool,
}

// === impl IssuedCodes ===

impl IssuedCodes {
    pub(super) fn issue(&self, code: IssuedCode) -> String {
        let name = format!("0.{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.insert(name.clone(), Some(code));
        name
    }

    /// Redeems a code, once, for the client that asked for it (RFC 7636 §4.6). Returns true if a
    /// refresh token goes with it.
    pub(super) fn redeem(&self, form: &FormParameters) -> Result<bool, SimulatedTokenError> {
        let unknown = || {
            let text = "The provided authorization code is invalid.";
            SimulatedTokenError::invalid_grant(70_000, text)
        };
        let name = required(form, "code")?;
        let redirect_uri = required(form, "redirect_uri")?;
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        // A wrong attempt uses it up too.
        let code = issued.get_mut(name).ok_or_else(unknown)?.take();
        let code = code.ok_or_else(|| {
            let text = "OAuth2 Authorization code was already redeemed.";
            SimulatedTokenError::invalid_grant(54_005, text)
        })?;
        if form.get("client_id") != Some(&code.client_id) {
            return Err(unknown());
        }
        if code.redirect_uri != redirect_uri {
            return Err(SimulatedTokenError::invalid_grant(
                500_112,
                "The reply address does not match the reply address provided when requesting \
                 Authorization code.",
            ));
        }
        let verifier = form.get("code_verifier").map(Sha256::digest);
        if code.challenge != verifier.map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)) {
            return Err(SimulatedTokenError::invalid_grant(
                501_481,
                "The Code_Verifier does not match the code_challenge supplied in the \
                 authorization request.",
            ));
        }
        Ok(code.is_offline)
    }
}

// === impl IssuedCode ===

impl IssuedCode {
    pub(super) fn from_request(
        version: TokenApiVersion,
        asked: &FormParameters,
    ) -> Result<Self, SimulatedTokenError> {
        let response_type = required(asked, "response_type")?;
        if response_type != "code" {
            return Err(SimulatedTokenError::unsupported_grant_type(response_type));
        }
        let audience = required(asked, version.audience_parameter())?;
        let challenge = asked.get("code_challenge").cloned();
        if challenge.is_some() && required(asked, "code_challenge_method")? != "S256" {
            return Err(SimulatedTokenError::missing_parameter(
                "code_challenge_method",
            ));
        }
        let copy = |name: &str| asked.get(name).cloned().unwrap_or_default();
        Ok(Self {
            client_id: copy("client_id"),
            redirect_uri: copy("redirect_uri"),
            challenge,
            is_offline: match version {
                TokenApiVersion::V1 => true,
                TokenApiVersion::V2 => audience.split(' ').any(|scope| scope == "offline_access"),
            },
        })
    }
}
