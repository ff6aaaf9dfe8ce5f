use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Instant,
};

use crate::{
    domain::{Caller, CallerScope},
    lru_map::LruMap,
    token_bucket::{BucketExhausted, RateQuota, TokenBucket},
};

/// Limits the upstream calls for given dates that a caller without `cache:refresh` causes: it may
/// not spend Partner Center's quota on dates that no other caller asks for.
#[derive(Debug)]
pub(super) struct DatedCallLimits {
    /// One bucket for each caller's name: all callers without a name share one.
    buckets: LruMap<Arc<str>, Arc<TokenBucket>>,
}

// === impl DatedCallLimits ===

impl DatedCallLimits {
    /// The calls per minute, and in a burst.
    pub(super) const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

    /// The most callers that are tracked. Each takes some hundred bytes.
    const MAX_CALLERS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    pub(super) fn new() -> Self {
        Self {
            buckets: LruMap::new(Self::MAX_CALLERS),
        }
    }

    /// Counts one call that `caller` causes.
    ///
    /// # Errors
    ///
    /// [`BucketExhausted`] where it is one too many.
    pub(super) fn acquire(&self, caller: &Caller, now: Instant) -> Result<(), BucketExhausted> {
        if caller.has_scope(CallerScope::CacheRefresh) {
            return Ok(());
        }
        let full = || {
            Arc::new(TokenBucket::new(
                RateQuota::per_minute(Self::PER_MINUTE),
                now,
            ))
        };
        let bucket = self
            .buckets
            .get_or_insert_with(Arc::clone(caller.name()), full);
        bucket.acquire(now).map(drop)
    }
}
