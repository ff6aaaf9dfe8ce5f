//! One logical call: its ids, its deadline, its retries, and its line in the log.

use std::time::{Duration, Instant};

use http::HeaderMap;
use jiff::Timestamp;
use uuid::Uuid;

use super::{error::UpstreamError, refusal::header};
use crate::{
    domain::{CustomerId, UpstreamApi},
    resilience::byte_budget::MemoryShare,
    service::source::{CallIds, CallTrace, SourceCall, SourceErrorKind},
};

/// A logical call, over all its pages and attempts.
#[derive(Debug)]
pub(super) struct LogicalCall {
    pub(super) call: SourceCall,
    pub(super) ids: CallIds,
    started: Instant,
    /// No attempt starts that could not end before.
    pub(super) deadline: Instant,
    /// The time for each page.
    page_time: Duration,
    /// The latest deadline of any page.
    max_deadline: Instant,
    /// The retries that remain, for all pages together: they count against Partner Center's limits.
    pub(super) retries_left: u32,
    /// The retries of transient errors so far. The backoff grows with them.
    pub(super) retries: u32,
    /// A 401 was followed by a fresh token already.
    pub(super) renewed: bool,
    /// The HTTP requests sent.
    pub(super) attempts: u32,
    /// The earlier requests for the current page.
    pub(super) resends: u32,
    /// The memory of its answers, decompressed.
    pub(super) memory: MemoryShare,
    last: LastRequest,
}

/// The longest time of a call over all its pages. No request waits for so long.
const MAX_CALL_TIME: Duration = Duration::from_secs(10 * 60);

/// The data that Microsoft support asks for, of the last request and its reply.
#[derive(Debug, Default)]
struct LastRequest {
    /// By our clock, in UTC.
    sent_at: Option<Timestamp>,
    /// As Partner Center returned it, else as it was sent. Each page has its own.
    request_id: Option<String>,
    /// As Partner Center returned it, else as it was sent.
    correlation_id: Option<String>,
    status: Option<u16>,
    cv: Option<String>,
    server_id: Option<String>,
    /// By Partner Center's clock.
    date: Option<String>,
}

// === impl LogicalCall ===

impl LogicalCall {
    pub(super) fn new(
        call: SourceCall,
        now: Instant,
        deadline: Duration,
        retries: u32,
        memory: MemoryShare,
    ) -> Self {
        let ids = CallIds {
            request_id: Uuid::new_v4(),
            correlation_id: call.trace.correlation_id.unwrap_or_else(Uuid::new_v4),
        };
        Self {
            ids,
            started: now,
            deadline: call.requested_at + deadline,
            page_time: deadline,
            max_deadline: call.requested_at + deadline.max(MAX_CALL_TIME),
            call,
            retries_left: retries,
            retries: 0,
            renewed: false,
            attempts: 0,
            resends: 0,
            memory,
            last: LastRequest {
                // It may be the caller's own, which traces a call that is not made too.
                correlation_id: Some(ids.correlation_id.to_string()),
                ..LastRequest::default()
            },
        }
    }

    /// Extends the deadline for the next page, as if it were a call of its own.
    pub(super) fn start_next_page(&mut self, now: Instant) {
        let page_deadline = (now + self.page_time).min(self.max_deadline);
        self.deadline = self.deadline.max(page_deadline);
    }

    pub(super) fn api(&self) -> UpstreamApi {
        self.call.resource.api()
    }

    pub(super) fn customer(&self) -> Option<CustomerId> {
        self.call.resource.customer()
    }

    pub(super) fn trace(&self) -> &CallTrace {
        &self.call.trace
    }

    fn trace_id(&self) -> Option<impl std::fmt::Display> {
        let span = self.call.trace.span.as_ref()?;
        Some(span.context().trace_id())
    }

    /// The status of the last reply; `None` where the last request has none.
    pub(super) fn last_status(&self) -> Option<u16> {
        self.last.status
    }

    /// The ids, once a request was sent with them.
    pub(super) fn sent_ids(&self) -> Option<CallIds> {
        (self.attempts > 0).then_some(self.ids)
    }

    /// Records a request that is about to be sent.
    pub(super) fn record_request(&mut self, request_id: Uuid, at: Timestamp) {
        self.attempts += 1;
        self.last = LastRequest {
            sent_at: Some(at),
            request_id: Some(request_id.to_string()),
            correlation_id: Some(self.ids.correlation_id.to_string()),
            ..LastRequest::default()
        };
    }

    /// Records the reply to it.
    pub(super) fn record_reply(&mut self, status: u16, headers: &HeaderMap) {
        let sent = std::mem::take(&mut self.last);
        self.last = LastRequest {
            sent_at: sent.sent_at,
            request_id: header(headers, "ms-requestid").or(sent.request_id),
            correlation_id: header(headers, "ms-correlationid").or(sent.correlation_id),
            status: Some(status),
            cv: header(headers, "ms-cv"),
            server_id: header(headers, "ms-serverid"),
            date: header(headers, "date"),
        };
    }

    /// Logs the outcome, with all that Microsoft support asks for of the last request. An `alarm` is for
    /// a person to act on.
    pub(super) fn log(
        &self,
        now: Instant,
        outcome: Result<(), (SourceErrorKind, &UpstreamError)>,
        alarm: bool,
    ) {
        macro_rules! event {
            (@ $level:ident, $message:literal, $outcome:expr $(, $($more:tt)+)?) => {
                tracing::$level!(
                    api = self.api().as_str(),
                    customer.id = self.customer().map(tracing::field::display),
                    outcome = $outcome,
                    status = self.last.status,
                    attempts = self.attempts,
                    duration_seconds = now.saturating_duration_since(self.started).as_secs_f64(),
                    sent_at = self.last.sent_at.map(tracing::field::display),
                    ms.request_id = self.last.request_id,
                    ms.correlation_id = self.last.correlation_id,
                    ms.cv = self.last.cv,
                    ms.server_id = self.last.server_id,
                    ms.date = self.last.date,
                    trace_id = self.trace_id().map(tracing::field::display),
                    $($($more)+,)?
                    $message
                )
            };
            ($level:ident, $outcome:expr $(, $($more:tt)+)?) => {
                if self.attempts > 0 {
                    event!(@ $level, "upstream call", $outcome $(, $($more)+)?)
                } else {
                    event!(@ $level, "upstream call not made", $outcome $(, $($more)+)?)
                }
            };
        }
        match outcome {
            Ok(()) => event!(info, "success"),
            Err((kind, error)) if alarm => {
                event!(error, kind.as_str(), error = %error, cause = error.cause());
            }
            // An answer like any other. A backfill meets many.
            Err((kind @ SourceErrorKind::NothingProcessed, error)) => {
                event!(info, kind.as_str(), error = %error);
            }
            Err((kind, error)) => {
                event!(warn, kind.as_str(), error = %error, cause = error.cause());
            }
        }
    }
}
