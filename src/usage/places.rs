//! Places for upstream calls: each caller in turn, and nobody waits in vain.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    cache::{CacheMetrics, Shed},
    clock::SharedClock,
    domain::Caller,
    resilience::fair_queue::{Admission, FairQueue, Limits, Reason, Refusal},
};

/// Places for calls under way, shared by all callers.
#[derive(Debug)]
pub(super) struct Places {
    queue: Mutex<FairQueue<oneshot::Sender<()>>>,
    all: NonZeroUsize,
    patience: Duration,
    clock: SharedClock,
    metrics: CacheMetrics,
}

/// A place, or a promise of one. Dropping it gives either back.
#[derive(Debug)]
pub(super) struct Turn(Entry);

#[derive(Debug)]
enum Entry {
    Come(Place),
    Waits(Waiting),
}

/// A place that is held for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    caller: Arc<str>,
    since: Instant,
}

#[derive(Debug)]
struct Waiting {
    places: Arc<Places>,
    caller: Arc<str>,
    ticket: u64,
    called: oneshot::Receiver<()>,
    /// When there would be no time left for the call.
    until: Instant,
    /// The turn has come and is used.
    done: bool,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// An answer that someone waits for.
    Answer,
    /// A refresh behind a stale answer.
    Refresh,
}

/// No call can be made in time; asking again may help after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overloaded {
    pub(super) retry_after: Duration,
}

// === impl Places ===

impl Places {
    /// Most calls that wait: a waiting call takes some kilobytes, its request's connection aside.
    const WAITING: usize = 16_384;

    /// Most of them that are one caller's.
    const WAITING_PER_CALLER: usize = 4_096;

    pub(super) fn new(
        all: NonZeroUsize,
        patience: Duration,
        clock: SharedClock,
        metrics: CacheMetrics,
    ) -> Self {
        Self {
            queue: Mutex::new(FairQueue::new(Limits {
                places: all,
                patience,
                waiting: Self::WAITING,
                waiting_per_caller: Self::WAITING_PER_CALLER,
            })),
            all,
            patience,
            clock,
            metrics,
        }
    }

    /// A place for one call, now or later; what was asked for at `now` is of use until patience
    /// has come to its end.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] where the turn would not come in time.
    pub(super) fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        errand: Errand,
        now: Instant,
    ) -> Result<Turn, Overloaded> {
        let (call, called) = oneshot::channel();
        let name = Arc::clone(caller.name());
        let admission = self.lock().enter(&name, self.share(caller), || call);
        match admission {
            Admission::Granted => Ok(Turn(Entry::Come(Place {
                places: Arc::clone(self),
                caller: name,
                since: now,
            }))),
            Admission::Waits(ticket) => {
                self.metrics.fills_waiting.inc();
                Ok(Turn(Entry::Waits(Waiting {
                    places: Arc::clone(self),
                    caller: name,
                    ticket,
                    called,
                    until: now + self.patience,
                    done: false,
                })))
            }
            Admission::Refused(Refusal {
                reason,
                retry_after,
            }) => {
                self.metrics.shed(match (errand, reason) {
                    (Errand::Refresh, _) => Shed::Refresh,
                    (Errand::Answer, Reason::Caller) => Shed::Caller,
                    (Errand::Answer, Reason::Queue) => Shed::Queue,
                });
                Err(Overloaded { retry_after })
            }
        }
    }

    /// Half of the places for one caller, so that no other finds all of them held; all of them
    /// where callers are not told apart.
    fn share(&self, caller: &Caller) -> usize {
        let all = self.all.get();
        if caller.is_anonymous() {
            all
        } else {
            (all / 2).max(1)
        }
    }

    fn give_back(&self, caller: &Arc<str>, held_for: Option<Duration>) {
        let next = self.lock().leave(caller, held_for);
        if let Some(next) = next {
            // Who gives up leaves the queue first, so somebody is there to hear it.
            let _heard = next.send(());
        }
    }

    /// A panic while the lock is held would be a fault of the queue's own arithmetic; what it
    /// counts is whole between its steps.
    fn lock(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<()>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// Waits until the turn has come.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when it has not in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub(super) async fn come(self) -> Result<Place, Overloaded> {
        match self.0 {
            Entry::Come(place) => Ok(place),
            Entry::Waits(waiting) => waiting.wait().await,
        }
    }
}

// === impl Waiting ===

impl Waiting {
    async fn wait(mut self) -> Result<Place, Overloaded> {
        let places = Arc::clone(&self.places);
        let called = tokio::select! {
            biased;
            _called = &mut self.called => true,
            () = places.clock.sleep_until(self.until) => false,
        };
        let now = places.clock.now();
        if called && now < self.until {
            self.done = true;
            return Ok(Place {
                caller: Arc::clone(&self.caller),
                since: now,
                places,
            });
        }
        places.metrics.shed(Shed::Deadline);
        let retry_after = places.lock().retry_after(&self.caller);
        Err(Overloaded { retry_after })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.metrics.fills_waiting.dec();
        if !self.done && !self.places.lock().abandon(&self.caller, self.ticket) {
            // The turn came too late, and nobody makes use of it.
            self.places.give_back(&self.caller, None);
        }
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let held_for = self
            .places
            .clock
            .now()
            .saturating_duration_since(self.since);
        self.places.give_back(&self.caller, Some(held_for));
    }
}
