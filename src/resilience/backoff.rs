//! Pauses between attempts.

use std::time::Duration;

/// Exponential backoff with *full* jitter: the pause before retry `n` (from 0) is drawn evenly from
/// zero to `base × 2ⁿ`, and at most `cap`.
///
/// Full jitter spreads attempts that failed together over the whole interval; see
/// [Exponential Backoff and Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Creates a backoff whose first pause is up to `base`, and whose longest is up to `cap`.
    ///
    /// # Panics
    ///
    /// If `base` is zero or longer than `cap`. In a constant, that is an error of the compiler.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        assert!(!base.is_zero() && base.as_nanos() <= cap.as_nanos());
        Self { base, cap }
    }

    /// Returns the pause before a retry, counted from 0. `fraction` in `[0, 1)` picks a point of the
    /// interval. Any other value, also a NaN, is an end of it.
    pub fn delay(self, retry: u32, fraction: f64) -> Duration {
        let fraction = if fraction.is_nan() {
            0.0
        } else {
            fraction.clamp(0.0, 1.0)
        };
        self.max_delay(retry).mul_f64(fraction)
    }

    fn max_delay(self, retry: u32) -> Duration {
        let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_interval_doubles_up_to_the_cap() {
        let backoff = Backoff::new(200 * MILLI, 1_000 * MILLI);

        let pauses = [0, 1, 2, 3, 4].map(|retry| backoff.delay(retry, 0.5));

        assert_eq!(pauses, [100, 200, 400, 500, 500].map(|of| of * MILLI));
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_delay_never_exceeds_the_cap(
            base in 1..10_000_u32, more in 0..100_000_u32, retry: u32, fraction: f64,
        ) {
            let cap = (base + more) * MILLI;
            let backoff = Backoff::new(base * MILLI, cap);

            prop_assert!(backoff.delay(retry, fraction) <= cap);
        }
    }
}
