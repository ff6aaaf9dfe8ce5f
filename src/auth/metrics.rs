use jiff::Timestamp;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Which callers file is live.
#[derive(Clone, Debug)]
pub struct CallersMetrics {
    callers: IntGauge,
    info: IntGaugeVec,
    last_reload_successful: IntGauge,
    last_reload_success_timestamp: IntGauge,
}

// === impl CallersMetrics ===

impl CallersMetrics {
    /// Registers every family, as it is without a callers file, where nothing can be broken.
    ///
    /// # Errors
    ///
    /// When one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let info = IntGaugeVec::new(
            Opts::new(
                "usage_proxy_callers_info",
                "The callers file in force, by the first 12 digits of its SHA-256.",
            ),
            &["sha256"],
        )?;
        registry.register(Box::new(info.clone()))?;
        let metrics = Self {
            callers: gauge(
                "usage_proxy_callers",
                "Callers that the file in force names.",
            )?,
            info,
            last_reload_successful: gauge(
                "usage_proxy_callers_last_reload_successful",
                "Whether the callers file was right when it was last read; 0: an older one is in force.",
            )?,
            last_reload_success_timestamp: gauge(
                "usage_proxy_callers_last_reload_success_timestamp_seconds",
                "When the callers file in force was read; 0 without one.",
            )?,
        };
        metrics.last_reload_successful.set(1);
        Ok(metrics)
    }

    pub(super) fn record_reload(&self, callers: usize, sha256: &str, at: Timestamp) {
        self.callers.set(i64::try_from(callers).unwrap_or(i64::MAX));
        self.info.reset();
        self.info.with_label_values(&[sha256]).set(1);
        self.last_reload_successful.set(1);
        self.last_reload_success_timestamp.set(at.as_second());
    }

    pub(super) fn record_reload_failure(&self) {
        self.last_reload_successful.set(0);
    }
}
