//! The rate of a caller, in the fields of draft-ietf-httpapi-ratelimit-headers-11.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    auth::RateLimit,
    clock::whole_seconds_up,
    problem::{Kind, Problem},
    resilience::token_bucket::{Exhausted, Taken},
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a caller with a limit is told on every answer.
#[derive(Debug)]
pub(super) struct RateFields {
    policy: HeaderValue,
    state: HeaderValue,
}

/// The request is one too many.
pub(super) fn too_many(limit: &RateLimit, exhausted: Exhausted) -> Problem {
    let (quota, seconds) = (limit.rate().quota(), limit.rate().period().as_secs());
    let per = if seconds == 1 {
        "second".to_owned()
    } else {
        format!("{seconds} seconds")
    };
    Problem::new(
        Kind::RateLimited,
        format!("this caller may send {quota} requests per {per}, and has sent more"),
    )
    .with_retry_after(whole_seconds_up(exhausted.retry_after))
}

// === impl RateFields ===

impl RateFields {
    /// After this request: no more than `r` are answered within `t`, when one more may come.
    pub(super) fn new(limit: &RateLimit, taken: Result<Taken, Exhausted>) -> Self {
        let (remaining, window) = match taken {
            Ok(taken) => (taken.remaining, taken.next_in),
            Err(exhausted) => (0, exhausted.retry_after),
        };
        let state = format!("\"default\";r={remaining};t={}", whole_seconds_up(window));
        Self {
            policy: limit.policy().clone(),
            state: HeaderValue::try_from(state).unwrap_or(HeaderValue::from_static("\"default\"")),
        }
    }

    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy);
        headers.insert(RATE_LIMIT, self.state);
    }
}
