use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{notification::RemovalCause, policy::EvictionPolicy};

use super::metrics::{CacheMetrics, CachedFailureKind};

/// Fetches that failed, and until when their failure answers for them: negative caching.
///
/// It is kept apart from what is held and bounded by count, so that no number of unknown customers
/// pushes out a known one. Each kind has room of its own: a caller may ask for a million unknown
/// customers, and the calls that have just failed are still remembered.
pub struct FailureCache<K, E> {
    /// In the order of [`CachedFailureKind::ALL`].
    maps: [FailureMap<K, E>; CachedFailureKind::ALL.len()],
    metrics: CacheMetrics,
}

type FailureMap<K, E> = moka::sync::Cache<K, Arc<CachedFailure<E>>>;

/// One failure, remembered.
#[derive(Clone, Debug)]
pub struct CachedFailure<E> {
    /// What went wrong.
    pub error: E,
    /// When.
    pub failed_at: Instant,
    /// Until when nothing is asked again.
    pub expires_at: Instant,
    /// How many times in a row it has failed now, from 1.
    pub consecutive: u32,
}

// === impl Failures ===

impl<K, E> FailureCache<K, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// How many of each kind are remembered; what they tell is cut short, so each takes less than a
    /// kilobyte or so. For as long as an absence is remembered by default, 30 s, this is room for
    /// more of them than Partner Center would answer.
    const MAX_ENTRIES: u64 = 10_000;

    /// None so far.
    pub fn new(metrics: CacheMetrics) -> Self {
        let remembered = |kind| {
            let evicted = metrics.failures_evicted(kind).clone();
            moka::sync::Cache::builder()
                .max_capacity(Self::MAX_ENTRIES)
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evicted.inc();
                    }
                })
                .build()
        };
        Self {
            maps: CachedFailureKind::ALL.map(remembered),
            metrics,
        }
    }

    /// Remembers a failure for as long as `remember_for` says, given how many times in a row this
    /// fetch has failed now.
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
        for (other, remembered) in self.maps_by_kind() {
            if other == kind {
                remembered.insert(key.clone(), Arc::clone(&failure));
            } else {
                remembered.invalidate(&key);
            }
        }
        failure
    }

    /// The failure that answers for a fetch at this time.
    pub fn get(&self, key: &K, now: Instant) -> Option<Arc<CachedFailure<E>>> {
        self.get_last(key)
            .filter(|failure| now < failure.expires_at)
    }

    /// The last failure of a fetch that has not succeeded since, whether it still answers or not.
    pub fn get_last(&self, key: &K) -> Option<Arc<CachedFailure<E>>> {
        let mut remembered = self.maps.iter();
        remembered.find_map(|remembered| remembered.get(key))
    }

    /// The failure that happened at `failed_since` or later, whether it still answers or not.
    pub fn failed_since(&self, key: &K, since: Instant) -> Option<Arc<CachedFailure<E>>> {
        self.get_last(key)
            .filter(|failure| failure.failed_at >= since)
    }

    /// Forgets the failure of a fetch that succeeded.
    pub fn remove(&self, key: &K) {
        for remembered in &self.maps {
            remembered.invalidate(key);
        }
    }

    /// Forgets what `matches`.
    pub fn remove_if(&self, matches: impl Fn(&K) -> bool) {
        for remembered in &self.maps {
            let keys: Vec<K> = remembered
                .iter()
                .filter_map(|(key, _)| matches(&key).then(|| (*key).clone()))
                .collect();
            for key in keys {
                remembered.invalidate(&key);
            }
        }
    }

    /// Sets the gauges that are read from the maps; to be called before a scrape.
    pub fn update_gauges(&self) {
        for (kind, remembered) in self.maps_by_kind() {
            remembered.run_pending_tasks();
            self.metrics
                .set_cached_failures(kind, remembered.entry_count());
        }
    }

    fn maps_by_kind(&self) -> impl Iterator<Item = (CachedFailureKind, &FailureMap<K, E>)> {
        CachedFailureKind::ALL.into_iter().zip(&self.maps)
    }
}

// === impl Failure ===

impl<E> CachedFailure<E> {
    /// A failure that came alone.
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
        f.debug_struct("Failures").finish_non_exhaustive()
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
        failures.update_gauges();
        remember(CachedFailureKind::Fault, u32::MAX - 1);
        failures.update_gauges();

        assert!(failures.get(&u32::MAX, start).is_some());
        assert!(failures.get(&(u32::MAX - 1), start).is_some());
        let counts = failures.maps_by_kind().map(|(_, kind)| kind.entry_count());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 10_000, 0]);
        let evicted = failures
            .metrics
            .failures_evicted(CachedFailureKind::Absence);
        assert_eq!(evicted.get(), u64::from(FLOOD) - 10_000);
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
