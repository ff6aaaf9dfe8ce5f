use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{Resource, trace::SpanData};
use prost::Message as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    TraceDeps,
    collector::{Collector, ExportError},
    metrics::{Dropped, Metrics},
};
use crate::{
    clock::SharedClock, config::TracingConfig, jitter::Jitter, resilience::backoff::Backoff,
    shutdown::Shutdown,
};

/// How long a span waits for others to go with; OpenTelemetry's own default.
const SCHEDULED_DELAY: Duration = Duration::from_secs(5);

/// Spans that go together; OpenTelemetry's own default.
const LARGEST_BATCH: usize = 512;

/// How often a batch is sent before it is dropped for those behind it.
const MOST_ATTEMPTS: u32 = 5;

/// Pauses after exports that failed; never less than [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(2), Duration::from_secs(30)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of the process waits for what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that exports. It outlives all others, since they end spans to the last.
#[derive(Debug)]
pub struct Exporting {
    ending: Shutdown,
}

/// Takes spans from the queue to the collector, batch by batch.
///
/// What is under way is held here and not in a future, so that the end can take it up.
#[derive(Debug)]
pub(super) struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    /// Taken from the queue, and not sent so far.
    collected: Vec<SpanData>,
    /// Sent, and not taken so far.
    batch: Option<Batch>,
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    /// Failures in a row.
    failures: u32,
    clock: SharedClock,
    jitter: Jitter,
    metrics: Metrics,
}

/// Spans as they are sent.
#[derive(Debug)]
struct Batch {
    body: Bytes,
    spans: usize,
    attempts: u32,
}

// === impl Exporting ===

impl Exporting {
    /// Exports what has ended, and returns when that is done or has taken five seconds.
    pub async fn finish(self) {
        self.ending.cancel().await;
    }
}

// === impl Exporter ===

impl Exporter {
    pub(super) fn new(
        config: &TracingConfig,
        spans: mpsc::Receiver<SpanData>,
        collector: Collector,
        metrics: Metrics,
        deps: TraceDeps<'_>,
    ) -> Self {
        Self {
            spans,
            collected: Vec::new(),
            batch: None,
            collector,
            resource: (&resource(config)).into(),
            failures: 0,
            clock: deps.clock,
            jitter: deps.jitter,
            metrics,
        }
    }

    pub(super) fn start(self) -> Exporting {
        let ending = Shutdown::new();
        ending.spawn_until_done(self.run(ending.clone()));
        Exporting { ending }
    }

    async fn run(mut self, ending: Shutdown) {
        tokio::select! {
            () = ending.cancelled() => {}
            () = self.export() => {}
        }
        self.spans.close();
        let clock = Arc::clone(&self.clock);
        let given_up = clock.sleep_until(clock.now() + FLUSH_TIMEOUT);
        tokio::select! {
            biased;
            () = self.flush() => {}
            () = given_up => {}
        }
        self.give_up();
    }

    /// Exports until nobody can end a span any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    async fn export(&mut self) {
        while self.collect().await {
            self.seal();
            self.deliver().await;
        }
    }

    /// Waits for a span, and a while for more of them; `false` when there will be none.
    async fn collect(&mut self) -> bool {
        if self.collected.is_empty() && self.spans.recv_many(&mut self.collected, 1).await == 0 {
            return false;
        }
        let until = self.clock.now() + SCHEDULED_DELAY;
        while let room @ 1.. = LARGEST_BATCH.saturating_sub(self.collected.len()) {
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

    /// Makes a batch of what was collected. It takes less than a millisecond, and no await that what
    /// was collected could be lost in.
    fn seal(&mut self) {
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

    /// Sends the batch until it is taken, or sending it again would not help.
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

    /// Sends the batch once, and drops it where another time is one too many. Returns the failure.
    async fn send(&mut self) -> Option<ExportError> {
        let batch = self.batch.as_mut()?;
        batch.attempts += 1;
        let (spans, last) = (batch.spans, batch.attempts >= MOST_ATTEMPTS);
        match self.collector.send(batch.body.clone()).await {
            Ok(rejected) => {
                self.batch = None;
                self.taken(spans, rejected.min(spans));
                None
            }
            Err(error) => {
                self.report(&error);
                let dropped = match error.is_passing() {
                    false => Some(Dropped::Refused),
                    true => last.then_some(Dropped::Undelivered),
                };
                if let Some(why) = dropped {
                    self.batch = None;
                    self.metrics.dropped(why, spans);
                }
                Some(error)
            }
        }
    }

    fn taken(&mut self, spans: usize, rejected: usize) {
        self.metrics.exported(spans - rejected);
        self.metrics.dropped(Dropped::Refused, rejected);
        if self.failures > 0 {
            self.failures = 0;
            tracing::info!("spans can be exported again");
        }
    }

    /// Once an outage: metrics tell how it goes on.
    fn report(&self, error: &ExportError) {
        if self.failures == 0 {
            tracing::warn!(%error, "cannot export spans; answers do not wait for them");
        } else {
            tracing::debug!(%error, "still cannot export spans");
        }
    }

    /// Sends everything that is left, once.
    async fn flush(&mut self) {
        loop {
            if self.batch.is_none() {
                let room = LARGEST_BATCH.saturating_sub(self.collected.len());
                self.spans.recv_many(&mut self.collected, room).await;
                if self.collected.is_empty() {
                    return;
                }
                self.seal();
            }
            if self.send().await.is_some() {
                return;
            }
        }
    }

    /// Counts what is lost.
    fn give_up(&mut self) {
        let sent = self.batch.take().map_or(0, |batch| batch.spans);
        let lost = sent + self.collected.len() + self.spans.len();
        if lost > 0 {
            self.metrics.dropped(Dropped::Ending, lost);
            tracing::warn!(
                spans = lost,
                "ended before the collector took the last spans"
            );
        }
    }
}

/// What every span is from. Each process has an id of its own: replicas share the name.
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
