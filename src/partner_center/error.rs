//! What can go wrong with a call to Partner Center, whether asking again may help, and what it
//! means to whoever asked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    metrics::{ErrorClass, RetryReason},
    token::TokenError,
    wire::{MalformedResponse, UnusableResponse},
};
use crate::{
    http_client::ExchangeError,
    service::source::{CallIds, SourceError, SourceErrorKind, UpstreamErrorBody},
};

/// What a person must do about code 900421.
const CONSENT_WITH_MFA: &str = "Partner Center wants multi-factor proof (900421): a person must sign in with multi-factor \
     authentication, consent again, and replace the refresh token";

/// A call that brought no usage. `Display` is the outside sentence; what only a log may say, such
/// as an address, is in [`UpstreamError::cause`].
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No whole answer came over the wire.
    #[error("the connection to Partner Center failed")]
    Connection {
        /// For the log.
        cause: String,
    },
    /// One attempt took too long.
    #[error("Partner Center did not answer in time")]
    AttemptTimedOut,
    /// The call's time ran out while it waited for its turn.
    #[error("the call waited for its turn until its time was up")]
    DeadlinePassed,
    /// Nothing may be sent for a while.
    #[error("Partner Center throttles this call")]
    Throttled {
        /// When the next request may be sent.
        until: Instant,
        /// `None` where an earlier call was told.
        refusal: Option<Arc<UpstreamErrorBody>>,
    },
    /// Partner Center has failed one call after the other, so it is left alone for a while.
    #[error("Partner Center has failed one call after the other, so it is not asked for a moment")]
    CircuitOpen {
        /// When a request may be sent again.
        until: Instant,
    },
    /// An answer other than 200 and 429.
    #[error("{}", RefusalMeaning::of(.refusal).sentence())]
    Refused {
        /// In the upstream's words.
        refusal: Arc<UpstreamErrorBody>,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// The access token was refused and has a successor, which no retry was left to try.
    #[error("Partner Center refused an access token that has been replaced since: ask again")]
    TokenReplaced,
    /// A 200 that is not what the schema promises.
    #[error("Partner Center's answer is not what its schema promises: {0}")]
    Malformed(#[from] MalformedResponse),
    /// A 200 whose body was not read, since other answers take all the memory that answers may take.
    #[error(
        "other answers of Partner Center take all the memory that answers may take: ask again in a \
         moment, or raise upstream.max_body"
    )]
    OutOfMemory,
    /// A 200 that tells of another customer than the one asked for.
    #[error("Partner Center's answer is not what its schema promises: {0}")]
    OtherCustomer(MalformedResponse),
    /// The answer is well formed, but not for the date asked for.
    #[error("{0}")]
    NothingProcessed(String),
    /// No access token to ask with.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// What a status, with the code that came with it, means here: the table of `partner-center.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalMeaning {
    /// 408, 500, 502, 503, 504: may be gone a moment later.
    Passing,
    /// Any other 5xx: the upstream is at fault, and asking again will not help.
    Broken,
    /// 401: the token is missing, expired or refused.
    Unauthorized,
    /// 401 with 900421: multi-factor proof is missing in the token.
    ProofMissing,
    /// 401 with 900420: the token is for another audience.
    WrongAudience,
    /// 403 with a code that is about our credentials, for every customer alike.
    AccessDenied(AccessDenial),
    /// 403 with 2032 or 20002.
    NoRelationship,
    /// 404 with 1000 or 60003.
    UnknownCustomer,
    /// 403 or 404 with any other code, or with none: a fault of the service's, a gateway's answer, or a
    /// path that is not there. It says nothing about the customer.
    Unrecognized,
    /// 3xx: a redirect is never followed.
    Redirect,
    /// Any other status: the request was wrong.
    Rejected,
}

/// Why Partner Center denies our credentials a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessDenial {
    /// 900329: the call does not take App only.
    AppOnly,
    /// 900308: a role or privilege is missing.
    MissingRole,
    /// 900309: a Conditional Access policy.
    ConditionalAccess,
    /// 90000: an error of Microsoft Entra ID.
    EntraError,
    /// 900416: the account is locked.
    LockedAccount,
}

// === impl Meaning ===

impl RefusalMeaning {
    /// The one list of what is transient.
    pub(super) fn of(refusal: &UpstreamErrorBody) -> Self {
        match (refusal.status, refusal.code.as_deref()) {
            (401 | 403, Some("900421")) => Self::ProofMissing,
            (401 | 403, Some("900420")) => Self::WrongAudience,
            (408 | 500 | 502 | 503 | 504, _) => Self::Passing,
            (401, _) => Self::Unauthorized,
            (403, Some("2032" | "20002")) => Self::NoRelationship,
            (404, Some("1000" | "60003")) => Self::UnknownCustomer,
            (403, Some(code)) => match AccessDenial::of(code) {
                Some(denial) => Self::AccessDenied(denial),
                None => Self::Unrecognized,
            },
            (403 | 404, _) => Self::Unrecognized,
            (300..=399, _) => Self::Redirect,
            (501..=599, _) => Self::Broken,
            _ => Self::Rejected,
        }
    }

    /// Whether it is about our credentials, so that every call would end so until a person has acted.
    pub(super) fn is_about_credentials(self) -> bool {
        matches!(
            self,
            Self::Unauthorized | Self::ProofMissing | Self::WrongAudience | Self::AccessDenied(_)
        )
    }

    /// Whether it is about the customer: Partner Center accepted our credentials to find that out.
    pub(super) fn is_about_customer(self) -> bool {
        matches!(self, Self::NoRelationship | Self::UnknownCustomer)
    }

    /// What is told of it, and what a person must do where one must act.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Passing | Self::Broken => "Partner Center has a fault of its own",
            Self::Unauthorized => {
                "Partner Center refuses a fresh access token: a person must check that the \
                 application of upstream.auth is allowed this call, with the right audience (the \
                 insights call wants App+User credentials)"
            }
            Self::ProofMissing => CONSENT_WITH_MFA,
            Self::WrongAudience => {
                "the access token is for another audience than Partner Center (900420): a person \
                 must set upstream.auth.resource (or upstream.auth.scope) to Partner Center's, such \
                 as https://api.partnercenter.microsoft.com; graph.windows.net is retired"
            }
            Self::AccessDenied(denial) => denial.sentence(),
            Self::NoRelationship => "the partner has no relationship with this customer",
            Self::UnknownCustomer => "Partner Center knows no such customer",
            Self::Redirect => {
                "Partner Center answered with a redirect, which is never followed: check \
                 upstream.base_url"
            }
            Self::Rejected => "Partner Center called the request wrong",
            Self::Unrecognized => {
                "the refusal has no code that says anything about this customer: Partner Center has \
                 a fault, or something before it refused, or has no such path: check \
                 upstream.base_url and upstream.commercial_path"
            }
        }
    }
}

// === impl AccessDenial ===

impl AccessDenial {
    fn of(code: &str) -> Option<Self> {
        Some(match code {
            "900329" => Self::AppOnly,
            "900308" => Self::MissingRole,
            "900309" => Self::ConditionalAccess,
            "90000" => Self::EntraError,
            "900416" => Self::LockedAccount,
            _ => return None,
        })
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::AppOnly => {
                "Partner Center refuses this call to an application alone (900329): a person must \
                 configure App+User credentials (upstream.auth.kind = \"refresh_token\")"
            }
            Self::MissingRole => {
                "Partner Center says that our credentials lack a role (900308): a person must give \
                 the user who consented a role that may read usage, such as Admin agent"
            }
            Self::ConditionalAccess => {
                "a Conditional Access policy blocks our credentials (900309): a person must let the \
                 application or this machine through, or consent again as the policy demands"
            }
            Self::EntraError => {
                "Partner Center reports an error of Microsoft Entra ID about our credentials \
                 (90000): a person must look at the sign-in log of the user who consented"
            }
            Self::LockedAccount => {
                "the account of the user who consented is locked (900416): a person must unlock it, \
                 or let another user consent"
            }
        }
    }
}

// === impl UpstreamError ===

impl UpstreamError {
    /// Returns the metric label of this error, and why the request may be sent again after a pause:
    /// `None` if that would not help.
    fn classify(&self) -> (ErrorClass, Option<RetryReason>) {
        use RefusalMeaning as Meaning;
        let class = match self {
            Self::Connection { .. } => {
                return (ErrorClass::Connection, Some(RetryReason::Connection));
            }
            Self::AttemptTimedOut => return (ErrorClass::Timeout, Some(RetryReason::Timeout)),
            Self::Throttled { .. } => {
                return (ErrorClass::Throttled, Some(RetryReason::Throttled));
            }
            Self::Refused { refusal, .. } => match Meaning::of(refusal) {
                Meaning::Passing => return (ErrorClass::ServerFault, Some(RetryReason::Status)),
                Meaning::Broken => ErrorClass::ServerFault,
                Meaning::Unauthorized => ErrorClass::Unauthorized,
                Meaning::ProofMissing => ErrorClass::ProofMissing,
                Meaning::NoRelationship => ErrorClass::NoRelationship,
                Meaning::UnknownCustomer => ErrorClass::UnknownCustomer,
                Meaning::WrongAudience => ErrorClass::WrongAudience,
                Meaning::AccessDenied(_) => ErrorClass::AccessDenied,
                Meaning::Unrecognized => ErrorClass::Unrecognized,
                Meaning::Redirect => ErrorClass::Redirect,
                Meaning::Rejected => ErrorClass::Rejected,
            },
            Self::DeadlinePassed => ErrorClass::Deadline,
            Self::CircuitOpen { .. } => ErrorClass::CircuitOpen,
            Self::TokenReplaced => ErrorClass::Unauthorized,
            Self::Malformed(_) => ErrorClass::Malformed,
            Self::OutOfMemory => ErrorClass::OutOfMemory,
            Self::OtherCustomer(_) => ErrorClass::OtherCustomer,
            Self::NothingProcessed(_) => ErrorClass::NothingProcessed,
            Self::Token(error) => error.class(),
        };
        (class, None)
    }

    /// Returns the metric label of this error.
    pub(super) fn class(&self) -> ErrorClass {
        self.classify().0
    }

    /// Returns why the request may be sent again after a pause; `None` if that would not help.
    pub(super) fn retry_reason(&self) -> Option<RetryReason> {
        self.classify().1
    }

    /// The least pause that the upstream asked for.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused {
                retry_after: Some(asked),
                ..
            } => *asked,
            _ => Duration::ZERO,
        }
    }

    /// What the upstream's refusal means, where it refused.
    pub(super) fn meaning(&self) -> Option<RefusalMeaning> {
        match self {
            Self::Refused { refusal, .. } => Some(RefusalMeaning::of(refusal)),
            _ => None,
        }
    }

    /// What only a log may say.
    pub(super) fn cause(&self) -> Option<&str> {
        match self {
            Self::Connection { cause } => Some(cause),
            Self::Refused { refusal, .. } => refusal.description.as_deref(),
            _ => None,
        }
    }

    /// The same as the port tells it. `status` is that of the last answer, and `ids` is `None` where
    /// nothing was sent.
    pub(super) fn into_source(
        self,
        now: Instant,
        status: Option<u16>,
        ids: Option<CallIds>,
    ) -> SourceError {
        let detail = self.to_string().into();
        let (kind, refusal) = match self {
            Self::Connection { .. } | Self::TokenReplaced | Self::OutOfMemory => {
                (SourceErrorKind::Unavailable { retry_after: None }, None)
            }
            Self::AttemptTimedOut | Self::DeadlinePassed => (SourceErrorKind::TimedOut, None),
            Self::Throttled { until, refusal } => {
                let retry_after = until.saturating_duration_since(now);
                (SourceErrorKind::Throttled { retry_after }, refusal)
            }
            Self::CircuitOpen { until } => {
                let retry_after = until.saturating_duration_since(now);
                (SourceErrorKind::CircuitOpen { retry_after }, None)
            }
            Self::Refused {
                refusal,
                retry_after,
            } => {
                let kind = match RefusalMeaning::of(&refusal) {
                    RefusalMeaning::Passing | RefusalMeaning::Broken => {
                        SourceErrorKind::Unavailable { retry_after }
                    }
                    RefusalMeaning::Unauthorized
                    | RefusalMeaning::ProofMissing
                    | RefusalMeaning::WrongAudience
                    | RefusalMeaning::AccessDenied(_) => SourceErrorKind::CredentialsRejected,
                    RefusalMeaning::NoRelationship => SourceErrorKind::NoRelationship,
                    RefusalMeaning::UnknownCustomer => SourceErrorKind::UnknownCustomer,
                    RefusalMeaning::Redirect
                    | RefusalMeaning::Rejected
                    | RefusalMeaning::Unrecognized => SourceErrorKind::Rejected,
                };
                (kind, Some(refusal))
            }
            Self::Malformed(_) | Self::OtherCustomer(_) => (SourceErrorKind::Malformed, None),
            Self::NothingProcessed(_) => (SourceErrorKind::NothingProcessed, None),
            Self::Token(error) => (error.kind(now), None),
        };
        SourceError {
            kind,
            detail,
            status,
            upstream_error: refusal,
            call_ids: ids,
        }
    }
}

impl From<UnusableResponse> for UpstreamError {
    fn from(answer: UnusableResponse) -> Self {
        match answer {
            UnusableResponse::Malformed(fault) => Self::Malformed(fault),
            UnusableResponse::OtherCustomer(fault) => Self::OtherCustomer(fault),
        }
    }
}

impl From<ExchangeError> for UpstreamError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TimedOut => Self::AttemptTimedOut,
            ExchangeError::Connection(cause) => Self::Connection { cause },
            ExchangeError::Undecodable(cause) => Self::Malformed(MalformedResponse(format!(
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
    fn passing_faults_and_no_others_are_retried() {
        for status in [408, 500, 502, 503, 504] {
            assert!(refused(status, None).retry_reason().is_some(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 422, 501, 505] {
            assert!(refused(status, None).retry_reason().is_none(), "{status}");
        }
    }

    #[test]
    fn every_status_means_what_the_table_says() {
        let unavailable = SourceErrorKind::Unavailable { retry_after: None };
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
            let error = refused(status, code).into_source(SystemClock.now(), None, None);

            assert_eq!(error.kind, kind, "{status} {code:?}");
        }
    }

    #[test]
    fn missing_proof_tells_a_person_what_to_do() {
        let error = refused(401, Some("900421")).into_source(SystemClock.now(), None, None);

        assert!(error.detail.contains("consent again"));
        assert!(error.detail.contains("multi-factor"));
    }

    #[test]
    fn an_address_of_ours_stays_in_the_log() {
        let error = UpstreamError::Connection {
            cause: "tcp connect error: 10.0.0.1:443".to_owned(),
        };

        assert_eq!(error.cause(), Some("tcp connect error: 10.0.0.1:443"));
        let told = error.into_source(SystemClock.now(), None, None);
        assert!(!told.detail.contains("10.0.0.1"));
    }
}
