use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{
    KeyValue, Value,
    trace::{Span as _, SpanContext, SpanKind, Status},
};
use opentelemetry_sdk::trace as sdk;

use super::Tracer;

/// A span in progress. It ends explicitly, or when its last reference is dropped.
#[derive(Debug)]
pub struct TraceSpan {
    sdk: Mutex<sdk::Span>,
    context: SpanContext,
    recording: bool,
    tracer: Tracer,
}

// === impl TraceSpan ===

impl TraceSpan {
    pub(super) fn new(sdk: sdk::Span, tracer: Tracer) -> Self {
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
