//! A TOML file of tables, such as the callers file, that is read again when it changes.
//!
//! An invalid file stops the start. A file that becomes invalid later changes nothing: the previous
//! one stays in use, and the log and a metric say so.

mod parser;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use prometheus::{
    IntGauge, IntGaugeVec, Registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};

pub(crate) use self::parser::{
    FieldType, ParsedTables, TableField, TableKind, TableReader, TablesParser, parse_identifier,
    parse_tables, whole_file,
};
use crate::{
    clock::SharedClock,
    config::ConfigErrors,
    offload,
    reload::{FileWatch, Reload},
    shutdown::Shutdown,
};

/// A file of tables, and the function that applies it.
pub(crate) struct TablesFile<T> {
    /// The subject of the file in messages, such as `callers`.
    pub(crate) subject: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) parse: fn(&Path) -> ParsedTables<T>,
    /// Applies the content, and logs it. The text is the beginning of the file's SHA-256.
    pub(crate) apply: ApplyTables<T>,
    pub(crate) metrics: TablesFileMetrics,
    pub(crate) clock: SharedClock,
}

pub(crate) type ApplyTables<T> = Box<dyn Fn(T, &str) + Send + Sync>;

/// Metrics of the file in use.
#[derive(Clone, Debug)]
pub(crate) struct TablesFileMetrics {
    info: IntGaugeVec,
    last_reload_successful: IntGauge,
    last_reload_success_timestamp: IntGauge,
}

// === impl TablesFile ===

impl<T: Send + 'static> TablesFile<T> {
    /// Reads the file, and reads it again whenever it or another file that it names changes, and
    /// when a reload is requested.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] lists every error of the files.
    pub(crate) async fn load(
        self,
        reload: &Reload,
        shutdown: &Shutdown,
    ) -> Result<(), ConfigErrors> {
        let parsed = self.parse().await;
        let (files, digest) = (parsed.files.clone(), parsed.digest);
        self.apply(parsed)?;
        let watch = reload.watch(files, self.clock.clone()).await;
        shutdown.spawn(self.watch_file(watch, digest));
        Ok(())
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
                self.metrics.last_reload_successful.set(0);
                tracing::error!(
                    file = %self.path.display(),
                    %errors,
                    "the {} file is invalid; the previous one stays in use",
                    self.subject
                );
            }
        }
    }

    async fn parse(&self) -> ParsedTables<T> {
        let (parse, path) = (self.parse, self.path.clone());
        offload::spawn_blocking(move || parse(&path)).await
    }

    /// Replaces the content in use, if the files are valid.
    fn apply(&self, parsed: ParsedTables<T>) -> Result<(), ConfigErrors> {
        let sha256 = short_digest(&parsed.sha256);
        (self.apply)(parsed.content?, &sha256);
        self.metrics.record_reload(&sha256, self.clock.wall_time());
        Ok(())
    }
}

fn short_digest(sha256: &[u8; 32]) -> String {
    let (beginning, _) = sha256.split_at(6);
    beginning.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl TablesFileMetrics ===

impl TablesFileMetrics {
    /// Registers all metrics of the file about `subject`, with the values that hold without one.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub(crate) fn new(registry: &Registry, subject: &str) -> prometheus::Result<Self> {
        let metrics = Self {
            info: register_int_gauge_vec_with_registry!(
                format!("usage_proxy_{subject}_info"),
                format!("The {subject} file in use, by the first 12 digits of its SHA-256."),
                &["sha256"],
                registry
            )?,
            last_reload_successful: register_int_gauge_with_registry!(
                format!("usage_proxy_{subject}_last_reload_successful"),
                format!(
                    "1 if the {subject} file was valid when it was last read; 0 if an older one is \
                     in use."
                ),
                registry
            )?,
            last_reload_success_timestamp: register_int_gauge_with_registry!(
                format!("usage_proxy_{subject}_last_reload_success_timestamp_seconds"),
                format!("When the {subject} file in use was read, in Unix time; 0 without one."),
                registry
            )?,
        };
        metrics.last_reload_successful.set(1);
        Ok(metrics)
    }

    fn record_reload(&self, sha256: &str, at: Timestamp) {
        self.info.reset();
        self.info.with_label_values(&[sha256]).set(1);
        self.last_reload_successful.set(1);
        self.last_reload_success_timestamp.set(at.as_second());
    }
}
