use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counts sampled spans.
#[derive(Clone, Debug)]
pub(super) struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

/// The reason why the collector did not get a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let exported = IntCounter::new(
            "usage_proxy_trace_spans_exported_total",
            "Spans that the collector accepted.",
        )?;
        registry.register(Box::new(exported.clone()))?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "usage_proxy_trace_spans_dropped_total",
                "Spans that the collector did not accept. Answers do not wait for spans.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        for reason in DropReason::ALL {
            dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(Self { exported, dropped })
    }

    pub(super) fn record_exported(&self, spans: usize) {
        self.exported.inc_by(count(spans));
    }

    pub(super) fn record_dropped(&self, reason: DropReason, spans: usize) {
        let counter = self.dropped.with_label_values(&[reason.as_str()]);
        counter.inc_by(count(spans));
    }
}

fn count(spans: usize) -> u64 {
    u64::try_from(spans).unwrap_or(u64::MAX)
}

// === impl DropReason ===

impl DropReason {
    const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::Undelivered,
        Self::Refused,
        Self::Ending,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Undelivered => "undelivered",
            Self::Refused => "refused",
            Self::Ending => "ending",
        }
    }
}
