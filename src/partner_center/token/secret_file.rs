//! Secrets in files: read whole, and replaced whole or not at all.

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

/// Begins the name of a file that is to replace another.
const NEW: &str = ".usage-proxy-";

/// No replacement takes so long: a new file that is older was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60);

/// A file that holds one secret and nothing else.
#[derive(Clone, Debug)]
pub(super) struct SecretFile {
    path: PathBuf,
    key: &'static str,
    flush_folder: fn(&Path) -> io::Result<()>,
}

/// What tells one set of secrets from another without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// A secret that cannot be had; names the configuration key, never the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {fault}")]
pub(super) struct UnreadableSecret {
    key: &'static str,
    fault: String,
}

/// A secret that was not replaced durably.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplaceError {
    /// The file is as it was.
    #[error(transparent)]
    Unwritten(#[from] io::Error),
    /// The file has the new secret, but its folder was not flushed to disk: a crash of the machine
    /// may bring the old one back.
    #[error(transparent)]
    Unflushed(io::Error),
}

// === impl SecretFile ===

impl SecretFile {
    /// The file at `path`, which the configuration names under `key`.
    pub(super) fn new(path: &Path, key: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            key,
            flush_folder: |folder| File::open(folder)?.sync_all(),
        }
    }

    /// The same, on a disk that flushes folders by this.
    #[cfg(test)]
    pub(super) fn flushing_folders_by(self, flush_folder: fn(&Path) -> io::Result<()>) -> Self {
        Self {
            flush_folder,
            ..self
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the secret, without the white space around it.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] when there is no file, no text, or nothing in it.
    pub(super) async fn read(&self) -> Result<SecretString, UnreadableSecret> {
        let path = self.path.clone();
        spawn_blocking(move || read_secret(&path))
            .await
            .map_err(|error| UnreadableSecret {
                key: self.key,
                fault: match error {
                    SecretError::Unreadable { cause, .. } => cause.to_string(),
                    SecretError::Empty { .. } => "the file is empty".to_owned(),
                    SecretError::NotText { .. } => "the file is not UTF-8 text".to_owned(),
                    SecretError::TooLarge { .. } => "the file is larger than 64 KiB".to_owned(),
                },
            })
    }

    /// Replaces the secret durably: after a crash the file holds the old one or the new one.
    ///
    /// A symlink is followed, so that the link stays; the new file is readable to its owner alone.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] says which secret the file has then.
    ///
    /// # Cancel safety
    ///
    /// Once begun, the write is carried through on a thread of its own.
    pub(super) async fn replace(&self, secret: &SecretString) -> Result<(), ReplaceError> {
        let (path, flush_folder) = (self.path.clone(), self.flush_folder);
        let secret = secret.clone();
        spawn_blocking(move || {
            let folder = replace(&path, &secret)?;
            flush_folder(&folder).map_err(ReplaceError::Unflushed)
        })
        .await
    }

    /// When the file was last written; `None` where nobody can tell.
    pub(super) async fn modified(&self) -> Option<Timestamp> {
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
    /// The fingerprint of secrets in this order.
    pub(super) fn of(secrets: &[&SecretString]) -> Self {
        let mut hash = Sha256::new();
        for secret in secrets {
            let secret = secret.expose_secret();
            hash.update(secret.len().to_be_bytes());
            hash.update(secret);
        }
        Self(hash.finalize().into())
    }
}

/// Puts a new file in place, and returns its folder: the rename is durable only once that is.
fn replace(path: &Path, secret: &SecretString) -> io::Result<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Made with mode 0600, and gone again if anything below fails.
    let mut new = tempfile::Builder::new()
        .prefix(NEW)
        .tempfile_in(directory)?;
    new.write_all(secret.expose_secret().as_bytes())?;
    new.as_file().sync_all()?;
    let written = new.as_file().metadata()?.modified()?;
    new.persist(&path)?;
    // What is kept is kept, whether or not the room can be tidied.
    drop(remove_abandoned(directory, written));
    Ok(directory.to_owned())
}

/// Removes the new files that were never put in place: each holds a secret.
fn remove_abandoned(directory: &Path, now: SystemTime) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        let written = entry.metadata()?.modified()?;
        if entry.file_name().to_string_lossy().starts_with(NEW)
            && now.duration_since(written).is_ok_and(|age| age > ABANDONED)
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
    async fn a_secret_is_read_without_the_line_end_an_editor_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "\u{feff}s3cret\r\n").unwrap();

        let secret = SecretFile::new(&path, KEY).read().await.unwrap();

        assert_eq!(secret.expose_secret(), "s3cret");
    }

    #[tokio::test]
    async fn an_unreadable_secret_names_its_key_and_no_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "\n").unwrap();

        for path in [path, directory.path().join("missing")] {
            let fault = SecretFile::new(&path, KEY).read().await.unwrap_err();

            let fault = fault.to_string();
            assert!(fault.starts_with(KEY), "{fault}");
            assert!(
                !fault.contains(directory.path().to_str().unwrap()),
                "{fault}"
            );
        }
    }

    #[tokio::test]
    async fn a_secret_is_replaced_behind_its_link_for_its_owner_alone() {
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
    async fn what_a_killed_write_left_is_removed_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let written = |name: &str, ago: Duration| {
            let file = File::create(directory.path().join(name)).unwrap();
            let now = file.metadata().unwrap().modified().unwrap();
            file.set_modified(now - ago).unwrap();
        };
        written("secret", 2 * ABANDONED);
        written("another", 2 * ABANDONED);
        written(".usage-proxy-abandoned", 2 * ABANDONED);
        written(".usage-proxy-of-another-replica", ABANDONED / 2);

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
    fn secrets_run_together_are_other_secrets() {
        let [a, bc, ab, c] = ["a", "bc", "ab", "c"].map(SecretString::from);

        assert_ne!(Fingerprint::of(&[&a, &bc]), Fingerprint::of(&[&ab, &c]));
    }
}
