//! The log, and the thread that writes it.
//!
//! Lines are formatted by the thread that logs and written by another, so that a pipe that is not
//! read delays only the log. Lines that do not fit into the queue are dropped and counted.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    panic::PanicHookInfo,
    sync::mpsc,
    thread,
    time::Duration,
};

use prometheus::{
    IntCounter, Registry,
    core::{Collector, Desc},
    proto::{Counter, MetricFamily},
};
use tracing::{Dispatch, dispatcher::SetGlobalDefaultError};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::MakeWriter};

use super::json_lines::JsonLines;
use crate::config::{LogConfig, LogFormat};

/// The most lines that wait to be written: about two megabytes of request lines.
const MAX_QUEUED_LINES: usize = 4_096;

/// The pause of the log thread after each batch of lines. A busy service wakes it once in this time
/// and not once per request.
const BATCH_PAUSE: Duration = Duration::from_millis(1);

/// The longest wait for lines to be written at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` is invalid.
    #[error("log.filter")]
    Filter(#[from] ParseError),
    /// Logging was already started in this process.
    #[error("logging")]
    AlreadyInitialized(#[from] SetGlobalDefaultError),
}

/// Keeps the log thread running. Dropping it writes the waiting lines, but waits only a moment for a
/// pipe that is not read.
#[derive(Debug)]
#[must_use = "nothing is logged after this is dropped"]
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    dropped: DroppedLines,
}

/// Counts the lines that did not fit into the queue. By default there is no queue.
#[derive(Clone, Debug, Default)]
pub struct DroppedLines(Option<ErrorCounter>);

/// Exports [`DroppedLines`].
struct DroppedLinesCollector {
    lines: DroppedLines,
    family: IntCounter,
}

/// Writes lines in batches.
struct BatchWriter<W: Write>(BufWriter<W>);

/// Starts to log to standard error, panics included.
///
/// # Errors
///
/// [`LogError`] if the filter cannot be parsed, or logging was already started.
pub fn start_logging(config: &LogConfig) -> Result<LogGuard, LogError> {
    let (writer, guard) = start_log_thread(io::stderr());
    tracing::dispatcher::set_global_default(build_dispatch(config, writer)?)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

/// Starts a thread that writes lines to `output`, and returns the writer that feeds it.
pub fn start_log_thread(output: impl Write + Send + 'static) -> (NonBlocking, LogGuard) {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .thread_name("log")
        .finish(BatchWriter(BufWriter::new(output)));
    let guard = LogGuard {
        worker: Some(worker),
        dropped: DroppedLines(Some(writer.error_counter())),
    };
    (writer, guard)
}

/// Formats events as configured, and passes the lines to `writer`.
///
/// # Errors
///
/// If `log.filter` cannot be parsed.
pub fn build_dispatch<W>(config: &LogConfig, writer: W) -> Result<Dispatch, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let terminal = io::stderr().is_terminal();
    let default = if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(add_default_level(&config.filter))?)
        .with_writer(writer);
    Ok(match config.format.unwrap_or(default) {
        LogFormat::Json => lines.json().event_format(JsonLines::default()).into(),
        LogFormat::Text => lines.with_ansi(terminal).into(),
    })
}

/// Logs the location only: a panic's message may contain the data that caused it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(tracing::field::display);
    tracing::error!(place, "a task panicked; this is a fault of usage-proxy");
}

/// Adds a default level: a filter of targets alone would silence every other target, errors too. A
/// level in the filter overrides it.
fn add_default_level(filter: &str) -> String {
    format!("warn,{filter}")
}

// === impl LogGuard ===

impl LogGuard {
    /// The counter of dropped lines.
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let worker = self.worker.take();
        let (flushing, flushed) = mpsc::channel::<()>();
        // The worker's own guard gives up after a second, but then prints that to standard output,
        // which may be the same pipe.
        let flush = thread::Builder::new().spawn(move || {
            drop(worker);
            drop(flushing);
        });
        if flush.is_ok() {
            let _disconnected = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

// === impl DroppedLines ===

impl DroppedLines {
    /// Registers the count as a metric.
    ///
    /// # Errors
    ///
    /// If it is already registered.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let family = IntCounter::new(
            "usage_proxy_log_lines_dropped_total",
            "Log lines that were dropped because standard error was not read fast enough.",
        )?;
        registry.register(Box::new(DroppedLinesCollector {
            lines: self.clone(),
            family,
        }))
    }

    fn count(&self) -> usize {
        self.0.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }
}

impl Collector for DroppedLinesCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.family.collect();
        for metric in families.iter_mut().flat_map(MetricFamily::mut_metric) {
            let mut counter = Counter::default();
            counter.set_value(self.lines.count() as f64);
            metric.set_counter(counter);
        }
        families
    }
}

// === impl BatchWriter ===

impl<W: Write> Write for BatchWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// The log thread calls this when no line is waiting.
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(BATCH_PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::RequestLog;

    #[derive(Clone, Default)]
    struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_location_and_without_its_message() {
        let lines = CapturedOutput::default();
        let (writer, guard) = start_log_thread(lines.clone());
        let config = LogConfig {
            format: Some(LogFormat::Json),
            filter: "trace".to_owned(),
            requests: RequestLog::All,
        };
        let dispatch = build_dispatch(&config, writer).unwrap();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));

        let panicked = tracing::dispatcher::with_default(&dispatch, || {
            std::panic::catch_unwind(|| panic!("s3cr3t"))
        });

        std::panic::set_hook(before);
        drop(guard);
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(panicked.is_err());
        assert!(
            logged.contains("src/observability/telemetry/log.rs"),
            "{logged}"
        );
        assert!(!logged.contains("s3cr3t"), "{logged}");
    }

    #[test]
    fn a_filter_of_targets_keeps_warnings_of_other_targets() {
        for (filter, effective) in [
            ("usage_proxy=debug", "warn,usage_proxy=debug"),
            ("info", "warn,info"),
        ] {
            assert_eq!(add_default_level(filter), effective);
            assert!(EnvFilter::try_new(effective).is_ok());
        }
        let debug = EnvFilter::try_new(add_default_level("debug")).unwrap();
        assert_eq!(
            debug.max_level_hint(),
            Some(tracing::level_filters::LevelFilter::DEBUG)
        );
    }
}
