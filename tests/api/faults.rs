//! Faults of the transport × cached data: every cell of the table is a test of its own.
//!
//! Each ends with the fault lifted and a fresh answer. Retries are off, so that a fault costs one
//! request, except where a test is about them. A name that does not resolve and a port that speaks no
//! TLS are tested only with an empty cache: nothing from such a URL was ever cached.

mod proxy;

use std::convert::Infallible;

use usage_proxy::clock::ManualClock;

use self::proxy::{End, Fault, FaultProxy, Point};
use crate::support::prelude::*;

/// No other sleeper sleeps just as long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(7_003);

/// The pause of slow answers. A few pauses fit in an attempt.
const PAUSE: Duration = Duration::from_millis(1_217);

/// The time that a first failure is remembered.
const REMEMBERED: Duration = SECOND;

/// Longer than a cell takes in the machine's time, and shorter than the kernel tries to connect.
const PATIENCE: Duration = Duration::from_secs(15);

const ANSWERED: &str =
    r#"usage_proxy_upstream_requests_total{api="insights",code="none",status_class="2xx"}"#;
const FAILED: &str =
    r#"usage_proxy_upstream_requests_total{api="insights",code="none",status_class="error"}"#;

/// The effect of a fault on an upstream call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It takes longer, and that is all.
    Answered,
    /// The connection failed.
    Unavailable,
    /// No connection came about in time, by the machine's clock.
    NotConnected,
    /// The attempt took too long.
    TimedOut,
    /// The answer is no usage.
    Malformed,
}

/// The customer's data in the cache at the time of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Stale beyond the revalidation window: upstream is asked and waited for.
    StaleIfError,
    Absent,
}

/// The answer that a caller gets.
struct Expected {
    status: u16,
    /// The kind of the problem document, where it is one.
    problem: Option<&'static str>,
    retry_after: &'static str,
    cache_status: &'static str,
}

/// The table; each row makes a module with a test for each state.
macro_rules! faults {
    ($($name:ident: $fault:expr => $outcome:ident;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn with_a_stale_answer() {
                assert_outcome(State::StaleIfError, $fault, Outcome::$outcome).await;
            }

            #[tokio::test]
            async fn with_an_empty_cache() {
                assert_outcome(State::Absent, $fault, Outcome::$outcome).await;
            }
        }
    )*};
}

faults! {
    a_late_answer: Fault::Late(PAUSE) => Answered;
    an_answer_after_the_timeout: Fault::Late(ATTEMPT_TIMEOUT + PAUSE) => TimedOut;
    a_narrow_line: Fault::Narrow { bytes: 1_024, pause: PAUSE } => Answered;
    a_trickle: Fault::Narrow { bytes: 16, pause: PAUSE } => TimedOut;
    a_refused_connection: Fault::Refused => Unavailable;
    a_connection_that_is_never_accepted: Fault::NeverAccepted => NotConnected;
    a_half_open_connection: Fault::Silent => TimedOut;
    another_protocol: Fault::Foreign => Unavailable;
    a_close_before_the_answer: Fault::Cut(Point::Start, End::Close) => Unavailable;
    a_close_in_mid_head: Fault::Cut(Point::Head, End::Close) => Unavailable;
    a_close_in_mid_body: Fault::Cut(Point::Body, End::Close) => Unavailable;
    a_reset_before_the_answer: Fault::Cut(Point::Start, End::Reset) => Unavailable;
    a_reset_in_mid_head: Fault::Cut(Point::Head, End::Reset) => Unavailable;
    a_reset_in_mid_body: Fault::Cut(Point::Body, End::Reset) => Unavailable;
    a_close_in_mid_body_of_no_length: Fault::CutUnmeasured => Malformed;
    a_slow_close: Fault::SlowClose(PAUSE) => Answered;
    a_close_that_never_comes: Fault::NoClose => TimedOut;
}

/// Returns the expected answer for a cell of the table, by the effect of its fault.
fn expected(state: State, outcome: Outcome) -> Expected {
    let served = |cache_status| Expected {
        status: 200,
        problem: None,
        retry_after: "",
        cache_status,
    };
    let refused = |status, problem, retry_after, cache_status| Expected {
        status,
        problem: Some(problem),
        retry_after,
        cache_status,
    };
    match (state, outcome) {
        (State::StaleIfError, Outcome::Answered) => served(STORED_AGAIN),
        (State::StaleIfError, Outcome::Unavailable | Outcome::NotConnected) => {
            served("fwd=stale; ttl=-3660; detail=stale-if-error")
        }
        // It has aged while upstream was waited for.
        (State::StaleIfError, Outcome::TimedOut) => {
            served("fwd=stale; ttl=-3667; detail=stale-if-error")
        }
        (State::StaleIfError, Outcome::Malformed) => {
            served("fwd=stale; fwd-status=200; ttl=-3660; detail=stale-if-error")
        }
        (State::Absent, Outcome::Answered) => served(STORED),
        (State::Absent, Outcome::Unavailable) => {
            refused(503, "unavailable", "1", "fwd=uri-miss; detail=unavailable")
        }
        (State::Absent, Outcome::NotConnected | Outcome::TimedOut) => {
            refused(504, "timed-out", "1", "fwd=uri-miss; detail=timed-out")
        }
        (State::Absent, Outcome::Malformed) => refused(
            502,
            "malformed",
            "",
            "fwd=uri-miss; fwd-status=200; detail=malformed",
        ),
    }
}

/// One cell: the fault is met in this state, seen by a caller, and lifted.
async fn assert_outcome(state: State, fault: Fault, outcome: Outcome) {
    let (app, mut proxy) = start("0").await;
    if let Some(age) = state.age() {
        app.usage(DOCUMENTED).await;
        app.advance(age);
    }
    proxy.set(fault).await;

    let reply = while_time_passes(&app, fault, async {
        let reply = app.usage(DOCUMENTED).await;
        let (answered, failed) = state.requests(outcome);
        app.wait_for_metric(FAILED, failed).await;
        app.wait_for_metric(ANSWERED, answered).await;
        reply
    })
    .await;

    expected(state, outcome).check(&reply);
    let so_far = app.metric(ANSWERED).await;
    let settled = outcome == Outcome::Answered;
    proxy.set(Fault::None).await;
    app.advance(REMEMBERED);
    app.usage(DOCUMENTED).await;
    let answered = if settled { so_far } else { so_far + 1.0 };
    app.wait_for_metric(ANSWERED, answered).await;
    app.wait_until_filled().await;
    let recovered = app.usage(DOCUMENTED).await;
    assert_eq!(recovered.status, 200);
    let (hit, ttl) = recovered.cache_status().split_once("ttl=").unwrap();
    assert_eq!(hit, "hit; ");
    assert!(ttl.parse::<i64>().is_ok_and(|left| left > 0), "{ttl}");
}

/// Row by row, the faults of one connection that another attempt makes good.
macro_rules! passing_faults {
    ($($name:ident: $fault:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            assert_one_retry_recovers($fault).await;
        }
    )*};
}

mod one_retry_recovers_from {
    use super::*;

    passing_faults! {
        an_answer_after_the_timeout: Fault::Late(ATTEMPT_TIMEOUT + PAUSE);
        a_trickle: Fault::Narrow { bytes: 16, pause: PAUSE };
        a_half_open_connection: Fault::Silent;
        another_protocol: Fault::Foreign;
        a_close_before_the_answer: Fault::Cut(Point::Start, End::Close);
        a_close_in_mid_head: Fault::Cut(Point::Head, End::Close);
        a_close_in_mid_body: Fault::Cut(Point::Body, End::Close);
        a_reset_before_the_answer: Fault::Cut(Point::Start, End::Reset);
        a_reset_in_mid_head: Fault::Cut(Point::Head, End::Reset);
        a_reset_in_mid_body: Fault::Cut(Point::Body, End::Reset);
        a_close_that_never_comes: Fault::NoClose;
    }
}

async fn assert_one_retry_recovers(fault: Fault) {
    let (app, mut proxy) = start("1").await;
    proxy.set_once(fault).await;

    let first_attempt = while_time_passes(&app, fault, app.wait_for_metric(FAILED, 1.0));
    let (reply, ()) = tokio::join!(app.usage(DOCUMENTED), first_attempt);

    expected(State::Absent, Outcome::Answered).check(&reply);
    assert_eq!(app.metric(ANSWERED).await, 1.0);
}

#[tokio::test]
async fn a_lost_keep_alive_connection_costs_one_retry() {
    let (app, mut proxy) = start("1").await;
    proxy.set(Fault::LostWhenReused).await;
    app.usage(DOCUMENTED).await;
    app.advance(State::StaleIfError.age().unwrap());

    let reply = app.usage(DOCUMENTED).await;

    expected(State::StaleIfError, Outcome::Answered).check(&reply);
    assert_eq!(app.metric(FAILED).await, 1.0);
}

#[tokio::test]
async fn a_keep_alive_connection_that_upstream_closed_costs_no_retry() {
    let (app, mut proxy) = start("0").await;
    app.usage(DOCUMENTED).await;
    app.advance(State::StaleIfError.age().unwrap());
    // Closes the one that was kept.
    proxy.set(Fault::None).await;

    let reply = app.usage(DOCUMENTED).await;

    expected(State::StaleIfError, Outcome::Answered).check(&reply);
    assert_eq!(app.metric(FAILED).await, 0.0);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unavailable() {
    // No resolver passes on a label of more than 63 characters (RFC 1035 §2.3.4).
    let nowhere = format!("https://{}.invalid", "x".repeat(64));
    let app = builder("0")
        .set("upstream.base_url", &nowhere)
        .start()
        .await;

    let reply = app.usage(DOCUMENTED).await;

    expected(State::Absent, Outcome::Unavailable).check(&reply);
    assert!(!reply.text().contains("xxxx"), "{}", reply.text());
}

#[tokio::test]
async fn a_port_without_tls_is_unavailable() {
    let mut proxy = FaultProxy::bind();
    let url = format!("https://{}", proxy.address());
    let app = builder("0").set("upstream.base_url", &url).start().await;
    proxy.lead_to(app.simulator_address, &app.clock).await;
    proxy.set(Fault::Foreign).await;

    let reply = app.usage(DOCUMENTED).await;

    expected(State::Absent, Outcome::Unavailable).check(&reply);
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

// === impl Fault ===

impl Fault {
    /// Returns the time until something happens: the fault's own pause, or the time of an attempt.
    fn pause(self) -> Option<Duration> {
        match self {
            Self::Late(pause) | Self::SlowClose(pause) => Some(pause.min(ATTEMPT_TIMEOUT)),
            Self::Narrow { pause, .. } => Some(pause),
            Self::Silent | Self::NoClose => Some(ATTEMPT_TIMEOUT),
            _ => None,
        }
    }
}

// === impl State ===

impl State {
    /// Returns the age of the cached answer, if there is one.
    fn age(self) -> Option<Duration> {
        match self {
            Self::StaleIfError => Some(Duration::from_secs(4_560)),
            Self::Absent => None,
        }
    }

    /// Upstream requests that were answered and that failed, once the fault was met.
    fn requests(self, outcome: Outcome) -> (f64, f64) {
        let earlier = if self == Self::Absent { 0.0 } else { 1.0 };
        match outcome {
            Outcome::Answered | Outcome::Malformed => (earlier + 1.0, 0.0),
            Outcome::Unavailable | Outcome::NotConnected | Outcome::TimedOut => (earlier, 1.0),
        }
    }
}

// === impl Expected ===

impl Expected {
    #[track_caller]
    fn check(&self, reply: &Reply) {
        match self.problem {
            Some(kind) => drop(reply.problem(self.status, kind)),
            None => assert_eq!(reply.status, self.status, "{reply:?}"),
        }
        assert_eq!(reply.header("retry-after"), self.retry_after);
        assert_eq!(reply.cache_status(), self.cache_status);
        if self.status == 200 {
            assert_eq!(reply.json()["products"].as_array().map(Vec::len), Some(3));
        }
    }
}

/// The service behind a proxy without faults.
async fn start(retries: &str) -> (TestApp, FaultProxy) {
    let mut proxy = FaultProxy::bind();
    let url = format!("http://{}", proxy.address());
    let app = builder(retries)
        .set("upstream.base_url", &url)
        .start()
        .await;
    proxy.lead_to(app.simulator_address, &app.clock).await;
    (app, proxy)
}

fn builder(retries: &str) -> crate::support::Builder {
    TestApp::builder()
        .set("upstream.retries", retries)
        // A renewal would be one more that waits for the time of an attempt.
        .simulator(|stand_in| stand_in.expires_in = Duration::from_secs(24 * 60 * 60))
        // So long that requests wait for the failure, even where stale data may be served.
        .set("cache.soft_timeout", "1h")
        // In the machine's time: no clock of ours is behind a connection attempt.
        .set("upstream.connect_timeout", "250ms")
        .config(|config| config.upstream.attempt_timeout = ATTEMPT_TIMEOUT)
}

/// Lets the time pass that the fault takes, for as long as `work` is not done.
async fn while_time_passes<T>(app: &TestApp, fault: Fault, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        never = time_passes(&app.clock, fault) => match never {},
        () = tokio::time::sleep(PATIENCE) => panic!("{fault:?} has no end"),
    }
}

async fn time_passes(clock: &ManualClock, fault: Fault) -> Infallible {
    let Some(pause) = fault.pause() else {
        return std::future::pending().await;
    };
    loop {
        clock.wait_for_sleepers_until(1, pause).await;
        clock.advance(pause);
        if pause == ATTEMPT_TIMEOUT {
            // Another attempt has its own time, which does not pass.
            return std::future::pending().await;
        }
    }
}
