//! Access keys: random secrets that callers and operators prove themselves by.
//!
//! Only hashes are configured. A key is 256 random bits, so a plain SHA-256 keeps it: there is
//! nothing to guess that a slow hash would have to protect.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::TryRng as _;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The header that takes a key and nothing else.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What our keys begin with, so that people and secret scanners know one when they see it.
pub const PREFIX: &str = "up_";

/// SHA-256 of a whole key, its prefix included.
///
/// Equality takes the same time wherever two hashes differ.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; KeyHash::BYTES]);

/// The text is no hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyHash {
    /// A key where its hash should stand: whoever reads the file could use it.
    #[error("is a key, not its hash; `usage-proxy hash-key --stdin` makes the hash")]
    IsKey,
    /// Anything else.
    #[error("is no hash of a key")]
    NoHash,
}

/// What was presented is not one credential that we could look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredential {
    /// An `Authorization` that is not `Bearer` and a token.
    #[error("Authorization is not of the form `Bearer KEY`")]
    Scheme,
    /// Two that differ, so that nobody can say which one counts.
    #[error("more than one credential was presented; expected one")]
    Several,
}

/// Makes a new key from the system's own source of randomness.
///
/// # Errors
///
/// When the system has no randomness to give.
pub fn generate() -> Result<SecretString, rand::rngs::SysError> {
    let mut bits = [0; KeyHash::BYTES];
    rand::rngs::SysRng.try_fill_bytes(&mut bits)?;
    Ok(format!("{PREFIX}{}", Hex(&bits)).into())
}

/// The credential of a request: the token of `Authorization: Bearer` (RFC 6750 §2.1), or the value
/// of `X-Api-Key`. `None` where there is neither. Both may be sent if they say the same.
///
/// # Errors
///
/// [`BadCredential`] where it is not one credential.
pub fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, BadCredential> {
    let bearer = only(headers, header::AUTHORIZATION)?.map(bearer_token);
    let key = only(headers, X_API_KEY)?.map(HeaderValue::as_bytes);
    match (bearer.transpose()?, key) {
        (Some(bearer), Some(key)) if bearer != key => Err(BadCredential::Several),
        (bearer, key) => Ok(bearer.or(key)),
    }
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, BadCredential> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(BadCredential::Several),
        (value, None) => Ok(value),
    }
}

/// The scheme is read without regard to case (RFC 9110 §11.1).
fn bearer_token(value: &HeaderValue) -> Result<&[u8], BadCredential> {
    const SCHEME: &[u8] = b"Bearer ";

    let (scheme, token) = value
        .as_bytes()
        .split_at_checked(SCHEME.len())
        .ok_or(BadCredential::Scheme)?;
    match token.trim_ascii() {
        token if scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty() => Ok(token),
        _ => Err(BadCredential::Scheme),
    }
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

// === impl KeyHash ===

impl KeyHash {
    /// What a hash looks like; completes "expected …".
    pub const EXPECTED: &'static str =
        "the SHA-256 of a key in 64 hexadecimal digits, as `usage-proxy hash-key` prints it";

    const BYTES: usize = 32;

    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads 64 hexadecimal digits, in either case.
    ///
    /// # Errors
    ///
    /// [`InvalidKeyHash`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyHash> {
        if text.starts_with(PREFIX) {
            return Err(InvalidKeyHash::IsKey);
        }
        let (pairs, rest) = text.as_bytes().as_chunks();
        let mut hash = [0; Self::BYTES];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(InvalidKeyHash::NoHash);
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Ok(Self(hash))
    }
}

fn hex_digit(digit: u8) -> Result<u8, InvalidKeyHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidKeyHash::NoHash),
    }
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
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for KeyHash {
    /// Enough to tell two apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (beginning, _) = self.0.split_at(4);
        write!(f, "KeyHash({}…)", Hex(beginning))
    }
}

// === impl Hex ===

impl fmt::Display for Hex<'_> {
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
    fn a_key_is_known_by_its_hash() {
        let hash = KeyHash::parse(ABC).unwrap();

        assert_eq!(KeyHash::of(b"abc"), hash);
        assert_eq!(hash.to_string(), ABC);
        assert_eq!(KeyHash::parse(&ABC.to_uppercase()), Ok(hash));
        for key in [&b"abd"[..], b"ABC", b"abc ", b"", ABC.as_bytes()] {
            assert_ne!(KeyHash::of(key), hash, "{key:?}");
        }
    }

    #[test]
    fn one_bit_makes_another_hash() {
        let hash = KeyHash::of(b"abc");
        for bit in 0..256 {
            let mut other = hash;
            other.0[bit / 8] ^= 1 << (bit % 8);

            assert_ne!(hash, other, "{bit}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "abc", &ABC[1..], &format!("{ABC}0"), &"ż".repeat(32)] {
            assert_eq!(KeyHash::parse(text), Err(InvalidKeyHash::NoHash), "{text}");
        }
        assert_eq!(
            KeyHash::parse(&ABC.replace('b', "g")),
            Err(InvalidKeyHash::NoHash)
        );
        let key = generate().unwrap();
        let refused = KeyHash::parse(key.expose_secret());
        assert_eq!(refused, Err(InvalidKeyHash::IsKey));
    }

    #[test]
    fn every_new_key_is_another_and_tells_what_it_is() {
        let (one, other) = (generate().unwrap(), generate().unwrap());

        assert_ne!(one.expose_secret(), other.expose_secret());
        for key in [one, other] {
            let digits = key.expose_secret().strip_prefix(PREFIX).unwrap();
            assert!(KeyHash::parse(digits).is_ok(), "256 bits in hexadecimal");
        }
    }

    #[test]
    fn a_hash_is_not_told_whole_where_it_is_only_debugged() {
        assert_eq!(format!("{:?}", KeyHash::of(b"abc")), "KeyHash(ba7816bf…)");
    }

    #[test]
    fn a_credential_is_taken_from_either_header() {
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
                Err(BadCredential::Several),
            ),
            (
                &[(X_API_KEY, "k"), (X_API_KEY, "k")],
                Err(BadCredential::Several),
            ),
            (
                &[(AUTHORIZATION, "Bearer k"), (AUTHORIZATION, "Basic a")],
                Err(BadCredential::Several),
            ),
            (
                &[(AUTHORIZATION, "Basic a"), (X_API_KEY, "k")],
                Err(BadCredential::Scheme),
            ),
            (&[(AUTHORIZATION, "Bearer")], Err(BadCredential::Scheme)),
            (&[(AUTHORIZATION, "Bearer  ")], Err(BadCredential::Scheme)),
            (&[(AUTHORIZATION, "Bearerk")], Err(BadCredential::Scheme)),
            (&[(AUTHORIZATION, "")], Err(BadCredential::Scheme)),
        ] {
            assert_eq!(presented(&headers(lines)), expected, "{lines:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::properties::kept())]

        #[test]
        fn a_printed_hash_reads_back(key: Vec<u8>) {
            let hash = KeyHash::of(&key);

            prop_assert_eq!(KeyHash::parse(&hash.to_string()), Ok(hash));
        }

        #[test]
        fn any_text_is_a_hash_or_refused(text in ".{0,80}") {
            if let Ok(hash) = KeyHash::parse(&text) {
                prop_assert_eq!(hash.to_string(), text.to_lowercase());
            }
        }
    }
}
