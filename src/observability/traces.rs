//! Traces of requests and upstream calls, exported to an OpenTelemetry collector.
//!
//! They are off by default: then there is no [`Tracer`], and code that would start a span finds
//! `None`. Spans follow OpenTelemetry's semantic conventions ([`semconv`]). A span ends explicitly or
//! when it is dropped, and then enters a bounded queue, from which one task exports it
//! ([`Exporting`]). A slow or missing collector delays no answer: spans that do not fit into the
//! queue are dropped and counted.
//!
//! The SDK creates and samples spans, but does not export them. Its batch processor does not tell how
//! many spans it drops, does not retry, runs on a thread without our clock, and reads environment
//! variables that `check-config` does not show.

mod collector;
mod context;
mod exporter;
mod headers;
mod metrics;
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

use self::{
    collector::Collector,
    exporter::{Exporter, SpanQueue},
    metrics::TraceMetrics,
};
pub use self::{
    context::inject,
    exporter::Exporting,
    headers::{HeadersError, read as read_headers},
    span::TraceSpan,
};
use crate::{clock::SharedClock, config::TracingConfig, jitter::Jitter};

/// Starts spans. Clones share their queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    sdk: SdkTracer,
    clock: SharedClock,
}

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

// === impl Tracer ===

impl Tracer {
    /// Starts a task that exports spans until [`Exporting::finish`].
    ///
    /// The configured share of traces that start here is sampled. If a caller started the trace, the
    /// caller decides.
    ///
    /// # Errors
    ///
    /// [`TraceStartError`]. An unreachable collector is not an error.
    pub fn start(
        config: &TracingConfig,
        deps: TraceDeps<'_>,
    ) -> Result<(Self, Exporting), TraceStartError> {
        let metrics = TraceMetrics::register(deps.registry)?;
        let (queue, spans) = SpanQueue::new(metrics.clone());
        let collector = Collector::new(config, Arc::clone(&deps.clock))?;
        // Set one by one, because the SDK's defaults read the environment.
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

    /// Starts the span of a request, which continues the trace of its `traceparent`, if any (W3C Trace
    /// Context).
    pub fn start_server_span(
        &self,
        headers: &HeaderMap,
        name: impl Into<Cow<'static, str>>,
        began: Timestamp,
    ) -> Arc<TraceSpan> {
        let parent = context::extract(headers);
        self.start_span(SpanKind::Server, name, parent.as_ref(), began)
    }

    /// Starts the span of a request whose `traceparent` is not trusted. The span starts a trace of its
    /// own, because sampling depends on the id of the trace, and links to the span in `traceparent`.
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

    /// Starts a trace.
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
