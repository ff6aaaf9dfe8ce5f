//! Files that are read again while the process runs: when their content changes, and on SIGHUP.
//!
//! Content is compared, not watched: Kubernetes swaps mounted files by symlink, which confuses
//! file watches.

use std::{io, path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::clock::SharedClock;

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Asks everyone to read their files again; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    asked: watch::Sender<u64>,
}

/// A set of files, and what was in them when they were last looked at.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    seen: Fingerprint,
    asked: watch::Receiver<u64>,
    clock: SharedClock,
}

type Fingerprint = [u8; 32];

// === impl Reload ===

impl Reload {
    /// Has every [`FileWatch`] report a change, whether there is one or not.
    pub fn ask(&self) {
        self.asked.send_modify(|times| *times += 1);
    }

    /// Watches files from now on. Missing ones are watched too.
    pub async fn watch(&self, files: Vec<PathBuf>, clock: SharedClock) -> FileWatch {
        FileWatch {
            seen: fingerprint(&files).await,
            files,
            asked: self.asked.subscribe(),
            clock,
        }
    }
}

// === impl FileWatch ===

impl FileWatch {
    /// Completes when the content of any file has changed, or when a reload was asked for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may lose a reload that was asked for; it is meant for a task of its own.
    pub async fn changed(&mut self) {
        loop {
            let look_at = self.clock.now() + LOOK_EVERY;
            tokio::select! {
                Ok(()) = self.asked.changed() => {
                    self.seen = fingerprint(&self.files).await;
                    return;
                }
                () = self.clock.sleep_until(look_at) => {
                    let now = fingerprint(&self.files).await;
                    if std::mem::replace(&mut self.seen, now) != now {
                        return;
                    }
                }
            }
        }
    }

    /// Watches these files instead, where reading them showed that they name others.
    pub async fn follow(&mut self, files: Vec<PathBuf>) {
        self.seen = fingerprint(&files).await;
        self.files = files;
    }
}

/// A digest of all contents; what cannot be read counts as an error of its kind.
async fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let mut digest = Sha256::new();
    for file in files {
        let content = tokio::fs::read(file).await;
        let part: Fingerprint = match &content {
            Ok(content) => Sha256::digest(content).into(),
            Err(error) => unreadable(error.kind()),
        };
        digest.update(part);
    }
    digest.finalize().into()
}

fn unreadable(kind: io::ErrorKind) -> Fingerprint {
    Sha256::digest(format!("unreadable: {kind}")).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use jiff::Timestamp;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[tokio::test]
    async fn other_content_is_a_change_and_the_same_content_is_none() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = vec![file.path().to_owned()];
        let mut watch = Reload::default().watch(files, clock.clone()).await;
        let started = clock.now();

        let meanwhile = async {
            clock.pass(LOOK_EVERY).await;
            clock.asleep(1, LOOK_EVERY).await;
            fs::write(&file, "other").unwrap();
            clock.advance(LOOK_EVERY);
        };
        tokio::join!(watch.changed(), meanwhile);

        assert_eq!(clock.now(), started + 2 * LOOK_EVERY);
    }

    #[tokio::test]
    async fn a_reload_that_is_asked_for_is_a_change() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let reload = Reload::default();
        let mut watch = reload.watch(Vec::new(), clock).await;

        reload.ask();

        watch.changed().await;
    }
}
