//! The reasons for which a token is not accepted.

use std::time::Duration;

/// A token that is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The token is invalid. Only a token that is not valid yet may be accepted later.
    Rejected(TokenRejection),
    /// The issuer's keys cannot be fetched, so the token cannot be checked.
    IssuerUnavailable {
        /// The time after which a retry may help.
        retry_after: Duration,
    },
}

/// The reason for which a token is invalid, in the order of the checks.
///
/// No reason contains any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRejection {
    /// It is not a JWT in compact form (RFC 7519 §3), or too long.
    Malformed,
    /// Its algorithm is not accepted: `none`, a shared secret, or a hash other than SHA-256.
    Algorithm,
    /// Its `typ` is not that of an access token (RFC 8725 §3.11).
    Type,
    /// Its `crit` names an extension; none is supported (RFC 7515 §4.1.11).
    Extension,
    /// The issuer has no key with its `kid`, or that key is for another algorithm.
    Key,
    /// Another key signed it, or it was changed.
    Signature,
    /// Its `iss` is another issuer or absent.
    Issuer,
    /// Its `aud` is another service or absent.
    Audience,
    /// Its `exp` is in the past or absent.
    Expired,
    /// Its `nbf` is in the future.
    NotYetValid,
    /// The claim that names the caller is absent or malformed.
    Subject,
    /// The claim that names customers is malformed.
    Customers,
}

// === impl VerifyError ===

impl From<TokenRejection> for VerifyError {
    fn from(rejection: TokenRejection) -> Self {
        Self::Rejected(rejection)
    }
}

// === impl TokenRejection ===

impl TokenRejection {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Algorithm,
        Self::Type,
        Self::Extension,
        Self::Key,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::Subject,
        Self::Customers,
    ];

    /// Returns the name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "token-malformed",
            Self::Algorithm => "token-algorithm",
            Self::Type => "token-type",
            Self::Extension => "token-extension",
            Self::Key => "token-key",
            Self::Signature => "token-signature",
            Self::Issuer => "token-issuer",
            Self::Audience => "token-audience",
            Self::Expired => "token-expired",
            Self::NotYetValid => "token-not-yet-valid",
            Self::Subject => "token-subject",
            Self::Customers => "token-customers",
        }
    }

    /// Returns the `error_description` for the caller (RFC 6750 §3): a sentence without quotes.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token is signed with an algorithm that is not accepted",
            Self::Type => "the token is of another type than an access token",
            Self::Extension => "the token needs an extension that is not understood",
            Self::Key => "the token is signed with a key that the issuer does not publish",
            Self::Signature => "the token's signature is wrong",
            Self::Issuer => "the token is from another issuer",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Subject => "the token does not say who the caller is",
            Self::Customers => "the token's list of customers is malformed",
        }
    }
}
