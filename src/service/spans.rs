//! Records requests and upstream calls in their trace spans.

use std::sync::Arc;

use super::{
    concurrency_limiter::FetchReason,
    source::{CallTrace, SourceAnswer, SourceError},
};
use crate::{
    cache::ForwardReason,
    domain::Resource,
    observability::traces::{KeyValue, SpanKind, TraceSpan, semconv},
};

/// Records a decision that leads to a call. A hit makes no call, and its span has all of it.
pub(super) fn record_decision(
    span: Option<&TraceSpan>,
    decision: &'static str,
    forward: ForwardReason,
) {
    if let Some(span) = span.filter(|span| span.is_recording()) {
        let attributes = vec![
            KeyValue::new(semconv::CACHE_DECISION, decision),
            KeyValue::new(semconv::CACHE_FORWARD, forward.as_str()),
        ];
        span.add_event(semconv::CACHE_DECISION, attributes);
    }
}

/// Links a request to the call of another request that it waits for.
pub(super) fn link_to_call(span: Option<&TraceSpan>, call: Option<&TraceSpan>) {
    if let (Some(span), Some(call)) = (span, call) {
        span.add_link(call.context());
    }
}

/// Ends the span of a call that another call has answered.
pub(super) fn end_unused_span(span: Option<&TraceSpan>) {
    if let Some(span) = span {
        span.end();
    }
}

/// Starts the span of a logical call. It is part of the request that waits for the call. A refresh
/// outlives the request that caused it, so it is a trace of its own.
pub(super) fn start_call_span(
    trace: &CallTrace,
    resource: Resource,
    reason: FetchReason,
) -> Option<Arc<TraceSpan>> {
    let parent = trace.span.as_ref()?;
    let span = match reason {
        FetchReason::Request => parent.start_child(SpanKind::Internal, "upstream call"),
        FetchReason::Refresh => parent.start_linked_root(SpanKind::Internal, "upstream call"),
    };
    if span.is_recording() {
        if let Some(customer) = resource.customer() {
            span.set_attribute(semconv::CUSTOMER_ID, customer.to_string());
        }
        span.set_attribute(semconv::UPSTREAM_API, resource.api().as_str());
        if let Some(date) = resource.date() {
            span.set_attribute(semconv::URL_QUERY, format!("processedDate={date}"));
        }
    }
    Some(span)
}

/// Ends the span with its outcome. "No such customer" is an answer, not an error.
pub(super) fn end_call_span(
    span: Option<&TraceSpan>,
    fetched: Result<&SourceAnswer, &SourceError>,
) {
    let Some(span) = span.filter(|span| span.is_recording()) else {
        return;
    };
    let ids = match fetched {
        Ok(fetched) => Some(fetched.call_ids),
        Err(error) => {
            span.set_attribute(semconv::ERROR_TYPE, error.kind.as_str());
            if !error.kind.is_authoritative() {
                span.set_error();
            }
            error.call_ids
        }
    };
    if let Some(ids) = ids {
        span.set_attribute(semconv::MS_REQUEST_ID, ids.request_id.to_string());
        span.set_attribute(semconv::MS_CORRELATION_ID, ids.correlation_id.to_string());
    }
    span.end();
}
