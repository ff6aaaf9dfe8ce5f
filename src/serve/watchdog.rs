use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    activity::{Activity, Phase},
    limits::Limits,
    metrics::Counted,
};

/// Ends what takes too long, with one timer per connection.
///
/// The timer is moved only when a deadline comes before it, or when it has fired: a request that is
/// answered at once costs no more than a look at the time.
#[derive(Debug)]
pub(super) struct Watchdog {
    limits: Limits,
    phase: Phase,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
}

// === impl Watchdog ===

impl Watchdog {
    /// Begins with a connection that has just been made.
    pub(super) fn new(limits: Limits) -> Self {
        let phase = Phase::Opening;
        let deadline = Instant::now() + limits.of(phase);
        Self {
            limits,
            phase,
            deadline,
            timer: Box::pin(sleep_until(deadline)),
        }
    }

    /// Completes with the phase that has lasted too long. Polled after everything that could change
    /// the phase.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        counted: &mut Counted,
    ) -> Poll<Phase> {
        let phase = activity.phase();
        if phase != self.phase {
            counted.enter(phase);
            self.follow(phase);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.deadline <= self.timer.deadline() {
                return Poll::Ready(phase);
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }

    fn follow(&mut self, phase: Phase) {
        // The first byte of the first head gives it no more time than the connection had.
        let opened = self.phase == Phase::Opening && phase == Phase::Head(0);
        self.phase = phase;
        if opened {
            return;
        }
        let since = match phase {
            Phase::Streams(since) => since,
            _ => Instant::now(),
        };
        self.deadline = since + self.limits.of(phase);
        if self.deadline < self.timer.deadline() {
            self.timer.as_mut().reset(self.deadline);
        }
    }
}
