//! Time as the service sees it: monotonic for ages and deadlines, wall time for dates.

mod manual;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub use self::manual::ManualClock;

/// Where components get the time from, so that a test can move it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Monotonic time: ages, freshness, deadlines.
    fn now(&self) -> Instant;

    /// Wall time: what a date means, `Last-Modified`, timestamps in metrics.
    fn wall(&self) -> Timestamp;

    /// Completes once [`Clock::now`] has reached `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A clock that everyone holds.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

// === impl SystemClock ===

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the machine's clocks"
)]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

/// Whole seconds of `duration`, rounded up and at least 1, as `Retry-After` wants them
/// (RFC 9110 §10.2.3).
pub fn whole_seconds_up(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_second_is_a_second_to_wait() {
        assert_eq!(whole_seconds_up(Duration::ZERO), 1);
        assert_eq!(whole_seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds_up(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds_up(Duration::from_secs(57)), 57);
    }
}
