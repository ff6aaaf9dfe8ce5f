use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::Rejection;

/// Bytes of a token that is read at all; Entra ID's have up to about 4,000.
const LONGEST: usize = 8 * 1024;

/// What a token says of its own signature; nothing of it is believed before a key has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// RFC 7515 leaves it to the issuer whether to send one, but an issuer that changes its keys
    /// has to (OpenID Connect Core §10.1): a token without one is refused.
    pub(super) key_id: String,
}

/// The members that matter; others, such as `jwk` or `jku`, could only tell whom to believe.
#[derive(Deserialize)]
struct Members {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

// === impl Header ===

impl Header {
    /// # Errors
    ///
    /// [`Rejection`], when the token cannot be one that we believe.
    pub(super) fn read(token: &str) -> Result<Self, Rejection> {
        let members = members(token).ok_or(Rejection::Malformed)?;
        let algorithm = accepted(&members.alg).ok_or(Rejection::Algorithm)?;
        if !members.typ.as_deref().is_none_or(is_access_token) {
            return Err(Rejection::Type);
        }
        if members.crit {
            return Err(Rejection::Extension);
        }
        Ok(Self {
            algorithm,
            key_id: members.kid.ok_or(Rejection::Key)?,
        })
    }
}

fn members(token: &str) -> Option<Members> {
    if token.len() > LONGEST || token.split('.').count() != 3 {
        return None;
    }
    let (header, _) = token.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(header).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The algorithms that are believed, all of them asymmetric: with a shared secret, the issuer's
/// public key would do as the secret (RFC 8725 §2.1).
pub(super) fn accepted(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// `JWT`, or `at+jwt` (RFC 9068 §2.1); `application/` may stand before it (RFC 7515 §4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(
        typ.strip_prefix("application/").unwrap_or(&typ),
        "jwt" | "at+jwt"
    )
}

/// Whether a member is there, whatever it holds.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Header, Rejection> {
        Header::read(&format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header)))
    }

    #[test]
    fn an_algorithm_that_is_not_believed_is_refused_before_anything_else() {
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS384", "RS512", "PS384",
            "PS512", "ES384", "ES512", "ES256K", "rs256", "RS1", "RSA1_5",
        ] {
            let header = format!(r#"{{"alg":"{name}","kid":"a"}}"#);

            assert_eq!(read(&header), Err(Rejection::Algorithm), "{name}");
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

            let expected = Header {
                algorithm: Algorithm::ES256,
                key_id: "a".to_owned(),
            };
            assert_eq!(read(&header), Ok(expected), "{typ}");
        }
        assert_eq!(read(r#"{"alg":"ES256"}"#), Err(Rejection::Key));
    }

    #[test]
    fn what_is_no_access_token_or_asks_for_extensions_is_refused() {
        for (member, rejection) in [
            (r#""typ":"logout+jwt""#, Rejection::Type),
            (r#""typ":"dpop+jwt""#, Rejection::Type),
            (r#""typ":"""#, Rejection::Type),
            (r#""crit":["b64"],"b64":false"#, Rejection::Extension),
            (r#""crit":[]"#, Rejection::Extension),
            (r#""crit":null"#, Rejection::Extension),
            (r#""alg":"RS256""#, Rejection::Malformed),
            (r#""kid":"b""#, Rejection::Malformed),
        ] {
            let header = format!(r#"{{"alg":"ES256","kid":"a",{member}}}"#);

            assert_eq!(read(&header), Err(rejection), "{member}");
        }
    }

    #[test]
    fn what_has_not_the_form_of_a_token_is_malformed() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"a"}"#);
        let long = format!("{header}.{}.s", "e".repeat(LONGEST));

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
                Header::read(token),
                Err(Rejection::Malformed),
                "{token:.60}"
            );
        }
    }
}
