//! Freshness of cached answers (RFC 9111 §4.2, RFC 5861) as a function of their age.

use std::time::Duration;

use http::HeaderValue;

use super::key::NewestKey;
use crate::{config::CacheConfig, jitter::Jitter};

/// The freshness lifetime of cached answers and the two grace periods.
///
/// All three count from when our copy arrived or was last confirmed, and never from Partner Center's
/// `processedDateTime`, the day of the count.
#[derive(Debug)]
pub struct FreshnessPolicy {
    fresh_for: Duration,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    /// The lifetimes with jitter, from the shortest to the longest.
    lifetimes: Vec<FreshnessLifetime>,
    jitter: Jitter,
}

/// The freshness lifetime of one entry, in whole seconds, and the header with it.
#[derive(Clone, Debug)]
pub(super) struct FreshnessLifetime {
    pub(super) duration: Duration,
    /// `Cache-Control`. Entries of the same lifetime share its bytes.
    pub(super) cache_control: HeaderValue,
}

/// The freshness of a cached answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// It is served.
    Fresh,
    /// It is served at once, and refreshed in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// It is served if upstream fails (RFC 5861 §4).
    StaleIfError,
    /// It is too old to be served, even if upstream fails.
    Expired,
}

// === impl FreshnessPolicy ===

impl FreshnessPolicy {
    /// Lifetimes of customers differ by as much either way, so that entries stored together do not expire
    /// together.
    const JITTER_SPREAD: f64 = 0.1;

    /// The number of different lifetimes.
    const JITTER_STEPS: u32 = 65;

    pub(super) fn new(config: &CacheConfig, jitter: Jitter) -> Self {
        let mut policy = Self {
            fresh_for: whole_seconds(config.fresh_for),
            stale_while_revalidate: config.stale_while_revalidate,
            stale_if_error: config.stale_if_error,
            lifetimes: Vec::new(),
            jitter,
        };
        policy.lifetimes = (0..Self::JITTER_STEPS)
            .map(|step| {
                let part = f64::from(step) / f64::from(Self::JITTER_STEPS - 1);
                let spread = 1.0 + Self::JITTER_SPREAD * (2.0 * part - 1.0);
                policy.lifetime(whole_seconds(policy.fresh_for.mul_f64(spread)))
            })
            .collect();
        policy
    }

    /// The freshness lifetime before jitter.
    pub fn fresh_for(&self) -> Duration {
        self.fresh_for
    }

    /// Returns a freshness lifetime for a new entry. It has whole seconds, so that `Age` in whole seconds
    /// stays below `max-age` for as long as the entry is fresh. Replicas agree on it: if each drew its own,
    /// the shortest of all would be the lifetime for all, and more replicas would make more calls.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a small number of steps"
    )]
    pub(super) fn jittered_lifetime(&self, key: NewestKey) -> FreshnessLifetime {
        let step = (self.jitter.fraction_of(key) * f64::from(Self::JITTER_STEPS)) as usize;
        let drawn = self.lifetimes.get(step).or(self.lifetimes.last());
        drawn
            .cloned()
            .unwrap_or_else(|| self.lifetime(self.fresh_for))
    }

    /// Returns a whole lifetime, from which a client subtracts `Age` (RFC 9111 §4.2).
    pub(super) fn lifetime(&self, duration: Duration) -> FreshnessLifetime {
        let text = format!(
            "private, max-age={}, stale-while-revalidate={}",
            duration.as_secs(),
            self.stale_while_revalidate.as_secs()
        );
        FreshnessLifetime {
            duration,
            cache_control: HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
                .unwrap_or(HeaderValue::from_static("private, no-cache")),
        }
    }

    /// Returns the lifetime of an entry that is served in place of a suspect answer: as long as any entry is
    /// fresh, so that suspect answers cost no more calls than others; less if the answer can be confirmed
    /// sooner, or the entry expires.
    pub(super) fn lifetime_despite_anomaly(
        &self,
        key: NewestKey,
        age: Duration,
        at_most: Duration,
    ) -> FreshnessLifetime {
        let window = self.jittered_lifetime(key).duration.min(at_most);
        let age_seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        let window_seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        self.lifetime(Duration::from_secs(age_seconds + window_seconds.max(1)))
    }

    /// Returns the time until an entry of this lifetime and age expires.
    pub(super) fn time_until_expired(&self, lifetime: Duration, age: Duration) -> Duration {
        (lifetime + self.stale_if_error).saturating_sub(age)
    }

    /// Returns the lifetime after a soft purge: zero, without stale-while-revalidate.
    pub(super) fn purged_lifetime() -> FreshnessLifetime {
        FreshnessLifetime {
            duration: Duration::ZERO,
            cache_control: HeaderValue::from_static("private, max-age=0"),
        }
    }

    /// Returns the freshness of an entry of this lifetime and age. A soft purge ends freshness and the
    /// revalidation window.
    pub(super) fn freshness(&self, lifetime: Duration, age: Duration, purged: bool) -> Freshness {
        let stale_for = age.checked_sub(lifetime);
        match stale_for {
            None if !purged => Freshness::Fresh,
            Some(stale_for) if stale_for < self.stale_while_revalidate && !purged => {
                Freshness::StaleWhileRevalidate
            }
            Some(stale_for) if stale_for >= self.stale_if_error => Freshness::Expired,
            _ => Freshness::StaleIfError,
        }
    }
}

/// Returns the whole seconds until an entry of this lifetime goes stale; negative if it is stale.
pub(super) fn ttl_seconds(lifetime: Duration, age: Duration) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds(lifetime).saturating_sub(seconds(age))
}

pub(super) fn whole_seconds(duration: Duration) -> Duration {
    let rounded = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    Duration::from_secs(rounded.max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{CustomerId, UpstreamApi};

    const MINUTE: Duration = Duration::from_secs(60);

    fn policy_with(fresh_for: Duration, jitter: Jitter) -> FreshnessPolicy {
        let config = CacheConfig {
            max_bytes: 0,
            fresh_for,
            stale_while_revalidate: 60 * MINUTE,
            stale_if_error: 7 * 24 * 60 * MINUTE,
            soft_timeout: MINUTE,
            negative_fresh_for: MINUTE,
            past_absence_fresh_for: MINUTE,
            min_refresh_interval: MINUTE,
            suspect_confirm_after: MINUTE,
        };
        FreshnessPolicy::new(&config, jitter)
    }

    fn policy(jitter: Jitter) -> FreshnessPolicy {
        policy_with(15 * MINUTE, jitter)
    }

    #[test]
    fn an_entry_ages_from_fresh_to_expired() {
        let policy = policy(Jitter::Fixed(0.5));
        let judge = |minutes| policy.freshness(15 * MINUTE, minutes * MINUTE, false);

        assert_eq!(judge(0), Freshness::Fresh);
        assert_eq!(judge(14), Freshness::Fresh);
        assert_eq!(judge(15), Freshness::StaleWhileRevalidate);
        assert_eq!(judge(74), Freshness::StaleWhileRevalidate);
        assert_eq!(judge(75), Freshness::StaleIfError);
        assert_eq!(judge(7 * 24 * 60 + 14), Freshness::StaleIfError);
        assert_eq!(judge(7 * 24 * 60 + 15), Freshness::Expired);
    }

    #[test]
    fn a_soft_purge_ends_only_the_revalidation_window() {
        let policy = policy(Jitter::Fixed(0.5));
        let judge = |minutes| policy.freshness(15 * MINUTE, minutes * MINUTE, true);

        assert_eq!(judge(0), Freshness::StaleIfError);
        assert_eq!(judge(20), Freshness::StaleIfError);
        assert_eq!(judge(7 * 24 * 60 + 15), Freshness::Expired);
    }

    fn key(number: u32) -> NewestKey {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        NewestKey {
            customer: CustomerId::parse(&id).ok(),
            api: UpstreamApi::Insights,
        }
    }

    #[test]
    fn replicas_agree_on_lifetimes_that_customers_differ_in() {
        let [one, other] = [policy(Jitter::Random), policy(Jitter::Random)];
        let lifetimes = |policy: &FreshnessPolicy| -> Vec<_> {
            let keys = (0..100).map(key);
            keys.map(|key| policy.jittered_lifetime(key).duration)
                .collect()
        };

        let found = lifetimes(&one);

        assert_eq!(found, lifetimes(&other));
        let different: HashSet<_> = found.iter().collect();
        assert!(different.len() > 30, "{different:?}");
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn age_is_below_max_age_for_as_long_as_an_entry_is_fresh(
            fresh_for_ms in 0..10_000_000_u64,
            fraction in 0.0..1.0_f64,
            age_ms in 0..12_000_000_u64,
        ) {
            let policy = policy_with(Duration::from_millis(fresh_for_ms), Jitter::Fixed(fraction));
            let lifetime = policy.jittered_lifetime(key(1)).duration;
            let age = Duration::from_millis(age_ms);

            if policy.freshness(lifetime, age, false) == Freshness::Fresh {
                prop_assert!(age.as_secs() < lifetime.as_secs());
                prop_assert!(ttl_seconds(lifetime, age) > 0);
            }
        }

        #[test]
        fn lifetimes_stay_within_a_tenth(fraction in 0.0..1.0_f64) {
            let policy = policy(Jitter::Fixed(fraction));
            let lifetime = policy.jittered_lifetime(key(1)).duration.as_secs();

            prop_assert!((810..=990).contains(&lifetime));
        }

        #[test]
        fn an_older_entry_is_never_fresher(a_ms in 0..1_000_000_000_u64, b_ms in 0..1_000_000_000_u64, purged: bool) {
            let policy = policy(Jitter::Fixed(0.5));
            let judge = |ms| policy.freshness(15 * MINUTE, Duration::from_millis(ms), purged);

            prop_assert!(judge(a_ms.min(b_ms)) <= judge(a_ms.max(b_ms)));
        }
    }
}
