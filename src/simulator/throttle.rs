//! Throttling of calls per minute.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts calls per minute. A minute starts with its first call.
#[derive(Debug, Default)]
pub(super) struct SimulatedThrottle {
    window: Mutex<Option<ThrottleWindow>>,
}

#[derive(Clone, Copy, Debug)]
struct ThrottleWindow {
    started_at: Instant,
    calls: u64,
}

// === impl SimulatedThrottle ===

impl SimulatedThrottle {
    /// Counts a call. Returns the rest of the minute if it is one too many.
    pub(super) fn admit(&self, calls_per_minute: u64, now: Instant) -> Result<(), Duration> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = window
            .filter(|window| now.duration_since(window.started_at) < MINUTE)
            .unwrap_or(ThrottleWindow {
                started_at: now,
                calls: 0,
            });
        current.calls += 1;
        *window = Some(current);
        if current.calls > calls_per_minute {
            return Err((current.started_at + MINUTE).duration_since(now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    #[test]
    fn the_limit_resets_each_minute() {
        let throttle = SimulatedThrottle::default();
        let begin = SystemClock.now();
        let at = |seconds| begin + Duration::from_secs(seconds);

        assert_eq!(throttle.admit(1, at(0)), Ok(()));
        assert_eq!(throttle.admit(1, at(3)), Err(Duration::from_secs(57)));
        assert_eq!(throttle.admit(1, at(60)), Ok(()));
    }
}
