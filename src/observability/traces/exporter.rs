//! Exports ended spans in batches.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use prost::Message as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    collector::{Collector, ExportError},
    metrics::{DropReason, TraceMetrics},
};
use crate::{
    clock::SharedClock, config::TracingConfig, jitter::Jitter, resilience::backoff::Backoff,
    shutdown::Shutdown,
};

/// The most ended spans that wait for export, as OpenTelemetry has it. With its attributes a span
/// takes one or two kilobytes, and half a kilobyte more with the longest `tracestate`: five
/// megabytes in all.
const MAX_QUEUED_SPANS: usize = 2_048;

/// The longest wait of a span for others in its batch, as OpenTelemetry has it.
const SCHEDULED_DELAY: Duration = Duration::from_secs(5);

/// The most spans in a batch, as OpenTelemetry has it.
const MAX_BATCH_SPANS: usize = 512;

/// The most attempts to send a batch before it is dropped.
const MAX_ATTEMPTS: u32 = 5;

/// Pauses after failed exports, at least [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest `Retry-After` that is obeyed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest wait for the last export at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The services that tracing needs.
#[derive(Debug)]
pub struct TraceDeps<'a> {
    /// The clock of spans and exports.
    pub clock: SharedClock,
    /// Spreads the pauses after failed exports.
    pub jitter: Jitter,
    /// The registry of the metrics.
    pub registry: &'a prometheus::Registry,
}

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceStartError {
    /// TLS cannot be set up, for example without CA certificates.
    #[error("cannot make the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the metrics of tracing")]
    Metrics(#[from] prometheus::Error),
}

/// Queues spans as they end, and never waits: spans that do not fit are dropped.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    metrics: TraceMetrics,
}

/// The export task. It outlives all others, because they end spans to the last.
#[derive(Debug)]
pub struct Exporting {
    ending: Shutdown,
}

/// Exports spans from the queue to the collector in batches.
///
/// The current batch is in this struct and not in a future, so that the final export finds it.
#[derive(Debug)]
struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    /// Spans from the queue that are not in a batch yet.
    collected: Vec<SpanData>,
    /// The batch that the collector did not accept yet.
    batch: Option<Batch>,
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    /// Failures in a row.
    failures: u32,
    clock: SharedClock,
    jitter: Jitter,
    metrics: TraceMetrics,
}

/// An encoded batch of spans.
#[derive(Debug)]
struct Batch {
    body: Bytes,
    spans: usize,
    attempts: u32,
}

/// Starts the export task. Returns the queue for ended spans.
///
/// # Errors
///
/// [`TraceStartError`]. An unreachable collector is not an error.
pub(super) fn start(
    config: &TracingConfig,
    deps: &TraceDeps<'_>,
) -> Result<(SpanQueue, Exporting), TraceStartError> {
    let metrics = TraceMetrics::register(deps.registry)?;
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_SPANS);
    let exporter = Exporter {
        spans: receiver,
        collected: Vec::new(),
        batch: None,
        collector: Collector::new(config, Arc::clone(&deps.clock))?,
        resource: (&resource(config)).into(),
        failures: 0,
        clock: Arc::clone(&deps.clock),
        jitter: deps.jitter,
        metrics: metrics.clone(),
    };
    let ending = Shutdown::new();
    ending.spawn_until_done(exporter.run(ending.clone()));
    let queue = SpanQueue {
        spans: sender,
        metrics,
    };
    Ok((queue, Exporting { ending }))
}

// === impl SpanQueue ===

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        use mpsc::error::TrySendError;

        match self.spans.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.metrics.record_dropped(DropReason::QueueFull, 1),
            Err(TrySendError::Closed(_)) => self.metrics.record_dropped(DropReason::Ending, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

// === impl Exporting ===

impl Exporting {
    /// Exports all ended spans, and returns when that is done or has taken five seconds.
    pub async fn finish(self) {
        self.ending.cancel().await;
    }
}

// === impl Exporter ===

impl Exporter {
    async fn run(mut self, ending: Shutdown) {
        tokio::select! {
            () = ending.cancelled() => {}
            () = self.export() => {}
        }
        self.spans.close();
        let clock = Arc::clone(&self.clock);
        let timeout = clock.sleep_until(clock.now() + FLUSH_TIMEOUT);
        tokio::select! {
            biased;
            () = self.flush() => {}
            () = timeout => {}
        }
        self.give_up();
    }

    /// Exports until every sender of spans is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    async fn export(&mut self) {
        while self.collect().await {
            self.encode_batch();
            self.deliver().await;
        }
    }

    /// Waits for a span, and a while for more of them. Returns `false` if there will be none.
    async fn collect(&mut self) -> bool {
        if self.collected.is_empty() && self.spans.recv_many(&mut self.collected, 1).await == 0 {
            return false;
        }
        let until = self.clock.now() + SCHEDULED_DELAY;
        while let room @ 1.. = MAX_BATCH_SPANS.saturating_sub(self.collected.len()) {
            tokio::select! {
                biased;
                taken = self.spans.recv_many(&mut self.collected, room) => {
                    if taken == 0 {
                        break;
                    }
                }
                () = self.clock.sleep_until(until) => break,
            }
        }
        true
    }

    /// Encodes the collected spans as a batch. This takes less than a millisecond, and has no await at
    /// which spans could be lost.
    fn encode_batch(&mut self) {
        let spans = std::mem::take(&mut self.collected);
        let count = spans.len();
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.resource),
        };
        self.batch = Some(Batch {
            body: request.encode_to_vec().into(),
            spans: count,
            attempts: 0,
        });
    }

    /// Sends the batch until it is accepted or dropped.
    async fn deliver(&mut self) {
        while let Some(failure) = self.send().await {
            let pause = BACKOFF
                .delay(self.failures, self.jitter.fraction())
                .max(SHORTEST_PAUSE)
                .max(failure.retry_after().min(LONGEST_PAUSE));
            self.failures = self.failures.saturating_add(1);
            let resume: Instant = self.clock.now() + pause;
            self.clock.sleep_until(resume).await;
        }
    }

    /// Sends the batch once, and drops it if another attempt would not help. Returns the failure.
    async fn send(&mut self) -> Option<ExportError> {
        let batch = self.batch.as_mut()?;
        batch.attempts += 1;
        let (spans, last) = (batch.spans, batch.attempts >= MAX_ATTEMPTS);
        match self.collector.send(batch.body.clone()).await {
            Ok(rejected) => {
                self.batch = None;
                self.record_export(spans, rejected.min(spans));
                None
            }
            Err(error) => {
                self.log_failure(&error);
                let drop_reason = match error.is_transient() {
                    false => Some(DropReason::Refused),
                    true => last.then_some(DropReason::Undelivered),
                };
                if let Some(reason) = drop_reason {
                    self.batch = None;
                    self.metrics.record_dropped(reason, spans);
                }
                Some(error)
            }
        }
    }

    fn record_export(&mut self, spans: usize, rejected: usize) {
        self.metrics.record_exported(spans - rejected);
        self.metrics.record_dropped(DropReason::Refused, rejected);
        if self.failures > 0 {
            self.failures = 0;
            tracing::info!("spans can be exported again");
        }
    }

    /// Logs a warning once per outage; metrics show the rest.
    fn log_failure(&self, error: &ExportError) {
        if self.failures == 0 {
            tracing::warn!(%error, "cannot export spans; answers do not wait for them");
        } else {
            tracing::debug!(%error, "still cannot export spans");
        }
    }

    /// Sends every remaining span once.
    async fn flush(&mut self) {
        loop {
            if self.batch.is_none() {
                let room = MAX_BATCH_SPANS.saturating_sub(self.collected.len());
                self.spans.recv_many(&mut self.collected, room).await;
                if self.collected.is_empty() {
                    return;
                }
                self.encode_batch();
            }
            if self.send().await.is_some() {
                return;
            }
        }
    }

    /// Counts and logs the spans that are lost.
    fn give_up(&mut self) {
        let sent = self.batch.take().map_or(0, |batch| batch.spans);
        let lost = sent + self.collected.len() + self.spans.len();
        if lost > 0 {
            self.metrics.record_dropped(DropReason::Ending, lost);
            tracing::warn!(
                spans = lost,
                "ended before the collector accepted the last spans"
            );
        }
    }
}

/// The resource of every span. Each process has its own id, because replicas share the name.
fn resource(config: &TracingConfig) -> Resource {
    Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        ])
        .build()
}
