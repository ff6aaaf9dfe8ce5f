//! The log, and the registry of metrics.

mod json_lines;
mod log;

use prometheus::{IntGauge, Opts, Registry, TextEncoder, process_collector::ProcessCollector};

pub use self::{
    json_lines::REQUEST_TARGET,
    log::{DroppedLines, LogError, LogGuard, build_dispatch, start_log_thread, start_logging},
};

/// The metrics of one service. Two services in one process have two registries.
#[derive(Clone, Debug)]
pub struct MetricsRegistry {
    registry: Registry,
}

// === impl MetricsRegistry ===

impl MetricsRegistry {
    /// Creates a registry with the metrics of the process and of the build.
    ///
    /// # Errors
    ///
    /// If a metric is registered twice, which a new registry rules out.
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

    /// The registry where components register their metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every metric in the Prometheus text format, version 0.0.4.
    pub fn to_prometheus_text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# the metrics could not be written: {error}\n"))
    }
}
