//! The clock of the service: monotonic time for ages and deadlines, wall time for dates.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// The source of time for all components, so that a test can move it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns monotonic time, for ages, freshness and deadlines.
    fn now(&self) -> Instant;

    /// Returns wall time, for dates, `Last-Modified` and timestamps in metrics.
    fn wall_time(&self) -> Timestamp;

    /// Completes when [`Clock::now`] reaches `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A clock that components share.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock whose wall time was compared with that of another machine.
#[derive(Debug)]
pub struct OffsetClock {
    clock: SharedClock,
    offset_ms: AtomicI64,
}

/// A clock for tests, which stands still until it is moved. Waits that last too long panic.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    started_wall: Timestamp,
    elapsed: watch::Sender<Duration>,
    /// The deadline of each sleeper.
    sleep_deadlines: watch::Sender<Vec<Instant>>,
}

/// The longest wait of a test for a sleeper, in real time.
const MAX_TEST_WAIT: Duration = Duration::from_secs(60);

/// Counts a sleeper until it is dropped.
struct SleepGuard<'a> {
    clock: &'a ManualClock,
    until: Instant,
}

/// Runs `work` until `deadline`. Returns `None`, and drops it, if it is not done by then.
pub async fn with_deadline<T>(
    clock: &SharedClock,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep_until(deadline) => None,
    }
}

// === impl SystemClock ===

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system clocks"
)]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_time(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

// === impl OffsetClock ===

impl OffsetClock {
    /// The greatest offset. Over a greater distance, either clock may be the wrong one.
    const MAX_OFFSET: SignedDuration = SignedDuration::from_hours(24);

    /// Creates a clock that shows the time of another.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            offset_ms: AtomicI64::new(0),
        }
    }

    /// Shows the wall time of another machine from now on, unless it is more than a day away.
    pub fn follow(&self, time: Timestamp) {
        let offset = time.duration_since(self.clock.wall_time());
        if offset.abs() <= Self::MAX_OFFSET {
            let millis = i64::try_from(offset.as_millis()).unwrap_or_default();
            self.offset_ms.store(millis, Ordering::Relaxed);
        }
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall_time(&self) -> Timestamp {
        let offset = SignedDuration::from_millis(self.offset_ms.load(Ordering::Relaxed));
        let wall_time = self.clock.wall_time();
        wall_time.checked_add(offset).unwrap_or(wall_time)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.clock.sleep_until(deadline)
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// Creates a clock that shows this wall time.
    pub fn at(wall: Timestamp) -> Self {
        Self {
            started: SystemClock.now(),
            started_wall: wall,
            elapsed: watch::Sender::default(),
            sleep_deadlines: watch::Sender::default(),
        }
    }

    /// Advances the time, and wakes sleepers whose deadline it reaches.
    pub fn advance(&self, by: Duration) {
        self.elapsed.send_modify(|passed| *passed += by);
    }

    /// Completes when at least this many sleepers wait for exactly this time from now.
    pub async fn wait_for_sleepers_until(&self, sleepers: usize, by: Duration) {
        let until = self.now() + by;
        let slept_for =
            |all: &Vec<Instant>| all.iter().filter(|one| **one == until).count() >= sleepers;
        self.wait_for_sleepers(slept_for).await;
    }

    /// Advances the time as soon as a sleeper's deadline lies within it.
    pub async fn advance_when_sleeping(&self, by: Duration) {
        let now = self.now();
        self.wait_for_sleepers(|all| all.iter().any(|until| now < *until && *until <= now + by))
            .await;
        self.advance(by);
    }

    #[expect(clippy::expect_used, reason = "a test that waits in vain must fail")]
    async fn wait_for_sleepers(&self, enough: impl FnMut(&Vec<Instant>) -> bool) {
        let mut deadlines = self.sleep_deadlines.subscribe();
        let waiting = tokio::time::timeout(MAX_TEST_WAIT, deadlines.wait_for(enough)).await;
        let _slept = waiting.expect("a sleeper with this deadline").is_ok();
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

// === impl SleepGuard ===

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

/// Returns whole seconds, rounded up and at least 1, for `Retry-After` (RFC 9110 §10.2.3).
pub fn retry_after_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_rounded_up_to_whole_seconds() {
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
        assert_eq!(retry_after_seconds(Duration::from_millis(1)), 1);
        assert_eq!(retry_after_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(retry_after_seconds(Duration::from_secs(57)), 57);
    }

    #[test]
    fn the_time_of_another_machine_is_followed_within_a_day() {
        let clock = OffsetClock::new(Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
        for (time, shown) in [(600, 600), (-600, -600), (86_401, -600), (0, 0)] {
            clock.follow(Timestamp::from_second(time).unwrap());

            assert_eq!(clock.wall_time().as_second(), shown, "{time}");
        }
    }

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
