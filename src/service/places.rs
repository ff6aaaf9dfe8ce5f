//! Places for upstream calls: each caller in turn, and nobody waits in vain.

mod turn;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use self::turn::Waiter;
pub(super) use self::turn::{Outlasts, Turn, Wanted};
use crate::{
    cache::{CacheMetrics, ShedReason},
    clock::SharedClock,
    domain::Caller,
    resilience::fair_queue::{FairQueue, Limits, Reason, Refusal},
};

/// Places for calls under way, shared by all callers.
#[derive(Debug)]
pub(super) struct ConcurrencyLimiter {
    queue: Mutex<FairQueue<Waiter>>,
    all: NonZeroUsize,
    patience: Duration,
    clock: SharedClock,
    metrics: CacheMetrics,
}

/// A place that is held for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<ConcurrencyLimiter>,
    caller: Arc<str>,
    since: Instant,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchReason {
    /// An answer that someone waits for.
    Request,
    /// A refresh behind a stale answer.
    Refresh,
}

/// No call can be made in time; asking again may help after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overloaded {
    pub(super) retry_after: Duration,
}

// === impl Places ===

impl ConcurrencyLimiter {
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

    /// Wants a place for one call, now or later; what was asked for at `now` is of use until
    /// patience has come to its end.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] where the turn would not come in time.
    pub(super) fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        errand: FetchReason,
        now: Instant,
    ) -> Result<Arc<Wanted>, Overloaded> {
        Wanted::by(self, caller, now).map_err(|refused| {
            let Refusal {
                reason,
                retry_after,
            } = refused;
            self.metrics.record_shed(match (errand, reason) {
                (FetchReason::Refresh, _) => ShedReason::Refresh,
                (FetchReason::Request, Reason::Caller) => ShedReason::Caller,
                (FetchReason::Request, Reason::Queue) => ShedReason::Queue,
            });
            Overloaded { retry_after }
        })
    }

    /// What a caller is told whose patience has come to its end.
    pub(super) fn overloaded(&self, caller: &str) -> Overloaded {
        Overloaded {
            retry_after: self.lock().retry_after(caller),
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
        let mut next = self.lock().leave(caller, held_for);
        while let Some(waiter) = next {
            next = match waiter.call() {
                Ok(()) => None,
                // It makes no use of it any more: the one after it may.
                Err(unused) => self.lock().leave(&unused, None),
            };
        }
    }

    /// A panic while the lock is held would be a fault of the queue's own arithmetic; what it
    /// counts is whole between its steps.
    fn lock(&self) -> MutexGuard<'_, FairQueue<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let held_for = self
            .places
            .clock
            .now()
            .saturating_duration_since(self.since)
            // The one call that may take longer, for the list of customers, says nothing of others:
            // what is learnt from it would have them refused.
            .min(self.places.patience);
        self.places.give_back(&self.caller, Some(held_for));
    }
}
