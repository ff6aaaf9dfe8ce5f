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
pub struct Span {
    sdk: Mutex<sdk::Span>,
    context: SpanContext,
    recording: bool,
    tracer: Tracer,
}

// === impl Span ===

impl Span {
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
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if self.recording {
            self.lock().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Tells several things of it at once.
    pub fn set_all(&self, attributes: impl IntoIterator<Item = KeyValue>) {
        if self.recording {
            self.lock().set_attributes(attributes);
        }
    }

    /// Tells of something that happens in it now.
    pub fn event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        if self.recording {
            let now = self.tracer.clock.wall().into();
            self.lock().add_event_with_timestamp(name, now, attributes);
        }
    }

    /// Refers to another span that has to do with it.
    pub fn link(&self, to: &SpanContext) {
        if self.recording && to.is_valid() {
            self.lock().add_link(to.clone(), Vec::new());
        }
    }

    /// Marks it as failed.
    pub fn fail(&self) {
        if self.recording {
            self.lock().set_status(Status::error(""));
        }
    }

    /// Ends it now; what is told of it later is lost.
    pub fn end(&self) {
        if self.recording {
            let now = self.tracer.clock.wall().into();
            self.lock().end_with_timestamp(now);
        }
    }

    /// Begins a part of it.
    pub fn child(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let now = self.tracer.clock.wall();
        self.tracer.begin(kind, name, Some(&self.context), now)
    }

    /// Begins a trace of its own that refers to this one, as work that was only caused by it.
    pub fn linked_root(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let root = self.tracer.root(kind, name);
        root.link(&self.context);
        root
    }

    /// What it holds is whole between two statements.
    fn lock(&self) -> MutexGuard<'_, sdk::Span> {
        self.sdk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // A second end is none.
        self.end();
    }
}
