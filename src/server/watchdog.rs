use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    activity::{Activity, Phase},
    limits::Limits,
    metrics::Counted,
    streams::Stall,
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
    /// Which pause of the socket lasts, and since when; `None` where it takes what is written.
    pause: Option<(u32, Instant)>,
    /// When the connection has been idle for long enough to rest.
    rest_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What has lasted too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// What the connection spends its time on.
    Phase(Phase),
    /// A client that takes nothing of its answer.
    Stall,
    /// Nothing: the connection is idle, and does without buffers meanwhile.
    Rest,
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
            pause: None,
            rest_at: None,
            timer: Box::pin(sleep_until(deadline)),
        }
    }

    /// Completes with what has lasted too long. Polled after everything that could change the phase.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        counted: &mut Counted,
    ) -> Poll<Overdue> {
        let phase = activity.phase();
        if phase != self.phase {
            counted.enter(phase);
            self.follow(phase);
        }
        // One that is being closed has little time left in any case.
        let pause = activity.pause().filter(|_| phase != Phase::Closing);
        if pause != self.pause.map(|(pause, _since)| pause) {
            self.pause = pause.map(|pause| (pause, Instant::now()));
            if let Some((_, since)) = self.pause {
                self.wake_by(since + self.limits.stall_timeout);
            }
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let fired = self.timer.deadline();
            if self.deadline <= fired {
                return Poll::Ready(Overdue::Phase(phase));
            }
            if self.rest_at.take_if(|at| *at <= fired).is_some() {
                return Poll::Ready(Overdue::Rest);
            }
            let stalled = self
                .pause
                .map(|(_, since)| since + self.limits.stall_timeout);
            let stalled = match activity.reset_stalled(self.limits.stall_timeout) {
                Stall::End if phase != Phase::Closing => Some(fired),
                Stall::End => stalled,
                Stall::Wait(next) => stalled.into_iter().chain(next).min(),
            };
            if stalled.is_some_and(|stalled| stalled <= fired) {
                return Poll::Ready(Overdue::Stall);
            }
            let earlier = stalled.into_iter().chain(self.rest_at).min();
            let next = earlier.map_or(self.deadline, |earlier| earlier.min(self.deadline));
            self.timer.as_mut().reset(next);
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
        self.wake_by(self.deadline);
        self.rest_at = None;
        match phase {
            // Which of them are stalled is looked at now and then.
            Phase::Streams(since) => self.wake_by(since + self.limits.stall_timeout),
            Phase::Idle(_) => {
                let rest_at = since + self.limits.rest_after;
                self.rest_at = Some(rest_at);
                self.wake_by(rest_at);
            }
            _ => {}
        }
    }

    fn wake_by(&mut self, deadline: Instant) {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }
}
