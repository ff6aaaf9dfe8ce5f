//! The one table from what went wrong to what a caller is told (`design.md`, Errors).

use http::StatusCode;

use crate::{
    cache::CachedFailure,
    clock::retry_after_seconds,
    problem::{Problem, ProblemKind, UpstreamRefusal},
    service::{
        ErrorKind,
        source::{SourceError, SourceErrorKind, UpstreamErrorBody},
    },
};

/// Whose upstream call went wrong: its ids are told to the caller that made it and to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOwnership {
    /// This request's.
    Own,
    /// One that this request joined, or that is remembered.
    Shared,
}

/// Being throttled upstream is our 503, not our caller's 429.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn from_cause(cause: &ErrorKind, call: CallOwnership) -> Problem {
    let (failure, retry_after) = match cause {
        ErrorKind::NotAllowed => {
            return not_allowed("this caller may not read this customer's usage");
        }
        ErrorKind::NotCached => {
            return Problem::new(
                ProblemKind::NotCached,
                "only-if-cached was asked for, and nothing that may be served is held",
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
    let problem = Problem::new(kind, detail(failure)).with_upstream(
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

/// The caller has no right to what it asks for.
pub(super) fn not_allowed(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::NotAllowed, detail)
}

fn detail(failure: &CachedFailure<SourceError>) -> String {
    failure.error.detail.to_string()
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
