//! The port to where usage and customers come from, and everything that can go wrong there.
//!
//! It knows neither status codes nor our own problem documents: those are the business of
//! `upstream` on the one side and `api` on the other.

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
    resilience::memory_pool::MemoryShare,
};

/// Where the license usage of customers comes from, and who they are.
pub trait UsageSource: fmt::Debug + Send + Sync + 'static {
    /// Makes one logical call: retries, paging and tokens are the source's own business.
    ///
    /// # Errors
    ///
    /// A [`SourceError`] says what went wrong and what may come of asking again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call and leaves nothing behind.
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_>;
}

/// What [`UsageSource::fetch`] returns.
pub type FetchFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SourceAnswer, SourceError>> + Send + 'a>>;

/// One logical call.
#[derive(Clone, Debug)]
pub struct SourceCall {
    /// The data to ask for.
    pub resource: Resource,
    /// What the caller brought to trace the call by.
    pub trace: CallTrace,
    /// When it was asked for: its deadline counts from then, waiting for its turn included.
    pub requested_at: Instant,
}

/// What a caller brought to trace an upstream call by.
#[derive(Clone, Debug, Default)]
pub struct CallTrace {
    /// The caller's own correlation id, passed on as `MS-CorrelationId`; a new one is made where
    /// there is none.
    pub correlation_id: Option<Uuid>,
    /// W3C `traceparent`, passed on as it is where nothing is traced.
    pub traceparent: Option<HeaderValue>,
    /// The span that the call is part of; `None` where nothing is traced.
    pub span: Option<Arc<TraceSpan>>,
}

/// The answer to a call.
#[derive(Debug)]
pub struct SourceAnswer {
    /// What was told.
    pub content: AnswerContent,
    /// What Microsoft support would ask for.
    pub call_ids: CallIds,
    /// Counts what was told among what all answers take, for as long as it is worked on.
    pub memory: Option<MemoryShare>,
}

/// What a call tells.
#[derive(Clone, Debug)]
pub enum AnswerContent {
    /// One customer's usage.
    Usage {
        /// As we know it.
        usage: LicenseUsage,
        /// The body, byte for byte, where the call is the one whose form clients know (insights).
        native: Option<Bytes>,
    },
    /// The partner's customers.
    Customers(CustomerList),
    /// A document that is handed out as it came.
    Document {
        /// What is known of it.
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

/// A call that brought no usage.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct SourceError {
    /// What it means to whoever asked.
    pub kind: SourceErrorKind,
    /// One sentence for people; no secret, no address of ours.
    pub detail: Arc<str>,
    /// HTTP status of the last answer; `None` where there was none.
    pub status: Option<u16>,
    /// How the upstream put it, where it refused.
    pub upstream_error: Option<Arc<UpstreamErrorBody>>,
    /// The ids of the call; `None` where nothing was sent.
    pub call_ids: Option<CallIds>,
}

/// What a failed call means: a variant for each situation that someone could act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceErrorKind {
    /// Partner Center knows no such customer.
    UnknownCustomer,
    /// The partner has no relationship with the customer.
    NoRelationship,
    /// The customer is known, but nothing was processed on the date asked for.
    NothingProcessed,
    /// The upstream wants fewer calls; nothing should be sent before this has passed.
    Throttled {
        /// Counted from when the error was made.
        retry_after: Duration,
    },
    /// The upstream has failed one call after the other, so this one was not made; it would be made
    /// after this has passed.
    CircuitOpen {
        /// Counted from when the error was made.
        retry_after: Duration,
    },
    /// A passing fault that outlasted the retries; the upstream may have said for how long.
    Unavailable {
        /// Counted from when the error was made.
        retry_after: Option<Duration>,
    },
    /// No answer within the call's deadline.
    TimedOut,
    /// Our credentials were refused: a person must act, and `detail` says how.
    CredentialsRejected,
    /// The upstream called our request wrong, or refused it in a way we do not know.
    Rejected,
    /// The answer is not what the upstream's schema promises.
    Malformed,
    /// The answer is older than one before, and the newer data cannot be had.
    Suspect,
    /// No call was made: more wait for one than can be made in time.
    Overloaded {
        /// Counted from when the error was made.
        retry_after: Duration,
    },
    /// No call was made: the caller has caused as many for given dates as it may.
    RateLimited {
        /// Counted from when the error was made.
        retry_after: Duration,
    },
    /// The call ended without a result: its task panicked, or the process is ending.
    Interrupted,
}

impl AnswerContent {
    /// The newest date of what is told; `None` where it has none.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        match self {
            Self::Usage {
                usage: snapshot, ..
            } => snapshot.processed_date(),
            Self::Customers(_) => None,
            Self::Document {
                summary: outline, ..
            } => outline.processed_date(),
        }
    }
}

impl SourceErrorKind {
    /// Stable name for logs, metric labels and `Cache-Status` details.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownCustomer => "unknown-customer",
            Self::NoRelationship => "no-relationship",
            Self::NothingProcessed => "nothing-processed",
            Self::Throttled { .. } => "throttled",
            Self::CircuitOpen { .. } => "circuit-open",
            Self::Unavailable { .. } => "unavailable",
            Self::TimedOut => "timed-out",
            Self::CredentialsRejected => "credentials-refused",
            Self::Rejected => "rejected",
            Self::Malformed => "malformed",
            Self::Suspect => "suspect",
            Self::Overloaded { .. } => "overloaded",
            Self::RateLimited { .. } => "rate-limited",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the upstream settled the question: asking again soon would bring the same, and data
    /// held from before must not be served in its place.
    pub const fn is_authoritative(self) -> bool {
        self.absence().is_some()
    }

    /// The absence that upstream reports, if it settled the question so.
    pub const fn absence(self) -> Option<AbsenceKind> {
        match self {
            Self::UnknownCustomer | Self::NoRelationship => Some(AbsenceKind::Customer),
            Self::NothingProcessed => Some(AbsenceKind::Date),
            Self::Throttled { .. }
            | Self::CircuitOpen { .. }
            | Self::Unavailable { .. }
            | Self::TimedOut
            | Self::CredentialsRejected
            | Self::Rejected
            | Self::Malformed
            | Self::Suspect
            | Self::Overloaded { .. }
            | Self::RateLimited { .. }
            | Self::Interrupted => None,
        }
    }
}

impl fmt::Display for SourceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An upstream's refusal in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamErrorBody {
    /// HTTP status.
    pub status: u16,
    /// The upstream's own code, such as `900421`; numbers as text.
    pub code: Option<String>,
    /// The upstream's own sentence, cut to a readable length.
    pub description: Option<String>,
    /// `MS-RequestId` of the refusal.
    pub request_id: Option<String>,
    /// `MS-CorrelationId` of the refusal.
    pub correlation_id: Option<String>,
}
