//! A limit of the retries of all calls together.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Limits retries to a tenth of the first attempts in a sliding window, or to a few if there were hardly
/// any.
///
/// A limit for each call multiplies the load of an outage: three retries make four times the load. A
/// limit over all calls does not; see
/// [Addressing Cascading Failures](https://sre.google/sre-book/addressing-cascading-failures/).
#[derive(Debug)]
pub struct RetryBudget {
    /// The retries that are always allowed within a window.
    min_retries: u32,
    /// The processes that share them.
    processes: AtomicU32,
    /// The time of one slot of the window.
    slot_duration: Duration,
    // Locked for a few instructions, never across an await.
    window: Mutex<SlidingWindow>,
}

#[derive(Debug)]
struct SlidingWindow {
    /// A ring: the slot at `newest` is being counted, the one after it is the oldest.
    slots: [SlotCounts; WINDOW_SLOTS],
    newest: usize,
    newest_since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct SlotCounts {
    calls: u32,
    retries: u32,
}

const WINDOW_SLOTS: usize = 10;

/// The calls per allowed retry: a little more than ten, since the minimum, and a window that slides by
/// slots, allow a few more.
const CALLS_PER_RETRY: u32 = 11;

// === impl RetryBudget ===

impl RetryBudget {
    /// Creates a budget over `window`, which starts at `now` and slides by tenths. `min_retries` are allowed in
    /// it however few the calls.
    pub fn new(window: Duration, min_retries: u32, now: Instant) -> Self {
        Self {
            min_retries,
            processes: AtomicU32::new(1),
            // A zero window would slide forever.
            slot_duration: (window / 10).max(Duration::from_nanos(1)),
            window: Mutex::new(SlidingWindow {
                slots: [SlotCounts::default(); WINDOW_SLOTS],
                newest: 0,
                newest_since: now,
            }),
        }
    }

    /// Divides the retries that are always allowed among so many processes. The others are a share of
    /// the calls of each.
    pub fn set_processes(&self, count: u32) {
        self.processes.store(count.max(1), Ordering::Relaxed);
    }

    /// Records a first attempt, which earns a part of a retry.
    pub fn record_call(&self, now: Instant) {
        let mut window = self.lock_current(now);
        let counts = window.newest();
        counts.calls = counts.calls.saturating_add(1);
    }

    /// Takes one retry. Returns false if there is none left.
    #[must_use = "without a permit there is no retry"]
    pub fn acquire_retry(&self, now: Instant) -> bool {
        let mut window = self.lock_current(now);
        let (allowed, made) = self.allowed_and_used(&window);
        let allows = made < allowed;
        if allows {
            let counts = window.newest();
            counts.retries = counts.retries.saturating_add(1);
        }
        allows
    }

    /// Returns the share of allowed retries that is left, from 0 to 1.
    pub fn remaining_share(&self, now: Instant) -> f64 {
        let (allowed, made) = self.allowed_and_used(&self.lock_current(now));
        if allowed == 0 {
            return 0.0;
        }
        f64::from(allowed.saturating_sub(made)) / f64::from(allowed)
    }

    /// Returns the retries that are allowed within the window, and those that were made.
    fn allowed_and_used(&self, window: &SlidingWindow) -> (u32, u32) {
        let sum =
            |of: fn(&SlotCounts) -> u32| window.slots.iter().map(of).fold(0, u32::saturating_add);
        let calls = sum(|counts| counts.calls);
        let made = sum(|counts| counts.retries);
        let own_share = self.min_retries / self.processes.load(Ordering::Relaxed);
        ((calls / CALLS_PER_RETRY).max(own_share.max(1)), made)
    }

    fn lock_current(&self, now: Instant) -> MutexGuard<'_, SlidingWindow> {
        // The counts are consistent after every assignment.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance_to(now, self.slot_duration);
        window
    }
}

// === impl SlidingWindow ===

impl SlidingWindow {
    fn advance_to(&mut self, now: Instant, part: Duration) {
        let behind = now.saturating_duration_since(self.newest_since).as_nanos() / part.as_nanos();
        if let Some(steps) = usize::try_from(behind)
            .ok()
            .filter(|steps| *steps < WINDOW_SLOTS)
        {
            for _ in 0..steps {
                self.newest = (self.newest + 1) % WINDOW_SLOTS;
                *self.newest() = SlotCounts::default();
                self.newest_since += part;
            }
        } else {
            self.slots = [SlotCounts::default(); WINDOW_SLOTS];
            self.newest_since = now;
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the ring's index is below its length"
    )]
    fn newest(&mut self) -> &mut SlotCounts {
        &mut self.slots[self.newest]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn budget() -> (RetryBudget, Instant) {
        let now = SystemClock.now();
        (RetryBudget::new(60 * SECOND, 3, now), now)
    }

    fn withdrawn(budget: &RetryBudget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.acquire_retry(now)).count()
    }

    #[test]
    fn the_minimum_of_retries_is_always_available() {
        let (budget, now) = budget();

        assert!((budget.remaining_share(now) - 1.0).abs() < f64::EPSILON);
        assert_eq!(withdrawn(&budget, now), 3);
        assert!(budget.remaining_share(now) < f64::EPSILON);
    }

    #[test]
    fn many_calls_allow_about_a_tenth_as_retries() {
        let (budget, now) = budget();

        (0..220).for_each(|_| budget.record_call(now));

        assert_eq!(withdrawn(&budget, now), 20);
    }

    #[test]
    fn counts_older_than_the_window_are_dropped() {
        let (budget, now) = budget();
        (0..220).for_each(|_| budget.record_call(now));
        assert_eq!(withdrawn(&budget, now), 20);

        let within = withdrawn(&budget, now + 59 * SECOND);
        let after = withdrawn(&budget, now + 60 * SECOND);
        let long_after = withdrawn(&budget, now + 86_400 * SECOND);

        assert_eq!((within, after, long_after), (0, 3, 3));
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn retries_never_exceed_a_tenth_of_calls_plus_the_minimum(
            steps in prop::collection::vec((0..30_u64, 0..100_u32), 1..50),
        ) {
            let (budget, mut now) = budget();
            let (mut calls, mut retries, mut windows) = (0, 0, 1);
            let mut begun = now;

            for (pause, more) in steps {
                now += Duration::from_secs(pause);
                if now >= begun + 60 * SECOND {
                    (begun, windows) = (now, windows + 1);
                }
                (0..more).for_each(|_| budget.record_call(now));
                calls += more;
                retries += u32::try_from(withdrawn(&budget, now)).unwrap();
            }

            // These windows stand side by side: a sliding one lies in two of them.
            prop_assert!(retries <= 2 * (calls / 10 + 3 * windows), "{retries} of {calls}");
        }
    }
}
