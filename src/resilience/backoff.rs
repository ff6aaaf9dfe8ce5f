//! How long to pause between attempts.

use std::time::Duration;

/// Exponential backoff with *full* jitter: before retry `n` (from 0) a pause is drawn evenly from
/// zero to `base × 2ⁿ`, and never from more than `cap`.
///
/// Full jitter spreads those who failed together over the whole interval, which sheds more load
/// than a jittered part would; see
/// [Exponential Backoff and Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

/// The durations make no backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// Doubling zero stays zero, so there would be no backing off.
    #[error("the base of a backoff must be longer than zero")]
    ZeroBase,
    /// Even the first pause would be over the cap.
    #[error("the cap of a backoff must not be shorter than its base")]
    CapBelowBase,
}

// === impl Backoff ===

impl Backoff {
    /// A backoff whose first pause is up to `base`, and whose longest is up to `cap`.
    ///
    /// # Errors
    ///
    /// [`InvalidBackoff`] for a zero `base`, or a `cap` below it.
    pub const fn new(base: Duration, cap: Duration) -> Result<Self, InvalidBackoff> {
        if base.is_zero() {
            return Err(InvalidBackoff::ZeroBase);
        }
        if cap.as_nanos() < base.as_nanos() {
            return Err(InvalidBackoff::CapBelowBase);
        }
        Ok(Self { base, cap })
    }

    /// The pause before retry `retry`, counted from 0. `fraction` in `[0, 1)` picks a point of the
    /// interval; anything else, not a number included, is taken as the nearest end of it.
    pub fn delay(self, retry: u32, fraction: f64) -> Duration {
        let fraction = if fraction.is_nan() {
            0.0
        } else {
            fraction.clamp(0.0, 1.0)
        };
        self.max_delay(retry).mul_f64(fraction)
    }

    /// The end of the interval that the pause before retry `retry` is drawn from.
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
        let backoff = Backoff::new(200 * MILLI, 1_000 * MILLI).unwrap();

        let pauses = [0, 1, 2, 3, 4].map(|retry| backoff.delay(retry, 0.5));

        assert_eq!(pauses, [100, 200, 400, 500, 500].map(|of| of * MILLI));
    }

    #[test]
    fn invalid_backoffs_are_rejected() {
        assert_eq!(
            Backoff::new(Duration::ZERO, MILLI),
            Err(InvalidBackoff::ZeroBase)
        );
        assert_eq!(
            Backoff::new(2 * MILLI, MILLI),
            Err(InvalidBackoff::CapBelowBase)
        );
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_delay_never_exceeds_the_cap(
            base in 1..10_000_u32, more in 0..100_000_u32, retry: u32, fraction: f64,
        ) {
            let cap = (base + more) * MILLI;
            let backoff = Backoff::new(base * MILLI, cap).unwrap();

            prop_assert!(backoff.delay(retry, fraction) <= cap);
        }
    }
}
