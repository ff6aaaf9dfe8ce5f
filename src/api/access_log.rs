//! Metrics, span and log line of each request, also of one whose client disconnected.

use std::time::Duration;

use http::StatusCode;

use super::{
    context::RequestContext,
    metrics::InFlightGuard,
    response::{ApiResponse, CLIENT_CLOSED_REQUEST, LogFields},
    spans::{self, SpanParent},
};
use crate::{
    cache::CacheResult, config::RequestLog, observability::telemetry::REQUEST_TARGET, text::excerpt,
};

/// A request in progress. If it is dropped before completion, its client disconnected: it is recorded
/// with status 499, as in nginx.
pub(super) struct RequestGuard {
    context: RequestContext,
    is_completed: bool,
    _in_flight: InFlightGuard,
}

/// Requests that take this long are logged even if only problems are.
const SLOW_REQUEST: Duration = Duration::from_secs(1);

// === impl RequestGuard ===

impl RequestGuard {
    pub(super) fn new(context: RequestContext) -> Self {
        Self {
            _in_flight: context.api.metrics.start_request(),
            context,
            is_completed: false,
        }
    }

    /// Records a request that was answered.
    pub(super) fn complete(mut self, response: &ApiResponse) {
        self.context.start_span(SpanParent::NewTrace);
        if let Some(span) = self.context.span() {
            spans::record_cache_status(span, &response.cache_status);
        }
        self.record(response.status(), response.log_fields);
    }

    fn record(&mut self, status: StatusCode, fields: LogFields) {
        self.is_completed = true;
        let context = &self.context;
        // A duration needs a second reading of the clock; everything else uses the first.
        let now = context.api.clock.now();
        let duration = now.saturating_duration_since(context.received_at);
        let cache_result = fields.cache_result;
        context.api.metrics.record_request(
            context.route,
            context.method(),
            status,
            cache_result,
            duration,
        );
        context.start_span(SpanParent::NewTrace);
        if let Some(span) = context.span() {
            spans::end_span(span, status, fields, context.caller_name());
        }
        if should_log(context.api.request_log, status, duration) {
            log(context, status, fields, duration);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if !self.is_completed
            && let Ok(status) = StatusCode::from_u16(CLIENT_CLOSED_REQUEST)
        {
            self.record(status, LogFields::default());
        }
    }
}

fn should_log(request_log: RequestLog, status: StatusCode, duration: Duration) -> bool {
    match request_log {
        RequestLog::All => true,
        RequestLog::Problems => {
            status.is_client_error() || status.is_server_error() || duration >= SLOW_REQUEST
        }
        RequestLog::Off => false,
    }
}

/// Writes one line. Of what was sent it contains the path, which names the customer, and the date, and
/// no more: the rest of a query or a header may be private.
fn log(context: &RequestContext, status: StatusCode, fields: LogFields, duration: Duration) {
    let trace_id = context.span().map(|span| span.context().trace_id());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: REQUEST_TARGET,
                method = context.method().as_str(),
                route = context.route.pattern,
                path = &*excerpt(context.path()),
                processed_date = fields.processed_date.map(tracing::field::display),
                status = status.as_u16(),
                cache = fields.cache_result.map_or("none", CacheResult::as_str),
                problem = fields.problem,
                duration_seconds = truncate_to_microseconds(duration).as_secs_f64(),
                request_id = context.request_id_text(),
                caller = context.caller_name(),
                peer = %context.peer.address.ip(),
                ms.request_id = fields.upstream_request_id.map(tracing::field::display),
                trace_id = trace_id.map(tracing::field::display),
                "request"
            )
        };
    }
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        line!(error);
    } else if status.is_server_error() {
        line!(warn);
    } else {
        line!(info);
    }
}

fn truncate_to_microseconds(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
