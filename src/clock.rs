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
    fn wall_time(&self) -> Timestamp;

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

    fn wall_time(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

/// Whole seconds of `duration`, rounded up and at least 1, as `Retry-After` wants them
/// (RFC 9110 §10.2.3).
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
}
