//! Being throttled: how long Partner Center wants silence, and remembering it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

use crate::domain::CustomerId;

/// A pause that the upstream asks for is never taken for shorter or longer than this.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The pause where a 429 does not say how long; it doubles with every further 429.
const UNSAID: Duration = Duration::from_secs(10);

/// Customers that may be silenced one by one; more than that at a time, and the partner is.
const CUSTOMERS: usize = 2;

/// Until when one of Partner Center's calls may not be made, and for whom.
///
/// Partner Center throttles per partner, or per partner and customer, and a 429 does not say which
/// it was. So the first one silences its customer alone, or one customer over its own limit would
/// starve all others for up to a quarter of an hour. It is taken for the partner's limit as soon as
/// that is the likelier reading, since every refused attempt counts against it as well:
///
/// - when another customer is refused too, and nothing was admitted in between;
/// - when so many customers as are silenced one by one already stand so at that moment: that also
///   bounds what is remembered;
/// - when the first answer after a pause of the partner's is a 429 again.
///
/// Finding out costs one refused attempt more than silencing everybody at once would.
#[derive(Debug, Default)]
pub(super) struct ThrottleTable {
    // Held for a few instructions, never across an await.
    state: Mutex<ThrottleState>,
}

/// Whom a 429 silences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThrottleScope {
    /// Every call of this kind.
    Partner,
    /// Calls of this kind for the customer it was told to.
    Customer,
}

#[derive(Debug, Default)]
struct ThrottleState {
    partner: ThrottlePause,
    /// Never more than [`CUSTOMERS`].
    customers: Vec<(Option<CustomerId>, ThrottlePause)>,
    /// Nothing was admitted since the last 429.
    unbroken: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ThrottlePause {
    until: Option<Instant>,
    /// Pauses since the last answer that was no 429.
    in_a_row: u32,
}

// === impl Throttle ===

impl ThrottleTable {
    /// When the next request for `customer` may be sent; `None` when that is now.
    pub(super) fn until(&self, customer: Option<CustomerId>, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let own = state.customers.iter().find(|(id, _)| *id == customer);
        state
            .partner
            .standing(now)
            .max(own.and_then(|(_, pause)| pause.standing(now)))
    }

    /// Takes note of a 429 for `customer` that asked for `asked`, and returns when the next request
    /// for it may be sent, and who else has to wait until then.
    pub(super) fn throttled(
        &self,
        customer: Option<CustomerId>,
        now: Instant,
        asked: Option<Duration>,
    ) -> (Instant, ThrottleScope) {
        let mut state = self.lock();
        let scope = state.scope_of(customer, now);
        let until = match scope {
            ThrottleScope::Partner => state.partner.prolong(now, asked),
            ThrottleScope::Customer => state.silence(customer, now, asked),
        };
        state.unbroken = true;
        (until, scope)
    }

    /// Takes note of an answer for `customer` that was no 429.
    ///
    /// It ends no pause: it may have been under way before the 429 came.
    pub(super) fn admitted(&self, customer: Option<CustomerId>) {
        let mut state = self.lock();
        state.unbroken = false;
        state.partner.in_a_row = 0;
        if let Some((_, pause)) = state.customers.iter_mut().find(|(id, _)| *id == customer) {
            pause.in_a_row = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, ThrottleState> {
        // The state is whole after every assignment, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl ThrottleState {
    fn scope_of(&self, customer: Option<CustomerId>, now: Instant) -> ThrottleScope {
        let others = self
            .customers
            .iter()
            .filter(|(id, pause)| *id != customer && pause.standing(now).is_some())
            .count();
        if self.partner.in_a_row > 0
            || self.partner.standing(now).is_some()
            || others >= CUSTOMERS
            || self.unbroken && others > 0
        {
            ThrottleScope::Partner
        } else {
            ThrottleScope::Customer
        }
    }

    /// Prolongs the customer's own pause; those of others that are over are forgotten.
    fn silence(
        &mut self,
        customer: Option<CustomerId>,
        now: Instant,
        asked: Option<Duration>,
    ) -> Instant {
        let known = self.customers.iter().find(|(id, _)| *id == customer);
        let mut pause = known.map_or_else(ThrottlePause::default, |(_, pause)| *pause);
        let until = pause.prolong(now, asked);
        self.customers
            .retain(|(id, pause)| *id != customer && pause.standing(now).is_some());
        self.customers.push((customer, pause));
        until
    }
}

// === impl Pause ===

impl ThrottlePause {
    fn standing(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    fn prolong(&mut self, now: Instant, asked: Option<Duration>) -> Instant {
        // Requests that were under way together are refused together: that is one refusal.
        if self.standing(now).is_none() {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let pause = asked.unwrap_or_else(|| {
            let factor = 1_u32.checked_shl(self.in_a_row.saturating_sub(1));
            let factor = factor.unwrap_or(u32::MAX);
            UNSAID.saturating_mul(factor).min(LONGEST)
        });
        let until = self.until.unwrap_or(now).max(now + pause);
        self.until = Some(until);
        until
    }
}

/// The pause that `Retry-After` asks for, in seconds or as an HTTP date
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)), between a second
/// and a quarter of an hour; `None` where it is missing or says neither.
pub(super) fn retry_after(headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // More digits than fit ask for more than the longest pause.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(text)
            .ok()?;
        Duration::try_from(at.duration_since(wall)).unwrap_or(Duration::ZERO)
    };
    Some(asked.clamp(SHORTEST, LONGEST))
}

/// The pause that a sentence such as `RateQuota limit is exceeded. Try again in 57 seconds.` asks for.
pub(super) fn retry_after_in(sentence: &str) -> Option<Duration> {
    let sentence = sentence.to_ascii_lowercase();
    let (_, rest) = sentence.split_once("try again in ")?;
    let (number, unit) = rest.split_once(' ')?;
    if !unit.starts_with("second") {
        return None;
    }
    let asked = Duration::from_secs(number.parse().ok()?);
    Some(asked.clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn asked(value: &str) -> Option<Duration> {
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
            assert_eq!(asked(value), Some(Duration::from_secs(seconds)), "{value}");
        }
    }

    #[test]
    fn what_says_no_pause_is_not_guessed_at() {
        for value in ["", "soon", "-5", "1.5", "Sun, 15 Mar 2026"] {
            assert_eq!(asked(value), None, "{value:?}");
        }
    }

    #[test]
    fn the_pause_may_stand_in_the_body() {
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
    fn an_unsaid_pause_doubles_until_something_else_comes() {
        let throttle = ThrottleTable::default();
        let mut now = SystemClock.now();
        let mut next = || {
            let pause = throttle.throttled(customer(1), now, None).0 - now;
            now += pause;
            pause
        };

        let pauses = [next(), next(), next()];
        throttle.admitted(customer(1));
        let after = next();

        assert_eq!(pauses, [10, 20, 40].map(Duration::from_secs));
        assert_eq!(after, UNSAID);
    }

    #[test]
    fn requests_refused_together_ask_for_one_pause() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let pauses = [1, 1, 2, 2, 3].map(|id| throttle.throttled(customer(id), now, None).0 - now);

        assert_eq!(pauses, [UNSAID; 5]);
    }

    #[test]
    fn a_pause_is_never_cut_short_by_a_shorter_one() {
        let throttle = ThrottleTable::default();
        let (one, now) = (customer(1), SystemClock.now());

        throttle.throttled(one, now, Some(60 * SHORTEST));
        throttle.throttled(one, now, Some(SHORTEST));

        assert_eq!(throttle.until(one, now), Some(now + 60 * SHORTEST));
        assert_eq!(throttle.until(one, now + 60 * SHORTEST), None);
    }

    /// Refuses each for a minute, a second after the other; says who else had to wait.
    fn refuse(throttle: &ThrottleTable, from: Instant, customers: &[u128]) -> Vec<ThrottleScope> {
        let mut now = from;
        let refused = customers.iter().map(|id| {
            now += SHORTEST;
            throttle
                .throttled(customer(*id), now, Some(60 * SHORTEST))
                .1
        });
        refused.collect()
    }

    #[test]
    fn one_customer_over_its_limit_silences_no_other() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let scopes = refuse(&throttle, now, &[1, 1, 1]);

        assert_eq!(scopes, [ThrottleScope::Customer; 3]);
        assert!(throttle.until(customer(1), now + SHORTEST).is_some());
        assert_eq!(throttle.until(customer(2), now + SHORTEST), None);
    }

    #[test]
    fn two_customers_refused_and_nothing_between_are_the_partner() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let scopes = refuse(&throttle, now, &[1, 2]);

        assert_eq!(scopes, [ThrottleScope::Customer, ThrottleScope::Partner]);
        assert_eq!(
            throttle.until(customer(3), now + 2 * SHORTEST),
            Some(now + 62 * SHORTEST)
        );
    }

    #[test]
    fn customers_refused_among_others_admitted_are_silenced_one_by_one_up_to_a_few() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();

        let mut scopes = Vec::new();
        for id in 1..=4 {
            scopes.extend(refuse(&throttle, now, &[id]));
            throttle.admitted(customer(9));
        }

        use ThrottleScope::{Customer, Partner};
        assert_eq!(scopes, [Customer, Customer, Partner, Partner]);
        assert!(throttle.lock().customers.len() <= CUSTOMERS);
    }

    #[test]
    fn a_refusal_right_after_the_pause_of_the_partner_is_the_partners_again() {
        let throttle = ThrottleTable::default();
        let now = SystemClock.now();
        refuse(&throttle, now, &[1, 2]);

        let again = refuse(&throttle, now + 100 * SHORTEST, &[3]);
        throttle.admitted(customer(4));
        let later = refuse(&throttle, now + 200 * SHORTEST, &[5]);

        assert_eq!(
            (again, later),
            (vec![ThrottleScope::Partner], vec![ThrottleScope::Customer])
        );
    }

    #[test]
    fn pauses_that_are_over_are_forgotten() {
        let throttle = ThrottleTable::default();
        let mut now = SystemClock.now();

        for id in 0..1_000 {
            refuse(&throttle, now, &[id]);
            now += 100 * SHORTEST;
        }

        assert_eq!(throttle.lock().customers.len(), 1);
    }
}
