use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{notification::RemovalCause, policy::EvictionPolicy};

use super::CacheMetrics;

/// Fetches that failed, and until when their failure answers for them: negative caching.
///
/// It is kept apart from what is held and bounded by count, so that no number of unknown customers
/// pushes out a known one. Each kind has room of its own: a caller may ask for a million unknown
/// customers, and the calls that have just failed are still remembered.
pub struct Failures<K, E> {
    /// In the order of [`FailureKind::ALL`].
    remembered: [Remembered<K, E>; FailureKind::ALL.len()],
    metrics: CacheMetrics,
}

type Remembered<K, E> = moka::sync::Cache<K, Arc<Failure<E>>>;

/// What is remembered of a fetch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It may succeed next time.
    Fault,
    /// There is nothing to be had: no such customer, no relationship, nothing of that date.
    Absence,
    /// There is nothing of a date that is older than the customer's newest.
    PastAbsence,
}

/// One failure, remembered.
#[derive(Clone, Debug)]
pub struct Failure<E> {
    /// What went wrong.
    pub error: E,
    /// When.
    pub failed_at: Instant,
    /// Until when nothing is asked again.
    pub until: Instant,
    /// How many times in a row it has failed now, from 1.
    pub streak: u32,
}

// === impl FailureKind ===

impl FailureKind {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Fault, Self::Absence, Self::PastAbsence];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Absence => "absence",
            Self::PastAbsence => "past-absence",
        }
    }
}

// === impl Failures ===

impl<K, E> Failures<K, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// How many of each kind are remembered; what they tell is cut short, so each takes less than a
    /// kilobyte or so. For as long as an absence is remembered by default, 30 s, this is room for
    /// more of them than Partner Center would answer.
    const CAPACITY: u64 = 10_000;

    /// None so far.
    pub fn new(metrics: CacheMetrics) -> Self {
        let remembered = |kind| {
            let evicted = metrics.failures_evicted(kind).clone();
            moka::sync::Cache::builder()
                .max_capacity(Self::CAPACITY)
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evicted.inc();
                    }
                })
                .build()
        };
        Self {
            remembered: FailureKind::ALL.map(remembered),
            metrics,
        }
    }

    /// Remembers a failure for as long as `remember_for` says, given how many times in a row this
    /// fetch has failed now.
    pub fn remember(
        &self,
        kind: FailureKind,
        key: K,
        error: E,
        failed_at: Instant,
        remember_for: impl FnOnce(u32) -> Duration,
    ) -> Arc<Failure<E>> {
        let streak = self
            .get_last(&key)
            .map_or(1, |before| before.streak.saturating_add(1));
        let failure = Arc::new(Failure {
            streak,
            ..Failure::once(error, failed_at, remember_for(streak))
        });
        for (other, remembered) in self.by_kind() {
            if other == kind {
                remembered.insert(key.clone(), Arc::clone(&failure));
            } else {
                remembered.invalidate(&key);
            }
        }
        failure
    }

    /// The failure that answers for a fetch at this time.
    pub fn get(&self, key: &K, now: Instant) -> Option<Arc<Failure<E>>> {
        self.get_last(key).filter(|failure| now < failure.until)
    }

    /// The last failure of a fetch that has not succeeded since, whether it still answers or not.
    pub fn get_last(&self, key: &K) -> Option<Arc<Failure<E>>> {
        let mut remembered = self.remembered.iter();
        remembered.find_map(|remembered| remembered.get(key))
    }

    /// The failure that happened at `since` or later, whether it still answers or not.
    pub fn since(&self, key: &K, since: Instant) -> Option<Arc<Failure<E>>> {
        self.get_last(key)
            .filter(|failure| failure.failed_at >= since)
    }

    /// Forgets the failure of a fetch that succeeded.
    pub fn forget(&self, key: &K) {
        for remembered in &self.remembered {
            remembered.invalidate(key);
        }
    }

    /// Forgets what `matches`.
    pub fn forget_if(&self, matches: impl Fn(&K) -> bool) {
        for remembered in &self.remembered {
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
        for (kind, remembered) in self.by_kind() {
            remembered.run_pending_tasks();
            self.metrics
                .set_failures_remembered(kind, remembered.entry_count());
        }
    }

    fn by_kind(&self) -> impl Iterator<Item = (FailureKind, &Remembered<K, E>)> {
        FailureKind::ALL.into_iter().zip(&self.remembered)
    }
}

// === impl Failure ===

impl<E> Failure<E> {
    /// A failure that came alone.
    pub fn once(error: E, failed_at: Instant, remember_for: Duration) -> Self {
        Self {
            error,
            failed_at,
            until: failed_at + remember_for,
            streak: 1,
        }
    }
}

impl<K, E> fmt::Debug for Failures<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn failures<K>() -> Failures<K, &'static str>
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
    {
        Failures::new(CacheMetrics::new(&Registry::new()).unwrap())
    }

    #[test]
    fn a_failure_answers_until_its_time() {
        let failures = failures();
        let start = SystemClock.now();

        failures.remember(FailureKind::Fault, "key", "down", start, |_| {
            Duration::from_secs(30)
        });

        let at = |seconds| failures.get(&"key", start + Duration::from_secs(seconds));
        assert!(at(29).is_some());
        assert!(at(30).is_none());
    }

    #[test]
    fn failing_again_is_counted_and_success_forgets() {
        let failures = failures();
        let start = SystemClock.now();
        let fail = || {
            failures
                .remember(FailureKind::Fault, "key", "down", start, |_| Duration::ZERO)
                .streak
        };

        assert_eq!((fail(), fail()), (1, 2));
        failures.forget(&"key");
        assert_eq!(fail(), 1);
    }

    #[test]
    fn a_flood_of_absences_leaves_room_for_every_fault() {
        const FLOOD: u32 = 25_000;
        let failures = failures();
        let start = SystemClock.now();
        let remember = |kind, key| {
            failures.remember(kind, key, "", start, |_| Duration::from_secs(30));
        };
        remember(FailureKind::Fault, u32::MAX);

        for customer in 0..FLOOD {
            remember(FailureKind::Absence, customer);
        }
        failures.update_gauges();
        remember(FailureKind::Fault, u32::MAX - 1);
        failures.update_gauges();

        assert!(failures.get(&u32::MAX, start).is_some());
        assert!(failures.get(&(u32::MAX - 1), start).is_some());
        let counts = failures.by_kind().map(|(_, kind)| kind.entry_count());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 10_000, 0]);
        let evicted = failures.metrics.failures_evicted(FailureKind::Absence);
        assert_eq!(evicted.get(), u64::from(FLOOD) - 10_000);
    }

    #[test]
    fn a_fetch_has_one_last_failure_of_either_kind() {
        let failures = failures();
        let start = SystemClock.now();
        let remember = |kind, error| {
            failures.remember(kind, "key", error, start, |_| Duration::from_secs(30));
            failures.get_last(&"key").map(|failure| failure.error)
        };

        assert_eq!(remember(FailureKind::Fault, "down"), Some("down"));
        assert_eq!(remember(FailureKind::Absence, "gone"), Some("gone"));
        assert_eq!(remember(FailureKind::Fault, "down"), Some("down"));
        failures.forget(&"key");
        assert!(failures.get_last(&"key").is_none());
    }
}
