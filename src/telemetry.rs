//! Where logs go, and the registry of metrics.

use std::{io::IsTerminal, panic::PanicHookInfo};

use prometheus::{IntGauge, Opts, Registry, TextEncoder, process_collector::ProcessCollector};
use tracing_subscriber::{EnvFilter, util::TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Everything that is counted, in a registry of its own: two services in one process never share a
/// counter.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

/// Logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` is no filter.
    #[error("log.filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logging")]
    Taken(#[from] TryInitError),
}

/// Begins to log to standard error, and has panics logged there too.
///
/// # Errors
///
/// [`LogError`] when the filter cannot be read, or logging has begun already.
pub fn start_logging(config: &LogConfig) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let terminal = std::io::stderr().is_terminal();
    let default = if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(with_warnings(&config.filter))?)
        .with_writer(std::io::stderr);
    match config.format.unwrap_or(default) {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => lines.with_ansi(terminal).finish().try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Tells the place and no more: a panic's message may hold what it panicked about.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(tracing::field::display);
    tracing::error!(place, "a task panicked; this is a fault of usage-proxy");
}

/// A filter that names targets alone would silence everything else, errors too; a level of its own
/// beats this one.
fn with_warnings(filter: &str) -> String {
    format!("warn,{filter}")
}

// === impl Metrics ===

impl Metrics {
    /// A registry with what every process tells of itself.
    ///
    /// # Errors
    ///
    /// None that a fresh registry could cause.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let build = IntGauge::with_opts(
            Opts::new("usage_proxy_build_info", "Which build this is; always 1.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        Ok(Self { registry })
    }

    /// Where components register theirs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every metric in the Prometheus text format, version 0.0.4.
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# the metrics could not be written: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_tells_its_place_and_not_what_it_panicked_about() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));

        let panicked = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("s3cr3t"))
        });

        std::panic::set_hook(before);
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(panicked.is_err());
        assert!(logged.contains("src/telemetry.rs"), "{logged}");
        assert!(!logged.contains("s3cr3t"), "{logged}");
    }

    #[test]
    fn targets_alone_silence_no_warning_of_others() {
        for (filter, effective) in [
            ("usage_proxy=debug", "warn,usage_proxy=debug"),
            ("info", "warn,info"),
        ] {
            assert_eq!(with_warnings(filter), effective);
            assert!(EnvFilter::try_new(effective).is_ok());
        }
        let debug = EnvFilter::try_new(with_warnings("debug")).unwrap();
        assert_eq!(
            debug.max_level_hint(),
            Some(tracing::level_filters::LevelFilter::DEBUG)
        );
    }
}
