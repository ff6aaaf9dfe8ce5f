use super::*;
use crate::clock::{Clock, SystemClock};

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> CircuitBreaker<char> {
    CircuitBreaker::new(3, Backoff::new(5 * SECOND, 15 * SECOND).unwrap())
}

fn fail(breaker: &CircuitBreaker<char>, now: Instant, subjects: &str) -> Option<Duration> {
    let outcomes = subjects
        .chars()
        .map(|subject| breaker.admit(now).unwrap().failed(now, subject));
    outcomes.last().flatten()
}

/// An open circuit, and the time since when it is.
fn open() -> (CircuitBreaker<char>, Instant) {
    let (breaker, now) = (breaker(), SystemClock.now());
    assert_eq!(fail(&breaker, now, "abc"), Some(5 * SECOND));
    (breaker, now)
}

#[test]
fn failures_in_a_row_open_it_and_it_refuses_until_the_pause_is_over() {
    let (breaker, now) = open();

    let refused = breaker.admit(now + 4 * SECOND).unwrap_err();

    assert_eq!(refused.until, now + 5 * SECOND);
    assert_eq!(breaker.state(now + 4 * SECOND), CircuitState::Open);
    assert_eq!(breaker.state(now + 5 * SECOND), CircuitState::HalfOpen);
}

#[test]
fn a_success_in_between_keeps_it_closed() {
    let (breaker, now) = (breaker(), SystemClock.now());

    for _ in 0..100 {
        assert_eq!(fail(&breaker, now, "ab"), None);
        assert!(!breaker.admit(now).unwrap().succeeded());
    }

    assert_eq!(breaker.state(now), CircuitState::Closed);
}

#[test]
fn one_subject_alone_cannot_open_it() {
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

    let probe = breaker.admit(now).unwrap();
    let meanwhile = breaker.admit(now).unwrap_err();

    assert_eq!(meanwhile.until, now + PROBING);
    assert!(probe.succeeded());
    assert_eq!(breaker.state(now), CircuitState::Closed);
    assert_eq!(fail(&breaker, now, "ab"), None, "the count begins anew");
}

#[test]
fn probes_for_one_subject_make_the_pause_no_longer() {
    let (breaker, mut now) = open();
    let mut pause = 5 * SECOND;

    for expected in [10, 10, 10] {
        now += pause;
        pause = breaker.admit(now).unwrap().failed(now, 'a').unwrap();
        assert_eq!(pause, expected * SECOND);
    }
}

#[test]
fn each_probe_that_fails_makes_the_pause_longer_up_to_the_cap() {
    let (breaker, mut now) = open();
    let mut pause = 5 * SECOND;

    for (subject, expected) in [('a', 10), ('b', 15), ('a', 15)] {
        now += pause;
        pause = breaker.admit(now).unwrap().failed(now, subject).unwrap();
        assert_eq!(pause, expected * SECOND);
        assert!(breaker.admit(now + pause - SECOND).is_err());
    }
    now += pause;
    assert!(breaker.admit(now).unwrap().succeeded());

    assert_eq!(fail(&breaker, now, "abc"), Some(5 * SECOND));
}

#[test]
fn a_probe_whose_caller_left_gives_its_permit_back() {
    let (breaker, opened) = open();
    let now = opened + 5 * SECOND;

    drop(breaker.admit(now).unwrap());
    let next = breaker.admit(now);

    assert!(next.unwrap().succeeded());
}

#[test]
fn what_began_before_it_opened_settles_nothing() {
    let (breaker, now) = (breaker(), SystemClock.now());
    let [succeeds, fails] = [(); 2].map(|()| breaker.admit(now).unwrap());
    fail(&breaker, now, "abc");

    assert!(!succeeds.succeeded());
    assert_eq!(fails.failed(now, 'd'), None);

    let later = now + 5 * SECOND;
    let probe = breaker.admit(later).unwrap();
    assert!(breaker.admit(later).is_err());
    assert!(probe.succeeded());
}
