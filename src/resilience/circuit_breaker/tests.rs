use super::*;
use crate::clock::{Clock, SystemClock};

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> CircuitBreaker<char> {
    CircuitBreaker::new(3, Backoff::new(5 * SECOND, 15 * SECOND))
}

fn fail(breaker: &CircuitBreaker<char>, now: Instant, subjects: &str) -> Option<Duration> {
    let outcomes = subjects
        .chars()
        .map(|subject| breaker.acquire(now).unwrap().record_failure(now, subject));
    outcomes.last().flatten()
}

/// An open circuit, and the time since when it is.
fn open() -> (CircuitBreaker<char>, Instant) {
    let (breaker, now) = (breaker(), SystemClock.now());
    assert_eq!(fail(&breaker, now, "abc"), Some(5 * SECOND));
    (breaker, now)
}

#[test]
fn consecutive_failures_open_it_until_the_delay_is_over() {
    let (breaker, now) = open();

    let retry_at = breaker.acquire(now + 4 * SECOND).unwrap_err();

    assert_eq!(retry_at, now + 5 * SECOND);
    assert_eq!(breaker.state(now + 4 * SECOND), CircuitState::Open);
    assert_eq!(breaker.state(now + 5 * SECOND), CircuitState::HalfOpen);
}

#[test]
fn a_success_in_between_keeps_it_closed() {
    let (breaker, now) = (breaker(), SystemClock.now());

    for _ in 0..100 {
        assert_eq!(fail(&breaker, now, "ab"), None);
        assert!(!breaker.acquire(now).unwrap().record_success());
    }

    assert_eq!(breaker.state(now), CircuitState::Closed);
}

#[test]
fn failures_of_a_single_subject_do_not_open_it() {
    let (breaker, now) = (breaker(), SystemClock.now());

    let alone = fail(&breaker, now, "aaaaaaaaaa");
    let another = fail(&breaker, now, "b");

    assert_eq!(alone, None);
    assert_eq!(another, Some(5 * SECOND));
}

#[test]
fn one_probe_passes_and_its_success_closes_the_circuit() {
    let (breaker, opened) = open();
    let now = opened + 5 * SECOND;

    let probe = breaker.acquire(now).unwrap();
    let meanwhile = breaker.acquire(now).unwrap_err();

    assert_eq!(meanwhile, now + PROBE_WAIT);
    assert!(probe.record_success());
    assert_eq!(breaker.state(now), CircuitState::Closed);
    assert_eq!(fail(&breaker, now, "ab"), None, "the count begins anew");
}

#[test]
fn failed_probes_of_one_subject_do_not_lengthen_the_delay() {
    let (breaker, mut now) = open();
    let mut pause = 5 * SECOND;

    for expected in [10, 10, 10] {
        now += pause;
        pause = breaker
            .acquire(now)
            .unwrap()
            .record_failure(now, 'a')
            .unwrap();
        assert_eq!(pause, expected * SECOND);
    }
}

#[test]
fn each_failed_probe_lengthens_the_delay_up_to_the_cap() {
    let (breaker, mut now) = open();
    let mut pause = 5 * SECOND;

    for (subject, expected) in [('a', 10), ('b', 15), ('a', 15)] {
        now += pause;
        pause = breaker
            .acquire(now)
            .unwrap()
            .record_failure(now, subject)
            .unwrap();
        assert_eq!(pause, expected * SECOND);
        assert!(breaker.acquire(now + pause - SECOND).is_err());
    }
    now += pause;
    assert!(breaker.acquire(now).unwrap().record_success());

    assert_eq!(fail(&breaker, now, "abc"), Some(5 * SECOND));
}

#[test]
fn a_dropped_probe_returns_its_permit() {
    let (breaker, opened) = open();
    let now = opened + 5 * SECOND;

    drop(breaker.acquire(now).unwrap());
    let next = breaker.acquire(now);

    assert!(next.unwrap().record_success());
}

#[test]
fn calls_started_before_it_opened_do_not_change_its_state() {
    let (breaker, now) = (breaker(), SystemClock.now());
    let [succeeds, fails] = [(); 2].map(|()| breaker.acquire(now).unwrap());
    fail(&breaker, now, "abc");

    assert!(!succeeds.record_success());
    assert_eq!(fails.record_failure(now, 'd'), None);

    let later = now + 5 * SECOND;
    let probe = breaker.acquire(later).unwrap();
    assert!(breaker.acquire(later).is_err());
    assert!(probe.record_success());
}
