//! The table from errors of the service to problems.

use http::StatusCode;

use crate::{
    clock::retry_after_seconds,
    problem::{Problem, ProblemKind, UpstreamRefusal},
    service::{
        ErrorKind, HistoryError, HistoryReader, UsageService,
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

/// Returns the problem of history that cannot be answered.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn from_history_error(error: &HistoryError) -> Problem {
    match error {
        HistoryError::NotAllowed => not_allowed("this caller may not read this customer's usage"),
        HistoryError::NoStore => Problem::new(
            ProblemKind::NoStore,
            "the service keeps no history; store.url names the store to keep it in",
        ),
        HistoryError::NothingStored => Problem::new(
            ProblemKind::NotStored,
            "nothing of this customer is stored, so there are no dates to compare",
        ),
        HistoryError::NotStored {
            date,
            before,
            after,
        } => {
            let nearest: Vec<_> = [before, after].into_iter().flatten().collect();
            let nearest = match nearest[..] {
                [date] => format!("the nearest stored date is {date}"),
                [before, after] => format!("the nearest stored dates are {before} and {after}"),
                _ => "no date is stored".to_owned(),
            };
            let detail = format!("{date} is not stored; {nearest}");
            Problem::new(ProblemKind::NotStored, detail)
        }
        HistoryError::NothingEarlier { to, oldest } => {
            let days = UsageService::COMPARED_DAYS;
            let detail = format!(
                "no date at least {days} days before {to} is stored, the oldest is {oldest}; name a \
                 stored date by from"
            );
            Problem::new(ProblemKind::NotStored, detail)
        }
        HistoryError::TooManyRows => Problem::new(
            ProblemKind::InvalidParameter,
            format!(
                "the answer would have more than {} rows; shorten the range by from and to, name a \
                 product or workload, or read pages by limit and cursor",
                HistoryReader::MAX_ROWS
            ),
        ),
        // The store reports its failures itself.
        HistoryError::Store(_) => {
            let detail = "the store of history does not answer; try again in a moment";
            Problem::new(ProblemKind::StoreUnavailable, detail).with_retry_after(1)
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn history_of_a_store_that_fails_is_worth_another_attempt() {
        let problem = from_history_error(&StoreError::Unavailable.into());

        assert_eq!(problem.kind(), ProblemKind::StoreUnavailable);
        assert_eq!(problem.retry_after(), Some(1));
    }

    #[test]
    fn history_with_too_many_rows_says_how_to_get_fewer() {
        let problem = from_history_error(&HistoryError::TooManyRows);

        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        for word in [
            "100000", "from", "to", "product", "workload", "limit", "cursor",
        ] {
            assert!(problem.detail().contains(word), "{}", problem.detail());
        }
    }
}
