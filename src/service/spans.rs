//! What requests and calls tell of themselves where they are traced.

use std::sync::Arc;

use super::{
    fetches::{Fetch, Shared},
    places::Errand,
    source::{CallTrace, Fetched, SourceError},
};
use crate::{
    cache::Forward,
    domain::Question,
    observability::traces::{KeyValue, Span, SpanKind, semconv},
};

/// Tells of a decision that leads to a call. A hit leads to none, and its span says enough.
pub(super) fn tell_decision(span: Option<&Span>, decision: &'static str, why: Forward) {
    if let Some(span) = span.filter(|span| span.is_recording()) {
        let told = vec![
            KeyValue::new(semconv::CACHE_DECISION, decision),
            KeyValue::new(semconv::CACHE_FORWARD, why.as_str()),
        ];
        span.event(semconv::CACHE_DECISION, told);
    }
}

/// Refers a request to the call that it waits for and another began.
pub(super) fn link_to_call(span: Option<&Span>, shared: &Shared) {
    if let (Some(span), Some(call)) = (span, &shared.span) {
        span.link(call.context());
    }
}

/// Begins the span of a logical call: part of the request that waits for it, but a refresh, which
/// outlives the request that caused it, is a trace of its own.
pub(super) fn begin_call(trace: &CallTrace, fetch: Fetch, errand: Errand) -> Option<Arc<Span>> {
    let of = trace.span.as_ref()?;
    let span = match errand {
        Errand::Answer => of.child(SpanKind::Internal, "upstream call"),
        Errand::Refresh => of.linked_root(SpanKind::Internal, "upstream call"),
    };
    if span.is_recording() {
        if let Some(customer) = fetch.subject.customer() {
            span.set(semconv::CUSTOMER_ID, customer.to_string());
        }
        span.set(semconv::UPSTREAM_API, fetch.question.api().as_str());
        if let Question::Dated(date) = fetch.question {
            span.set(semconv::URL_QUERY, format!("processedDate={date}"));
        }
    }
    Some(span)
}

/// Ends it by its outcome: "no such customer" is an answer, and no error.
pub(super) fn end_call(span: Option<&Span>, fetched: Result<&Fetched, &SourceError>) {
    let Some(span) = span.filter(|span| span.is_recording()) else {
        return;
    };
    let ids = match fetched {
        Ok(fetched) => Some(fetched.ids),
        Err(error) => {
            span.set(semconv::ERROR_TYPE, error.kind.as_str());
            if !error.kind.is_authoritative() {
                span.fail();
            }
            error.ids
        }
    };
    if let Some(ids) = ids {
        span.set(semconv::MS_REQUEST_ID, ids.request_id.to_string());
        span.set(semconv::MS_CORRELATION_ID, ids.correlation_id.to_string());
    }
    span.end();
}
