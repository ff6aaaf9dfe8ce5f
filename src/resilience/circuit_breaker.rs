//! A circuit breaker: stops calls that fail, and finds out when they work again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::backoff::Backoff;

/// A circuit breaker in the words of Nygard, *Release It!*: **closed** passes calls, **open** rejects
/// them, **half-open** lets one probe pass.
///
/// It opens after several failures in a row, for more than one subject. In a row and not by a share of
/// a window: one success shows that the other side works, and a cache lets too few calls pass for
/// shares to mean anything. For more than one subject `S`: a single customer whose calls all fail must
/// not stop the calls for others.
///
/// The pause before the first probe is the longest of the backoff's first retry. It grows with each
/// failed probe, unless the probe before failed for the same subject.
#[derive(Debug)]
pub struct CircuitBreaker<S> {
    failure_threshold: u32,
    backoff: Backoff,
    // Locked for a few instructions, never across an await.
    circuit: Mutex<CircuitInner<S>>,
}

/// Permits one call, whose outcome is recorded by [`CircuitPermit::record_success`] or
/// [`CircuitPermit::record_failure`].
///
/// Dropped without either, for example when the caller disconnects, it has no effect: another call may
/// probe.
#[derive(Debug)]
#[must_use = "a permit that is dropped lets another call in"]
pub struct CircuitPermit<'a, S> {
    breaker: &'a CircuitBreaker<S>,
    epoch: u64,
}

/// The state of the circuit; its name is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum CircuitState {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// One call probes, or may; others are rejected.
    HalfOpen,
}

#[derive(Debug)]
struct CircuitInner<S> {
    phase: CircuitPhase<S>,
    /// Changes with the phase, so that outcomes of earlier calls do not count.
    epoch: u64,
    /// The pauses since it was closed.
    open_count: u32,
    /// The subject of the last failed probe.
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

/// The subjects of the failures since the last success.
#[derive(Clone, Copy, Debug)]
enum FailingSubjects<S> {
    Empty,
    Single(S),
    Multiple,
}

/// The time until the next look while a probe is in progress.
const PROBE_WAIT: Duration = Duration::from_secs(1);

// === impl CircuitBreaker ===

impl<S: Copy + Eq> CircuitBreaker<S> {
    /// Creates a closed circuit that opens after so many failures in a row.
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

    /// Lets a call pass, as the probe if one is due.
    ///
    /// # Errors
    ///
    /// While the circuit is open, or another call probes it: the time to try again.
    pub fn acquire(&self, now: Instant) -> Result<CircuitPermit<'_, S>, Instant> {
        let mut circuit = self.lock();
        if let Some(retry_at) = circuit.rejection(now) {
            return Err(retry_at);
        }
        if let CircuitPhase::Open { until } = circuit.phase {
            circuit.enter(CircuitPhase::HalfOpen { since: until });
        }
        Ok(CircuitPermit {
            breaker: self,
            epoch: circuit.epoch,
        })
    }

    /// Returns the error of [`CircuitBreaker::acquire`] at this moment.
    pub fn current_rejection(&self, now: Instant) -> Option<Instant> {
        self.lock().rejection(now)
    }

    /// Returns the state. It is half-open from when a probe is due.
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.lock().phase {
            CircuitPhase::Closed { .. } => CircuitState::Closed,
            CircuitPhase::Open { until } if now < until => CircuitState::Open,
            CircuitPhase::Open { .. } | CircuitPhase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, CircuitInner<S>> {
        // The circuit is consistent after every assignment.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CircuitPermit ===

impl<S: Copy + Eq> CircuitPermit<'_, S> {
    /// Records a reply. Returns true if it closed the circuit.
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

    /// Records a failure for `subject`. Returns the pause, if the failure opened the circuit.
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

// === impl CircuitInner ===

impl<S> CircuitInner<S> {
    fn rejection(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            CircuitPhase::Open { until } => Some(until).filter(|until| now < *until),
            CircuitPhase::HalfOpen { .. } => Some(now + PROBE_WAIT),
            CircuitPhase::Closed { .. } => None,
        }
    }

    fn enter(&mut self, phase: CircuitPhase<S>) {
        self.phase = phase;
        self.epoch += 1;
    }
}

// === impl CircuitPhase ===

impl<S> CircuitPhase<S> {
    const CLOSED: Self = Self::Closed {
        in_a_row: 0,
        failing: FailingSubjects::Empty,
    };
}

// === impl FailingSubjects ===

impl<S: Eq> FailingSubjects<S> {
    fn with(self, subject: S) -> Self {
        match self {
            Self::Empty => Self::Single(subject),
            Self::Single(same) if same == subject => Self::Single(same),
            Self::Single(_) | Self::Multiple => Self::Multiple,
        }
    }
}

#[cfg(test)]
mod tests;
