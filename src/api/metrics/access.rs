use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::api::authentication::AuthenticationError;

/// Requests that were turned away for who sent them.
#[derive(Clone, Debug)]
pub(in crate::api) struct AccessMetrics {
    /// One for each reason.
    denied: Vec<(&'static str, IntCounter)>,
    /// Requests for usage that the caller may not read.
    pub(in crate::api) not_allowed: IntCounter,
    /// Requests beyond the caller's rate.
    pub(in crate::api) rate_limited: IntCounter,
}

// === impl AccessMetrics ===

impl AccessMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let failures = IntCounterVec::new(
            Opts::new(
                "usage_proxy_authentication_failures_total",
                "API requests of which nobody knows who sent them, by why.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            denied: AuthenticationError::reasons()
                .map(|reason| (reason, failures.with_label_values(&[reason])))
                .collect(),
            not_allowed: counter(
                "usage_proxy_authorization_denied_total",
                "API requests for usage that the caller may not read.",
            )?,
            rate_limited: counter(
                "usage_proxy_rate_limited_total",
                "API requests beyond the caller's rate.",
            )?,
        })
    }

    pub(in crate::api) fn record_denied(&self, denied: AuthenticationError) {
        let mut counters = self.denied.iter();
        if let Some((_, counter)) = counters.find(|(reason, _)| *reason == denied.reason()) {
            counter.inc();
        }
    }
}
