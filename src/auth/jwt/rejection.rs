//! The reasons for which a token is not accepted.

use std::time::Duration;

use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// A token that identifies no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAuthError {
    /// The token is invalid. Only a token that is not valid yet may be accepted later.
    Rejected(TokenRejection),
    /// The token is valid, but its subject is not a caller.
    UnknownSubject,
    /// The issuer's keys cannot be fetched, so the token cannot be checked.
    IssuerUnavailable {
        /// The time after which a retry may help.
        retry_after: Duration,
    },
}

/// The reason for which a token is invalid, in the order of the checks.
///
/// Converts into the name of the reason in metrics and logs. Its message is the `error_description`
/// for the caller (RFC 6750 §3), a sentence without quotes. Neither contains any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumMessage, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case", prefix = "token-")]
pub enum TokenRejection {
    /// It is not a JWT in compact form (RFC 7519 §3), or too long.
    #[strum(message = "the token is malformed")]
    Malformed,
    /// Its algorithm is not accepted: `none`, a shared secret, or a hash other than SHA-256.
    #[strum(message = "the token is signed with an algorithm that is not accepted")]
    Algorithm,
    /// Its `typ` is not that of an access token (RFC 8725 §3.11).
    #[strum(message = "the token is of another type than an access token")]
    Type,
    /// Its `crit` names an extension; none is supported (RFC 7515 §4.1.11).
    #[strum(message = "the token needs an extension that is not understood")]
    Extension,
    /// The issuer has no key with its `kid`, or that key is for another algorithm.
    #[strum(message = "the token is signed with a key that the issuer does not publish")]
    Key,
    /// Another key signed it, or it was changed.
    #[strum(message = "the token's signature is wrong")]
    Signature,
    /// Its `iss` is another issuer or absent.
    #[strum(message = "the token is from another issuer")]
    Issuer,
    /// Its `aud` is another service or absent.
    #[strum(message = "the token is for another audience")]
    Audience,
    /// Its `exp` is in the past or absent.
    #[strum(message = "the token has expired")]
    Expired,
    /// Its `nbf` is in the future.
    #[strum(message = "the token is not valid yet")]
    NotYetValid,
    /// The claim that names the caller is absent or malformed.
    #[strum(message = "the token does not say who the caller is")]
    Subject,
    /// The claim that names customers is malformed.
    #[strum(message = "the token's list of customers is malformed")]
    Customers,
}

impl From<TokenRejection> for TokenAuthError {
    fn from(rejection: TokenRejection) -> Self {
        Self::Rejected(rejection)
    }
}
