//! Who may call: the callers file, read again when it changes, and the set of callers in force.
//!
//! A file that is broken when the process starts stops the start. One that breaks later changes
//! nothing: the callers of before stay in force, and the log and a metric say so.

mod caller_set;
mod caller_table;
mod callers_file;
mod customers_file;
mod document;
mod fields;
pub mod jwt;
mod metrics;
mod rate_limit;
#[cfg(test)]
mod tests;
mod token_authenticator;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};

use self::callers_file::ParsedCallersFile;
pub use self::{
    caller_set::{CallerIdentity, CallerSet},
    metrics::CallersMetrics,
    rate_limit::RateLimit,
    token_authenticator::{TokenAuthError, TokenAuthenticator},
};
use crate::{
    clock::SharedClock,
    config::ConfigErrors,
    offload,
    reload::{FileWatch, Reload},
    shutdown::Shutdown,
};

/// The callers in force; clones share them.
#[derive(Clone, Debug)]
pub struct CallersFile {
    inner: Arc<CallersFileState>,
}

#[derive(Debug)]
struct CallersFileState {
    path: PathBuf,
    current: ArcSwap<CallerSet>,
    clock: SharedClock,
    metrics: CallersMetrics,
}

/// Names every fault of a callers file and of the files that it names.
///
/// # Errors
///
/// [`ConfigErrors`], where there is any.
pub fn check_callers_file(path: &Path) -> Result<(), ConfigErrors> {
    callers_file::read(path).callers.map(|_callers| ())
}

// === impl Callers ===

impl CallersFile {
    /// Reads the callers file, and has it read again whenever it or a file that it names changes,
    /// and when a reload is asked for.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] names every fault of the file.
    pub async fn load(
        path: &Path,
        clock: SharedClock,
        metrics: CallersMetrics,
        reload: &Reload,
        shutdown: &Shutdown,
    ) -> Result<Self, ConfigErrors> {
        let callers = Self {
            inner: Arc::new(CallersFileState {
                path: path.to_owned(),
                current: ArcSwap::default(),
                clock,
                metrics,
            }),
        };
        let reading = callers.read().await;
        let (files, fingerprint) = (reading.files.clone(), reading.fingerprint);
        callers.apply(reading)?;
        let clock = Arc::clone(&callers.inner.clock);
        let watch = reload.watch(files, clock).await;
        shutdown.spawn(callers.clone().watch_file(watch, fingerprint));
        Ok(callers)
    }

    /// The callers in force now. Meant to be held for a moment: what is held is not replaced.
    pub fn current(&self) -> Guard<Arc<CallerSet>> {
        self.inner.current.load()
    }

    async fn watch_file(self, mut watch: FileWatch, mut applied: [u8; 32]) {
        loop {
            // Once more, now that the files are watched: a change may have fallen in between.
            let reading = self.read().await;
            if reading.fingerprint == applied {
                watch.changed().await;
                continue;
            }
            applied = reading.fingerprint;
            watch.set_files(reading.files.clone()).await;
            if let Err(faults) = self.apply(reading) {
                self.inner.metrics.record_reload_failure();
                tracing::error!(
                    file = %self.inner.path.display(),
                    %faults,
                    "the callers file is broken; the callers of before stay in force"
                );
            }
        }
    }

    async fn read(&self) -> ParsedCallersFile {
        let path = self.inner.path.clone();
        offload::spawn_blocking(move || callers_file::read(&path)).await
    }

    /// Puts what was read in force, all of it or nothing.
    fn apply(&self, reading: ParsedCallersFile) -> Result<(), ConfigErrors> {
        let inner = &self.inner;
        let set = CallerSet::new(reading.callers?, &inner.current.load(), inner.clock.now());
        let callers = set.len();
        inner.current.store(Arc::new(set));
        let sha256 = short_digest(&reading.sha256);
        inner
            .metrics
            .record_reload(callers, &sha256, inner.clock.wall_time());
        tracing::info!(
            file = %inner.path.display(),
            callers,
            sha256,
            "callers are in force"
        );
        Ok(())
    }
}

/// As much of a digest as tells two files apart.
fn short_digest(sha256: &[u8; 32]) -> String {
    let (beginning, _) = sha256.split_at(6);
    beginning.iter().map(|byte| format!("{byte:02x}")).collect()
}
