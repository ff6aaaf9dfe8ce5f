//! Reads of the store that requests wait for only briefly.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    hash::Hash,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cache::SingleFlight,
    clock::{SharedClock, with_deadline},
    lru_map::LruMap,
    shutdown::Shutdown,
};

/// The results of reads, and the reads in progress.
///
/// A request waits for a read for some milliseconds. A read that takes longer is finished, and a later
/// request finds its result.
pub(super) struct BriefReads<K, V> {
    cache: Arc<LruMap<K, (V, Instant)>>,
    reads: SingleFlight<Vec<K>, ()>,
    fresh_for: Duration,
    clock: SharedClock,
}

// === impl BriefReads ===

impl<K, V> BriefReads<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The time that a request waits for the store.
    const BUDGET: Duration = Duration::from_millis(20);

    /// Creates a cache of at most `capacity` results, each for `fresh_for`.
    pub(super) fn new(
        capacity: NonZeroUsize,
        fresh_for: Duration,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            cache: Arc::new(LruMap::new(capacity)),
            reads: SingleFlight::new(shutdown),
            fresh_for,
            clock,
        }
    }

    /// Returns the result of an earlier read.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (value, read_at) = self.cache.get(key)?;
        let age = now.saturating_duration_since(read_at);
        (age < self.fresh_for).then_some(value)
    }

    /// Reads into the cache, once for all requests that want the same, and waits for that. Returns false if
    /// it did not end in time. A read of `None` failed.
    pub(super) async fn read<R>(
        &self,
        keys: Vec<K>,
        read: impl Future<Output = Option<R>> + Send + 'static,
        now: Instant,
    ) -> bool
    where
        R: IntoIterator<Item = (K, V)> + Send,
        R::IntoIter: Send,
    {
        let cache = Arc::clone(&self.cache);
        let Ok(flight) = self.reads.join_or_lead(
            keys,
            |()| (),
            || Ok::<_, Infallible>(()),
            |guard, ()| async move {
                for (key, value) in read.await.into_iter().flatten() {
                    cache.insert(key, (value, now));
                }
                drop(guard);
            },
        );
        let deadline = self.clock.now() + Self::BUDGET;
        let ended = with_deadline(&self.clock, deadline, flight.outcome()).await;
        ended.is_some()
    }
}

impl<K, V> fmt::Debug for BriefReads<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BriefReads")
            .field("results", &self.cache.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::sync::oneshot;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[tokio::test]
    async fn a_slow_read_is_not_waited_for_and_found_later() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let shared = Arc::clone(&clock) as SharedClock;
        let reads = BriefReads::new(
            NonZeroUsize::MIN,
            Duration::from_secs(9),
            shared,
            Shutdown::new(),
        );
        let (answer, slow) = oneshot::channel();
        let now = clock.now();

        let read = async { slow.await.ok().map(|value| [("key", value)]) };
        let (is_in_time, ()) = tokio::join!(
            reads.read(vec!["key"], read, now),
            clock.advance_when_sleeping(Duration::from_millis(20)),
        );
        let early = reads.get(&"key", now);
        answer.send(5).unwrap();
        // Joins the first read.
        let never = std::future::pending::<Option<[_; 1]>>();
        assert!(reads.read(vec!["key"], never, now).await);

        assert!(!is_in_time);
        assert_eq!(early, None);
        assert_eq!(reads.get(&"key", now), Some(5));
        assert_eq!(reads.get(&"key", now + Duration::from_secs(9)), None);
    }
}
