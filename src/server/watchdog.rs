//! The timeouts of a connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    activity::{Activity, Phase},
    limits::ConnectionLimits,
    metrics::{CloseReason, ConnectionGuard},
    stream_tracker::StallAction,
};

/// Checks all timeouts of a connection with one timer.
///
/// The timer is reset only for an earlier deadline, or when it has fired: a request that is answered
/// at once costs no more than reading the clock.
#[derive(Debug)]
pub(super) struct Watchdog {
    limits: ConnectionLimits,
    phase: Phase,
    deadline: Instant,
    /// The number of the current stall and its start; `None` if the socket accepts data.
    stall: Option<(u32, Instant)>,
    /// The time at which an idle connection releases its buffers.
    release_buffers_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// A timeout that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchdogEvent {
    /// The connection was in this phase for too long.
    PhaseTimeout(Phase),
    /// The client read nothing of its response for too long.
    StallTimeout,
    /// The connection stays open, but can release its buffers.
    ReleaseBuffers,
}

// === impl Watchdog ===

impl Watchdog {
    /// Starts the timeouts of a new connection.
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

    /// Completes when a timeout has passed. Must be polled after everything that can change the phase.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        guard: &mut ConnectionGuard,
    ) -> Poll<WatchdogEvent> {
        let phase = activity.phase();
        if phase != self.phase {
            guard.record_phase(phase);
            self.enter_phase(phase);
        }
        // A connection that is being closed has little time left in any case.
        let stall = activity.stall().filter(|_| phase != Phase::Closing);
        if stall != self.stall.map(|(number, _since)| number) {
            self.stall = stall.map(|number| (number, Instant::now()));
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
            // Stalled streams are looked for at intervals.
            Phase::Streams(since) => self.wake_by(since + self.limits.stall_timeout),
            Phase::Idle(_) => {
                let release_at = since + self.limits.release_buffers_after;
                self.release_buffers_at = Some(release_at);
                self.wake_by(release_at);
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

// === impl WatchdogEvent ===

impl WatchdogEvent {
    /// Returns the reason to close the connection; `None` if there is none or it was closing already.
    pub(super) const fn close_reason(self) -> Option<CloseReason> {
        match self {
            Self::StallTimeout => Some(CloseReason::StallTimeout),
            Self::PhaseTimeout(Phase::Opening | Phase::Head(_)) => Some(CloseReason::HeaderTimeout),
            Self::PhaseTimeout(Phase::Request(_) | Phase::Streams(_)) => {
                Some(CloseReason::RequestTimeout)
            }
            Self::PhaseTimeout(Phase::Idle(_)) => Some(CloseReason::IdleTimeout),
            Self::PhaseTimeout(Phase::Closing) | Self::ReleaseBuffers => None,
        }
    }
}
