use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Clock, SystemClock};

/// A clock that stands still until it is moved: what a test injects.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    started_wall: Timestamp,
    passed: watch::Sender<Duration>,
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at this wall time.
    pub fn at(wall: Timestamp) -> Self {
        Self {
            started: SystemClock.now(),
            started_wall: wall,
            passed: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Moves the time on, and wakes who slept until then.
    pub fn advance(&self, by: Duration) {
        self.passed.send_modify(|passed| *passed += by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.started + *self.passed.borrow()
    }

    fn wall(&self) -> Timestamp {
        self.started_wall + *self.passed.borrow()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let until = deadline.saturating_duration_since(self.started);
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            // The sender lives in `self`, which this future borrows: waiting cannot fail.
            let _reached = passed.wait_for(|passed| *passed >= until).await.is_ok();
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let mut sleep = clock.sleep_until(clock.now() + Duration::from_secs(60));
        let asleep = tokio::select! {
            biased;
            () = &mut sleep => false,
            () = std::future::ready(()) => true,
        };

        clock.advance(Duration::from_secs(60));
        sleep.await;

        assert!(asleep);
        assert_eq!(clock.wall().as_second(), 60);
    }
}
