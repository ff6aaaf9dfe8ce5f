//! Not asking what fails, and finding out when it works again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::backoff::Backoff;

/// A circuit breaker in the words of Nygard, *Release It!*: **closed** passes calls, **open**
/// refuses them, **half-open** lets one probe through.
///
/// It opens once so many failures have come in a row, from more than one subject. In a row rather
/// than as a share of a window: one success anywhere shows that the other side lives, and calls
/// that a cache lets through are too few for shares to mean anything. From more than one subject
/// `S`, since a single customer whose every call fails is that customer's trouble, and must not
/// cost the others theirs.
///
/// The pause before the first probe is that of the backoff's first retry, and grows with each
/// probe that fails, unless the one before it failed for the same subject: one customer whose every
/// call fails must not keep a circuit open longer and longer that others would close.
#[derive(Debug)]
pub struct CircuitBreaker<S> {
    failure_threshold: u32,
    backoff: Backoff,
    // Held for a few instructions, never across an await.
    circuit: Mutex<CircuitInner<S>>,
}

/// Leave to make one call; what came of it is told by [`CircuitPermit::record_success`] or [`CircuitPermit::record_failure`].
///
/// Dropped without either, as when the caller went away, it is as if it had never been given: a
/// probe may be made by another.
#[derive(Debug)]
#[must_use = "a permit that is dropped lets another call in"]
pub struct CircuitPermit<'a, S> {
    breaker: &'a CircuitBreaker<S>,
    epoch: u64,
}

/// Where the circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// One call is under way or may begin, to probe; others are refused.
    HalfOpen,
}

/// The circuit refuses the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitRefusal {
    /// When to ask again; soon, while a probe is under way.
    pub retry_at: Instant,
}

#[derive(Debug)]
struct CircuitInner<S> {
    phase: CircuitPhase<S>,
    /// Changes with the phase, so that the outcome of a call from before counts for nothing.
    epoch: u64,
    /// Pauses since it was last closed.
    open_count: u32,
    /// For whom the last probe failed.
    last_probe_subject: Option<S>,
}

#[derive(Clone, Copy, Debug)]
enum CircuitPhase<S> {
    Closed {
        in_a_row: u32,
        failing: FailingSubjects<S>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        since: Instant,
    },
}

/// Who has failed since the last success.
#[derive(Clone, Copy, Debug)]
enum FailingSubjects<S> {
    Empty,
    Single(S),
    Multiple,
}

/// How soon to come back while a probe is under way.
const PROBE_WAIT: Duration = Duration::from_secs(1);

// === impl CircuitBreaker ===

impl<S: Copy + Eq> CircuitBreaker<S> {
    /// A closed circuit that opens after so many failures in a row, and then pauses for the ends of
    /// the intervals of `pauses`.
    pub const fn new(failures: u32, pauses: Backoff) -> Self {
        let circuit = CircuitInner {
            phase: CircuitPhase::CLOSED,
            epoch: 0,
            open_count: 0,
            last_probe_subject: None,
        };
        Self {
            failure_threshold: failures,
            backoff: pauses,
            circuit: Mutex::new(circuit),
        }
    }

    /// Lets a call begin, and makes it the probe where one is due.
    ///
    /// # Errors
    ///
    /// [`CircuitRefusal`] while the circuit is open, or another call probes it.
    pub fn acquire(&self, now: Instant) -> Result<CircuitPermit<'_, S>, CircuitRefusal> {
        let mut circuit = self.lock();
        match circuit.refusal(now) {
            Some(refused) => Err(refused),
            None => {
                if let CircuitPhase::Open { until } = circuit.phase {
                    circuit.enter(CircuitPhase::HalfOpen { since: until });
                }
                Ok(CircuitPermit {
                    breaker: self,
                    epoch: circuit.epoch,
                })
            }
        }
    }

    /// What [`CircuitBreaker::acquire`] would refuse with at this moment.
    pub fn current_refusal(&self, now: Instant) -> Option<CircuitRefusal> {
        self.lock().refusal(now)
    }

    /// Where the circuit stands. It is half-open from when a probe is due.
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.lock().phase {
            CircuitPhase::Closed { .. } => CircuitState::Closed,
            CircuitPhase::Open { until } if now < until => CircuitState::Open,
            CircuitPhase::Open { .. } | CircuitPhase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, CircuitInner<S>> {
        // The circuit is whole after every assignment, so a panic elsewhere spoils nothing.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Permit ===

impl<S: Copy + Eq> CircuitPermit<'_, S> {
    /// The call was answered. Returns whether that closed the circuit.
    pub fn record_success(self) -> bool {
        let mut circuit = self.breaker.lock();
        if circuit.epoch != self.epoch {
            return false;
        }
        let closes = matches!(circuit.phase, CircuitPhase::HalfOpen { .. });
        if closes {
            circuit.open_count = 0;
            circuit.last_probe_subject = None;
            circuit.enter(CircuitPhase::CLOSED);
        } else {
            circuit.phase = CircuitPhase::CLOSED;
        }
        closes
    }

    /// The call failed, for `subject`. Returns for how long no call is made from now on, where this
    /// failure opened the circuit.
    pub fn record_failure(self, now: Instant, subject: S) -> Option<Duration> {
        let breaker = self.breaker;
        let mut circuit = breaker.lock();
        if circuit.epoch != self.epoch {
            return None;
        }
        let mut again = false;
        if let CircuitPhase::Closed { in_a_row, failing } = circuit.phase {
            let (in_a_row, failing) = (in_a_row.saturating_add(1), failing.with(subject));
            if in_a_row < breaker.failure_threshold || !matches!(failing, FailingSubjects::Multiple)
            {
                circuit.phase = CircuitPhase::Closed { in_a_row, failing };
                return None;
            }
        } else {
            again = circuit.last_probe_subject.replace(subject) == Some(subject);
        }
        if !again {
            circuit.open_count = circuit.open_count.saturating_add(1);
        }
        let pause = breaker
            .backoff
            .delay(circuit.open_count.saturating_sub(1), 1.0);
        circuit.enter(CircuitPhase::Open { until: now + pause });
        Some(pause)
    }
}

impl<S> Drop for CircuitPermit<'_, S> {
    fn drop(&mut self) {
        let circuit = self.breaker.circuit.lock();
        let mut circuit = circuit.unwrap_or_else(PoisonError::into_inner);
        // An outcome has changed the epoch of a probe.
        if let (true, CircuitPhase::HalfOpen { since }) =
            (circuit.epoch == self.epoch, &circuit.phase)
        {
            circuit.phase = CircuitPhase::Open { until: *since };
        }
    }
}

// === impl Circuit ===

impl<S> CircuitInner<S> {
    fn refusal(&self, now: Instant) -> Option<CircuitRefusal> {
        match self.phase {
            CircuitPhase::Open { until } => {
                Some(CircuitRefusal { retry_at: until }).filter(|_| now < until)
            }
            CircuitPhase::HalfOpen { .. } => Some(CircuitRefusal {
                retry_at: now + PROBE_WAIT,
            }),
            CircuitPhase::Closed { .. } => None,
        }
    }

    fn enter(&mut self, phase: CircuitPhase<S>) {
        self.phase = phase;
        self.epoch += 1;
    }
}

// === impl Phase ===

impl<S> CircuitPhase<S> {
    const CLOSED: Self = Self::Closed {
        in_a_row: 0,
        failing: FailingSubjects::Empty,
    };
}

// === impl Failing ===

impl<S: Eq> FailingSubjects<S> {
    fn with(self, subject: S) -> Self {
        match self {
            Self::Empty => Self::Single(subject),
            Self::Single(same) if same == subject => Self::Single(same),
            Self::Single(_) | Self::Multiple => Self::Multiple,
        }
    }
}

// === impl CircuitState ===

impl CircuitState {
    /// Every state, for tables that have a row for each.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Stable name for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[cfg(test)]
mod tests;
