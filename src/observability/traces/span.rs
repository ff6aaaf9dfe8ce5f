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

/// One span under way. It ends when it is told to, or else when the last who holds it drops it.
#[derive(Debug)]
pub struct TraceSpan {
    sdk: Mutex<sdk::Span>,
    context: SpanContext,
    recording: bool,
    tracer: Tracer,
}

// === impl Span ===

impl TraceSpan {
    pub(super) fn new(sdk: sdk::Span, tracer: Tracer) -> Self {
        Self {
            context: sdk.span_context().clone(),
            recording: sdk.is_recording(),
            sdk: Mutex::new(sdk),
            tracer,
        }
    }

    /// What names it to others, sampled or not.
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// Whether it was sampled: on others, attributes are lost effort.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Tells something of it.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        if self.recording {
            self.lock().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Tells several things of it at once.
    pub fn set_attributes(&self, attributes: impl IntoIterator<Item = KeyValue>) {
        if self.recording {
            self.lock().set_attributes(attributes);
        }
    }

    /// Tells of something that happens in it now.
    pub fn add_event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        if self.recording {
            let now = self.tracer.clock.wall_time().into();
            self.lock().add_event_with_timestamp(name, now, attributes);
        }
    }

    /// Refers to another span that has to do with it.
    pub fn add_link(&self, to: &SpanContext) {
        if self.recording && to.is_valid() {
            self.lock().add_link(to.clone(), Vec::new());
        }
    }

    /// Marks it as failed.
    pub fn set_error(&self) {
        if self.recording {
            self.lock().set_status(Status::error(""));
        }
    }

    /// Ends it now; what is told of it later is lost.
    pub fn end(&self) {
        if self.recording {
            let now = self.tracer.clock.wall_time().into();
            self.lock().end_with_timestamp(now);
        }
    }

    /// Begins a part of it.
    pub fn start_child(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let now = self.tracer.clock.wall_time();
        self.tracer.start_span(kind, name, Some(&self.context), now)
    }

    /// Begins a trace of its own that refers to this one, as work that was only caused by it.
    pub fn start_linked_root(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Arc<Self> {
        let root = self.tracer.start_root_span(kind, name);
        root.add_link(&self.context);
        root
    }

    /// What it holds is whole between two statements.
    fn lock(&self) -> MutexGuard<'_, sdk::Span> {
        self.sdk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        // A second end is none.
        self.end();
    }
}
