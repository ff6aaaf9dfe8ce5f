//! Negative caching: failed fetches, and how long their failure is the answer.

use std::{
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use strum::{EnumCount as _, VariantArray as _};

use super::metrics::{CacheMetrics, CachedFailureKind};
use crate::lru_map::LruMap;

/// The failures of fetches.
///
/// They are separate from cached data and bounded by count, so that no number of unknown customers
/// evicts a known one. Each kind has room of its own, so that requests for a million unknown customers
/// evict no failure of another kind.
pub struct FailureCache<K, E> {
    /// By kind, in the order of the discriminants.
    maps: [FailureMap<K, E>; CachedFailureKind::COUNT],
    metrics: CacheMetrics,
}

type FailureMap<K, E> = LruMap<K, Arc<CachedFailure<E>>>;

/// One cached failure.
#[derive(Clone, Debug)]
pub struct CachedFailure<E> {
    /// The error.
    pub error: E,
    /// The time of the failure.
    pub failed_at: Instant,
    /// The time until which upstream is not asked again.
    pub expires_at: Instant,
    /// The failures in a row so far, from 1.
    pub consecutive: u32,
}

// === impl FailureCache ===

impl<K, E> FailureCache<K, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The most failures of each kind. Their texts are cut short, so each takes less than a kilobyte or so.
    /// In the 30 s for which an absence is cached by default, Partner Center answers fewer calls.
    const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    /// Creates an empty cache.
    pub fn new(metrics: CacheMetrics) -> Self {
        Self {
            maps: std::array::from_fn(|_| LruMap::new(Self::MAX_ENTRIES)),
            metrics,
        }
    }

    /// Caches a failure. `remember_for` returns its lifetime, given the failures in a row.
    pub fn record(
        &self,
        kind: CachedFailureKind,
        key: K,
        error: E,
        failed_at: Instant,
        remember_for: impl FnOnce(u32) -> Duration,
    ) -> Arc<CachedFailure<E>> {
        let streak = self
            .get_last(&key)
            .map_or(1, |before| before.consecutive.saturating_add(1));
        let failure = Arc::new(CachedFailure {
            consecutive: streak,
            ..CachedFailure::uncached(error, failed_at, remember_for(streak))
        });
        for (other, map) in self.maps_by_kind() {
            if other != kind {
                map.remove(&key);
            } else if map.insert(key.clone(), Arc::clone(&failure)) {
                self.metrics.record_failure_evicted(kind);
            }
        }
        failure
    }

    /// Returns the failure of a fetch, unless it has expired.
    pub fn get(&self, key: &K, now: Instant) -> Option<Arc<CachedFailure<E>>> {
        self.get_last(key)
            .filter(|failure| now < failure.expires_at)
    }

    /// Returns the last failure of a fetch that has not succeeded since, even if it has expired.
    pub fn get_last(&self, key: &K) -> Option<Arc<CachedFailure<E>>> {
        let mut map = self.maps.iter();
        map.find_map(|map| map.get(key))
    }

    /// Returns the failure of a fetch since then, even if it has expired.
    pub fn failed_since(&self, key: &K, since: Instant) -> Option<Arc<CachedFailure<E>>> {
        self.get_last(key)
            .filter(|failure| failure.failed_at >= since)
    }

    /// Removes the failure of a fetch that succeeded.
    pub fn remove(&self, key: &K) {
        for map in &self.maps {
            map.remove(key);
        }
    }

    /// Removes all failures that match.
    pub fn remove_if(&self, matches: impl Fn(&K) -> bool) {
        for map in &self.maps {
            map.remove_if(&matches);
        }
    }

    /// Sets the gauges. Call it before a scrape.
    pub fn update_gauges(&self) {
        for (kind, map) in self.maps_by_kind() {
            self.metrics.set_cached_failures(kind, map.len() as u64);
        }
    }

    fn maps_by_kind(&self) -> impl Iterator<Item = (CachedFailureKind, &FailureMap<K, E>)> {
        CachedFailureKind::VARIANTS.iter().copied().zip(&self.maps)
    }
}

// === impl CachedFailure ===

impl<E> CachedFailure<E> {
    /// Returns the same failure with another description.
    pub fn with_error(&self, error: E) -> Self {
        Self { error, ..*self }
    }

    /// Creates the first failure of a fetch.
    pub fn uncached(error: E, failed_at: Instant, remember_for: Duration) -> Self {
        Self {
            error,
            failed_at,
            expires_at: failed_at + remember_for,
            consecutive: 1,
        }
    }
}

impl<K, E> fmt::Debug for FailureCache<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn new_failures<K>() -> FailureCache<K, &'static str>
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
    {
        FailureCache::new(CacheMetrics::new(&Registry::new()).unwrap())
    }

    #[test]
    fn a_failure_is_returned_until_it_expires() {
        let failures = new_failures();
        let start = SystemClock.now();

        failures.record(CachedFailureKind::Fault, "key", "down", start, |_| {
            Duration::from_secs(30)
        });

        let at = |seconds| failures.get(&"key", start + Duration::from_secs(seconds));
        assert!(at(29).is_some());
        assert!(at(30).is_none());
    }

    #[test]
    fn repeated_failures_are_counted_until_a_success() {
        let failures = new_failures();
        let start = SystemClock.now();
        let fail = || {
            failures
                .record(CachedFailureKind::Fault, "key", "down", start, |_| {
                    Duration::ZERO
                })
                .consecutive
        };

        assert_eq!((fail(), fail()), (1, 2));
        failures.remove(&"key");
        assert_eq!(fail(), 1);
    }

    #[test]
    fn a_flood_of_absences_evicts_no_fault() {
        const FLOOD: u32 = 25_000;
        let failures = new_failures();
        let start = SystemClock.now();
        let remember = |kind, key| {
            failures.record(kind, key, "", start, |_| Duration::from_secs(30));
        };
        remember(CachedFailureKind::Fault, u32::MAX);

        for customer in 0..FLOOD {
            remember(CachedFailureKind::Absence, customer);
        }
        remember(CachedFailureKind::Fault, u32::MAX - 1);

        assert!(failures.get(&u32::MAX, start).is_some());
        assert!(failures.get(&(u32::MAX - 1), start).is_some());
        let counts = failures.maps_by_kind().map(|(_, kind)| kind.len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 10_000, 0]);
        let evicted = failures
            .metrics
            .evicted_failure_count(CachedFailureKind::Absence);
        assert_eq!(evicted, u64::from(FLOOD) - 10_000);
    }

    #[test]
    fn a_fetch_has_one_last_failure_whatever_its_kind() {
        let failures = new_failures();
        let start = SystemClock.now();
        let remember = |kind, error| {
            failures.record(kind, "key", error, start, |_| Duration::from_secs(30));
            failures.get_last(&"key").map(|failure| failure.error)
        };

        assert_eq!(remember(CachedFailureKind::Fault, "down"), Some("down"));
        assert_eq!(remember(CachedFailureKind::Absence, "gone"), Some("gone"));
        assert_eq!(remember(CachedFailureKind::Fault, "down"), Some("down"));
        failures.remove(&"key");
        assert!(failures.get_last(&"key").is_none());
    }
}
