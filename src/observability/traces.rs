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

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope, Value,
    trace::{Span as _, Status, Tracer as _, TracerProvider as _},
};
pub use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanKind},
};
use opentelemetry_sdk::trace::{self as sdk, Sampler, SdkTracer, SdkTracerProvider, SpanLimits};

pub use self::{
    context::inject,
    exporter::{Exporting, TraceDeps, TraceStartError},
    headers::{HeadersError, read as read_headers},
};
use crate::{clock::SharedClock, config::TracingConfig};

/// Starts spans. Clones share their queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    sdk: SdkTracer,
    clock: SharedClock,
}

/// A span in progress. It ends explicitly, or when its last reference is dropped.
#[derive(Debug)]
pub struct TraceSpan {
    sdk: Mutex<sdk::Span>,
    context: SpanContext,
    recording: bool,
    tracer: Tracer,
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
        deps: &TraceDeps<'_>,
    ) -> Result<(Self, Exporting), TraceStartError> {
        let (queue, exporting) = exporter::start(config, deps)?;
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
        Ok((tracer, exporting))
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

// === impl TraceSpan ===

impl TraceSpan {
    fn new(sdk: sdk::Span, tracer: Tracer) -> Self {
        Self {
            context: sdk.span_context().clone(),
            recording: sdk.is_recording(),
            sdk: Mutex::new(sdk),
            tracer,
        }
    }

    /// The identity of the span, sampled or not.
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// Returns true if the span is sampled. Others ignore attributes.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Sets an attribute.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        if self.recording {
            self.lock().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Sets several attributes.
    pub fn set_attributes(&self, attributes: impl IntoIterator<Item = KeyValue>) {
        if self.recording {
            self.lock().set_attributes(attributes);
        }
    }

    /// Adds an event with the current time.
    pub fn add_event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        if self.recording {
            let now = self.tracer.clock.wall_time().into();
            self.lock().add_event_with_timestamp(name, now, attributes);
        }
    }

    /// Adds a link to a related span.
    pub fn add_link(&self, to: &SpanContext) {
        if self.recording && to.is_valid() {
            self.lock().add_link(to.clone(), Vec::new());
        }
    }

    /// Marks the span as failed.
    pub fn set_error(&self) {
        if self.recording {
            self.lock().set_status(Status::error(""));
        }
    }

    /// Ends the span now. Later changes are ignored.
    pub fn end(&self) {
        if self.recording {
            let now = self.tracer.clock.wall_time().into();
            self.lock().end_with_timestamp(now);
        }
    }

    /// Starts a child span.
    pub fn start_child(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let now = self.tracer.clock.wall_time();
        self.tracer.start_span(kind, name, Some(&self.context), now)
    }

    /// Starts a new trace that links to this span, for work that it caused but does not wait for.
    pub fn start_linked_root(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Arc<Self> {
        let root = self.tracer.start_root_span(kind, name);
        root.add_link(&self.context);
        root
    }

    /// Ignores poisoning, because no panic leaves the span half changed.
    fn lock(&self) -> MutexGuard<'_, sdk::Span> {
        self.sdk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        // A second end has no effect.
        self.end();
    }
}
