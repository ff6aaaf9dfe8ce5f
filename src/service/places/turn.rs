//! The turn of one call, whoever wants it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::{ConcurrencyLimiter, Overloaded, Place};
use crate::{
    cache::ShedReason,
    domain::Caller,
    resilience::fair_queue::{Admission, Refusal},
    service::gauge_guard::GaugeGuard,
};

/// A call that someone wants: it waits in the line of every caller that does, so that none waits
/// behind the line of another.
pub(in crate::service) struct Wanted {
    places: Arc<ConcurrencyLimiter>,
    /// Who wanted it first.
    first: Arc<str>,
    /// Held while the queue is entered; the queue's lock is never held while this is taken.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// By whom it was wanted last, in time: patience counts from then.
    asked_at: Instant,
    lines: Vec<Line>,
    /// Whose turn has come, with a place that is not made use of so far.
    come: Option<Arc<str>>,
    /// The call has begun, or will not be made.
    settled: bool,
}

/// A place in a caller's line.
#[derive(Debug)]
struct Line {
    caller: Arc<str>,
    ticket: u64,
}

/// Who is told that a caller's turn has come.
#[derive(Debug)]
pub(super) struct Waiter {
    wanted: Arc<Wanted>,
    caller: Arc<str>,
}

/// A wanted call's hold on its lines. Dropping it leaves them all.
#[derive(Debug)]
pub(in crate::service) struct Turn(Arc<Wanted>);

/// What a call is about that goes on after someone's patience has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Outlasts {
    /// It waits for its turn, or did for long.
    InLine,
    /// It is being answered, page by page.
    UnderWay,
}

/// What a call that waits has to do at this moment.
enum Next {
    /// Begin, in the place of this caller, for who asked at this time.
    Begin(Arc<str>, Instant),
    Wait {
        until: Instant,
    },
    GiveUp,
}

// === impl Wanted ===

impl Wanted {
    /// A call that `caller` has asked for at `now`.
    ///
    /// # Errors
    ///
    /// Where its turn would not come in time.
    pub(super) fn by(
        places: &Arc<ConcurrencyLimiter>,
        caller: &Caller,
        now: Instant,
    ) -> Result<Arc<Self>, Refusal> {
        let wanted = Arc::new(Self {
            places: Arc::clone(places),
            first: Arc::clone(caller.name()),
            state: Mutex::new(State {
                asked_at: now,
                lines: Vec::new(),
                come: None,
                settled: false,
            }),
            changed: Notify::new(),
        });
        wanted.line_up(&mut wanted.lock(), caller)?;
        Ok(wanted)
    }

    /// Has the call wait in this caller's line too, unless it has begun: it goes with the first
    /// turn that comes. A caller that may not have it wait waits for the turns of the others.
    pub(in crate::service) fn join(self: &Arc<Self>, caller: &Caller, now: Instant) {
        let mut state = self.lock();
        if state.settled || now >= state.asked_at + self.places.patience {
            return;
        }
        state.asked_at = state.asked_at.max(now);
        let waits = |line: &Line| line.caller == *caller.name();
        if state.come.is_none() && !state.lines.iter().any(waits) {
            let _refused = self.line_up(&mut state, caller).is_err();
        }
    }

    /// Completes when who asked at `asked_at` has waited for as long as that is of use, while the
    /// call goes on: for who asked later, or for the cache where it `may_last`.
    pub(in crate::service) async fn outlasts(&self, asked_at: Instant, may_last: bool) -> Outlasts {
        let until = asked_at + self.places.patience;
        self.places.clock.sleep_until(until).await;
        let (for_others, begun) = {
            let state = self.lock();
            (state.asked_at > asked_at, state.settled)
        };
        if may_last && begun {
            Outlasts::UnderWay
        } else if for_others {
            Outlasts::InLine
        } else {
            // It ends by itself, and has more to say.
            std::future::pending().await
        }
    }

    fn line_up(self: &Arc<Self>, state: &mut State, caller: &Caller) -> Result<(), Refusal> {
        let waiter = || Waiter {
            wanted: Arc::clone(self),
            caller: Arc::clone(caller.name()),
        };
        let share = self.places.share(caller);
        let admission = self.places.lock().enter(caller.name(), share, waiter);
        match admission {
            Admission::Granted => {
                state.come = Some(Arc::clone(caller.name()));
                self.changed.notify_one();
            }
            Admission::Waits(ticket) => state.lines.push(Line {
                caller: Arc::clone(caller.name()),
                ticket,
            }),
            Admission::Refused(refusal) => return Err(refusal),
        }
        Ok(())
    }

    fn next(&self, now: Instant) -> Next {
        let mut state = self.lock();
        let until = state.asked_at + self.places.patience;
        if now >= until {
            return Next::GiveUp;
        }
        match state.come.take() {
            Some(caller) => {
                state.settled = true;
                Next::Begin(caller, state.asked_at)
            }
            None => Next::Wait { until },
        }
    }

    /// Leaves every line, and gives back a place of which no use was made.
    fn leave(&self) {
        let (lines, come) = {
            let mut state = self.lock();
            state.settled = true;
            (std::mem::take(&mut state.lines), state.come.take())
        };
        for Line { caller, ticket } in lines {
            // Where its turn has come in this moment, its waiter will hear that it is too late.
            let _waited = self.places.lock().abandon(&caller, ticket);
        }
        if let Some(caller) = come {
            self.places.give_back(&caller, None);
        }
    }

    /// What it guards is whole between two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wanted {
    /// Without its places, whose queue holds this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

// === impl Waiter ===

impl Waiter {
    /// Hands the caller's place to the call.
    ///
    /// # Errors
    ///
    /// The caller, where the call has no use for it.
    pub(super) fn call(self) -> Result<(), Arc<str>> {
        let Self { wanted, caller } = self;
        let mut state = wanted.lock();
        if state.settled || state.come.is_some() {
            return Err(caller);
        }
        state.lines.retain(|line| line.caller != caller);
        state.come = Some(caller);
        wanted.changed.notify_one();
        Ok(())
    }
}

// === impl Turn ===

impl Turn {
    /// The turn of this call; there must be one alone.
    pub(in crate::service) fn of(wanted: Arc<Wanted>) -> Self {
        Self(wanted)
    }

    /// Waits until it has come, in the line of whomever. Returns when the call was last asked for
    /// besides: until its deadline, the call has from then.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when it has not come in time for anybody.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the lines.
    pub(in crate::service) async fn come(self) -> Result<(Place, Instant), Overloaded> {
        let Self(wanted) = &self;
        let places = &wanted.places;
        let mut waiting = None;
        loop {
            let now = places.clock.now();
            match wanted.next(now) {
                Next::Begin(caller, asked_at) => {
                    let place = Place {
                        places: Arc::clone(places),
                        caller,
                        since: now,
                    };
                    return Ok((place, asked_at));
                }
                Next::GiveUp => {
                    places.metrics.record_shed(ShedReason::Deadline);
                    return Err(places.overloaded(&wanted.first));
                }
                Next::Wait { until } => {
                    waiting.get_or_insert_with(|| {
                        GaugeGuard::increment(&places.metrics.fills_waiting)
                    });
                    tokio::select! {
                        () = wanted.changed.notified() => {}
                        () = places.clock.sleep_until(until) => {}
                    }
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.leave();
    }
}
