//! Access keys: random secrets that callers and operators prove themselves by.
//!
//! Only hashes are configured. A key is 256 random bits, so a plain SHA-256 keeps it: there is
//! nothing to guess that a slow hash would have to protect.

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

/// Which schemes of `Authorization` a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `Bearer` alone, which a browser never sends by itself.
    Bearer,
    /// `Basic` too, for people whose browser asks them for a password: it is the key, whatever the
    /// user name says. A browser sends it along with whatever a page of another origin has it
    /// fetch, so where it is taken, no request may change anything.
    BearerOrBasic,
}

/// What was presented is not one credential that we could look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredential {
    /// An `Authorization` of a scheme that is not taken, or without a key.
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

/// The credential of a request; `None` where there is none.
///
/// It is what `Authorization` has by `Bearer` (RFC 6750 §2.1) or, where that is taken, as the
/// password of `Basic` (RFC 7617 §2); or the value of `X-Api-Key`. Both headers may be sent if they
/// say the same.
///
/// # Errors
///
/// [`BadCredential`] where it is not one credential.
pub fn presented(
    headers: &HeaderMap,
    schemes: Schemes,
) -> Result<Option<Cow<'_, [u8]>>, BadCredential> {
    let authorization =
        only(headers, header::AUTHORIZATION)?.map(|value| credential(value.as_bytes(), schemes));
    let key = only(headers, X_API_KEY)?.map(HeaderValue::as_bytes);
    match (authorization.transpose()?, key) {
        (Some(sent), Some(key)) if *sent != *key => Err(BadCredential::Several),
        (sent, key) => Ok(sent.or(key.map(Cow::Borrowed))),
    }
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, BadCredential> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(BadCredential::Several),
        (value, None) => Ok(value),
    }
}

fn credential(value: &[u8], schemes: Schemes) -> Result<Cow<'_, [u8]>, BadCredential> {
    let basic = match schemes {
        Schemes::Bearer => None,
        Schemes::BearerOrBasic => after_scheme(value, b"Basic "),
    };
    let found = match (after_scheme(value, b"Bearer "), basic) {
        (Some(token), _) => Some(Cow::Borrowed(token)),
        (None, Some(pair)) => password(pair).map(Cow::Owned),
        (None, None) => None,
    };
    found
        .filter(|credential| !credential.is_empty())
        .ok_or(BadCredential::Scheme)
}

/// What follows the scheme, which is read without regard to case (RFC 9110 §11.1).
fn after_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (sent, rest) = value.split_at_checked(scheme.len())?;
    sent.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// A user name has no colon; a password may.
fn password(pair: &[u8]) -> Option<Vec<u8>> {
    let mut pair = BASE64_STANDARD.decode(pair).ok()?;
    let colon = memchr::memchr(b':', &pair)?;
    Some(pair.split_off(colon + 1))
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
            let headers = headers(lines);
            for schemes in [Schemes::Bearer, Schemes::BearerOrBasic] {
                let found = presented(&headers, schemes);
                assert_eq!(
                    found.as_ref().map(Option::as_deref),
                    expected.as_ref().copied(),
                    "{lines:?}"
                );
            }
        }
    }

    #[test]
    fn a_password_is_a_key_where_a_browser_may_ask_for_it() {
        for (value, expected) in [
            ("Basic Omk=", Ok("i")),
            ("Basic bmFtZTprZXk=", Ok("key")),
            ("bASIC  bmFtZTprOmV5 ", Ok("k:ey")),
            ("Basic", Err(BadCredential::Scheme)),
            ("Basic ", Err(BadCredential::Scheme)),
            ("Basic bmFtZTo=", Err(BadCredential::Scheme)),
            ("Basic bmFtZQ==", Err(BadCredential::Scheme)),
            ("Basic bmFtZTprZXk", Err(BadCredential::Scheme)),
            ("Basic !", Err(BadCredential::Scheme)),
            ("Basicbm FtZTprZXk=", Err(BadCredential::Scheme)),
            ("Digest bmFtZTprZXk=", Err(BadCredential::Scheme)),
        ] {
            let headers = headers(&[(header::AUTHORIZATION, value)]);

            let found = presented(&headers, Schemes::BearerOrBasic);

            let expected = expected.map(|key| Some(Cow::Borrowed(key.as_bytes())));
            assert_eq!(found, expected, "{value}");
            assert_eq!(
                presented(&headers, Schemes::Bearer),
                Err(BadCredential::Scheme)
            );
        }
    }

    #[test]
    fn a_password_and_a_key_have_to_agree() {
        let both = |key| {
            headers(&[
                (header::AUTHORIZATION, "Basic bmFtZTprZXk="),
                (X_API_KEY, key),
            ])
        };

        let agreed = presented(&both("key"), Schemes::BearerOrBasic).map(|key| key.is_some());
        assert_eq!(agreed, Ok(true));
        let refused = presented(&both("other"), Schemes::BearerOrBasic).map(|key| key.is_some());
        assert_eq!(refused, Err(BadCredential::Several));
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
