//! The interface to the source of usage and customers, and its errors.
//!
//! It knows neither status codes nor problem documents: `partner_center` maps the former, `api` the
//! latter.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use uuid::Uuid;

use crate::{
    cache::AbsenceKind,
    domain::{CustomerList, DocumentSummary, LicenseUsage, ProcessedDate, Resource},
    observability::traces::TraceSpan,
    resilience::byte_budget::MemoryShare,
};

/// The source of customers and their license usage.
pub trait UsageSource: fmt::Debug + Send + Sync + 'static {
    /// Makes one logical call. The source handles retries, paging and tokens.
    ///
    /// # Errors
    ///
    /// [`SourceError`]: the reason, and whether asking again may help.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call and leaves nothing behind.
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_>;

    /// Sets the gauges that change with time alone. It is called before a scrape.
    fn update_gauges(&self) {}
}

/// The future that [`UsageSource::fetch`] returns.
pub type FetchFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SourceAnswer, SourceError>> + Send + 'a>>;

/// One logical call.
#[derive(Clone, Debug)]
pub struct SourceCall {
    /// The data to ask for.
    pub resource: Resource,
    /// Trace data of the caller.
    pub trace: CallTrace,
    /// The time of the request. The deadline counts from it, so it includes the wait for a permit.
    pub requested_at: Instant,
}

/// Trace data of a caller, for an upstream call.
#[derive(Clone, Debug, Default)]
pub struct CallTrace {
    /// The caller's correlation id, sent as `MS-CorrelationId`. Without one, a new id is made.
    pub correlation_id: Option<Uuid>,
    /// W3C `traceparent`, sent unchanged where nothing is traced.
    pub traceparent: Option<HeaderValue>,
    /// The span that the call is part of; `None` where nothing is traced.
    pub span: Option<Arc<TraceSpan>>,
}

/// The answer to a call.
#[derive(Debug)]
pub struct SourceAnswer {
    /// The data.
    pub content: AnswerContent,
    /// The ids that Microsoft support asks for.
    pub call_ids: CallIds,
    /// Reserves memory for the answer while it is processed.
    pub memory: Option<MemoryShare>,
}

/// The data in an answer.
#[derive(Clone, Debug)]
pub enum AnswerContent {
    /// One customer's usage.
    Usage {
        /// The parsed rows.
        usage: LicenseUsage,
        /// The body, byte for byte, where the call is the one whose form clients know (insights).
        native: Option<Bytes>,
    },
    /// The usage of every customer that has rows, in the order of their ids.
    Fleet(Vec<LicenseUsage>),
    /// The newest processed date of any customer; `None` if there are no rows at all.
    FleetDate(Option<ProcessedDate>),
    /// The partner's customers.
    Customers(CustomerList),
    /// A document that is served unchanged.
    Document {
        /// The parts that are compared with the next answer.
        summary: DocumentSummary,
        /// The body, byte for byte.
        body: Bytes,
    },
}

/// The ids of one logical upstream call, as sent and as Partner Center returned them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallIds {
    /// `MS-RequestId`: one per logical call, kept over its retries.
    pub request_id: Uuid,
    /// `MS-CorrelationId`.
    pub correlation_id: Uuid,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct SourceError {
    /// The meaning for the caller.
    pub kind: SourceErrorKind,
    /// One sentence for people; no secret, no address of ours.
    pub detail: Arc<str>,
    /// The time until another call may succeed, where that is known. Counted from when the error was
    /// made.
    pub retry_after: Option<Duration>,
    /// HTTP status of the last reply; `None` where there was none.
    pub status: Option<u16>,
    /// The upstream's own error, where it rejected the call.
    pub upstream_error: Option<Arc<UpstreamErrorBody>>,
    /// The ids of the call; `None` where nothing was sent.
    pub call_ids: Option<CallIds>,
}

/// The meaning of a failed call. Each variant is a situation that someone can act on.
///
/// A new variant needs a problem in `api/problem` and a place that returns it, such as the ladder of
/// `partner_center/error`. The name is that in logs, traces and `Cache-Status` details.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::IntoStaticStr,
)]
#[strum(serialize_all = "kebab-case")]
pub enum SourceErrorKind {
    /// Partner Center knows no such customer.
    UnknownCustomer,
    /// The partner has no relationship with the customer.
    NoRelationship,
    /// The customer is known, but nothing was processed on the date asked for.
    NothingProcessed,
    /// Partner Center wants no call before `retry_after`.
    Throttled,
    /// The circuit breaker is open, so the call was not made. It would be made after `retry_after`.
    CircuitOpen,
    /// A transient error that outlasted the retries. The upstream may have sent `Retry-After`.
    Unavailable,
    /// No answer within the call's deadline.
    TimedOut,
    /// Our credentials were rejected. A person must act; `detail` says how.
    #[strum(serialize = "credentials-refused")]
    CredentialsRejected,
    /// The upstream rejected our request, for a reason that we do not know.
    Rejected,
    /// The answer does not match the upstream's schema.
    Malformed,
    /// The answer is older than an earlier one, and the newer data cannot be fetched.
    Suspect,
    /// No call was made: too many calls wait already.
    Overloaded,
    /// No call was made: the caller has used up its calls for given dates.
    RateLimited,
    /// The call ended without a result: its task panicked, or the process is shutting down.
    Interrupted,
}

impl AnswerContent {
    /// The newest processed date in the data, if any.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        match self {
            Self::Usage { usage, .. } => usage.processed_date(),
            Self::Fleet(usages) => LicenseUsage::newest_date(usages),
            Self::FleetDate(date) => *date,
            Self::Customers(_) => None,
            Self::Document { summary, .. } => summary.processed_date(),
        }
    }
}

impl SourceError {
    /// An error of a call that was not made, or that brought no reply.
    pub fn without_reply(kind: SourceErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            retry_after: None,
            status: None,
            upstream_error: None,
            call_ids: None,
        }
    }
}

impl SourceErrorKind {
    /// The stable name in logs, traces and `Cache-Status` details.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the kind of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }

    /// Returns whether the error is a valid answer: another call would return the same, and cached
    /// data must not be served in its place.
    pub const fn is_authoritative(self) -> bool {
        self.absence().is_some()
    }

    /// The absence that upstream reports, if this is one.
    pub const fn absence(self) -> Option<AbsenceKind> {
        match self {
            Self::UnknownCustomer | Self::NoRelationship => Some(AbsenceKind::Customer),
            Self::NothingProcessed => Some(AbsenceKind::Date),
            _ => None,
        }
    }
}

/// The body of an upstream error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamErrorBody {
    /// HTTP status.
    pub status: u16,
    /// The upstream's own code, such as `900421`; numbers as text.
    pub code: Option<String>,
    /// The upstream's own sentence, shortened.
    pub description: Option<String>,
    /// `MS-RequestId` of the reply.
    pub request_id: Option<String>,
    /// `MS-CorrelationId` of the reply.
    pub correlation_id: Option<String>,
}
