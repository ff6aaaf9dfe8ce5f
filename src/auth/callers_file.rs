//! The callers in force: the callers file, read again when it changes.
//!
//! An invalid file stops the start. A file that becomes invalid later changes nothing: the previous
//! callers stay in force, and the log and a metric say so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use jiff::Timestamp;
use prometheus::{
    IntGauge, IntGaugeVec, Registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};

use super::{
    caller_set::CallerSet,
    callers_parser::{self, ParsedCallersFile},
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

/// Metrics of the callers file.
#[derive(Clone, Debug)]
pub struct CallersMetrics {
    callers: IntGauge,
    info: IntGaugeVec,
    last_reload_successful: IntGauge,
    last_reload_success_timestamp: IntGauge,
}

/// Checks a callers file and the customer files that it names.
///
/// # Errors
///
/// [`ConfigErrors`] lists every error.
pub fn check_callers_file(path: &Path) -> Result<(), ConfigErrors> {
    callers_parser::parse(path).callers.map(|_callers| ())
}

// === impl CallersFile ===

impl CallersFile {
    /// Reads the callers file, and reads it again whenever it or one of its customer files changes,
    /// and when a reload is requested.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] lists every error of the files.
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
                clock: Arc::clone(&clock),
                metrics,
            }),
        };
        let parsed = callers.parse().await;
        let (files, digest) = (parsed.files.clone(), parsed.digest);
        callers.apply(parsed)?;
        let watch = reload.watch(files, clock).await;
        shutdown.spawn(callers.clone().watch_file(watch, digest));
        Ok(callers)
    }

    /// Returns the callers in force now. Keep the guard for a moment only.
    pub fn current(&self) -> Guard<Arc<CallerSet>> {
        self.inner.current.load()
    }

    async fn watch_file(self, mut watch: FileWatch, mut applied: [u8; 32]) {
        loop {
            // Reads before it waits: the files may have changed before they were watched.
            let parsed = self.parse().await;
            if parsed.digest == applied {
                watch.changed().await;
                continue;
            }
            applied = parsed.digest;
            watch.set_files(parsed.files.clone()).await;
            if let Err(errors) = self.apply(parsed) {
                self.inner.metrics.last_reload_successful.set(0);
                tracing::error!(
                    file = %self.inner.path.display(),
                    %errors,
                    "the callers file is invalid; the previous callers stay in force"
                );
            }
        }
    }

    async fn parse(&self) -> ParsedCallersFile {
        let path = self.inner.path.clone();
        offload::spawn_blocking(move || callers_parser::parse(&path)).await
    }

    /// Replaces the callers in force, if the files are valid.
    fn apply(&self, parsed: ParsedCallersFile) -> Result<(), ConfigErrors> {
        let inner = &self.inner;
        let set = CallerSet::new(parsed.callers?, &inner.current.load(), inner.clock.now());
        let callers = set.len();
        inner.current.store(Arc::new(set));
        let sha256 = short_digest(&parsed.sha256);
        let now = inner.clock.wall_time();
        inner.metrics.record_reload(callers, &sha256, now);
        tracing::info!(
            file = %inner.path.display(),
            callers,
            sha256,
            "the callers file is in force"
        );
        Ok(())
    }
}

fn short_digest(sha256: &[u8; 32]) -> String {
    let (beginning, _) = sha256.split_at(6);
    beginning.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl CallersMetrics ===

impl CallersMetrics {
    /// Registers all metrics, with the values that hold without a callers file.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            callers: register_int_gauge_with_registry!(
                "usage_proxy_callers",
                "Callers in the callers file in force.",
                registry
            )?,
            info: register_int_gauge_vec_with_registry!(
                "usage_proxy_callers_info",
                "The callers file in force, by the first 12 digits of its SHA-256.",
                &["sha256"],
                registry
            )?,
            last_reload_successful: register_int_gauge_with_registry!(
                "usage_proxy_callers_last_reload_successful",
                "1 if the callers file was valid when it was last read; 0 if an older one is in force.",
                registry
            )?,
            last_reload_success_timestamp: register_int_gauge_with_registry!(
                "usage_proxy_callers_last_reload_success_timestamp_seconds",
                "When the callers file in force was read, in Unix time; 0 without one.",
                registry
            )?,
        };
        metrics.last_reload_successful.set(1);
        Ok(metrics)
    }

    fn record_reload(&self, callers: usize, sha256: &str, at: Timestamp) {
        self.callers.set(i64::try_from(callers).unwrap_or(i64::MAX));
        self.info.reset();
        self.info.with_label_values(&[sha256]).set(1);
        self.last_reload_successful.set(1);
        self.last_reload_success_timestamp.set(at.as_second());
    }
}
