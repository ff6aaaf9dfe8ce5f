//! Files with one secret each, which are replaced whole or not at all.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::{
    config::secret::{SecretError, read_secret},
    offload::spawn_blocking,
};

/// The prefix of the name of a file that is to replace another.
const NEW_PREFIX: &str = ".usage-proxy-";

/// The age at which a new file was left behind by a process that was killed.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

/// A file with one secret and nothing else.
#[derive(Clone, Debug)]
pub(crate) struct SecretFile {
    path: PathBuf,
    key: &'static str,
    flush_folder: fn(&Path) -> io::Result<()>,
}

/// A hash that distinguishes sets of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// A secret that cannot be read. The error names the configuration key, never the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub(crate) struct UnreadableSecret {
    key: &'static str,
    reason: String,
}

/// A secret that was not replaced durably.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceError {
    /// The file has the old secret.
    #[error(transparent)]
    Unwritten(#[from] io::Error),
    /// The file has the new secret, but its folder was not flushed to disk: a crash of the machine
    /// may bring the old one back.
    #[error(transparent)]
    Unflushed(io::Error),
}

// === impl SecretFile ===

impl SecretFile {
    /// `key` is the configuration key of the path.
    pub(crate) fn new(path: &Path, key: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            key,
            flush_folder: |folder| File::open(folder)?.sync_all(),
        }
    }

    /// Replaces the function that flushes folders.
    #[cfg(test)]
    pub(crate) fn flushing_folders_by(self, flush_folder: fn(&Path) -> io::Result<()>) -> Self {
        Self {
            flush_folder,
            ..self
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the secret, without white space around it.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] if there is no file, no text, or nothing in it.
    pub(crate) async fn read(&self) -> Result<SecretString, UnreadableSecret> {
        let path = self.path.clone();
        spawn_blocking(move || read_secret(&path))
            .await
            .map_err(|error| UnreadableSecret {
                key: self.key,
                reason: match error {
                    SecretError::Unreadable { cause, .. } => cause.to_string(),
                    SecretError::Empty { .. } => "the file is empty".to_owned(),
                    SecretError::NotText { .. } => "the file is not UTF-8 text".to_owned(),
                    SecretError::TooLarge { .. } => "the file is larger than 64 KiB".to_owned(),
                },
            })
    }

    /// Replaces the secret durably: after a crash the file holds the old one or the new one.
    ///
    /// A symlink is followed, so that the link stays. Only the owner can read the new file.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] says which secret the file has then.
    ///
    /// # Cancel safety
    ///
    /// Once started, the write is finished on a thread of its own.
    pub(crate) async fn replace(&self, secret: &SecretString) -> Result<(), ReplaceError> {
        let (path, flush_folder) = (self.path.clone(), self.flush_folder);
        let secret = secret.clone();
        spawn_blocking(move || {
            let folder = replace(&path, &secret)?;
            flush_folder(&folder).map_err(ReplaceError::Unflushed)
        })
        .await
    }

    /// Returns the time of the last write, if it is known.
    pub(crate) async fn modified(&self) -> Option<Timestamp> {
        let path = self.path.clone();
        spawn_blocking(move || {
            let modified = std::fs::metadata(&path).ok()?.modified().ok()?;
            Timestamp::try_from(modified).ok()
        })
        .await
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// Returns the fingerprint of secrets in this order.
    pub(crate) fn of(secrets: &[&SecretString]) -> Self {
        let mut hash = Sha256::new();
        for secret in secrets {
            let secret = secret.expose_secret();
            hash.update(secret.len().to_be_bytes());
            hash.update(secret);
        }
        Self(hash.finalize().into())
    }
}

/// Replaces the file, and returns its folder: the rename is durable only when that is flushed.
fn replace(path: &Path, secret: &SecretString) -> io::Result<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Created with mode 0600, and removed if anything below fails.
    let mut new = tempfile::Builder::new()
        .prefix(NEW_PREFIX)
        .tempfile_in(directory)?;
    new.write_all(secret.expose_secret().as_bytes())?;
    new.as_file().sync_all()?;
    let written = new.as_file().metadata()?.modified()?;
    new.persist(&path)?;
    // The secret is in place, whether or not this succeeds.
    drop(remove_abandoned(directory, written));
    Ok(directory.to_owned())
}

/// Removes new files that were never put in place: each has a secret in it.
fn remove_abandoned(directory: &Path, now: SystemTime) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        let written = entry.metadata()?.modified()?;
        if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX)
            && now
                .duration_since(written)
                .is_ok_and(|age| age > ABANDONED_AGE)
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "upstream.auth.client_secret_file";

    #[tokio::test]
    async fn an_unreadable_secret_names_its_key_and_no_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "\n").unwrap();

        for path in [path, directory.path().join("missing")] {
            let error = SecretFile::new(&path, KEY).read().await.unwrap_err();

            let error = error.to_string();
            assert!(error.starts_with(KEY), "{error}");
            assert!(
                !error.contains(directory.path().to_str().unwrap()),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_secret_is_replaced_behind_its_link_and_readable_only_by_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let link = directory.path().join("link");
        std::fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = SecretFile::new(&link, KEY);

        file.replace(&SecretString::from("new")).await.unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert!(link.is_symlink());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn the_next_write_removes_files_of_an_interrupted_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let written = |name: &str, ago: Duration| {
            let file = File::create(directory.path().join(name)).unwrap();
            let now = file.metadata().unwrap().modified().unwrap();
            file.set_modified(now - ago).unwrap();
        };
        written("secret", 2 * ABANDONED_AGE);
        written("another", 2 * ABANDONED_AGE);
        written(".usage-proxy-abandoned", 2 * ABANDONED_AGE);
        written(".usage-proxy-of-another-replica", ABANDONED_AGE / 2);

        let file = SecretFile::new(&path, KEY);

        file.replace(&SecretString::from("new")).await.unwrap();

        let mut names: Vec<_> = (directory.path().read_dir().unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [".usage-proxy-of-another-replica", "another", "secret"]
        );
    }

    #[test]
    fn fingerprints_depend_on_the_ends_of_secrets() {
        let [a, bc, ab, c] = ["a", "bc", "ab", "c"].map(SecretString::from);

        assert_ne!(Fingerprint::of(&[&a, &bc]), Fingerprint::of(&[&ab, &c]));
    }
}
