//! Access keys: random secrets of callers and operators.
//!
//! Only hashes are configured. A key has 256 random bits, so a plain SHA-256 is enough: it cannot be
//! guessed, and needs no slow hash.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::TryRng as _;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The header for a key alone.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The prefix of our keys, by which people and secret scanners recognize them.
pub const KEY_PREFIX: &str = "up_";

/// The SHA-256 of a whole key, including its prefix. Compares in constant time.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; KeyHash::BYTES]);

/// The text is not a hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyHash {
    /// It is a key, which anybody who reads the file could use.
    #[error("is a key, not its hash; `usage-proxy hash-key --stdin` makes the hash")]
    PlainKey,
    /// It is anything else.
    #[error("is not a hash of a key")]
    NotAHash,
}

/// The `Authorization` schemes that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthSchemes {
    /// `Bearer` only, which a browser never sends by itself.
    Bearer,
    /// `Basic` too, with the key as the password and any user name, for people whose browser asks
    /// for a password. A browser also sends it with requests of pages of other origins, so no
    /// request may change anything on such a listener.
    BearerOrBasic,
}

/// A request does not have exactly one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// `Authorization` has a scheme that is not accepted, or no key.
    #[error("Authorization is not of the form `Bearer KEY`")]
    UnsupportedScheme,
    /// There are several credentials.
    #[error("more than one credential was sent; expected one")]
    Conflicting,
}

/// Generates a key from the system's random source.
///
/// # Errors
///
/// Fails if the random source fails.
pub fn generate() -> Result<SecretString, rand::rngs::SysError> {
    let mut bits = [0; KeyHash::BYTES];
    rand::rngs::SysRng.try_fill_bytes(&mut bits)?;
    Ok(format!("{KEY_PREFIX}{}", HexBytes(&bits)).into())
}

/// Returns the credential of a request, if it has one.
///
/// It is the token of `Authorization: Bearer` (RFC 6750 §2.1), the password of `Basic` (RFC 7617 §2)
/// if that is accepted, or the value of `X-Api-Key`. Both headers may be sent if they are equal.
///
/// # Errors
///
/// [`CredentialError`] if there is not exactly one credential.
pub fn extract_credential(
    headers: &HeaderMap,
    schemes: AuthSchemes,
) -> Result<Option<Cow<'_, [u8]>>, CredentialError> {
    let authorization = only_value(headers, header::AUTHORIZATION)?
        .map(|value| credential(value.as_bytes(), schemes));
    let key = only_value(headers, X_API_KEY)?.map(HeaderValue::as_bytes);
    match (authorization.transpose()?, key) {
        (Some(sent), Some(key)) if *sent != *key => Err(CredentialError::Conflicting),
        (sent, key) => Ok(sent.or(key.map(Cow::Borrowed))),
    }
}

fn only_value(
    headers: &HeaderMap,
    name: HeaderName,
) -> Result<Option<&HeaderValue>, CredentialError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(CredentialError::Conflicting),
        (value, None) => Ok(value),
    }
}

fn credential(value: &[u8], schemes: AuthSchemes) -> Result<Cow<'_, [u8]>, CredentialError> {
    let basic = match schemes {
        AuthSchemes::Bearer => None,
        AuthSchemes::BearerOrBasic => strip_scheme(value, b"Basic "),
    };
    let found = match (strip_scheme(value, b"Bearer "), basic) {
        (Some(token), _) => Some(Cow::Borrowed(token)),
        (None, Some(pair)) => basic_password(pair).map(Cow::Owned),
        (None, None) => None,
    };
    found
        .filter(|credential| !credential.is_empty())
        .ok_or(CredentialError::UnsupportedScheme)
}

/// Returns the text after the scheme, whose case is ignored (RFC 9110 §11.1).
fn strip_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (sent, rest) = value.split_at_checked(scheme.len())?;
    sent.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// Returns the text after the first colon: a user name has none, a password may.
fn basic_password(pair: &[u8]) -> Option<Vec<u8>> {
    let mut pair = BASE64_STANDARD.decode(pair).ok()?;
    let colon = memchr::memchr(b':', &pair)?;
    Some(pair.split_off(colon + 1))
}

/// Displays bytes in hexadecimal.
struct HexBytes<'a>(&'a [u8]);

// === impl KeyHash ===

impl KeyHash {
    /// The form of a hash; completes "expected …".
    pub const EXPECTED: &'static str =
        "the SHA-256 of a key in 64 hexadecimal digits, as `usage-proxy hash-key` prints it";

    const BYTES: usize = 32;

    /// Returns the hash of a key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Parses 64 hexadecimal digits in either case.
    ///
    /// # Errors
    ///
    /// [`InvalidKeyHash`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyHash> {
        if text.starts_with(KEY_PREFIX) {
            return Err(InvalidKeyHash::PlainKey);
        }
        let (pairs, rest) = text.as_bytes().as_chunks();
        let mut hash = [0; Self::BYTES];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(InvalidKeyHash::NotAHash);
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Ok(Self(hash))
    }
}

fn hex_digit(digit: u8) -> Result<u8, InvalidKeyHash> {
    let value = char::from(digit).to_digit(16);
    let value = value.and_then(|value| u8::try_from(value).ok());
    value.ok_or(InvalidKeyHash::NotAHash)
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HexBytes(&self.0).fmt(f)
    }
}

impl fmt::Debug for KeyHash {
    /// Prints the first digits only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (beginning, _) = self.0.split_at(4);
        write!(f, "KeyHash({}…)", HexBytes(beginning))
    }
}

// === impl HexBytes ===

impl fmt::Display for HexBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    /// FIPS 180-4's own example is of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_matches_its_hash() {
        let hash = KeyHash::parse(ABC).unwrap();

        assert_eq!(KeyHash::of_key(b"abc"), hash);
        assert_eq!(hash.to_string(), ABC);
        assert_eq!(KeyHash::parse(&ABC.to_uppercase()), Ok(hash));
        for key in [&b"abd"[..], b"ABC", b"abc ", b"", ABC.as_bytes()] {
            assert_ne!(KeyHash::of_key(key), hash, "{key:?}");
        }
    }

    #[test]
    fn one_changed_bit_gives_a_different_hash() {
        let hash = KeyHash::of_key(b"abc");
        for bit in 0..256 {
            let mut other = hash;
            other.0[bit / 8] ^= 1 << (bit % 8);

            assert_ne!(hash, other, "{bit}");
        }
    }

    #[test]
    fn invalid_hashes_are_rejected() {
        for text in ["", "abc", &ABC[1..], &format!("{ABC}0"), &"ż".repeat(32)] {
            assert_eq!(
                KeyHash::parse(text),
                Err(InvalidKeyHash::NotAHash),
                "{text}"
            );
        }
        assert_eq!(
            KeyHash::parse(&ABC.replace('b', "g")),
            Err(InvalidKeyHash::NotAHash)
        );
        let key = generate().unwrap();
        let refused = KeyHash::parse(key.expose_secret());
        assert_eq!(refused, Err(InvalidKeyHash::PlainKey));
    }

    #[test]
    fn generated_keys_are_unique_and_have_our_prefix() {
        let (one, other) = (generate().unwrap(), generate().unwrap());

        assert_ne!(one.expose_secret(), other.expose_secret());
        for key in [one, other] {
            let digits = key.expose_secret().strip_prefix(KEY_PREFIX).unwrap();
            assert!(KeyHash::parse(digits).is_ok(), "256 bits in hexadecimal");
        }
    }

    #[test]
    fn debug_output_of_a_hash_is_abbreviated() {
        assert_eq!(
            format!("{:?}", KeyHash::of_key(b"abc")),
            "KeyHash(ba7816bf…)"
        );
    }

    #[test]
    fn a_credential_is_read_from_either_header() {
        use header::AUTHORIZATION;

        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&[(AUTHORIZATION, "Bearer k")], Ok(Some(&b"k"[..]))),
            (&[(AUTHORIZATION, "bEARER  k ")], Ok(Some(b"k"))),
            (&[(X_API_KEY, "k")], Ok(Some(b"k"))),
            (
                &[(AUTHORIZATION, "Bearer k"), (X_API_KEY, "k")],
                Ok(Some(b"k")),
            ),
            (
                &[(AUTHORIZATION, "Bearer k"), (X_API_KEY, "l")],
                Err(CredentialError::Conflicting),
            ),
            (
                &[(X_API_KEY, "k"), (X_API_KEY, "k")],
                Err(CredentialError::Conflicting),
            ),
            (
                &[(AUTHORIZATION, "Bearer k"), (AUTHORIZATION, "Basic a")],
                Err(CredentialError::Conflicting),
            ),
            (
                &[(AUTHORIZATION, "Basic a"), (X_API_KEY, "k")],
                Err(CredentialError::UnsupportedScheme),
            ),
            (
                &[(AUTHORIZATION, "Bearer")],
                Err(CredentialError::UnsupportedScheme),
            ),
            (
                &[(AUTHORIZATION, "Bearer  ")],
                Err(CredentialError::UnsupportedScheme),
            ),
            (
                &[(AUTHORIZATION, "Bearerk")],
                Err(CredentialError::UnsupportedScheme),
            ),
            (
                &[(AUTHORIZATION, "")],
                Err(CredentialError::UnsupportedScheme),
            ),
        ] {
            let headers = headers(lines);
            for schemes in [AuthSchemes::Bearer, AuthSchemes::BearerOrBasic] {
                let found = extract_credential(&headers, schemes);
                assert_eq!(
                    found.as_ref().map(Option::as_deref),
                    expected.as_ref().copied(),
                    "{lines:?}"
                );
            }
        }
    }

    #[test]
    fn a_basic_password_is_read_as_a_key_where_basic_is_allowed() {
        for (value, expected) in [
            ("Basic Omk=", Ok("i")),
            ("Basic bmFtZTprZXk=", Ok("key")),
            ("bASIC  bmFtZTprOmV5 ", Ok("k:ey")),
            ("Basic", Err(CredentialError::UnsupportedScheme)),
            ("Basic ", Err(CredentialError::UnsupportedScheme)),
            ("Basic bmFtZTo=", Err(CredentialError::UnsupportedScheme)),
            ("Basic bmFtZQ==", Err(CredentialError::UnsupportedScheme)),
            ("Basic bmFtZTprZXk", Err(CredentialError::UnsupportedScheme)),
            ("Basic !", Err(CredentialError::UnsupportedScheme)),
            (
                "Basicbm FtZTprZXk=",
                Err(CredentialError::UnsupportedScheme),
            ),
            (
                "Digest bmFtZTprZXk=",
                Err(CredentialError::UnsupportedScheme),
            ),
        ] {
            let headers = headers(&[(header::AUTHORIZATION, value)]);

            let found = extract_credential(&headers, AuthSchemes::BearerOrBasic);

            let expected = expected.map(|key| Some(Cow::Borrowed(key.as_bytes())));
            assert_eq!(found, expected, "{value}");
            assert_eq!(
                extract_credential(&headers, AuthSchemes::Bearer),
                Err(CredentialError::UnsupportedScheme)
            );
        }
    }

    #[test]
    fn a_basic_password_and_a_key_must_be_equal() {
        let both = |key| {
            headers(&[
                (header::AUTHORIZATION, "Basic bmFtZTprZXk="),
                (X_API_KEY, key),
            ])
        };

        let agreed =
            extract_credential(&both("key"), AuthSchemes::BearerOrBasic).map(|key| key.is_some());
        assert_eq!(agreed, Ok(true));
        let refused =
            extract_credential(&both("other"), AuthSchemes::BearerOrBasic).map(|key| key.is_some());
        assert_eq!(refused, Err(CredentialError::Conflicting));
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_printed_hash_reads_back(key: Vec<u8>) {
            let hash = KeyHash::of_key(&key);

            prop_assert_eq!(KeyHash::parse(&hash.to_string()), Ok(hash));
        }

        #[test]
        fn any_text_is_a_hash_or_rejected(text in ".{0,80}") {
            if let Ok(hash) = KeyHash::parse(&text) {
                prop_assert_eq!(hash.to_string(), text.to_lowercase());
            }
        }
    }
}
