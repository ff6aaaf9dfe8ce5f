//! Throttling: the pauses that Partner Center asks for, and for whom they count.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

use crate::domain::CustomerId;

/// The bounds of the pauses that are accepted.
const MIN_PAUSE: Duration = Duration::from_secs(1);
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The pause after a 429 that does not say how long. It doubles with every further 429.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);

/// The most customers that pause one by one. With more at a time, the partner pauses.
const MAX_CUSTOMERS: usize = 2;

/// The pauses of one of Partner Center's calls.
///
/// Partner Center throttles per partner, or per partner and customer, and a 429 does not say which. So
/// the first 429 pauses its customer alone: otherwise one customer over its own limit would stop all
/// others for up to a quarter of an hour. It counts for the partner as soon as that is more likely,
/// since every throttled attempt counts against the limit too:
///
/// - another customer is throttled too, and no other reply came in between;
/// - [`MAX_CUSTOMERS`] customers pause already, which also bounds the memory;
/// - the first reply after a pause of the partner is a 429 again.
///
/// Finding out costs one throttled attempt more than pausing all calls at once would.
#[derive(Debug, Default)]
pub(super) struct ThrottleTable {
    // Locked for a few instructions, never across an await.
    state: Mutex<ThrottleState>,
}

/// The calls that a 429 pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub(super) enum ThrottleScope {
    /// All calls of this kind.
    Partner,
    /// Calls of this kind for the customer that was throttled.
    Customer,
}

#[derive(Debug, Default)]
struct ThrottleState {
    partner: ThrottlePause,
    /// At most [`MAX_CUSTOMERS`].
    customers: Vec<(Option<CustomerId>, ThrottlePause)>,
    /// There was no other reply since the last 429.
    is_unbroken: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ThrottlePause {
    until: Option<Instant>,
    /// It ends when a reply said so, not another replica.
    is_own: bool,
    /// The pauses since the last reply other than 429.
    in_a_row: u32,
}

// === impl ThrottleTable ===

impl ThrottleTable {
    /// Returns the time of the next request for a customer; `None` if that is now.
    pub(super) fn until(&self, customer: Option<CustomerId>, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let own = state.customers.iter().find(|(id, _)| *id == customer);
        state
            .partner
            .active_until(now)
            .max(own.and_then(|(_, pause)| pause.active_until(now)))
    }

    /// Records a 429 for a customer that asked for a pause. Returns the time of the next request, and the
    /// calls that wait until then.
    pub(super) fn record(
        &self,
        customer: Option<CustomerId>,
        now: Instant,
        asked: Option<Duration>,
    ) -> (Instant, ThrottleScope) {
        let mut state = self.lock();
        let scope = state.scope_of(customer, now);
        let until = match scope {
            ThrottleScope::Partner => state.partner.extend(now, asked),
            ThrottleScope::Customer => state.pause_customer(customer, now, asked),
        };
        state.is_unbroken = true;
        (until, scope)
    }

    /// Pauses a customer, or the partner, until the end that a reply to another replica named.
    pub(super) fn obey(&self, scope: ThrottleScope, customer: Option<CustomerId>, until: Instant) {
        let mut state = self.lock();
        let pause = match scope {
            ThrottleScope::Partner => &mut state.partner,
            ThrottleScope::Customer => state.pause_of(customer),
        };
        if pause.until < Some(until) {
            pause.until = Some(until);
            pause.is_own = false;
        }
    }

    /// Returns the pauses that replies to this process asked for.
    pub(super) fn own_pauses(
        &self,
        now: Instant,
    ) -> Vec<(ThrottleScope, Option<CustomerId>, Instant)> {
        let state = self.lock();
        let own = |pause: &ThrottlePause| pause.active_until(now).filter(|_| pause.is_own);
        let partner = own(&state.partner).map(|until| (ThrottleScope::Partner, None, until));
        let customers = state.customers.iter();
        let customers = customers.filter_map(|(customer, pause)| {
            own(pause).map(|until| (ThrottleScope::Customer, *customer, until))
        });
        partner.into_iter().chain(customers).collect()
    }

    /// Records a reply other than 429 for a customer. It ends no pause: the request may be older than
    /// the 429.
    pub(super) fn record_other(&self, customer: Option<CustomerId>) {
        let mut state = self.lock();
        state.is_unbroken = false;
        state.partner.in_a_row = 0;
        if let Some((_, pause)) = state.customers.iter_mut().find(|(id, _)| *id == customer) {
            pause.in_a_row = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, ThrottleState> {
        // The state is consistent after every assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ThrottleState ===

impl ThrottleState {
    fn scope_of(&self, customer: Option<CustomerId>, now: Instant) -> ThrottleScope {
        let others = self
            .customers
            .iter()
            .filter(|(id, pause)| *id != customer && pause.active_until(now).is_some())
            .count();
        if self.partner.in_a_row > 0
            || self.partner.active_until(now).is_some()
            || others >= MAX_CUSTOMERS
            || self.is_unbroken && others > 0
        {
            ThrottleScope::Partner
        } else {
            ThrottleScope::Customer
        }
    }

    /// Returns the pause of a customer. Of the two places, that which ends first is given away.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is that of an entry found or pushed just before"
    )]
    fn pause_of(&mut self, customer: Option<CustomerId>) -> &mut ThrottlePause {
        let known = self.customers.iter().position(|(id, _)| *id == customer);
        let index = known.unwrap_or_else(|| {
            if self.customers.len() >= MAX_CUSTOMERS {
                self.customers.sort_by_key(|(_, pause)| pause.until);
                self.customers.remove(0);
            }
            self.customers.push((customer, ThrottlePause::default()));
            self.customers.len() - 1
        });
        &mut self.customers[index].1
    }

    /// Extends the pause of a customer, and removes pauses that are over.
    fn pause_customer(
        &mut self,
        customer: Option<CustomerId>,
        now: Instant,
        asked: Option<Duration>,
    ) -> Instant {
        let known = self.customers.iter().find(|(id, _)| *id == customer);
        let mut pause = known.map_or_else(ThrottlePause::default, |(_, pause)| *pause);
        let until = pause.extend(now, asked);
        self.customers
            .retain(|(id, pause)| *id != customer && pause.active_until(now).is_some());
        self.customers.push((customer, pause));
        until
    }
}

// === impl ThrottlePause ===

impl ThrottlePause {
    fn active_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    fn extend(&mut self, now: Instant, asked: Option<Duration>) -> Instant {
        // Requests in progress at the same time are throttled together, which counts once.
        if self.active_until(now).is_none() {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let pause = asked.unwrap_or_else(|| {
            let factor = 1_u32.checked_shl(self.in_a_row.saturating_sub(1));
            let factor = factor.unwrap_or(u32::MAX);
            DEFAULT_PAUSE.saturating_mul(factor).min(MAX_PAUSE)
        });
        let until = self.until.unwrap_or(now).max(now + pause);
        self.until = Some(until);
        self.is_own = true;
        until
    }
}

/// Parses `Retry-After`, in seconds or as an HTTP date
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)), into a pause between a
/// second and a quarter of an hour; `None` where it is missing or is neither.
pub(super) fn retry_after(headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // A number that does not fit is more than the longest pause.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(text)
            .ok()?;
        Duration::try_from(at.duration_since(wall)).unwrap_or(Duration::ZERO)
    };
    Some(asked.clamp(MIN_PAUSE, MAX_PAUSE))
}

/// Parses the pause in a sentence such as `RateQuota limit is exceeded. Try again in 57 seconds.`
pub(super) fn retry_after_in(sentence: &str) -> Option<Duration> {
    let sentence = sentence.to_ascii_lowercase();
    let (_, rest) = sentence.split_once("try again in ")?;
    let (number, unit) = rest.split_once(' ')?;
    if !unit.starts_with("second") {
        return None;
    }
    let asked = Duration::from_secs(number.parse().ok()?);
    Some(asked.clamp(MIN_PAUSE, MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn parsed(value: &str) -> Option<Duration> {
        let wall = "2026-03-15T12:00:00Z".parse().unwrap();
        let headers = [(RETRY_AFTER, value.parse().unwrap())]
            .into_iter()
            .collect();
        retry_after(&headers, wall)
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        for (value, seconds) in [
            ("57", 57),
            (" 57 ", 57),
            ("0", 1),
            ("86400", 900),
            ("99999999999999999999999", 900),
            ("Sun, 15 Mar 2026 12:01:30 GMT", 90),
            ("Sun, 15 Mar 2026 11:00:00 GMT", 1),
        ] {
            assert_eq!(parsed(value), Some(Duration::from_secs(seconds)), "{value}");
        }
    }

    #[test]
    fn a_malformed_retry_after_is_ignored() {
        for value in ["", "soon", "-5", "1.5", "Sun, 15 Mar 2026"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_pause_in_the_body_is_parsed() {
        assert_eq!(
            retry_after_in("Rate limit is exceeded. Try again in 57 seconds."),
            Some(Duration::from_secs(57))
        );
        for sentence in [
            "",
            "Try again in",
            "Try again in a while",
            "Try again in 2 days",
        ] {
            assert_eq!(retry_after_in(sentence), None, "{sentence:?}");
        }
    }

    fn customer(index: u128) -> Option<CustomerId> {
        let id = uuid::Uuid::from_u128(index).to_string();
        Some(CustomerId::parse(&id).unwrap())
    }

    #[test]
    fn the_default_pause_doubles_until_another_reply() {
        let throttle = ThrottleTable::default();
        let mut now = SystemClock.now();
        let mut next = || {
            let pause = throttle.record(customer(1), now, None).0 - now;
            now += pause;
            pause
        };

        let pauses = [next(), next(), next()];
        throttle.record_other(customer(1));
        let after = next();

        assert_eq!(pauses, [10, 20, 40].map(Duration::from_secs));
        assert_eq!(after, DEFAULT_PAUSE);
    }

    #[test]
    fn requests_throttled_together_make_one_pause() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let pauses = [1, 1, 2, 2, 3].map(|id| throttle.record(customer(id), now, None).0 - now);

        assert_eq!(pauses, [DEFAULT_PAUSE; 5]);
    }

    #[test]
    fn a_shorter_pause_does_not_end_a_longer_one() {
        let throttle = ThrottleTable::default();
        let (one, now) = (customer(1), SystemClock.now());

        throttle.record(one, now, Some(60 * MIN_PAUSE));
        throttle.record(one, now, Some(MIN_PAUSE));

        assert_eq!(throttle.until(one, now), Some(now + 60 * MIN_PAUSE));
        assert_eq!(throttle.until(one, now + 60 * MIN_PAUSE), None);
    }

    /// Throttles each customer for a minute, a second after the other. Returns the scopes.
    fn throttle_each(
        throttle: &ThrottleTable,
        from: Instant,
        customers: &[u128],
    ) -> Vec<ThrottleScope> {
        let mut now = from;
        let scopes = customers.iter().map(|id| {
            now += MIN_PAUSE;
            throttle.record(customer(*id), now, Some(60 * MIN_PAUSE)).1
        });
        scopes.collect()
    }

    #[test]
    fn one_customer_over_its_limit_pauses_no_other() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let scopes = throttle_each(&throttle, now, &[1, 1, 1]);

        assert_eq!(scopes, [ThrottleScope::Customer; 3]);
        assert!(throttle.until(customer(1), now + MIN_PAUSE).is_some());
        assert_eq!(throttle.until(customer(2), now + MIN_PAUSE), None);
    }

    #[test]
    fn two_customers_in_a_row_pause_the_partner() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let scopes = throttle_each(&throttle, now, &[1, 2]);

        assert_eq!(scopes, [ThrottleScope::Customer, ThrottleScope::Partner]);
        assert_eq!(
            throttle.until(customer(3), now + 2 * MIN_PAUSE),
            Some(now + 62 * MIN_PAUSE)
        );
    }

    #[test]
    fn customers_throttled_between_other_replies_pause_one_by_one() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let mut scopes = Vec::new();
        for id in 1..=4 {
            scopes.extend(throttle_each(&throttle, now, &[id]));
            throttle.record_other(customer(9));
        }

        use ThrottleScope::{Customer, Partner};
        assert_eq!(scopes, [Customer, Customer, Partner, Partner]);
        assert!(throttle.lock().customers.len() <= MAX_CUSTOMERS);
    }

    #[test]
    fn a_429_right_after_a_pause_of_the_partner_pauses_the_partner_again() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();
        throttle_each(&throttle, now, &[1, 2]);

        let again = throttle_each(&throttle, now + 100 * MIN_PAUSE, &[3]);
        throttle.record_other(customer(4));
        let later = throttle_each(&throttle, now + 200 * MIN_PAUSE, &[5]);

        assert_eq!(
            (again, later),
            (vec![ThrottleScope::Partner], vec![ThrottleScope::Customer])
        );
    }

    #[test]
    fn pauses_that_are_over_are_removed() {
        let throttle = ThrottleTable::default();
        let mut now = SystemClock.now();

        for id in 0..1_000 {
            throttle_each(&throttle, now, &[id]);
            now += 100 * MIN_PAUSE;
        }

        assert_eq!(throttle.lock().customers.len(), 1);
    }
}
