//! The table from errors of the service to problems.

use http::StatusCode;

use crate::{
    clock::retry_after_seconds,
    problem::{Problem, ProblemKind, UpstreamRefusal},
    service::{
        ErrorKind,
        source::{SourceErrorKind, UpstreamErrorBody},
    },
};

/// The owner of a failed upstream call. Only the caller that made it gets its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOwnership {
    /// Made by this request.
    Own,
    /// Joined by this request, or remembered.
    Shared,
}

/// Returns the problem of a failed answer. Throttling by Partner Center is our 503, not the caller's 429.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn from_cause(cause: &ErrorKind, call: CallOwnership) -> Problem {
    let (failure, retry_after) = match cause {
        ErrorKind::NotAllowed => {
            return not_allowed("this caller may not read this customer's usage");
        }
        ErrorKind::NotCached => {
            return Problem::new(
                ProblemKind::NotCached,
                "the request has only-if-cached, and nothing that may be served is cached",
            );
        }
        ErrorKind::Source {
            failure,
            retry_after,
        } => (failure, retry_after_seconds(*retry_after)),
    };
    let kind = match failure.error.kind {
        SourceErrorKind::UnknownCustomer => ProblemKind::UnknownCustomer,
        SourceErrorKind::NoRelationship => ProblemKind::NoRelationship,
        SourceErrorKind::NothingProcessed => ProblemKind::NothingProcessed,
        SourceErrorKind::Throttled => ProblemKind::Throttled,
        SourceErrorKind::CircuitOpen => ProblemKind::CircuitOpen,
        SourceErrorKind::Unavailable => ProblemKind::Unavailable,
        SourceErrorKind::Overloaded => ProblemKind::Overloaded,
        SourceErrorKind::RateLimited => ProblemKind::RateLimited,
        SourceErrorKind::Interrupted => ProblemKind::Interrupted,
        SourceErrorKind::TimedOut => ProblemKind::TimedOut,
        SourceErrorKind::CredentialsRejected => ProblemKind::CredentialsRefused,
        SourceErrorKind::Rejected => ProblemKind::Rejected,
        SourceErrorKind::Malformed => ProblemKind::Malformed,
        SourceErrorKind::Suspect => ProblemKind::Suspect,
    };
    let problem = Problem::new(kind, failure.error.detail.to_string()).with_upstream(
        failure
            .error
            .upstream_error
            .as_deref()
            .map(|refusal| upstream_refusal(refusal, call)),
    );
    match kind.status() {
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => problem.with_retry_after(retry_after),
        _ => problem,
    }
}

/// Returns the problem of a caller without the right to read something.
pub(super) fn not_allowed(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::NotAllowed, detail)
}

fn upstream_refusal(refusal: &UpstreamErrorBody, call: CallOwnership) -> UpstreamRefusal {
    let id = |id: &Option<String>| id.clone().filter(|_| call == CallOwnership::Own);
    UpstreamRefusal {
        status: refusal.status,
        code: refusal.code.clone(),
        description: refusal.description.clone(),
        request_id: id(&refusal.request_id),
        correlation_id: id(&refusal.correlation_id),
    }
}
