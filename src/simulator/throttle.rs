use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts calls a minute, each minute from its first call on.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    window: Mutex<Option<Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    calls: u64,
}

// === impl Throttle ===

impl Throttle {
    /// Counts a call; when it is one too many, tells how long the minute still lasts.
    pub(super) fn admit(&self, calls_per_minute: u64, now: Instant) -> Result<(), Duration> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Window { began, calls } = window
            .filter(|window| now.duration_since(window.began) < MINUTE)
            .unwrap_or(Window {
                began: now,
                calls: 0,
            });
        let calls = calls + 1;
        *window = Some(Window { began, calls });
        if calls > calls_per_minute {
            return Err((began + MINUTE).duration_since(now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    #[test]
    fn the_next_minute_begins_anew() {
        let throttle = Throttle::default();
        let begin = SystemClock.now();
        let at = |seconds| begin + Duration::from_secs(seconds);

        assert_eq!(throttle.admit(1, at(0)), Ok(()));
        assert_eq!(throttle.admit(1, at(3)), Err(Duration::from_secs(57)));
        assert_eq!(throttle.admit(1, at(60)), Ok(()));
    }
}
