//! The `RateLimit` headers of draft-ietf-httpapi-ratelimit-headers-11.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    auth::RateLimit,
    clock::retry_after_seconds,
    problem::{Problem, ProblemKind},
    token_bucket::{BucketExhausted, BucketPermit},
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The headers of every response to a caller with a limit.
#[derive(Debug)]
pub(super) struct RateLimitHeaders {
    policy: HeaderValue,
    state: HeaderValue,
}

/// Returns the problem for a request that exceeds the limit.
pub(super) fn rate_limited_problem(limit: &RateLimit, exhausted: BucketExhausted) -> Problem {
    let (quota, seconds) = (limit.rate().quota(), limit.rate().period().as_secs());
    let per = if seconds == 1 {
        "second".to_owned()
    } else {
        format!("{seconds} seconds")
    };
    Problem::new(
        ProblemKind::RateLimited,
        format!("this caller may send {quota} requests per {per}, and has sent more"),
    )
    .with_retry_after(retry_after_seconds(exhausted.retry_after))
}

// === impl RateLimitHeaders ===

impl RateLimitHeaders {
    /// Creates the headers after a request: `r` requests remain, and one more arrives after `t`.
    pub(super) fn new(limit: &RateLimit, taken: Result<BucketPermit, BucketExhausted>) -> Self {
        let (remaining, window) = match taken {
            Ok(taken) => (taken.remaining, taken.next_in),
            Err(exhausted) => (0, exhausted.retry_after),
        };
        let state = format!(
            "\"default\";r={remaining};t={}",
            retry_after_seconds(window)
        );
        Self {
            policy: limit.policy().clone(),
            state: HeaderValue::try_from(state).unwrap_or(HeaderValue::from_static("\"default\"")),
        }
    }

    pub(super) fn insert_into(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        headers.insert(RATE_LIMIT, self.state.clone());
    }
}
