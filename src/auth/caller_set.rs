//! All callers, found by their credentials.

use std::{collections::HashMap, sync::Arc, time::Instant};

use http::HeaderValue;

use super::callers_parser::CallerEntry;
use crate::{
    access_key::KeyHash,
    domain::Caller,
    resilience::byte_budget::ByteBudget,
    token_bucket::{BucketExhausted, BucketPermit, RateQuota, TokenBucket},
};

/// An authenticated caller: its rights, its rate limit and its budget of unsent bytes.
#[derive(Debug)]
pub struct CallerIdentity {
    caller: Caller,
    rate_limit: Option<Arc<RateLimit>>,
    unsent: Arc<ByteBudget>,
}

/// The rate limit of one caller.
#[derive(Debug)]
pub struct RateLimit {
    bucket: TokenBucket,
    policy: HeaderValue,
}

/// All callers of a callers file. A changed file replaces the whole set.
#[derive(Debug, Default)]
pub struct CallerSet {
    by_name: HashMap<Arc<str>, Arc<CallerIdentity>>,
    by_key: HashMap<KeyHash, Arc<CallerIdentity>>,
    by_subject: HashMap<String, Arc<CallerIdentity>>,
    by_certificate: HashMap<String, Arc<CallerIdentity>>,
}

// === impl CallerIdentity ===

impl CallerIdentity {
    /// The most bytes of responses to one caller that may be unsent at a time.
    const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;

    /// Creates an identity with a new budget of unsent bytes.
    pub fn new(caller: Caller, limit: Option<Arc<RateLimit>>) -> Self {
        Self::with_unsent_budget(Self::new_unsent_budget(), caller, limit)
    }

    /// Creates an identity that shares a budget of unsent bytes.
    pub const fn with_unsent_budget(
        unsent: Arc<ByteBudget>,
        caller: Caller,
        limit: Option<Arc<RateLimit>>,
    ) -> Self {
        Self {
            caller,
            rate_limit: limit,
            unsent,
        }
    }

    /// Creates an unused budget of unsent bytes.
    pub fn new_unsent_budget() -> Arc<ByteBudget> {
        Arc::new(ByteBudget::new(Self::MAX_UNSENT_BYTES))
    }

    /// Returns the caller's name and rights.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Returns the rate limit; `None` means no limit.
    pub const fn rate_limit(&self) -> Option<&Arc<RateLimit>> {
        self.rate_limit.as_ref()
    }

    /// Returns the budget for bytes of responses that are not sent yet.
    pub const fn unsent(&self) -> &Arc<ByteBudget> {
        &self.unsent
    }
}

// === impl RateLimit ===

impl RateLimit {
    /// Creates a limit of which nothing is used.
    pub fn new(rate: RateQuota, now: Instant) -> Self {
        let (quota, seconds) = (rate.quota(), rate.period().as_secs());
        let policy = HeaderValue::try_from(format!("\"default\";q={quota};w={seconds}"));
        Self {
            bucket: TokenBucket::new(rate, now),
            policy: policy.unwrap_or(HeaderValue::from_static("\"default\"")),
        }
    }

    /// Returns the number of requests and the time that they are for.
    pub const fn rate(&self) -> RateQuota {
        self.bucket.rate()
    }

    /// Returns the value of `RateLimit-Policy`.
    pub const fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Counts one request.
    ///
    /// # Errors
    ///
    /// [`BucketExhausted`] if the request exceeds the limit.
    pub fn acquire(&self, now: Instant) -> Result<BucketPermit, BucketExhausted> {
        self.bucket.acquire(now)
    }
}

// === impl CallerSet ===

impl CallerSet {
    /// Creates the set of these callers. A caller that was in the `previous` set keeps its budget
    /// of unsent bytes, and the state of its rate limit if the rate has not changed.
    pub(super) fn new(entries: Vec<CallerEntry>, previous: &Self, now: Instant) -> Self {
        let mut set = Self::default();
        for entry in entries {
            let known = previous.by_name.get(entry.caller.name());
            let limit = entry.rate.map(|rate| {
                known
                    .and_then(|known| known.rate_limit())
                    .filter(|limit| limit.rate() == rate)
                    .map_or_else(|| Arc::new(RateLimit::new(rate, now)), Arc::clone)
            });
            let unsent = known.map_or_else(CallerIdentity::new_unsent_budget, |known| {
                Arc::clone(known.unsent())
            });
            let identity = CallerIdentity::with_unsent_budget(unsent, entry.caller, limit);
            let identity = Arc::new(identity);
            for hash in entry.key_hashes {
                set.by_key.insert(hash, Arc::clone(&identity));
            }
            if let Some(subject) = entry.jwt_subject {
                set.by_subject.insert(subject, Arc::clone(&identity));
            }
            if let Some(name) = entry.client_certificate {
                set.by_certificate.insert(name, Arc::clone(&identity));
            }
            let name = Arc::clone(identity.caller().name());
            set.by_name.insert(name, identity);
        }
        set
    }

    /// Finds the caller with this key.
    ///
    /// The lookup uses the key's hash, hashes that with a secret of this process, and compares in
    /// constant time: its duration reveals nothing about the configured keys.
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<CallerIdentity>> {
        self.by_key.get(&KeyHash::of_key(key))
    }

    /// Finds the caller whose tokens have this subject.
    pub fn by_subject(&self, subject: &str) -> Option<&Arc<CallerIdentity>> {
        self.by_subject.get(subject)
    }

    /// Finds the caller whose certificate has this common name.
    pub fn by_certificate(&self, common_name: &str) -> Option<&Arc<CallerIdentity>> {
        self.by_certificate.get(common_name)
    }

    /// Returns the number of callers.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}
