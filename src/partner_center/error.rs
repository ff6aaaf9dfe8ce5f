//! Errors of a call to Partner Center.
//!
//! [`UpstreamError::outcome`] is the ladder: the metric label of each error, its meaning for the
//! service, and whether a retry may help.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    metrics::{ErrorClass, RetryReason, StatusClass},
    refusal::RefusalMeaning,
    token::{TokenError, TokenErrorReason},
    wire::MalformedResponse,
};
use crate::{
    http_client::ExchangeError,
    service::source::{CallIds, SourceError, SourceErrorKind, UpstreamErrorBody},
};

/// A call that returned no data. It prints the sentence for callers. What only a log may say, such as
/// an address, is [`UpstreamError::cause`].
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("the connection to Partner Center failed")]
    Connection {
        /// For the log.
        cause: String,
    },
    /// One attempt took too long.
    #[error("Partner Center did not answer in time")]
    AttemptTimedOut,
    /// The call waited for a token until its deadline.
    #[error("the call waited until its deadline and was not sent")]
    DeadlinePassed,
    #[error("Partner Center throttles this call")]
    Throttled {
        /// The time of the next request.
        until: Instant,
        /// `None` where an earlier call was refused.
        refusal: Option<Arc<UpstreamErrorBody>>,
    },
    #[error("Partner Center has failed several calls in a row, so it is not asked for a moment")]
    CircuitOpen {
        /// The time of the next request.
        until: Instant,
    },
    /// A status other than 200 and 429.
    #[error("{}", RefusalMeaning::of(.refusal).advice)]
    Refused {
        refusal: Arc<UpstreamErrorBody>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The access token was refused and has been replaced, but no retry is left.
    #[error("Partner Center refused an access token that has been replaced since: ask again")]
    TokenReplaced,
    /// A 200 that does not match the schema.
    #[error("Partner Center's answer is not what its schema promises: {0}")]
    Malformed(#[from] MalformedResponse),
    /// A 200 whose body was not read, since other answers take all memory for answers.
    #[error(
        "other answers of Partner Center take all the memory that answers may take: ask again in a \
         moment, or raise upstream.max_body"
    )]
    OutOfMemory,
    /// A valid answer that is not for the date asked for.
    #[error("{0}")]
    NothingProcessed(String),
    #[error("{0}")]
    Token(#[from] TokenError),
}

// === impl UpstreamError ===

impl UpstreamError {
    /// Returns the metric label, the meaning for the service, and why the request may be sent again
    /// after a pause: `None` if that would not help.
    fn outcome(&self) -> (ErrorClass, SourceErrorKind, Option<RetryReason>) {
        use ErrorClass as Class;
        use SourceErrorKind as Kind;

        match self {
            Self::Connection { .. } => {
                let reason = Some(RetryReason::Connection);
                (Class::Connection, Kind::Unavailable, reason)
            }
            Self::AttemptTimedOut => (Class::Timeout, Kind::TimedOut, Some(RetryReason::Timeout)),
            Self::Throttled { .. } => {
                let reason = Some(RetryReason::Throttled);
                (Class::Throttled, Kind::Throttled, reason)
            }
            Self::Refused { refusal, .. } => {
                let meaning = RefusalMeaning::of(refusal);
                let reason = meaning.is_transient.then_some(RetryReason::Status);
                (meaning.class, meaning.kind, reason)
            }
            Self::DeadlinePassed => (Class::Deadline, Kind::TimedOut, None),
            Self::CircuitOpen { .. } => (Class::CircuitOpen, Kind::CircuitOpen, None),
            Self::TokenReplaced => (Class::Unauthorized, Kind::Unavailable, None),
            Self::Malformed(malformed) if malformed.is_of_other_customer => {
                (Class::OtherCustomer, Kind::Malformed, None)
            }
            Self::Malformed(_) => (Class::Malformed, Kind::Malformed, None),
            Self::OutOfMemory => (Class::OutOfMemory, Kind::Unavailable, None),
            Self::NothingProcessed(_) => (Class::NothingProcessed, Kind::NothingProcessed, None),
            Self::Token(error) => match error.reason {
                TokenErrorReason::Unavailable { .. } => {
                    (Class::TokenUnavailable, Kind::Unavailable, None)
                }
                TokenErrorReason::Refused => (Class::TokenRefused, Kind::CredentialsRejected, None),
                TokenErrorReason::TimedOut => (Class::Deadline, Kind::TimedOut, None),
                TokenErrorReason::Interrupted => (Class::Interrupted, Kind::Interrupted, None),
            },
        }
    }

    /// Returns the metric label.
    pub(super) fn class(&self) -> ErrorClass {
        self.outcome().0
    }

    /// Returns why the request may be sent again after a pause; `None` if that would not help.
    pub(super) fn retry_reason(&self) -> Option<RetryReason> {
        self.outcome().2
    }

    /// Returns the meaning of a refusal, if this is one.
    pub(super) fn meaning(&self) -> Option<RefusalMeaning> {
        match self {
            Self::Refused { refusal, .. } => Some(RefusalMeaning::of(refusal)),
            _ => None,
        }
    }

    /// Returns the metric labels of the request that ended so: a success that is of no use, unless it
    /// was refused.
    pub(super) fn status_and_code(&self) -> (StatusClass, Option<&str>) {
        match self.refusal() {
            Some(refusal) => (StatusClass::of(refusal.status), refusal.code.as_deref()),
            None => (StatusClass::Success, None),
        }
    }

    fn refusal(&self) -> Option<&Arc<UpstreamErrorBody>> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Throttled { refusal, .. } => refusal.as_ref(),
            _ => None,
        }
    }

    /// Returns what only a log may say.
    pub(super) fn cause(&self) -> Option<&str> {
        match self {
            Self::Connection { cause } => Some(cause),
            Self::Refused { refusal, .. } => refusal.description.as_deref(),
            _ => None,
        }
    }

    /// Returns the error for the service. `status` is that of the last reply; `call_ids` is `None`
    /// where nothing was sent.
    pub(super) fn to_source(
        &self,
        now: Instant,
        status: Option<u16>,
        call_ids: Option<CallIds>,
    ) -> SourceError {
        let (_, kind, _) = self.outcome();
        let retry_after = match self {
            Self::Throttled { until, .. } | Self::CircuitOpen { until } => {
                Some(until.saturating_duration_since(now))
            }
            Self::Refused { retry_after, .. } if kind == SourceErrorKind::Unavailable => {
                *retry_after
            }
            Self::Token(TokenError {
                reason: TokenErrorReason::Unavailable { retry_at },
                ..
            }) => Some(
                retry_at
                    .saturating_duration_since(now)
                    .max(Duration::from_secs(1)),
            ),
            _ => None,
        };
        SourceError {
            kind,
            detail: self.to_string().into(),
            retry_after,
            status,
            upstream_error: self.refusal().cloned(),
            call_ids,
        }
    }
}

impl From<ExchangeError> for UpstreamError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TimedOut => Self::AttemptTimedOut,
            ExchangeError::Connection(cause) => Self::Connection { cause },
            ExchangeError::Undecodable(cause) => Self::Malformed(MalformedResponse::new(format!(
                "the body cannot be decompressed: {cause}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn refused(status: u16, code: Option<&str>) -> UpstreamError {
        UpstreamError::Refused {
            refusal: Arc::new(UpstreamErrorBody {
                status,
                code: code.map(str::to_owned),
                description: None,
                request_id: None,
                correlation_id: None,
            }),
            retry_after: None,
        }
    }

    #[test]
    fn only_transient_statuses_are_retried() {
        for status in [408, 500, 502, 503, 504] {
            assert!(refused(status, None).retry_reason().is_some(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 422, 501, 505] {
            assert!(refused(status, None).retry_reason().is_none(), "{status}");
        }
    }

    #[test]
    fn every_status_and_code_has_the_meaning_of_the_table() {
        let unavailable = SourceErrorKind::Unavailable;
        for (status, code, kind) in [
            (302, None, SourceErrorKind::Rejected),
            (400, Some("2100"), SourceErrorKind::Rejected),
            (401, Some("800001"), SourceErrorKind::CredentialsRejected),
            (401, Some("900420"), SourceErrorKind::CredentialsRejected),
            (401, Some("900421"), SourceErrorKind::CredentialsRejected),
            (403, Some("2032"), SourceErrorKind::NoRelationship),
            (403, Some("20002"), SourceErrorKind::NoRelationship),
            (403, Some("90000"), SourceErrorKind::CredentialsRejected),
            (403, Some("900308"), SourceErrorKind::CredentialsRejected),
            (403, Some("900309"), SourceErrorKind::CredentialsRejected),
            (403, Some("900329"), SourceErrorKind::CredentialsRejected),
            (403, Some("900416"), SourceErrorKind::CredentialsRejected),
            (403, Some("1000"), SourceErrorKind::Rejected),
            (403, Some("4711"), SourceErrorKind::Rejected),
            (403, Some("AuthorizationFailed"), SourceErrorKind::Rejected),
            (403, None, SourceErrorKind::Rejected),
            (404, Some("1000"), SourceErrorKind::UnknownCustomer),
            (404, Some("60003"), SourceErrorKind::UnknownCustomer),
            (404, Some("2032"), SourceErrorKind::Rejected),
            (404, Some("4711"), SourceErrorKind::Rejected),
            (404, Some("ResourceNotFound"), SourceErrorKind::Rejected),
            (404, None, SourceErrorKind::Rejected),
            (408, None, unavailable),
            (418, None, SourceErrorKind::Rejected),
            (500, None, unavailable),
            (501, None, unavailable),
            (503, None, unavailable),
        ] {
            let error = refused(status, code).to_source(SystemClock.now(), None, None);

            assert_eq!(error.kind, kind, "{status} {code:?}");
        }
    }
}
