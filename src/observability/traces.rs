//! Traces: what a request and an upstream call went through, told to an OpenTelemetry collector.
//!
//! Off by default, and then there is no [`Tracer`]: whoever would begin a span finds `None` and goes
//! on. With one, a span is begun by hand where something begins, in the words of OpenTelemetry's
//! semantic conventions ([`semconv`]), and ends when its holder says so or drops it. Ended spans go
//! into a bounded queue; one task takes them from there to the collector ([`Exporting`]). Neither a
//! slow collector nor a missing one can hold up an answer: what finds no room is counted and dropped.
//!
//! The SDK makes and samples spans; exporting is ours, since the SDK's would bring a thread and an
//! HTTP client of its own, and reads variables that `check-config` knows nothing of.

mod collector;
mod context;
mod exporter;
mod headers;
mod metrics;
mod queue;
pub mod semconv;
mod span;

use std::{borrow::Cow, sync::Arc};

use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope,
    trace::{Tracer as _, TracerProvider as _},
};
pub use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanKind},
};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanLimits};

use self::{collector::Collector, exporter::Exporter, metrics::Metrics, queue::Queue};
pub use self::{
    context::inject,
    exporter::Exporting,
    headers::{HeadersError, read as read_headers},
    span::TraceSpan,
};
use crate::{clock::SharedClock, config::TracingConfig, jitter::Jitter};

/// Begins spans; clones share their queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    sdk: SdkTracer,
    clock: SharedClock,
}

/// What tracing needs of the process around it.
#[derive(Debug)]
pub struct TraceDeps<'a> {
    /// When spans begin and end, and when they are exported.
    pub clock: SharedClock,
    /// Spreads the pauses between exports that fail.
    pub jitter: Jitter,
    /// Where the metrics are registered.
    pub registry: &'a prometheus::Registry,
}

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceStartError {
    /// TLS cannot be set up, for want of CA certificates for example.
    #[error("cannot make the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the metrics of tracing")]
    Metrics(#[from] prometheus::Error),
}

// === impl Tracer ===

impl Tracer {
    /// Begins to export, in a task of its own that ends with [`Exporting::finish`].
    ///
    /// Of traces that begin here, the configured share is sampled. A trace that a caller began is
    /// sampled if the caller says so.
    ///
    /// # Errors
    ///
    /// [`TraceStartError`]; a collector that cannot be reached is no error.
    pub fn start(
        config: &TracingConfig,
        deps: TraceDeps<'_>,
    ) -> Result<(Self, Exporting), TraceStartError> {
        let metrics = Metrics::register(deps.registry)?;
        let (queue, spans) = Queue::new(metrics.clone());
        let collector = Collector::new(config, Arc::clone(&deps.clock))?;
        // Given one by one: the SDK's own defaults read the environment.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                config.sample_ratio,
            ))))
            .with_span_limits(SpanLimits::default())
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let tracer = Self {
            sdk: provider.tracer_with_scope(scope),
            clock: Arc::clone(&deps.clock),
        };
        let exporter = Exporter::new(config, spans, collector, metrics, deps);
        Ok((tracer, exporter.start()))
    }

    /// Begins the span of a request, which continues the trace of its `traceparent`, where it has
    /// one (W3C Trace Context).
    pub fn start_server_span(
        &self,
        headers: &HeaderMap,
        name: impl Into<Cow<'static, str>>,
        began: Timestamp,
    ) -> Arc<TraceSpan> {
        let parent = context::extract(headers);
        self.start_span(SpanKind::Server, name, parent.as_ref(), began)
    }

    /// Begins the span of a request whose `traceparent` may decide nothing. It begins a trace, since
    /// the share that is sampled is chosen by the id of the trace, and links to the span that
    /// `traceparent` names.
    pub fn start_untrusted_server_span(
        &self,
        headers: &HeaderMap,
        name: impl Into<Cow<'static, str>>,
        began: Timestamp,
    ) -> Arc<TraceSpan> {
        let span = self.start_span(SpanKind::Server, name, None, began);
        if span.is_recording()
            && let Some(caller) = context::extract(headers)
        {
            span.add_link(&caller);
        }
        span
    }

    /// Begins a trace.
    pub fn start_root_span(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Arc<TraceSpan> {
        self.start_span(kind, name, None, self.clock.wall_time())
    }

    fn start_span(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        parent: Option<&SpanContext>,
        began: Timestamp,
    ) -> Arc<TraceSpan> {
        let builder = self
            .sdk
            .span_builder(name)
            .with_kind(kind)
            .with_start_time(began);
        let under = context::parent_context(parent);
        Arc::new(TraceSpan::new(
            self.sdk.build_with_context(builder, &under),
            self.clone(),
        ))
    }
}
