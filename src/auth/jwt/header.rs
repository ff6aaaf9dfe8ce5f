//! The header of a token, before its signature is checked.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::rejection::TokenRejection;

/// The longest token that is read, in bytes; Entra ID's have up to about 4,000.
const MAX_TOKEN_LENGTH: usize = 8 * 1024;

/// The algorithm and key that a token names. They are not trusted before the key has verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenHeader {
    pub(super) algorithm: Algorithm,
    /// Required here: an issuer that changes its keys has to send it (OpenID Connect Core §10.1).
    pub(super) key_id: String,
}

/// The members that are read. Others, such as `jwk` or `jku`, would let a token choose its own key.
#[derive(Deserialize)]
struct RawTokenHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

// === impl TokenHeader ===

impl TokenHeader {
    /// Parses the header of a token.
    ///
    /// # Errors
    ///
    /// [`TokenRejection`] if the token cannot be one that we accept.
    pub(super) fn parse(token: &str) -> Result<Self, TokenRejection> {
        let members = decode_header(token).ok_or(TokenRejection::Malformed)?;
        let algorithm = accepted_algorithm(&members.alg).ok_or(TokenRejection::Algorithm)?;
        if !members.typ.as_deref().is_none_or(is_access_token) {
            return Err(TokenRejection::Type);
        }
        if members.crit {
            return Err(TokenRejection::Extension);
        }
        Ok(Self {
            algorithm,
            key_id: members.kid.ok_or(TokenRejection::Key)?,
        })
    }
}

fn decode_header(token: &str) -> Option<RawTokenHeader> {
    if token.len() > MAX_TOKEN_LENGTH || token.split('.').count() != 3 {
        return None;
    }
    let (header, _) = token.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(header).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Returns the algorithm of this name, if it is accepted for a kind of key in `key_set`.
fn accepted_algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// Accepts `JWT` and `at+jwt` (RFC 9068 §2.1), also after `application/` (RFC 7515 §4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(
        typ.strip_prefix("application/").unwrap_or(&typ),
        "jwt" | "at+jwt"
    )
}

/// Returns true for any value, also for null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<TokenHeader, TokenRejection> {
        TokenHeader::parse(&format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header)))
    }

    #[test]
    fn an_algorithm_that_is_not_accepted_is_rejected_first() {
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS384", "RS512", "PS384",
            "PS512", "ES384", "ES512", "ES256K", "rs256", "RS1", "RSA1_5",
        ] {
            let header = format!(r#"{{"alg":"{name}","kid":"a"}}"#);

            assert_eq!(read(&header), Err(TokenRejection::Algorithm), "{name}");
        }
    }

    #[test]
    fn a_header_names_an_algorithm_and_a_key() {
        for typ in [
            "",
            r#","typ":"JWT""#,
            r#","typ":"at+jwt""#,
            r#","typ":"application/AT+JWT""#,
        ] {
            let header = format!(r#"{{"alg":"ES256","kid":"a"{typ}}}"#);

            let expected = TokenHeader {
                algorithm: Algorithm::ES256,
                key_id: "a".to_owned(),
            };
            assert_eq!(read(&header), Ok(expected), "{typ}");
        }
        assert_eq!(read(r#"{"alg":"ES256"}"#), Err(TokenRejection::Key));
    }

    #[test]
    fn other_token_types_and_critical_extensions_are_rejected() {
        for (member, rejection) in [
            (r#""typ":"logout+jwt""#, TokenRejection::Type),
            (r#""typ":"dpop+jwt""#, TokenRejection::Type),
            (r#""typ":"""#, TokenRejection::Type),
            (r#""crit":["b64"],"b64":false"#, TokenRejection::Extension),
            (r#""crit":[]"#, TokenRejection::Extension),
            (r#""crit":null"#, TokenRejection::Extension),
            (r#""alg":"RS256""#, TokenRejection::Malformed),
            (r#""kid":"b""#, TokenRejection::Malformed),
        ] {
            let header = format!(r#"{{"alg":"ES256","kid":"a",{member}}}"#);

            assert_eq!(read(&header), Err(rejection), "{member}");
        }
    }

    #[test]
    fn text_that_is_not_a_token_is_malformed() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"a"}"#);
        let long = format!("{header}.{}.s", "e".repeat(MAX_TOKEN_LENGTH));

        for token in [
            "",
            ".",
            "..",
            &header,
            &format!("{header}.e30"),
            &format!("{header}.e30.s.s"),
            &format!("{header}.k.i.c.t"),
            &format!("{header}=.e30.s"),
            " .e30.s",
            "e30.e30.s",
            &long,
        ] {
            assert_eq!(
                TokenHeader::parse(token),
                Err(TokenRejection::Malformed),
                "{token:.60}"
            );
        }
    }
}
