//! Watches files that are read again when their content changes, and on SIGHUP.
//!
//! The content is polled: Kubernetes replaces mounted files through symlinks, which file system
//! events do not report reliably.

use std::{path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::clock::SharedClock;

/// The time between two comparisons of the content.
pub const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Requests a reload of all watched files; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    requests: watch::Sender<u64>,
}

/// A set of files and the digest of their last content.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    last_digest: FilesDigest,
    requests: watch::Receiver<u64>,
    clock: SharedClock,
}

type FilesDigest = [u8; 32];

// === impl Reload ===

impl Reload {
    /// Makes every [`FileWatch`] report a change.
    pub fn trigger(&self) {
        self.requests.send_modify(|times| *times += 1);
    }

    /// Starts to watch files, including those that do not exist yet.
    pub async fn watch(&self, files: Vec<PathBuf>, clock: SharedClock) -> FileWatch {
        FileWatch {
            last_digest: digest_files(&files).await,
            files,
            requests: self.requests.subscribe(),
            clock,
        }
    }
}

// === impl FileWatch ===

impl FileWatch {
    /// Completes when the content of any file changes, or a reload is requested.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may lose a requested reload: await it in a task of its own.
    pub async fn changed(&mut self) {
        loop {
            let next_poll = self.clock.now() + POLL_INTERVAL;
            tokio::select! {
                Ok(()) = self.requests.changed() => {
                    self.last_digest = digest_files(&self.files).await;
                    return;
                }
                () = self.clock.sleep_until(next_poll) => {
                    let now = digest_files(&self.files).await;
                    if std::mem::replace(&mut self.last_digest, now) != now {
                        return;
                    }
                }
            }
        }
    }

    /// Watches these files instead of the previous ones.
    pub async fn set_files(&mut self, files: Vec<PathBuf>) {
        self.last_digest = digest_files(&files).await;
        self.files = files;
    }
}

/// Returns a digest of all contents. An unreadable file is represented by its kind of error.
async fn digest_files(files: &[PathBuf]) -> FilesDigest {
    let mut digest = Sha256::new();
    for file in files {
        let content = tokio::fs::read(file).await;
        let part: FilesDigest = match &content {
            Ok(content) => Sha256::digest(content).into(),
            Err(error) => Sha256::digest(format!("unreadable: {}", error.kind())).into(),
        };
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use jiff::Timestamp;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn only_changed_content_is_reported() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = vec![file.path().to_owned()];
        let mut watch = Reload::default().watch(files, clock.clone()).await;
        let started = clock.now();

        let meanwhile = async {
            clock.advance_when_sleeping(POLL_INTERVAL).await;
            clock.wait_for_sleepers_until(1, POLL_INTERVAL).await;
            fs::write(&file, "other").unwrap();
            clock.advance(POLL_INTERVAL);
        };
        let both = async { tokio::join!(watch.changed(), meanwhile) };
        tokio::time::timeout(WAIT_TIMEOUT, both).await.unwrap();

        assert_eq!(clock.now(), started + 2 * POLL_INTERVAL);
    }

    #[tokio::test]
    async fn a_triggered_reload_is_reported() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let reload = Reload::default();
        let mut watch = reload.watch(Vec::new(), clock).await;

        reload.trigger();

        let changed = tokio::time::timeout(WAIT_TIMEOUT, watch.changed());
        changed.await.unwrap();
    }
}
