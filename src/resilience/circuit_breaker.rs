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
    failures: u32,
    pauses: Backoff,
    // Held for a few instructions, never across an await.
    circuit: Mutex<Circuit<S>>,
}

/// Leave to make one call; what came of it is told by [`Permit::succeeded`] or [`Permit::failed`].
///
/// Dropped without either, as when the caller went away, it is as if it had never been given: a
/// probe may be made by another.
#[derive(Debug)]
#[must_use = "a permit that is dropped lets another call in"]
pub struct Permit<'a, S> {
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
pub struct Refused {
    /// When to ask again; soon, while a probe is under way.
    pub until: Instant,
}

#[derive(Debug)]
struct Circuit<S> {
    phase: Phase<S>,
    /// Changes with the phase, so that the outcome of a call from before counts for nothing.
    epoch: u64,
    /// Pauses since it was last closed.
    pauses: u32,
    /// For whom the last probe failed.
    probed_for: Option<S>,
}

#[derive(Clone, Copy, Debug)]
enum Phase<S> {
    Closed { in_a_row: u32, failing: Failing<S> },
    Open { until: Instant },
    HalfOpen { since: Instant },
}

/// Who has failed since the last success.
#[derive(Clone, Copy, Debug)]
enum Failing<S> {
    Nobody,
    Only(S),
    Several,
}

/// How soon to come back while a probe is under way.
const PROBING: Duration = Duration::from_secs(1);

// === impl CircuitBreaker ===

impl<S: Copy + Eq> CircuitBreaker<S> {
    /// A closed circuit that opens after so many failures in a row, and then pauses for the ends of
    /// the intervals of `pauses`.
    pub const fn new(failures: u32, pauses: Backoff) -> Self {
        let circuit = Circuit {
            phase: Phase::CLOSED,
            epoch: 0,
            pauses: 0,
            probed_for: None,
        };
        Self {
            failures,
            pauses,
            circuit: Mutex::new(circuit),
        }
    }

    /// Lets a call begin, and makes it the probe where one is due.
    ///
    /// # Errors
    ///
    /// [`Refused`] while the circuit is open, or another call probes it.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_, S>, Refused> {
        let mut circuit = self.lock();
        match circuit.refusal(now) {
            Some(refused) => Err(refused),
            None => {
                if let Phase::Open { until } = circuit.phase {
                    circuit.enter(Phase::HalfOpen { since: until });
                }
                Ok(Permit {
                    breaker: self,
                    epoch: circuit.epoch,
                })
            }
        }
    }

    /// What [`CircuitBreaker::admit`] would refuse with at this moment.
    pub fn refusal(&self, now: Instant) -> Option<Refused> {
        self.lock().refusal(now)
    }

    /// Where the circuit stands. It is half-open from when a probe is due.
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.lock().phase {
            Phase::Closed { .. } => CircuitState::Closed,
            Phase::Open { until } if now < until => CircuitState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit<S>> {
        // The circuit is whole after every assignment, so a panic elsewhere spoils nothing.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Permit ===

impl<S: Copy + Eq> Permit<'_, S> {
    /// The call was answered. Returns whether that closed the circuit.
    pub fn succeeded(self) -> bool {
        let mut circuit = self.breaker.lock();
        if circuit.epoch != self.epoch {
            return false;
        }
        let closes = matches!(circuit.phase, Phase::HalfOpen { .. });
        if closes {
            circuit.pauses = 0;
            circuit.probed_for = None;
            circuit.enter(Phase::CLOSED);
        } else {
            circuit.phase = Phase::CLOSED;
        }
        closes
    }

    /// The call failed, for `subject`. Returns for how long no call is made from now on, where this
    /// failure opened the circuit.
    pub fn failed(self, now: Instant, subject: S) -> Option<Duration> {
        let breaker = self.breaker;
        let mut circuit = breaker.lock();
        if circuit.epoch != self.epoch {
            return None;
        }
        let mut again = false;
        if let Phase::Closed { in_a_row, failing } = circuit.phase {
            let (in_a_row, failing) = (in_a_row.saturating_add(1), failing.and(subject));
            if in_a_row < breaker.failures || !matches!(failing, Failing::Several) {
                circuit.phase = Phase::Closed { in_a_row, failing };
                return None;
            }
        } else {
            again = circuit.probed_for.replace(subject) == Some(subject);
        }
        if !again {
            circuit.pauses = circuit.pauses.saturating_add(1);
        }
        let pause = breaker.pauses.pause(circuit.pauses.saturating_sub(1), 1.0);
        circuit.enter(Phase::Open { until: now + pause });
        Some(pause)
    }
}

impl<S> Drop for Permit<'_, S> {
    fn drop(&mut self) {
        let circuit = self.breaker.circuit.lock();
        let mut circuit = circuit.unwrap_or_else(PoisonError::into_inner);
        // An outcome has changed the epoch of a probe.
        if let (true, Phase::HalfOpen { since }) = (circuit.epoch == self.epoch, &circuit.phase) {
            circuit.phase = Phase::Open { until: *since };
        }
    }
}

// === impl Circuit ===

impl<S> Circuit<S> {
    fn refusal(&self, now: Instant) -> Option<Refused> {
        match self.phase {
            Phase::Open { until } => Some(Refused { until }).filter(|_| now < until),
            Phase::HalfOpen { .. } => Some(Refused {
                until: now + PROBING,
            }),
            Phase::Closed { .. } => None,
        }
    }

    fn enter(&mut self, phase: Phase<S>) {
        self.phase = phase;
        self.epoch += 1;
    }
}

// === impl Phase ===

impl<S> Phase<S> {
    const CLOSED: Self = Self::Closed {
        in_a_row: 0,
        failing: Failing::Nobody,
    };
}

// === impl Failing ===

impl<S: Eq> Failing<S> {
    fn and(self, subject: S) -> Self {
        match self {
            Self::Nobody => Self::Only(subject),
            Self::Only(same) if same == subject => Self::Only(same),
            Self::Only(_) | Self::Several => Self::Several,
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
