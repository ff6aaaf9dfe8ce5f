use std::time::Duration;

/// A token that got nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The token is at fault; asking again with the same one is of no use, unless it is too young.
    Rejected(TokenRejection),
    /// The issuer's keys cannot be had, so nobody can tell; nothing is wrong with the caller.
    IssuerUnavailable {
        /// How long until asking again may help.
        retry_after: Duration,
    },
}

/// What is wrong with a token, in the order in which it is found out.
///
/// Nothing here or in its texts holds any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRejection {
    /// No JWT in compact form (RFC 7519 §3), or longer than any that is read.
    Malformed,
    /// Signed in a way that is not believed: `none`, with a shared secret, or with a weak hash.
    Algorithm,
    /// Another kind of token by its `typ` (RFC 8725 §3.11).
    Type,
    /// `crit` names an extension; none is understood (RFC 7515 §4.1.11).
    Extension,
    /// No key of the issuer's has its `kid`, or that key is for another algorithm.
    Key,
    /// The key says that somebody else signed it, or that it was changed.
    Signature,
    /// `iss` is another, or absent.
    Issuer,
    /// `aud` is for another service, or absent.
    Audience,
    /// `exp` has passed, or is absent.
    Expired,
    /// `nbf` has not come yet.
    NotYetValid,
    /// The claim that names the caller is absent, or is no name.
    Subject,
    /// The claim that names customers holds something else.
    Customers,
}

// === impl VerifyError ===

impl From<TokenRejection> for VerifyError {
    fn from(rejection: TokenRejection) -> Self {
        Self::Rejected(rejection)
    }
}

// === impl Rejection ===

impl TokenRejection {
    /// Every reason.
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

    /// Its name, in metrics and logs.
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

    /// What the caller is told, as `error_description` (RFC 6750 §3): a sentence without quotes.
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
