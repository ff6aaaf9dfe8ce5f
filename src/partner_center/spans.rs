//! The spans of requests to Partner Center and the token endpoint, with the names of OpenTelemetry's
//! semantic conventions for HTTP clients. They contain no token, key or query.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use url::Url;
use uuid::Uuid;

use super::{call::LogicalCall, error::UpstreamError, paging::PageRequest};
use crate::observability::traces::{KeyValue, SpanKind, TraceSpan, Tracer, semconv};

/// Starts the span of one attempt; `None` where nothing is traced.
pub(super) fn begin_attempt(
    call: &LogicalCall,
    page: &PageRequest,
    request_id: Uuid,
) -> Option<Arc<TraceSpan>> {
    let parent = call.trace().span.as_ref()?;
    let path = page.url.path();
    let template = match call.customer() {
        Some(customer) => path.replace(&customer.to_string(), "{customer_id}"),
        None => path.to_owned(),
    };
    let span = parent.start_child(SpanKind::Client, format!("GET {template}"));
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

/// Ends the span with the status of the reply, if there is one, and the error.
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

/// Records the pause before the next attempt in the span of the call.
pub(super) fn record_pause(call: &LogicalCall, error: &UpstreamError, pause: Duration) {
    let span = call.trace().span.as_ref();
    if let Some(span) = span.filter(|span| span.is_recording()) {
        let attributes = vec![
            KeyValue::new(semconv::ERROR_TYPE, <&str>::from(error.class())),
            KeyValue::new("pause_seconds", pause.as_secs_f64()),
        ];
        span.add_event("pause", attributes);
    }
}

/// Starts the trace of a request to the token endpoint. It is part of no call.
pub(super) fn begin_redemption(tracer: Option<&Tracer>, url: &Url) -> Option<Arc<TraceSpan>> {
    let span = tracer?.start_root_span(SpanKind::Client, format!("POST {}", url.path()));
    if span.is_recording() {
        span.set_attributes(request_attributes(&Method::POST, url));
        span.set_attribute(semconv::URL_TEMPLATE, url.path().to_owned());
    }
    Some(span)
}

/// Ends the span with the status of the reply, or with the reason why there is none.
pub(super) fn end_redemption(span: &TraceSpan, ended: Result<StatusCode, &'static str>) {
    match ended {
        Ok(status) => {
            span.set_attribute(
                semconv::HTTP_RESPONSE_STATUS_CODE,
                i64::from(status.as_u16()),
            );
            if !status.is_success() {
                span.set_attribute(semconv::ERROR_TYPE, status.as_str().to_owned());
                span.set_error();
            }
        }
        Err(fault) => {
            span.set_attribute(semconv::ERROR_TYPE, fault);
            span.set_error();
        }
    }
    span.end();
}

/// Returns the span attributes of a request: its method and address, without query or credentials.
fn request_attributes(method: &Method, url: &Url) -> impl Iterator<Item = KeyValue> {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().map(i64::from);
    [
        KeyValue::new(semconv::HTTP_REQUEST_METHOD, method.to_string()),
        KeyValue::new(semconv::URL_FULL, String::from(bare)),
        KeyValue::new(semconv::SERVER_ADDRESS, host),
    ]
    .into_iter()
    .chain(port.map(|port| KeyValue::new(semconv::SERVER_PORT, port)))
}
