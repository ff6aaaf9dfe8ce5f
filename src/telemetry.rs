//! Where logs go, and the registry of metrics.

use std::io::IsTerminal;

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
    std::panic::set_hook(Box::new(|panic| {
        // The place and no more: a panic's message may hold what it panicked about.
        let place = panic.location().map(tracing::field::display);
        tracing::error!(place, "a task panicked; this is a fault of usage-proxy");
    }));
    Ok(())
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
