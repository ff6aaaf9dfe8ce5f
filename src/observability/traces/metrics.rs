use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What is counted about spans that were sampled.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

/// Why a span never reached the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// More ended than the collector took.
    QueueFull,
    /// The collector could not be reached, or was too busy, time and again.
    Undelivered,
    /// The collector would not have it.
    Refused,
    /// The process ended first.
    Ending,
}

// === impl Metrics ===

impl Metrics {
    /// Registers both families, each child at zero.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let exported = IntCounter::new(
            "usage_proxy_trace_spans_exported_total",
            "Spans that the collector took.",
        )?;
        registry.register(Box::new(exported.clone()))?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "usage_proxy_trace_spans_dropped_total",
                "Spans that never reached the collector; no answer waits for one.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        for reason in Dropped::ALL {
            dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(Self { exported, dropped })
    }

    pub(super) fn exported(&self, spans: usize) {
        self.exported.inc_by(count(spans));
    }

    pub(super) fn dropped(&self, why: Dropped, spans: usize) {
        let counter = self.dropped.with_label_values(&[why.as_str()]);
        counter.inc_by(count(spans));
    }
}

fn count(spans: usize) -> u64 {
    u64::try_from(spans).unwrap_or(u64::MAX)
}

// === impl Dropped ===

impl Dropped {
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
