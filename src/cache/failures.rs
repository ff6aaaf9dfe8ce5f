use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

/// Fetches that failed, and until when their failure answers for them: negative caching.
///
/// It is kept apart from what is held and bounded by count, so that no number of unknown customers
/// pushes out a known one.
pub struct Failures<K, E> {
    failures: moka::sync::Cache<K, Arc<Failure<E>>>,
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

// === impl Failures ===

impl<K, E> Failures<K, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// How many are remembered; what they tell is cut short, so each takes less than a kilobyte or so.
    const CAPACITY: u64 = 10_000;

    /// None so far.
    pub fn new() -> Self {
        Self {
            failures: moka::sync::Cache::new(Self::CAPACITY),
        }
    }

    /// Remembers a failure for as long as `remember_for` says, given how many times in a row this
    /// fetch has failed now.
    pub fn remember(
        &self,
        key: K,
        error: E,
        failed_at: Instant,
        remember_for: impl FnOnce(u32) -> Duration,
    ) -> Arc<Failure<E>> {
        let streak = self
            .failures
            .get(&key)
            .map_or(1, |before| before.streak.saturating_add(1));
        let failure = Arc::new(Failure {
            streak,
            ..Failure::once(error, failed_at, remember_for(streak))
        });
        self.failures.insert(key, Arc::clone(&failure));
        failure
    }

    /// The failure that answers for a fetch at this time.
    pub fn get(&self, key: &K, now: Instant) -> Option<Arc<Failure<E>>> {
        self.failures.get(key).filter(|failure| now < failure.until)
    }

    /// The last failure of a fetch that has not succeeded since, whether it still answers or not.
    pub fn get_last(&self, key: &K) -> Option<Arc<Failure<E>>> {
        self.failures.get(key)
    }

    /// The failure that happened at `since` or later, whether it still answers or not.
    pub fn since(&self, key: &K, since: Instant) -> Option<Arc<Failure<E>>> {
        self.failures
            .get(key)
            .filter(|failure| failure.failed_at >= since)
    }

    /// Forgets the failure of a fetch that succeeded.
    pub fn forget(&self, key: &K) {
        self.failures.invalidate(key);
    }

    /// Forgets what `matches`.
    pub fn forget_if(&self, matches: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let keys: Vec<K> = self
            .failures
            .iter()
            .filter_map(|(key, _)| matches(&key).then(|| (*key).clone()))
            .collect();
        for key in keys {
            self.failures.invalidate(&key);
        }
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

impl<K, E> Default for Failures<K, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, E> fmt::Debug for Failures<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    #[test]
    fn a_failure_answers_until_its_time() {
        let failures = Failures::new();
        let start = SystemClock.now();

        failures.remember("key", "down", start, |_| Duration::from_secs(30));

        let at = |seconds| failures.get(&"key", start + Duration::from_secs(seconds));
        assert!(at(29).is_some());
        assert!(at(30).is_none());
    }

    #[test]
    fn failing_again_is_counted_and_success_forgets() {
        let failures = Failures::new();
        let start = SystemClock.now();
        let fail = || {
            failures
                .remember("key", "down", start, |_| Duration::ZERO)
                .streak
        };

        assert_eq!((fail(), fail()), (1, 2));
        failures.forget(&"key");
        assert_eq!(fail(), 1);
    }
}
