//! The spans of requests to Partner Center, with the names of OpenTelemetry's
//! semantic conventions for HTTP clients. No token, key or query stands in one.

use std::{sync::Arc, time::Duration};

use http::Method;
use uuid::Uuid;

use super::{
    call::LogicalCall, client::request_attributes, error::UpstreamError, paging::PageRequest,
};
use crate::observability::traces::{KeyValue, SpanKind, TraceSpan, semconv};

/// Begins the span of one attempt; `None` where nothing is traced.
pub(super) fn begin_attempt(
    call: &LogicalCall,
    page: &PageRequest,
    request_id: Uuid,
) -> Option<Arc<TraceSpan>> {
    let of = call.trace().span.as_ref()?;
    let path = page.url.path();
    let template = match call.customer() {
        Some(customer) => path.replace(&customer.to_string(), "{customer_id}"),
        None => path.to_owned(),
    };
    let span = of.start_child(SpanKind::Client, format!("GET {template}"));
    if span.is_recording() {
        span.set_attributes(request_attributes(&Method::GET, &page.url));
        span.set_attribute(semconv::URL_TEMPLATE, template);
        span.set_attribute(semconv::MS_REQUEST_ID, request_id.to_string());
        span.set_attribute(semconv::UPSTREAM_API, call.api().as_str());
        if call.resends > 0 {
            let resends = i64::from(call.resends);
            span.set_attribute(semconv::HTTP_REQUEST_RESEND_COUNT, resends);
        }
    }
    Some(span)
}

/// Ends it by the status that came, where one did, and by what was wrong with it.
pub(super) fn end_attempt(span: &TraceSpan, status: Option<u16>, error: Option<&UpstreamError>) {
    if let Some(status) = status {
        span.set_attribute(semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
    }
    if let Some(error) = error {
        if let (_, Some(code)) = error.status_and_code() {
            span.set_attribute(semconv::UPSTREAM_CODE, code.to_owned());
        }
        span.set_attribute(semconv::ERROR_TYPE, <&str>::from(error.class()));
        span.set_error();
    }
    span.end();
}

/// Tells the call of a pause before its next attempt.
pub(super) fn record_pause(call: &LogicalCall, error: &UpstreamError, pause: Duration) {
    if let Some(span) = call
        .trace()
        .span
        .as_ref()
        .filter(|span| span.is_recording())
    {
        let told = vec![
            KeyValue::new(semconv::ERROR_TYPE, <&str>::from(error.class())),
            KeyValue::new("pause_seconds", pause.as_secs_f64()),
        ];
        span.add_event("pause", told);
    }
}
