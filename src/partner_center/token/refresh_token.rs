//! The refresh token of the secure application model (App+User), which may rotate.
//!
//! A rotated refresh token is on disk before the access token that came with it is used: a process
//! that lost it at its restart would lock the partner out.

use std::path::Path;

use secrecy::SecretString;

use super::{
    account::RefreshToken,
    secret_file::{Fingerprint, ReplaceError, SecretFile, UnreadableSecret},
};
use crate::{clock::SharedClock, partner_center::metrics::UpstreamMetrics};

/// The current refresh token, in its file.
#[derive(Debug)]
pub(crate) struct RefreshTokenStore {
    file: SecretFile,
    /// The newest token, while it could not be written. It is used in place of the one in the file.
    unsaved: Option<UnsavedRefreshToken>,
    /// `None`: this file is the only place.
    shared: Option<SharedRefreshToken>,
    clock: SharedClock,
    metrics: UpstreamMetrics,
}

/// A refresh token that replicas share. The file is only read then.
#[derive(Debug)]
struct SharedRefreshToken {
    /// The stored one.
    stored: Option<RefreshToken>,
}

/// A rotated token that is in memory alone.
#[derive(Debug)]
struct UnsavedRefreshToken {
    token: SecretString,
    /// The fingerprint of the token in the file that it replaces. That is itself, if the file has it and only the folder
    /// was not flushed.
    replaces: Fingerprint,
}

// === impl RefreshTokenStore ===

impl RefreshTokenStore {
    pub(crate) fn new(path: &Path, clock: SharedClock, metrics: UpstreamMetrics) -> Self {
        Self {
            file: SecretFile::new(path, "upstream.auth.refresh_token_file"),
            unsaved: None,
            shared: None,
            clock,
            metrics,
        }
    }

    /// Only reads the file from now on, and uses the token that replicas share unless that of the file is
    /// new.
    pub(crate) fn share(&mut self, stored: Option<RefreshToken>) {
        self.shared = Some(SharedRefreshToken { stored });
    }

    /// Returns the current token. The file is read each time: another replica may have rotated it.
    pub(crate) async fn read(&self) -> Result<SecretString, UnreadableSecret> {
        if let Some(unsaved) = &self.unsaved {
            return Ok(unsaved.token.clone());
        }
        let shared = self.shared.as_ref();
        let stored = shared.and_then(|shared| shared.stored.as_ref());
        let token = match (self.file.read().await, stored) {
            (Ok(token), Some(stored)) if stored.includes(&token) => stored.token.clone(),
            (Err(_unreadable), Some(stored)) => stored.token.clone(),
            (token, _) => token?,
        };
        if let Some(modified) = self.file.modified().await {
            self.metrics.refresh_token_issued.set(modified.as_second());
        }
        Ok(token)
    }

    /// Replaces the token that was sent.
    pub(crate) async fn rotate(&mut self, sent: &SecretString, rotated: SecretString) {
        if self.shared.is_some() {
            return;
        }
        let now = self.clock.wall_time();
        self.metrics.refresh_token_issued.set(now.as_second());
        let replaces = match self.unsaved.take() {
            // The file still has what that one was to replace.
            Some(unsaved) => unsaved.replaces,
            None => Fingerprint::of(&[sent]),
        };
        self.unsaved = Some(UnsavedRefreshToken {
            token: rotated,
            replaces,
        });
        self.save().await;
    }

    /// Returns whether the current token is in memory alone.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Writes a token that is in memory alone over the one that it replaces, and over no other.
    pub(crate) async fn save(&mut self) {
        if self.is_overtaken().await {
            tracing::warn!(
                "the refresh token's file has another token than the one that was rotated: a person \
                 or another replica wrote it, and it is used"
            );
            self.forget_unsaved();
        }
        let Some(unsaved) = &mut self.unsaved else {
            return;
        };
        match self.file.replace(&unsaved.token).await {
            Ok(()) => {
                self.unsaved = None;
                tracing::info!("the rotated refresh token was written to its file");
            }
            Err(ReplaceError::Unflushed(error)) => {
                unsaved.replaces = Fingerprint::of(&[&unsaved.token]);
                tracing::error!(
                    path = %self.file.path().display(),
                    %error,
                    "the rotated refresh token is in its file, but the folder cannot be flushed to \
                     disk: if this machine crashes, the old token may come back; check the disk"
                );
            }
            Err(ReplaceError::Unwritten(error)) => tracing::error!(
                path = %self.file.path().display(),
                %error,
                "the rotated refresh token cannot be written and is in memory alone: make room, or \
                 make the directory writable, before this process ends"
            ),
        }
        let is_unsaved = i64::from(self.unsaved.is_some());
        self.metrics.refresh_token_unsaved.set(is_unsaved);
    }

    /// Returns whether the file has another token than the one that the unsaved one replaces.
    pub(crate) async fn is_overtaken(&self) -> bool {
        let Some(unsaved) = &self.unsaved else {
            return false;
        };
        match self.file.read().await {
            Ok(token) => Fingerprint::of(&[&token]) != unsaved.replaces,
            Err(_unreadable) => false,
        }
    }

    /// Goes back to the token of the file: a refused token is useless, and the file may have a new one.
    pub(crate) fn forget_unsaved(&mut self) {
        self.unsaved = None;
        self.metrics.refresh_token_unsaved.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;
    use crate::clock::SystemClock;

    fn store(path: &Path) -> RefreshTokenStore {
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new()).unwrap();
        RefreshTokenStore::new(path, Arc::new(SystemClock), metrics)
    }

    #[tokio::test]
    async fn a_token_in_an_unflushed_folder_is_our_own() {
        static BROKEN: AtomicBool = AtomicBool::new(true);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refresh");
        fs::write(&path, "refresh-1").unwrap();
        let mut store = store(&path);
        store.file = store.file.flushing_folders_by(|_| {
            if BROKEN.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        });

        store.rotate(&"refresh-1".into(), "refresh-2".into()).await;
        let unflushed = (fs::read_to_string(&path).unwrap(), store.has_unsaved());
        let overtaken = store.is_overtaken().await;
        store.save().await;
        let still_unflushed = store.has_unsaved();
        BROKEN.store(false, Ordering::Relaxed);
        store.save().await;

        assert_eq!(unflushed, ("refresh-2".to_owned(), true));
        assert!(!overtaken);
        assert!(still_unflushed);
        assert_eq!(fs::read_to_string(&path).unwrap(), "refresh-2");
        assert!(!store.has_unsaved());
    }

    #[tokio::test]
    async fn a_token_of_a_person_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/refresh");
        let mut store = store(&path);
        store.rotate(&"refresh-1".into(), "refresh-2".into()).await;
        let was_unsaved = store.has_unsaved();

        fs::create_dir(folder.path().join("missing")).unwrap();
        fs::write(&path, "of-a-person").unwrap();
        store.save().await;

        assert!(was_unsaved);
        assert!(!store.has_unsaved());
        assert_eq!(fs::read_to_string(&path).unwrap(), "of-a-person");
    }
}
