//! Secrets that are stored where others can read: AES-256-GCM, with keys of a file.
//!
//! The first key of the file encrypts, and all decrypt, so that one key can replace another. What was
//! encrypted for one purpose decrypts for no other.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};

use crate::config::secret::{SecretError, read_secret};

/// The keys of a file, at least one.
pub struct SealingKeys(Vec<SealingKey>);

struct SealingKey {
    id: KeyId,
    key: RandomizedNonceKey,
}

/// Distinguishes keys, and reveals nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; KeyId::BYTES]);

/// An encrypted secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// The key that encrypted it.
    pub key_id: KeyId,
    /// The nonce, the encrypted secret, the tag.
    pub bytes: Vec<u8>,
}

/// A file without usable keys. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SealingKeyError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// A line is no key.
    #[error("{}, {error}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The line.
        error: InvalidSealingKey,
    },
}

/// A line that is no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "line {line}: expected 32 bytes in base64, found {found}; `openssl rand -base64 32` makes a key"
)]
pub struct InvalidSealingKey {
    /// Counted from 1.
    line: usize,
    found: String,
}

/// A secret that was not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenSealedError {
    /// None of the keys encrypted it.
    #[error("it was encrypted with the key {0}, which is not there")]
    UnknownKey(KeyId),
    /// It was changed, or encrypted for something else.
    #[error("it was changed, or is not what was stored here")]
    Altered,
}

/// The length of a key.
const KEY_BYTES: usize = 32;

/// Separates the hash of a key from all other uses of the key.
const KEY_ID_CONTEXT: &[u8] = b"usage-proxy key id\0";

// === impl SealingKeys ===

impl SealingKeys {
    /// Reads the keys of a file, one a line.
    ///
    /// # Errors
    ///
    /// [`SealingKeyError`] names the line that is no key.
    pub fn read(path: &Path) -> Result<Self, SealingKeyError> {
        let text = read_secret(path)?;
        Self::parse(&text).map_err(|error| SealingKeyError::NotAKey {
            path: path.to_owned(),
            error,
        })
    }

    /// Parses the content of a file.
    ///
    /// # Errors
    ///
    /// [`InvalidSealingKey`].
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSealingKey> {
        let lines = (1..).zip(text.expose_secret().lines().map(str::trim));
        let keys = lines.filter(|(_, line)| !line.is_empty());
        let keys = keys.map(|(line, text)| {
            SealingKey::parse(text).map_err(|found| InvalidSealingKey { line, found })
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Encrypts a secret with the first key. The same purpose decrypts it.
    ///
    /// Returns `None` if the operating system has no random numbers.
    pub fn seal(&self, secret: &SecretString, purpose: &[&str]) -> Option<SealedSecret> {
        let SealingKey { id, key } = self.0.first()?;
        let secret = secret.expose_secret().as_bytes();
        // As large as it gets, so that growing leaves no copy behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(secret);
        let nonce = key.seal_in_place_append_tag(Aad::from(associated_data(purpose)), &mut *buffer);
        let nonce = nonce.ok()?;
        Some(SealedSecret {
            key_id: *id,
            bytes: [&nonce.as_ref()[..], &buffer].concat(),
        })
    }

    /// Decrypts a secret that was encrypted for this purpose.
    ///
    /// # Errors
    ///
    /// [`OpenSealedError`].
    pub fn open(
        &self,
        sealed: &SealedSecret,
        purpose: &[&str],
    ) -> Result<SecretString, OpenSealedError> {
        let mut keys = self.0.iter();
        let key = keys.find(|key| key.id == sealed.key_id);
        let key = key.ok_or(OpenSealedError::UnknownKey(sealed.key_id))?;
        let (nonce, encrypted) = sealed
            .bytes
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(OpenSealedError::Altered)?;
        let mut buffer = Zeroizing::new(encrypted.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(associated_data(purpose));
        let secret = key.key.open_in_place(nonce, aad, &mut buffer);
        let secret = secret.map_err(|_| OpenSealedError::Altered)?;
        let secret = std::str::from_utf8(secret).map_err(|_| OpenSealedError::Altered)?;
        Ok(SecretString::from(secret))
    }

    /// The keys in their order; the first encrypts.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(|key| key.id)
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

// === impl SealingKey ===

impl SealingKey {
    /// Returns what a text is that is no key.
    fn parse(text: &str) -> Result<Self, String> {
        // Longer than a key, so that a text that is a little too long is counted.
        let mut buffer = Zeroizing::new(vec![0; text.len().max(KEY_BYTES + 4)]);
        let length = BASE64_STANDARD.decode_slice(text, &mut buffer);
        let length = length.map_err(|_| "text that is not base64".to_owned())?;
        buffer.truncate(length);
        let bytes = buffer.as_slice();
        if length != KEY_BYTES {
            return Err(format!("{length} bytes"));
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes);
        Ok(Self {
            id: KeyId::of(bytes),
            key: key.map_err(|_| "a key that cannot be used".to_owned())?,
        })
    }
}

// === impl KeyId ===

impl KeyId {
    /// The length in bytes.
    pub const BYTES: usize = 8;

    /// The id of no key.
    pub const UNKNOWN: Self = Self([0; Self::BYTES]);

    fn of(key: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update(KEY_ID_CONTEXT)
            .chain_update(key)
            .finalize();
        let mut id = [0; Self::BYTES];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// Parses what [`fmt::Display`] prints.
    pub fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes())).filter(|_| text.len() == 2 * Self::BYTES)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

// === impl SealedSecret ===

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSecret")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Joins texts so that no other texts give the same bytes.
fn associated_data(parts: &[&str]) -> Vec<u8> {
    let lengths = parts.iter().map(|part| part.len().to_be_bytes());
    let parts = lengths
        .zip(parts)
        .flat_map(|(length, part)| [&length[..], part.as_bytes()].concat());
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: [&str; 2] = ["refresh token", "account"];

    fn line(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; KEY_BYTES])
    }

    fn read(content: &str) -> Result<SealingKeys, SealingKeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        SealingKeys::read(file.path())
    }

    fn opened(keys: &SealingKeys, sealed: &SealedSecret) -> Result<String, OpenSealedError> {
        let opened = keys.open(sealed, &PURPOSE);
        opened.map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn a_secret_opens_with_its_key_for_its_purpose_only() {
        let keys = read(&line(1)).unwrap();
        let secret = SecretString::from("t0ken");

        let sealed = keys.seal(&secret, &PURPOSE).unwrap();

        assert_eq!(opened(&keys, &sealed), Ok("t0ken".to_owned()));
        assert!(!sealed.bytes.windows(5).any(|part| part == b"t0ken"));
        let other = read(&line(2)).unwrap();
        let unknown = OpenSealedError::UnknownKey(sealed.key_id);
        assert_eq!(opened(&other, &sealed), Err(unknown));
        for purpose in [
            &["access token", "account"][..],
            &["refresh token", "other"],
            &["refresh token"],
            &["refresh toke", "naccount"],
        ] {
            let error = keys.open(&sealed, purpose).unwrap_err();
            assert_eq!(error, OpenSealedError::Altered, "{purpose:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let keys = read(&line(1)).unwrap();
        let sealed = keys.seal(&"t0ken".into(), &PURPOSE).unwrap();

        for index in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[index] ^= 1;
            assert_eq!(opened(&keys, &changed), Err(OpenSealedError::Altered));
        }
        let cut = SealedSecret {
            bytes: sealed.bytes[..NONCE_LEN - 1].to_vec(),
            ..sealed
        };
        assert_eq!(opened(&keys, &cut), Err(OpenSealedError::Altered));
    }

    #[test]
    fn the_same_secret_is_never_encrypted_to_the_same_bytes() {
        let keys = read(&line(1)).unwrap();
        let seal = || keys.seal(&"t0ken".into(), &PURPOSE).unwrap();

        assert_ne!(seal(), seal());
    }

    #[test]
    fn one_key_replaces_another() {
        let [old, both, new] = [
            line(1),
            format!("{}\n{}\n", line(2), line(1)),
            format!("\n{}\r\n", line(2)),
        ]
        .map(|content| read(&content).unwrap());

        let by_old = old.seal(&"t0ken".into(), &PURPOSE).unwrap();
        let by_both = both.seal(&"t0ken".into(), &PURPOSE).unwrap();

        assert!(opened(&both, &by_old).is_ok());
        assert!(opened(&new, &by_both).is_ok());
        assert_eq!(by_both.key_id, new.ids().next().unwrap());
        assert!(opened(&new, &by_old).is_err());
        assert!(opened(&old, &by_both).is_err());
    }

    #[test]
    fn a_line_that_is_no_key_is_named_and_not_quoted() {
        let short = BASE64_STANDARD.encode([7; 31]);
        let long = BASE64_STANDARD.encode([7; 33]);
        for (content, expected) in [
            (
                "s3cret!".to_owned(),
                "line 1: expected 32 bytes in base64, found text",
            ),
            (
                format!("{}\n\n{short}", line(1)),
                "line 3: expected 32 bytes in base64, found 31",
            ),
            (long.clone(), "found 33 bytes"),
            (String::new(), "is empty"),
        ] {
            let error = read(&content).unwrap_err().to_string();

            assert!(error.contains(expected), "{error}");
            for part in ["s3cret", &*short, &*long] {
                assert!(!error.contains(part), "{error}");
            }
        }
        assert!(
            read("s3cret!")
                .unwrap_err()
                .to_string()
                .contains("openssl rand -base64 32")
        );
    }

    #[test]
    fn neither_keys_nor_secrets_are_printed() {
        let keys = read(&line(1)).unwrap();
        let sealed = keys.seal(&"t0ken".into(), &PURPOSE).unwrap();

        let printed = format!("{keys:?} {sealed:?}");

        assert!(!printed.contains(&line(1)), "{printed}");
        assert!(!printed.contains("[1, 1"), "{printed}");
    }

    #[test]
    fn a_key_id_is_read_as_it_is_printed() {
        let id = read(&line(1)).unwrap().ids().next().unwrap();

        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_eq!(KeyId::parse("12"), None);
        assert_eq!(KeyId::parse("not hexadecimal!"), None);
    }
}
