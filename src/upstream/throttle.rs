//! Being throttled: how long Partner Center wants silence, and remembering it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

/// A pause that the upstream asks for is never taken for shorter or longer than this.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The pause where a 429 does not say how long; it doubles with every further 429.
const UNSAID: Duration = Duration::from_secs(10);

/// Until when one of Partner Center's calls may not be made, for the whole partner.
///
/// Partner Center throttles per partner, or per partner and customer, and does not say which it
/// was: one 429 stops the call for all customers, since every refused attempt counts as well.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    // Held for a few instructions, never across an await.
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    until: Option<Instant>,
    /// Pauses since the last answer that was no 429.
    in_a_row: u32,
}

// === impl Throttle ===

impl Throttle {
    /// When the next request may be sent; `None` when that is now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.lock().until.filter(|until| now < *until)
    }

    /// Takes note of a 429 that asked for `asked`, and returns when the next request may be sent.
    pub(super) fn throttled(&self, now: Instant, asked: Option<Duration>) -> Instant {
        let mut state = self.lock();
        // Requests that were under way together are refused together: that is one refusal.
        let is_next = state.until.is_none_or(|until| until <= now);
        if is_next {
            state.in_a_row = state.in_a_row.saturating_add(1);
        }
        let pause = asked.unwrap_or_else(|| {
            let factor = 1_u32.checked_shl(state.in_a_row.saturating_sub(1));
            let factor = factor.unwrap_or(u32::MAX);
            UNSAID.saturating_mul(factor).min(LONGEST)
        });
        let until = state.until.unwrap_or(now).max(now + pause);
        state.until = Some(until);
        until
    }

    /// Takes note of an answer that was no 429.
    ///
    /// It ends no pause: it may have been under way before the 429 came.
    pub(super) fn admitted(&self) {
        self.lock().in_a_row = 0;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole after every assignment, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The pause that a sentence such as `Rate limit is exceeded. Try again in 57 seconds.` asks for.
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

    #[test]
    fn an_unsaid_pause_doubles_until_something_else_comes() {
        let throttle = Throttle::default();
        let mut now = SystemClock.now();
        let mut next = || {
            let pause = throttle.throttled(now, None) - now;
            now += pause;
            pause
        };

        let pauses = [next(), next(), next()];
        throttle.admitted();
        let after = next();

        assert_eq!(pauses, [10, 20, 40].map(Duration::from_secs));
        assert_eq!(after, UNSAID);
    }

    #[test]
    fn requests_refused_together_ask_for_one_pause() {
        let throttle = Throttle::default();
        let now = SystemClock.now();

        let pauses = [(); 3].map(|()| throttle.throttled(now, None) - now);

        assert_eq!(pauses, [UNSAID; 3]);
    }

    #[test]
    fn a_pause_is_never_cut_short_by_a_shorter_one() {
        let throttle = Throttle::default();
        let now = SystemClock.now();

        throttle.throttled(now, Some(Duration::from_secs(60)));
        throttle.throttled(now, Some(Duration::from_secs(1)));

        assert_eq!(throttle.until(now), Some(now + Duration::from_secs(60)));
        assert_eq!(throttle.until(now + Duration::from_secs(60)), None);
    }
}
