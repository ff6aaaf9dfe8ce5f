//! The one table from what went wrong to what a caller is told (`design.md`, Errors).

use http::StatusCode;

use crate::{
    cache::Failure,
    clock::whole_seconds_up,
    problem::{Problem, UpstreamRefusal},
    usage::{
        Cause,
        source::{Refusal, SourceError, SourceErrorKind},
    },
};

/// Whose upstream call went wrong: its ids are told to the caller that made it and to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// This request's.
    Own,
    /// One that this request joined, or that is remembered.
    Shared,
}

/// Being throttled upstream is our 503, not our caller's 429.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn of(cause: &Cause, call: Call) -> Problem {
    let (failure, retry_after) = match cause {
        Cause::NotAllowed => {
            return Problem::new(
                StatusCode::FORBIDDEN,
                "not-allowed",
                "Not allowed",
                "this caller may not read this customer's usage",
            );
        }
        Cause::NotHeld => {
            return Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "not-held",
                "Nothing held",
                "only-if-cached was asked for, and nothing that may be served is held",
            );
        }
        Cause::Source {
            failure,
            retry_after,
        } => (failure, whole_seconds_up(*retry_after)),
    };
    let (status, title) = match failure.error.kind {
        SourceErrorKind::UnknownCustomer => (StatusCode::NOT_FOUND, "Unknown customer"),
        SourceErrorKind::NoRelationship => {
            (StatusCode::FORBIDDEN, "No relationship with this customer")
        }
        SourceErrorKind::NothingProcessed => {
            (StatusCode::NOT_FOUND, "Nothing was processed on that date")
        }
        SourceErrorKind::Throttled { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Partner Center throttles")
        }
        SourceErrorKind::CircuitOpen { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Partner Center fails, and is not asked for a moment",
        ),
        SourceErrorKind::Unavailable { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Partner Center is unavailable",
        ),
        SourceErrorKind::Overloaded { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many requests wait for Partner Center",
        ),
        SourceErrorKind::Interrupted => {
            (StatusCode::SERVICE_UNAVAILABLE, "The call was interrupted")
        }
        SourceErrorKind::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "Partner Center did not answer in time",
        ),
        SourceErrorKind::CredentialsRefused => (
            StatusCode::BAD_GATEWAY,
            "Partner Center refuses our credentials",
        ),
        SourceErrorKind::Rejected => (
            StatusCode::BAD_GATEWAY,
            "Partner Center refused our request",
        ),
        SourceErrorKind::Malformed => (
            StatusCode::BAD_GATEWAY,
            "Partner Center answered with something else than usage",
        ),
    };
    let problem = Problem::new(status, failure.error.kind.as_str(), title, detail(failure))
        .with_upstream(
            failure
                .error
                .refusal
                .as_deref()
                .map(|refusal| in_its_words(refusal, call)),
        );
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            problem.with_retry_after(retry_after)
        }
        _ => problem,
    }
}

fn detail(failure: &Failure<SourceError>) -> String {
    failure.error.detail.to_string()
}

fn in_its_words(refusal: &Refusal, call: Call) -> UpstreamRefusal {
    let id = |id: &Option<String>| id.clone().filter(|_| call == Call::Own);
    UpstreamRefusal {
        status: refusal.status,
        code: refusal.code.clone(),
        description: refusal.description.clone(),
        request_id: id(&refusal.request_id),
        correlation_id: id(&refusal.correlation_id),
    }
}
