//! The closed list of how a call may fail, for a metric's label.

/// What kind of failure ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// No connection, or one that broke.
    Connection,
    /// An attempt had no answer in time.
    Timeout,
    /// The call's time ran out before its turn came.
    Deadline,
    /// 429, told to this call or to another.
    Throttled,
    /// Not made, since others had failed.
    CircuitOpen,
    /// 408 or 5xx.
    ServerFault,
    /// 401: the access token is refused.
    Unauthorized,
    /// 900421: the token carries no multi-factor proof.
    ProofMissing,
    /// 900420: the token is for another audience.
    WrongAudience,
    /// 403 with a code that is about our credentials.
    AccessDenied,
    /// 403 with a code that says so.
    NoRelationship,
    /// 404 with a code that says so.
    UnknownCustomer,
    /// 403 or 404 with any other code, or with none.
    Unrecognized,
    /// 3xx.
    Redirect,
    /// Any other status: the request was wrong.
    Rejected,
    /// A 200 that is not what its schema promises, or too large.
    Malformed,
    /// A 200 that was not read, since other answers take the memory for it.
    OutOfMemory,
    /// A 200 that tells of another customer than the one asked for.
    OtherCustomer,
    /// A sound answer without the date asked for.
    NothingProcessed,
    /// No access token, by a passing fault.
    TokenUnavailable,
    /// No access token, until a person has acted.
    TokenRefused,
    /// The process is ending.
    Interrupted,
}

// === impl ErrorClass ===

impl ErrorClass {
    pub(super) const ALL: [Self; 22] = [
        Self::Connection,
        Self::Timeout,
        Self::Deadline,
        Self::Throttled,
        Self::CircuitOpen,
        Self::ServerFault,
        Self::Unauthorized,
        Self::ProofMissing,
        Self::WrongAudience,
        Self::AccessDenied,
        Self::NoRelationship,
        Self::UnknownCustomer,
        Self::Unrecognized,
        Self::Redirect,
        Self::Rejected,
        Self::Malformed,
        Self::OutOfMemory,
        Self::OtherCustomer,
        Self::NothingProcessed,
        Self::TokenUnavailable,
        Self::TokenRefused,
        Self::Interrupted,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Throttled => "throttled",
            Self::CircuitOpen => "circuit-open",
            Self::ServerFault => "server-fault",
            Self::Unauthorized => "unauthorized",
            Self::ProofMissing => "proof-missing",
            Self::WrongAudience => "wrong-audience",
            Self::AccessDenied => "access-denied",
            Self::NoRelationship => "no-relationship",
            Self::UnknownCustomer => "unknown-customer",
            Self::Unrecognized => "unrecognized",
            Self::Redirect => "redirect",
            Self::Rejected => "rejected",
            Self::Malformed => "malformed",
            Self::OutOfMemory => "out-of-memory",
            Self::OtherCustomer => "other-customer",
            Self::NothingProcessed => "nothing-processed",
            Self::TokenUnavailable => "token-unavailable",
            Self::TokenRefused => "token-refused",
            Self::Interrupted => "interrupted",
        }
    }
}
