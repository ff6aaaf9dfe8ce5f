//! The callers in use: the callers file, read again when it changes.

use std::{path::Path, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use prometheus::{IntGauge, Registry, register_int_gauge_with_registry};

use super::{
    caller_set::CallerSet,
    callers_parser::{self, CallerEntry},
};
use crate::{
    clock::SharedClock,
    config::ConfigErrors,
    reload::Reload,
    shutdown::Shutdown,
    tables_file::{TablesFile, TablesFileMetrics},
};

/// The callers in use; clones share them.
#[derive(Clone, Debug, Default)]
pub struct CallersFile {
    current: Arc<ArcSwap<CallerSet>>,
}

/// Metrics of the callers file.
#[derive(Clone, Debug)]
pub struct CallersMetrics {
    callers: IntGauge,
    file: TablesFileMetrics,
}

/// Checks a callers file and the customer files that it names.
///
/// # Errors
///
/// [`ConfigErrors`] lists every error.
pub fn check_callers_file(path: &Path) -> Result<(), ConfigErrors> {
    callers_parser::parse(path).content.map(|_callers| ())
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
        let callers = Self::default();
        let file = TablesFile {
            subject: CallersMetrics::SUBJECT,
            path: path.to_owned(),
            parse: callers_parser::parse,
            apply: {
                let (callers, clock, path) = (callers.clone(), clock.clone(), path.to_owned());
                let gauge = metrics.callers;
                Box::new(move |entries: Vec<CallerEntry>, sha256: &str| {
                    let set = CallerSet::new(entries, &callers.current(), clock.now());
                    let count = set.len();
                    callers.current.store(Arc::new(set));
                    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                    tracing::info!(
                        file = %path.display(),
                        callers = count,
                        sha256,
                        "the callers file is in use"
                    );
                })
            },
            metrics: metrics.file,
            clock,
        };
        file.load(reload, shutdown).await?;
        Ok(callers)
    }

    /// Returns the callers in use now. Keep the guard for a moment only.
    pub fn current(&self) -> Guard<Arc<CallerSet>> {
        self.current.load()
    }
}

// === impl CallersMetrics ===

impl CallersMetrics {
    const SUBJECT: &str = "callers";

    /// Registers all metrics, with the values that hold without a callers file.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            callers: register_int_gauge_with_registry!(
                "usage_proxy_callers",
                "Callers in the callers file in use.",
                registry
            )?,
            file: TablesFileMetrics::new(registry, Self::SUBJECT)?,
        })
    }
}
