use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    activity::{Activity, Phase},
    limits::ConnectionLimits,
    metrics::ConnectionGuard,
    stream_tracker::StallAction,
};

/// Ends what takes too long, with one timer per connection.
///
/// The timer is moved only when a deadline comes before it, or when it has fired: a request that is
/// answered at once costs no more than a look at the time.
#[derive(Debug)]
pub(super) struct Watchdog {
    limits: ConnectionLimits,
    phase: Phase,
    deadline: Instant,
    /// Which pause of the socket lasts, and since when; `None` where it takes what is written.
    stall: Option<(u32, Instant)>,
    /// When the connection has been idle for long enough to rest.
    release_buffers_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What has lasted too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchdogEvent {
    /// What the connection spends its time on.
    PhaseTimeout(Phase),
    /// A client that takes nothing of its answer.
    StallTimeout,
    /// Nothing: the connection is idle, and does without buffers meanwhile.
    ReleaseBuffers,
}

// === impl Watchdog ===

impl Watchdog {
    /// Begins with a connection that has just been made.
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let phase = Phase::Opening;
        let deadline = Instant::now() + limits.phase_timeout(phase);
        Self {
            limits,
            phase,
            deadline,
            stall: None,
            release_buffers_at: None,
            timer: Box::pin(sleep_until(deadline)),
        }
    }

    /// Completes with what has lasted too long. Polled after everything that could change the phase.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        counted: &mut ConnectionGuard,
    ) -> Poll<WatchdogEvent> {
        let phase = activity.phase();
        if phase != self.phase {
            counted.record_phase(phase);
            self.enter_phase(phase);
        }
        // One that is being closed has little time left in any case.
        let pause = activity.stall().filter(|_| phase != Phase::Closing);
        if pause != self.stall.map(|(pause, _since)| pause) {
            self.stall = pause.map(|pause| (pause, Instant::now()));
            if let Some((_, since)) = self.stall {
                self.wake_by(since + self.limits.stall_timeout);
            }
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let fired = self.timer.deadline();
            if self.deadline <= fired {
                return Poll::Ready(WatchdogEvent::PhaseTimeout(phase));
            }
            if self.release_buffers_at.take_if(|at| *at <= fired).is_some() {
                return Poll::Ready(WatchdogEvent::ReleaseBuffers);
            }
            let stalled = self
                .stall
                .map(|(_, since)| since + self.limits.stall_timeout);
            let stalled = match activity.reset_stalled(self.limits.stall_timeout) {
                StallAction::CloseConnection if phase != Phase::Closing => Some(fired),
                StallAction::CloseConnection => stalled,
                StallAction::Wait(next) => stalled.into_iter().chain(next).min(),
            };
            if stalled.is_some_and(|stalled| stalled <= fired) {
                return Poll::Ready(WatchdogEvent::StallTimeout);
            }
            let earlier = stalled.into_iter().chain(self.release_buffers_at).min();
            let next = earlier.map_or(self.deadline, |earlier| earlier.min(self.deadline));
            self.timer.as_mut().reset(next);
        }
    }

    fn enter_phase(&mut self, phase: Phase) {
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
        self.deadline = since + self.limits.phase_timeout(phase);
        self.wake_by(self.deadline);
        self.release_buffers_at = None;
        match phase {
            // Which of them are stalled is looked at now and then.
            Phase::Streams(since) => self.wake_by(since + self.limits.stall_timeout),
            Phase::Idle(_) => {
                let rest_at = since + self.limits.release_buffers_after;
                self.release_buffers_at = Some(rest_at);
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
