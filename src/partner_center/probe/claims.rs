//! What an access token says of itself.
//!
//! It is read to find mistakes and never to decide anything: nobody here checks its signature, which
//! is Partner Center's business.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The claims of a token of Microsoft Entra ID that matter here.
///
/// See [access tokens](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbedClaims {
    /// `aud`: whom it is for.
    pub audience: Option<String>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// Whether `amr` has `mfa`; `None` where the token does not tell how its user signed in.
    pub multi_factor: Option<bool>,
    /// It speaks for an application alone, and for no user.
    pub app_only: bool,
}

#[derive(Deserialize)]
struct RawClaims {
    aud: Option<String>,
    exp: Option<i64>,
    amr: Option<Vec<Value>>,
    /// Only a token that a user consented to has any.
    scp: Option<Value>,
    /// `app` or `user`, where the application asks for the claim.
    idtyp: Option<String>,
}

// === impl Claims ===

impl ProbedClaims {
    /// Reads a JWT; `None` for any other token, which may be as good.
    pub(super) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let raw: RawClaims = serde_json::from_slice(&payload).ok()?;
        let is_mfa = |method: &Value| method.as_str() == Some("mfa");
        Some(Self {
            audience: raw.aud,
            expires_at: raw.exp.and_then(|at| Timestamp::from_second(at).ok()),
            multi_factor: raw.amr.map(|methods| methods.iter().any(is_mfa)),
            app_only: match raw.idtyp.as_deref() {
                Some(kind) => kind == "app",
                None => raw.scp.is_none(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(payload: &Value) -> ProbedClaims {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload.to_string());
        ProbedClaims::of(&format!("e30.{payload}.c2ln")).unwrap()
    }

    #[test]
    fn a_users_token_tells_how_the_user_signed_in() {
        let with = claims(&json!({"aud": "a", "exp": 0, "scp": "x", "amr": ["pwd", "mfa"]}));
        let without = claims(&json!({"scp": "x", "amr": ["pwd"]}));
        let silent = claims(&json!({"scp": "x"}));

        assert_eq!(with.multi_factor, Some(true));
        assert_eq!(with.audience.as_deref(), Some("a"));
        assert_eq!(with.expires_at, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(without.multi_factor, Some(false));
        assert_eq!(silent.multi_factor, None);
        assert!(!with.app_only);
    }

    #[test]
    fn an_applications_token_has_no_scopes_or_says_so() {
        assert!(claims(&json!({"roles": ["x"]})).app_only);
        assert!(claims(&json!({"idtyp": "app", "scp": "x"})).app_only);
        assert!(!claims(&json!({"idtyp": "user"})).app_only);
    }

    #[test]
    fn a_token_of_another_kind_tells_nothing() {
        for token in ["", "opaque", "a.b", "a.b.c", "..", "e30.bm9uZQ.x"] {
            assert_eq!(ProbedClaims::of(token), None, "{token}");
        }
    }
}
