//! Request collapsing.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::shutdown::Shutdown;

/// Makes one fetch for all requests that want the same at the same time.
///
/// The fetch runs in a task of its own: a leader that disconnects cancels nothing. moka collapses
/// requests too, but runs the load in the future of the first caller.
///
/// `S` is the data that all requests share during a fetch.
pub struct SingleFlight<K, V, S = ()> {
    flights: FlightMap<K, V, S>,
    next_id: AtomicU64,
    shutdown: Shutdown,
}

type FlightMap<K, V, S> = Arc<Mutex<HashMap<K, FlightEntry<V, S>>>>;

/// One fetch in progress.
#[derive(Clone)]
struct FlightEntry<V, S> {
    id: u64,
    shared: S,
    outcome: watch::Receiver<Option<V>>,
}

/// A request's handle on a fetch.
#[derive(Debug)]
pub struct Flight<V, S = ()> {
    /// Leader or follower.
    pub role: FlightRole,
    /// The shared data of the fetch.
    pub shared: S,
    outcome: watch::Receiver<Option<V>>,
}

/// The role of a request in a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightRole {
    /// It started the fetch.
    Leader,
    /// It waits for the fetch of another request, and shares its result.
    Follower,
}

/// The fetch's own handle on its flight. Dropping it frees the key, also when the fetch panics.
pub struct LeaderGuard<K: Eq + Hash, V, S = ()> {
    key: K,
    entry: FlightEntry<V, S>,
    flights: FlightMap<K, V, S>,
}

/// The fetch ended without an outcome: it panicked, or the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fetch ended without an outcome")]
pub struct FetchAborted;

// === impl SingleFlight ===

impl<K, V, S> SingleFlight<K, V, S>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
    S: Clone + Send + 'static,
{
    /// Creates an empty table. Fetches are spawned through `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            flights: FlightMap::default(),
            next_id: AtomicU64::new(0),
            shutdown,
        }
    }

    /// Joins the fetch for `key`, or starts it.
    ///
    /// A follower calls `join` with the shared data. A leader gets that from `lead`, which fails if a
    /// result has arrived since the last look-up, or no fetch may start. Both run under the lock of this
    /// table and must be quick.
    ///
    /// # Errors
    ///
    /// The error of `lead`.
    pub fn join_or_lead<E, F>(
        &self,
        key: K,
        join: impl FnOnce(&S),
        lead: impl FnOnce() -> Result<S, E>,
        fetch: impl FnOnce(LeaderGuard<K, V, S>, S) -> F,
    ) -> Result<Flight<V, S>, E>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (entry, sender, shared) = {
            let mut flights = lock(&self.flights);
            if let Some(flight) = flights.get(&key) {
                join(&flight.shared);
                return Ok(Flight {
                    role: FlightRole::Follower,
                    shared: flight.shared.clone(),
                    outcome: flight.outcome.clone(),
                });
            }
            let shared = lead()?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let (sender, outcome) = watch::channel(None);
            let flight = FlightEntry {
                id,
                shared: shared.clone(),
                outcome,
            };
            flights.insert(key.clone(), flight.clone());
            (flight, sender, shared)
        };
        let outcome = sender.subscribe();
        let flights = Arc::clone(&self.flights);
        let guard = LeaderGuard {
            key,
            entry,
            flights,
        };
        let fetch = fetch(guard, shared.clone());
        self.shutdown.spawn(async move {
            let value = fetch.await;
            sender.send_replace(Some(value));
        });
        Ok(Flight {
            role: FlightRole::Leader,
            shared,
            outcome,
        })
    }

    /// Returns whether a fetch for `key` goes on.
    pub fn is_in_progress(&self, key: &K) -> bool {
        lock(&self.flights).contains_key(key)
    }

    /// Detaches the fetches that match: they go on for the requests that wait, but store nothing, and no
    /// request joins them any more.
    pub fn detach(&self, matches: impl Fn(&K) -> bool) {
        lock(&self.flights).retain(|key, _| !matches(key));
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        lock(&self.flights).is_empty()
    }
}

impl<K, V, S> fmt::Debug for SingleFlight<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("in_progress", &lock(&self.flights).len())
            .finish_non_exhaustive()
    }
}

// === impl Flight ===

impl<V: Clone, S> Flight<V, S> {
    /// Waits for the outcome.
    ///
    /// # Errors
    ///
    /// [`FetchAborted`] when the fetch ended without one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, and never the fetch.
    pub async fn outcome(mut self) -> Result<V, FetchAborted> {
        let outcome = self
            .outcome
            .wait_for(Option::is_some)
            .await
            .map_err(|_| FetchAborted)?;
        outcome.clone().ok_or(FetchAborted)
    }
}

// === impl LeaderGuard ===

impl<K: Clone + Eq + Hash, V: Clone, S: Clone> LeaderGuard<K, V, S> {
    /// Lets requests join the fetch again, if it was [detached](SingleFlight::detach) before it asked for
    /// anything. Returns the fetch that has taken its place, if there is one.
    pub fn reattach(&self) -> Option<Flight<V, S>> {
        let mut flights = lock(&self.flights);
        match flights.get(&self.key) {
            Some(other) if other.id != self.entry.id => Some(Flight {
                role: FlightRole::Follower,
                shared: other.shared.clone(),
                outcome: other.outcome.clone(),
            }),
            Some(_) => None,
            None => {
                flights.insert(self.key.clone(), self.entry.clone());
                None
            }
        }
    }
}

impl<K: Eq + Hash, V, S> LeaderGuard<K, V, S> {
    /// Completes the fetch: `store` is called with its result, and later requests look for themselves, in
    /// one step.
    ///
    /// # Errors
    ///
    /// The result, if the fetch was [detached](SingleFlight::detach): it must not be stored.
    pub fn complete<B, T>(self, result: B, store: impl FnOnce(B) -> T) -> Result<T, B> {
        let mut flights = lock(&self.flights);
        if flights
            .get(&self.key)
            .is_none_or(|flight| flight.id != self.entry.id)
        {
            return Err(result);
        }
        let stored = store(result);
        flights.remove(&self.key);
        Ok(stored)
    }
}

impl<K: Eq + Hash, V, S> Drop for LeaderGuard<K, V, S> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        if flights
            .get(&self.key)
            .is_some_and(|flight| flight.id == self.entry.id)
        {
            flights.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, V, S> fmt::Debug for LeaderGuard<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderGuard")
            .field("id", &self.entry.id)
            .finish_non_exhaustive()
    }
}

/// The table is consistent after a panic: each step is one insert or remove.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{Barrier, oneshot};

    use super::*;

    const IGNORE_JOIN: fn(&()) = |()| ();
    const ALWAYS_LEAD: fn() -> Result<(), ()> = || Ok(());

    fn new_single_flight() -> SingleFlight<&'static str, u32> {
        SingleFlight::new(Shutdown::new())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_callers_share_one_fetch_although_leaders_disconnect() {
        const CALLERS: usize = 1_000;
        let flights = Arc::new(new_single_flight());
        let fetches = Arc::new(AtomicUsize::new(0));
        let barrier = Arc::new(Barrier::new(CALLERS));
        let (release, released) = watch::channel(false);
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let (flights, fetches, barrier) = (flights.clone(), fetches.clone(), barrier.clone());
            let (mut released, release) = (released.clone(), release.clone());
            callers.spawn(async move {
                let flight = flights
                    .join_or_lead("key", IGNORE_JOIN, ALWAYS_LEAD, |guard, ()| async move {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        released.wait_for(|released| *released).await.unwrap();
                        let _completed = guard.complete((), |()| ());
                        7
                    })
                    .unwrap();
                if barrier.wait().await.is_leader() {
                    release.send_replace(true);
                }
                // The leader and every tenth follower disconnect without waiting.
                if flight.role == FlightRole::Leader || caller % 10 == 0 {
                    return None;
                }
                Some(flight.outcome().await)
            });
        }

        let outcomes: Vec<_> = callers.join_all().await.into_iter().flatten().collect();

        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        assert!(outcomes.len() >= CALLERS * 9 / 10 - 1);
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(7)));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_panic_releases_the_key_and_the_followers() {
        let flights = new_single_flight();
        let flight = flights
            .join_or_lead("key", IGNORE_JOIN, ALWAYS_LEAD, |guard, ()| async move {
                let _guard = guard;
                panic!("as the test wants it");
            })
            .unwrap();

        assert_eq!(flight.outcome().await, Err(FetchAborted));

        assert!(flights.is_empty());
        let again = flights
            .join_or_lead("key", IGNORE_JOIN, ALWAYS_LEAD, |_guard, ()| async { 1 })
            .unwrap();
        assert_eq!(again.role, FlightRole::Leader);
        assert_eq!(again.outcome().await, Ok(1));
    }

    #[tokio::test]
    async fn a_detached_flight_reaches_its_followers_but_stores_nothing() {
        let flights = new_single_flight();
        let (release, released) = oneshot::channel::<()>();
        let (sender, stored) = oneshot::channel();
        let before = flights
            .join_or_lead("key", IGNORE_JOIN, ALWAYS_LEAD, |guard, ()| async move {
                released.await.unwrap();
                sender.send(guard.complete((), |()| ()).is_ok()).unwrap();
                1
            })
            .unwrap();

        flights.detach(|key| *key == "key");
        let after = flights
            .join_or_lead("key", IGNORE_JOIN, ALWAYS_LEAD, |_guard, ()| async { 2 })
            .unwrap();
        release.send(()).unwrap();

        assert_eq!(after.role, FlightRole::Leader);
        assert_eq!(before.outcome().await, Ok(1));
        assert_eq!(stored.await, Ok(false));
        assert_eq!(after.outcome().await, Ok(2));
    }

    #[tokio::test]
    async fn a_result_that_arrived_in_the_meantime_is_not_fetched_again() {
        let flights = new_single_flight();

        let found = flights.join_or_lead(
            "key",
            IGNORE_JOIN,
            || Err::<(), _>("settled"),
            |_guard, ()| async { 1 },
        );

        assert_eq!(found.map(|flight| flight.role), Err("settled"));
        assert!(flights.is_empty());
    }
}
