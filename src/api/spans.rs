//! The spans of requests, in the words of OpenTelemetry's semantic conventions for HTTP servers.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority};
use jiff::Timestamp;

use super::{
    response::{CLIENT_CLOSED_REQUEST, LogFields},
    route::Route,
};
use crate::{
    cache::CacheStatus,
    domain::CustomerId,
    observability::traces::{KeyValue, TraceSpan, Tracer, semconv},
    peer::Peer,
    text::excerpt,
};

/// Starts a span for each request.
#[derive(Clone, Debug)]
pub struct RequestSpans {
    tracer: Tracer,
    scheme: &'static str,
}

/// The parent of a request's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanParent {
    /// The span in `traceparent`.
    Traceparent,
    /// None: a new trace starts, with a link to the span in `traceparent`.
    NewTrace,
}

// === impl RequestSpans ===

impl RequestSpans {
    /// Spans of requests over `scheme`, `http` or `https`.
    pub fn new(tracer: Tracer, scheme: &'static str) -> Self {
        Self { tracer, scheme }
    }

    /// Starts the span of a request, with the same data of the request as the log.
    pub(super) fn start(
        &self,
        head: &Parts,
        request_id: &HeaderValue,
        route: Route,
        peer: &Peer,
        parent: SpanParent,
        started_at: Timestamp,
    ) -> Arc<TraceSpan> {
        let method = known_method(&head.method);
        let (headers, name) = (&head.headers, span_name(method, route));
        let span = match parent {
            SpanParent::Traceparent => self.tracer.start_server_span(headers, name, started_at),
            SpanParent::NewTrace => self
                .tracer
                .start_untrusted_server_span(headers, name, started_at),
        };
        if span.is_recording() {
            let mut attributes = vec![
                KeyValue::new(
                    semconv::HTTP_REQUEST_METHOD,
                    method.unwrap_or(semconv::OTHER_METHOD),
                ),
                KeyValue::new(semconv::URL_SCHEME, self.scheme),
                KeyValue::new(semconv::URL_PATH, excerpt(head.uri.path()).into_owned()),
                KeyValue::new(semconv::CLIENT_ADDRESS, peer.address.ip().to_string()),
                KeyValue::new(semconv::REQUEST_ID, header_text(request_id)),
            ];
            if !route.is_unmatched() {
                attributes.push(KeyValue::new(semconv::HTTP_ROUTE, route.pattern));
            }
            if let Some(agent) = headers.get(header::USER_AGENT) {
                attributes.push(KeyValue::new(
                    semconv::USER_AGENT_ORIGINAL,
                    header_text(agent),
                ));
            }
            attributes.extend(server_address(head));
            span.set_attributes(attributes);
        }
        span
    }
}

/// Records the requested customer.
pub(super) fn record_customer(span: &TraceSpan, customer: CustomerId) {
    if span.is_recording() {
        span.set_attribute(semconv::CUSTOMER_ID, customer.to_string());
    }
}

/// Records the parameters of `Cache-Status` (RFC 9211 §2).
pub(super) fn record_cache_status(span: &TraceSpan, status: &CacheStatus) {
    let forward = status.forward.map(|forward| forward.as_str());
    let forward_status = status.forward_status.map(i64::from);
    let flag = |key, set: bool| set.then(|| KeyValue::new(key, true));
    let attributes = [
        forward.map(|why| KeyValue::new(semconv::CACHE_FORWARD, why)),
        forward_status.map(|status| KeyValue::new(semconv::CACHE_FORWARD_STATUS, status)),
        flag(semconv::CACHE_STORED, status.stored),
        flag(semconv::CACHE_COLLAPSED, status.collapsed),
        status.ttl.map(|ttl| KeyValue::new(semconv::CACHE_TTL, ttl)),
        status
            .detail
            .map(|detail| KeyValue::new(semconv::CACHE_DETAIL, detail)),
    ];
    span.set_attributes(attributes.into_iter().flatten());
}

/// Ends the span; only a status of 500 or more is an error.
pub(super) fn end_span(span: &TraceSpan, status: StatusCode, fields: LogFields, caller: &str) {
    if !span.is_recording() {
        return;
    }
    span.set_attribute(semconv::CALLER_NAME, caller.to_owned());
    if let Some(result) = fields.cache_result {
        span.set_attribute(semconv::CACHE_STATUS, result.as_str());
    }
    if let Some(date) = fields.processed_date {
        span.set_attribute(semconv::URL_QUERY, format!("processedDate={date}"));
    }
    if status.as_u16() == CLIENT_CLOSED_REQUEST {
        // No status was sent.
        span.set_attribute(semconv::ERROR_TYPE, "caller-went-away");
    } else {
        span.set_attribute(
            semconv::HTTP_RESPONSE_STATUS_CODE,
            i64::from(status.as_u16()),
        );
    }
    if status.is_server_error() {
        let problem = fields
            .problem
            .map_or(Cow::Owned(status.as_str().to_owned()), Cow::Borrowed);
        span.set_attribute(semconv::ERROR_TYPE, problem);
        span.set_error();
    }
    span.end();
}

/// Returns method and route, which have few values; never the path.
fn span_name(method: Option<&'static str>, route: Route) -> Cow<'static, str> {
    let method = method.unwrap_or("HTTP");
    if route.is_unmatched() {
        method.into()
    } else {
        format!("{method} {}", route.pattern).into()
    }
}

/// Returns the name of a registered method (RFC 9110, RFC 5789).
fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

/// Returns the requested host and port: those of the URI, which HTTP/2 sends, or else of `Host`.
fn server_address(head: &Parts) -> impl Iterator<Item = KeyValue> {
    let host = head.headers.get(header::HOST);
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    let address = authority
        .as_ref()
        .map(|authority| KeyValue::new(semconv::SERVER_ADDRESS, authority.host().to_owned()));
    let port = authority
        .as_ref()
        .and_then(Authority::port_u16)
        .map(|port| KeyValue::new(semconv::SERVER_PORT, i64::from(port)));
    address.into_iter().chain(port)
}

fn header_text(value: &HeaderValue) -> String {
    excerpt(&String::from_utf8_lossy(value.as_bytes())).into_owned()
}
