//! Metrics of exported and dropped spans.

use prometheus::{
    IntCounter, IntCounterVec, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry,
};
use strum::{IntoStaticStr, VariantArray};

/// Counts sampled spans.
#[derive(Clone, Debug)]
pub(super) struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

/// The reason why the collector did not get a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub(super) enum DropReason {
    /// The queue was full.
    QueueFull,
    /// The collector was unreachable or too busy in every attempt.
    Undelivered,
    /// The collector rejected it.
    Refused,
    /// The process ended first.
    Ending,
}

// === impl TraceMetrics ===

impl TraceMetrics {
    /// Registers both metrics, with every reason at zero.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let dropped = register_int_counter_vec_with_registry!(
            "usage_proxy_trace_spans_dropped_total",
            "Spans that the collector did not accept. Answers do not wait for spans.",
            &["reason"],
            registry
        )?;
        for reason in DropReason::VARIANTS {
            dropped.with_label_values(&[reason.into_str()]);
        }
        Ok(Self {
            exported: register_int_counter_with_registry!(
                "usage_proxy_trace_spans_exported_total",
                "Spans that the collector accepted.",
                registry
            )?,
            dropped,
        })
    }

    pub(super) fn record_exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    pub(super) fn record_dropped(&self, reason: DropReason, spans: usize) {
        let counter = self.dropped.with_label_values(&[reason.into_str()]);
        counter.inc_by(spans as u64);
    }
}
