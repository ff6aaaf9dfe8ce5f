use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::sync::mpsc;

use super::metrics::{Dropped, Metrics};

/// Spans that have ended and wait to be exported; OpenTelemetry's own default. With its attributes
/// each takes one or two kilobytes, and half of one more where its caller sent the longest
/// `tracestate`: five megabytes at most.
const LONGEST_QUEUE: usize = 2_048;

/// Takes spans as they end, and never waits: what finds no room is dropped.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Metrics,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(metrics: Metrics) -> (Self, mpsc::Receiver<SpanData>) {
        let (spans, taken) = mpsc::channel(LONGEST_QUEUE);
        (Self { spans, metrics }, taken)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        use mpsc::error::TrySendError;

        match self.spans.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.metrics.dropped(Dropped::QueueFull, 1),
            Err(TrySendError::Closed(_)) => self.metrics.dropped(Dropped::Ending, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
