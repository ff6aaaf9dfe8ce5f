//! A rate limit as a token bucket.
//!
//! The governor crate does the same, but does not say when the next token arrives, and an adapter to
//! our clock is as long as this.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A number of requests and the period that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateQuota {
    quota: NonZeroU32,
    period: Duration,
}

/// The period is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the period of a rate must be longer than zero")]
pub struct ZeroPeriod;

/// A bucket that holds as many tokens as the quota, and refills evenly over the period.
///
/// It stores one number, the time at which it will be full, as in the generic cell rate algorithm
/// (ITU-T I.371): it needs neither a lock nor a task that refills it.
#[derive(Debug)]
pub struct TokenBucket {
    rate: RateQuota,
    created_at: Instant,
    /// Nanoseconds since `created_at`; in the past if the bucket is full.
    full_at: AtomicU64,
}

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketPermit {
    /// The whole tokens that remain.
    pub remaining: u32,
    /// The time until there is one more, if none is taken.
    pub next_in: Duration,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketExhausted {
    /// The time until there is a token, if nobody else takes it.
    pub retry_after: Duration,
}

// === impl RateQuota ===

impl RateQuota {
    /// Creates a rate of `quota` per `period`, which is also the largest burst.
    ///
    /// # Errors
    ///
    /// [`ZeroPeriod`] if the period is zero.
    pub const fn new(quota: NonZeroU32, period: Duration) -> Result<Self, ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        Ok(Self { quota, period })
    }

    /// Creates a rate of `quota` per minute.
    pub const fn per_minute(quota: NonZeroU32) -> Self {
        Self {
            quota,
            period: Duration::from_secs(60),
        }
    }

    /// Returns the number of requests in a period.
    pub const fn quota(self) -> NonZeroU32 {
        self.quota
    }

    /// Returns the period.
    pub const fn period(self) -> Duration {
        self.period
    }

    /// Returns the nanoseconds per token, rounded up so that the rate is never exceeded.
    fn interval(self) -> u64 {
        nanoseconds(self.period)
            .div_ceil(u64::from(self.quota.get()))
            .max(1)
    }

    /// Returns the nanoseconds that an empty bucket takes to fill.
    fn capacity(self) -> u64 {
        self.interval().saturating_mul(u64::from(self.quota.get()))
    }
}

// === impl TokenBucket ===

impl TokenBucket {
    /// Creates a full bucket.
    pub const fn new(rate: RateQuota, now: Instant) -> Self {
        Self {
            rate,
            created_at: now,
            full_at: AtomicU64::new(0),
        }
    }

    /// Returns the rate.
    pub const fn rate(&self) -> RateQuota {
        self.rate
    }

    /// Takes one token at `now`.
    ///
    /// # Errors
    ///
    /// [`BucketExhausted`] if there is none. A failed attempt does not make the wait longer.
    pub fn acquire(&self, now: Instant) -> Result<BucketPermit, BucketExhausted> {
        let now = nanoseconds(now.saturating_duration_since(self.created_at));
        let (interval, capacity) = (self.rate.interval(), self.rate.capacity());
        let full_after = |full_at: u64| full_at.max(now).saturating_add(interval);
        let paid = |full_at: u64| Some(full_after(full_at)).filter(|then| then - now <= capacity);
        match self.full_at.fetch_update(Relaxed, Relaxed, paid) {
            Ok(before) => {
                let full_in = full_after(before) - now;
                let (remaining, begun) = (
                    (capacity - full_in) / interval,
                    (capacity - full_in) % interval,
                );
                Ok(BucketPermit {
                    remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
                    next_in: Duration::from_nanos(interval - begun),
                })
            }
            Err(full_at) => Err(BucketExhausted {
                retry_after: Duration::from_nanos(full_after(full_at) - now - capacity),
            }),
        }
    }
}

/// Saturates after five centuries.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(quota: u32, period: Duration) -> (TokenBucket, Instant) {
        let now = SystemClock.now();
        let rate = RateQuota::new(NonZeroU32::new(quota).unwrap(), period).unwrap();
        (TokenBucket::new(rate, now), now)
    }

    #[test]
    fn a_burst_is_limited_to_the_quota() {
        let (bucket, now) = bucket(3, SECOND);

        let remaining: Vec<_> = (0..3)
            .map(|_| bucket.acquire(now).unwrap().remaining)
            .collect();

        assert_eq!(remaining, [2, 1, 0]);
        let third = Duration::from_nanos(333_333_334);
        let exhausted = BucketExhausted { retry_after: third };
        assert_eq!(bucket.acquire(now), Err(exhausted));
        assert_eq!(
            bucket.acquire(now),
            Err(exhausted),
            "asking again costs nothing"
        );
        let shortly_before = now + third - Duration::from_nanos(1);
        assert!(bucket.acquire(shortly_before).is_err());
        assert!(bucket.acquire(now + third).is_ok());
    }

    #[test]
    fn an_idle_bucket_fills_up_to_the_quota() {
        let (bucket, now) = bucket(2, SECOND);
        let later = now + 1_000 * SECOND;

        let taken = (
            bucket.acquire(later),
            bucket.acquire(later),
            bucket.acquire(later),
        );

        assert!(taken.0.is_ok() && taken.1.is_ok());
        assert!(taken.2.is_err());
    }

    #[test]
    fn the_next_token_arrives_at_the_announced_time() {
        let (bucket, now) = bucket(4, SECOND);

        let first = bucket.acquire(now).unwrap();
        let second = bucket.acquire(now + SECOND / 8).unwrap();

        assert_eq!((first.remaining, first.next_in), (3, SECOND / 4));
        assert_eq!((second.remaining, second.next_in), (2, SECOND / 8));
    }

    #[test]
    fn a_zero_period_is_rejected() {
        assert_eq!(
            RateQuota::new(NonZeroU32::MIN, Duration::ZERO),
            Err(ZeroPeriod)
        );
    }

    #[test]
    fn concurrent_callers_share_one_bucket() {
        let (bucket, now) = bucket(1_000, 3_600 * SECOND);

        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..400).filter(|_| bucket.acquire(now).is_ok()).count()))
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });

        assert_eq!(taken, 1_000);
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        /// In any stretch of time there are at most the quota and what was refilled meanwhile.
        #[test]
        fn a_rate_is_never_exceeded(
            quota in 1..50_u32,
            period in 1..5_000_u64,
            pauses in prop::collection::vec(0..200_u64, 1..200),
        ) {
            let period = Duration::from_millis(period);
            let (bucket, start) = bucket(quota, period);
            let mut now = start;
            let mut taken = 0_u32;

            for pause in pauses {
                now += Duration::from_millis(pause);
                match bucket.acquire(now) {
                    Ok(_) => taken += 1,
                    Err(exhausted) => prop_assert!(exhausted.retry_after <= period),
                }
                let refilled = (now - start).as_secs_f64() / period.as_secs_f64();
                prop_assert!(f64::from(taken) <= f64::from(quota) * (1.0 + refilled) + 1e-6);
            }
        }
    }
}
