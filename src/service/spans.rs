//! What requests and calls tell of themselves where they are traced.

use std::sync::Arc;

use super::{
    concurrency_limiter::FetchReason,
    fetcher::SharedFetch,
    source::{CallTrace, SourceAnswer, SourceError},
};
use crate::{
    cache::ForwardReason,
    domain::Resource,
    observability::traces::{KeyValue, SpanKind, TraceSpan, semconv},
};

/// Tells of a decision that leads to a call. A hit leads to none, and its span says enough.
pub(super) fn record_decision(
    span: Option<&TraceSpan>,
    decision: &'static str,
    why: ForwardReason,
) {
    if let Some(span) = span.filter(|span| span.is_recording()) {
        let told = vec![
            KeyValue::new(semconv::CACHE_DECISION, decision),
            KeyValue::new(semconv::CACHE_FORWARD, why.as_str()),
        ];
        span.add_event(semconv::CACHE_DECISION, told);
    }
}

/// Refers a request to the call that it waits for and another began.
pub(super) fn link_to_call(span: Option<&TraceSpan>, shared: &SharedFetch) {
    if let (Some(span), Some(call)) = (span, &shared.span) {
        span.add_link(call.context());
    }
}

/// Begins the span of a logical call: part of the request that waits for it, but a refresh, which
/// outlives the request that caused it, is a trace of its own.
pub(super) fn start_call_span(
    trace: &CallTrace,
    resource: Resource,
    errand: FetchReason,
) -> Option<Arc<TraceSpan>> {
    let of = trace.span.as_ref()?;
    let span = match errand {
        FetchReason::Request => of.start_child(SpanKind::Internal, "upstream call"),
        FetchReason::Refresh => of.start_linked_root(SpanKind::Internal, "upstream call"),
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

/// Ends it by its outcome: "no such customer" is an answer, and no error.
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
