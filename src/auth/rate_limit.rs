use std::time::Instant;

use http::HeaderValue;

use crate::resilience::token_bucket::{BucketExhausted, BucketPermit, RateQuota, TokenBucket};

/// How often a caller may come, and how that is told it.
#[derive(Debug)]
pub struct RateLimit {
    bucket: TokenBucket,
    policy: HeaderValue,
}

// === impl RateLimit ===

impl RateLimit {
    /// Nothing of it used yet.
    pub fn new(rate: RateQuota, now: Instant) -> Self {
        let policy = format!(
            "\"default\";q={};w={}",
            rate.quota(),
            rate.period().as_secs()
        );
        Self {
            bucket: TokenBucket::new(rate, now),
            policy: HeaderValue::try_from(policy)
                .unwrap_or(HeaderValue::from_static("\"default\"")),
        }
    }

    /// So many in so much time.
    pub const fn rate(&self) -> RateQuota {
        self.bucket.rate()
    }

    /// The value of `RateLimit-Policy`.
    pub const fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Counts one request.
    ///
    /// # Errors
    ///
    /// [`BucketExhausted`] where it is one too many.
    pub fn acquire(&self, now: Instant) -> Result<BucketPermit, BucketExhausted> {
        self.bucket.acquire(now)
    }
}
