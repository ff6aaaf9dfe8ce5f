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
    elapsed: watch::Sender<Duration>,
    /// Until when each sleeper sleeps.
    sleep_deadlines: watch::Sender<Vec<Instant>>,
}

/// Someone asleep, for as long as this lives.
struct SleepGuard<'a> {
    clock: &'a ManualClock,
    until: Instant,
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at this wall time.
    pub fn at(wall: Timestamp) -> Self {
        Self {
            started: SystemClock.now(),
            started_wall: wall,
            elapsed: watch::Sender::default(),
            sleep_deadlines: watch::Sender::default(),
        }
    }

    /// Moves the time on, and wakes who slept until then.
    pub fn advance(&self, by: Duration) {
        self.elapsed.send_modify(|passed| *passed += by);
    }

    /// Completes when so many sleep until just that time from now.
    pub async fn wait_for_sleepers_until(&self, sleepers: usize, by: Duration) {
        let until = self.now() + by;
        let slept_for =
            |all: &Vec<Instant>| all.iter().filter(|one| **one == until).count() >= sleepers;
        self.wait_for_sleepers(slept_for).await;
    }

    /// Moves the time on by this, once someone sleeps for no longer.
    pub async fn advance_when_sleeping(&self, by: Duration) {
        let now = self.now();
        self.wait_for_sleepers(|all| all.iter().any(|until| now < *until && *until <= now + by))
            .await;
        self.advance(by);
    }

    async fn wait_for_sleepers(&self, enough: impl FnMut(&Vec<Instant>) -> bool) {
        // The sender lives in `self`: waiting cannot fail.
        let _enough = self
            .sleep_deadlines
            .subscribe()
            .wait_for(enough)
            .await
            .is_ok();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.started + *self.elapsed.borrow()
    }

    fn wall_time(&self) -> Timestamp {
        self.started_wall + *self.elapsed.borrow()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let _asleep = SleepGuard::new(self, deadline);
            let until = deadline.saturating_duration_since(self.started);
            let mut passed = self.elapsed.subscribe();
            let _reached = passed.wait_for(|passed| *passed >= until).await.is_ok();
        })
    }
}

// === impl Asleep ===

impl<'a> SleepGuard<'a> {
    fn new(clock: &'a ManualClock, until: Instant) -> Self {
        clock.sleep_deadlines.send_modify(|all| all.push(until));
        Self { clock, until }
    }
}

impl Drop for SleepGuard<'_> {
    fn drop(&mut self) {
        self.clock.sleep_deadlines.send_modify(|all| {
            if let Some(at) = all.iter().position(|until| *until == self.until) {
                all.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved() {
        let minute = Duration::from_secs(60);
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let sleep = clock.sleep_until(clock.now() + minute);

        let move_on = async {
            clock.wait_for_sleepers_until(1, minute).await;
            clock.advance(minute);
        };
        tokio::join!(sleep, move_on);

        assert_eq!(clock.wall_time().as_second(), 60);
        assert!(clock.sleep_deadlines.borrow().is_empty());
    }
}
