use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use tokio::sync::{Notify, Semaphore};

use super::{
    source::{Call, CallIds, Content, FetchFuture, Fetched, SourceErrorKind},
    *,
};
use crate::{
    cache::{CacheMetrics, CacheResult},
    clock::{Clock, ManualClock},
    domain::{ProcessedAt, Snapshot, UsageRow, samples},
    jitter::Jitter,
};

mod customers;
mod overload;

const SECOND: Duration = Duration::from_secs(1);

/// Calls under way.
const PLACES: usize = 4;

/// Longer than any test has a caller wait.
const SOFT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Until an answer is of no use.
const DEADLINE: Duration = Duration::from_secs(25);

/// A source that answers from a script, each answer as it is let go.
#[derive(Debug)]
struct Script {
    answers: Mutex<VecDeque<Step>>,
    asked: AtomicUsize,
    /// Whose usage was asked for last.
    last: Mutex<Option<CustomerId>>,
    /// Since when the answer to that was wanted.
    last_asked_at: Mutex<Option<Instant>>,
    arrived: Notify,
    released: Semaphore,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Seats(u64),
    Nothing,
    /// The list of customers has these.
    Lists(&'static [(u128, &'static str)]),
    Fails(SourceErrorKind),
    Panics,
}

// === impl Script ===

impl Script {
    fn new(answers: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: AtomicUsize::new(0),
            last: Mutex::default(),
            last_asked_at: Mutex::default(),
            arrived: Notify::new(),
            released: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// From now on every answer waits for [`Script::release_one`].
    fn hold(&self) {
        self.released.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn release_one(&self) {
        self.released.add_permits(1);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn wait_for(&self, calls: usize) {
        loop {
            let arrived = self.arrived.notified();
            if self.asked() >= calls {
                return;
            }
            arrived.await;
        }
    }
}

impl UsageSource for Script {
    fn fetch(&self, call: Call) -> FetchFuture<'_> {
        Box::pin(async move {
            let step = self
                .answers
                .lock()
                .unwrap()
                .pop_front()
                .expect("a further answer");
            *self.last.lock().unwrap() = call.subject.customer();
            *self.last_asked_at.lock().unwrap() = Some(call.asked_at);
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.arrived.notify_waiters();
            self.released.acquire().await.unwrap().forget();
            let ids = CallIds {
                request_id: uuid::Uuid::new_v4(),
                correlation_id: uuid::Uuid::new_v4(),
            };
            match step {
                Step::Seats(seats) => Ok(Fetched {
                    content: Content::Usage {
                        snapshot: snapshot(customer_of(&call), call.question, seats),
                        native: Some("{}".into()),
                    },
                    ids,
                    memory: None,
                }),
                Step::Nothing => Ok(Fetched {
                    content: Content::Usage {
                        snapshot: Snapshot::new(customer_of(&call), None, Vec::new()).unwrap(),
                        native: Some("{}".into()),
                    },
                    ids,
                    memory: None,
                }),
                Step::Lists(customers) => Ok(Fetched {
                    content: Content::Customers(customers::list(customers)),
                    ids,
                    memory: None,
                }),
                Step::Fails(kind) => Err(SourceError {
                    kind,
                    detail: "as the test wants it".into(),
                    status: None,
                    refusal: None,
                    ids: Some(ids),
                }),
                Step::Panics => panic!("as the test wants it"),
            }
        })
    }
}

fn customer_of(call: &Call) -> CustomerId {
    call.subject.customer().unwrap()
}

fn snapshot(customer_id: CustomerId, question: Question, seats: u64) -> Snapshot {
    let processed = match question {
        Question::Dated(date) => format!("{date}T00:00:00Z"),
        Question::Newest(_) => "2026-11-19T00:00:00Z".to_owned(),
    };
    let row = UsageRow {
        product_name: "PLAN".into(),
        licenses_qualified: seats,
        processed_at: ProcessedAt(processed.parse().unwrap()),
        ..samples::row()
    };
    Snapshot::new(customer_id, None, vec![row]).unwrap()
}

struct Fixture {
    usage: UsageService,
    clock: Arc<ManualClock>,
    script: Arc<Script>,
}

impl Fixture {
    /// Fresh for a minute, served while revalidating for another, in place of an error for ten.
    fn new(answers: impl IntoIterator<Item = Step>) -> Self {
        let config = CacheConfig {
            max_bytes: 1 << 20,
            fresh_for: 60 * SECOND,
            stale_while_revalidate: 60 * SECOND,
            stale_if_error: 600 * SECOND,
            soft_timeout: SOFT_TIMEOUT,
            negative_fresh_for: 30 * SECOND,
            past_absence_fresh_for: 24 * 3_600 * SECOND,
            min_refresh_interval: 10 * SECOND,
            suspect_confirm_after: 90 * SECOND,
        };
        let clock = Arc::new(ManualClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let script = Script::new(answers);
        let metrics = CacheMetrics::new(&Registry::new()).unwrap();
        let usage = UsageService::new(
            &config,
            CallLimits {
                max_concurrency: NonZeroUsize::new(PLACES).unwrap(),
                deadline: DEADLINE,
            },
            UpstreamApi::Insights,
            UsageCache::new(&config, Jitter::Fixed(0.5), metrics),
            Arc::clone(&script) as _,
            Arc::clone(&clock) as _,
            &Shutdown::new(),
        );
        Self {
            usage,
            clock,
            script,
        }
    }

    async fn ask(&self, directive: Directive) -> Result<Answer, Unanswered> {
        self.ask_as(&Caller::anonymous(), directive).await
    }

    async fn ask_as(&self, caller: &Caller, directive: Directive) -> Result<Answer, Unanswered> {
        let now = self.clock.now();
        self.usage
            .answer(query(directive), caller, CallTrace::default, now)
            .await
    }

    async fn answer(&self) -> Result<Answer, Unanswered> {
        self.ask(Directive::Any).await
    }

    async fn failure(&self) -> SourceErrorKind {
        match self.answer().await.unwrap_err().cause {
            Cause::Source { failure, .. } => failure.error.kind,
            Cause::NotHeld | Cause::NotAllowed => panic!("expected the source's failure"),
        }
    }
}

fn query(directive: Directive) -> Query {
    Query {
        customer_id: CustomerId::parse("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04").unwrap(),
        form: Form::Simplified,
        date: None,
        directive,
    }
}

#[tokio::test]
async fn a_second_request_is_a_hit_and_tells_no_ids_of_the_call() {
    let fixture = Fixture::new([Step::Seats(5)]);
    let first = fixture.answer().await.unwrap();
    fixture.clock.advance(59 * SECOND);

    let second = fixture.answer().await.unwrap();

    assert_eq!(first.result, CacheResult::Miss);
    assert!(first.status.stored && first.ids.is_some());
    assert_eq!(second.result, CacheResult::Hit);
    assert!(second.status.hit && second.ids.is_none());
    assert_eq!(second.held.age, 59 * SECOND);
    assert_eq!(fixture.script.asked(), 1);
}

#[tokio::test]
async fn a_stale_answer_is_served_while_one_refresh_runs() {
    let fixture = Fixture::new([Step::Seats(5), Step::Seats(6)]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(60 * SECOND);
    fixture.script.hold();

    for _ in 0..3 {
        let stale = fixture.answer().await.unwrap();
        assert_eq!(stale.result, CacheResult::Stale);
        assert_eq!(stale.status.ttl, Some(0));
    }
    fixture.script.wait_for(2).await;
    let refresh = fixture.ask(Directive::NoCache);
    fixture.script.release_one();
    let joined = refresh.await.unwrap();

    assert!(joined.status.collapsed, "the refresh under way was joined");
    assert_eq!(fixture.answer().await.unwrap().result, CacheResult::Hit);
    assert_eq!(fixture.script.asked(), 2);
}

#[tokio::test]
async fn past_the_revalidation_window_upstream_is_asked_first() {
    let fixture = Fixture::new([Step::Seats(5), Step::Seats(6)]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);

    let answer = fixture.answer().await.unwrap();

    assert_eq!(answer.status.forward, Some(Forward::Stale));
    assert_eq!(answer.held.age, Duration::ZERO);
}

#[tokio::test]
async fn what_is_held_stands_in_for_a_failure_until_it_has_expired() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), down, down]);
    fixture.answer().await.unwrap();

    fixture.clock.advance(120 * SECOND);
    let stale = fixture.answer().await.unwrap();
    fixture.clock.advance(540 * SECOND);
    let expired = fixture.answer().await.unwrap_err();

    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(stale.status.detail, Some("stale-if-error"));
    assert_eq!(stale.held.age, 120 * SECOND);
    assert!(matches!(expired.cause, Cause::Source { .. }));
}

#[tokio::test]
async fn what_upstream_settled_is_never_covered_by_what_is_held() {
    let fixture = Fixture::new([Step::Seats(5), Step::Fails(SourceErrorKind::NoRelationship)]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);

    assert_eq!(fixture.failure().await, SourceErrorKind::NoRelationship);
    let again = fixture.answer().await.unwrap_err();

    assert_eq!(again.result, Some(CacheResult::Negative));
    assert_eq!(fixture.script.asked(), 2, "the refusal is remembered");
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_and_no_further_call_is_made() {
    let fixture = Fixture::new([Step::Fails(SourceErrorKind::TimedOut)]);
    fixture.script.hold();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (usage, now) = (fixture.usage.clone(), fixture.clock.now());
        callers.spawn(async move {
            usage
                .answer(
                    query(Directive::Any),
                    &Caller::anonymous(),
                    CallTrace::default,
                    now,
                )
                .await
        });
    }
    fixture.script.wait_for(1).await;

    fixture.script.release_one();
    let failed = callers.join_all().await;

    assert!(failed.iter().all(Result::is_err));
    assert_eq!(fixture.script.asked(), 1);
}

#[tokio::test]
async fn a_fault_is_remembered_for_a_second_and_twice_as_long_the_next_time() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([down, down, Step::Seats(5)]);

    fixture.failure().await;
    fixture.failure().await;
    assert_eq!(fixture.script.asked(), 1);
    fixture.clock.advance(SECOND);
    fixture.failure().await;
    assert_eq!(fixture.script.asked(), 2);
    fixture.clock.advance(SECOND);
    fixture.failure().await;
    assert_eq!(fixture.script.asked(), 2);
    fixture.clock.advance(SECOND);

    assert!(fixture.answer().await.is_ok());
}

#[tokio::test]
async fn a_throttle_is_remembered_for_as_long_as_upstream_said() {
    let throttled = Step::Fails(SourceErrorKind::Throttled {
        retry_after: 57 * SECOND,
    });
    let fixture = Fixture::new([throttled, Step::Seats(5)]);
    fixture.failure().await;
    fixture.clock.advance(20 * SECOND);

    let Cause::Source { retry_after, .. } = fixture.answer().await.unwrap_err().cause else {
        panic!("expected the throttle");
    };

    assert_eq!(retry_after, 37 * SECOND);
    fixture.clock.advance(37 * SECOND);
    assert!(fixture.answer().await.is_ok());
}

#[tokio::test]
async fn no_cache_asks_upstream_but_not_more_often_than_allowed() {
    let fixture = Fixture::new([Step::Seats(5), Step::Seats(5)]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(9 * SECOND);

    let soon = fixture.ask(Directive::NoCache).await.unwrap();
    fixture.clock.advance(SECOND);
    let later = fixture.ask(Directive::NoCache).await.unwrap();

    assert_eq!(soon.status.detail, Some("min-refresh-interval"));
    assert_eq!(later.status.forward, Some(Forward::Request));
    assert_eq!(later.result, CacheResult::Bypass);
    assert_eq!(fixture.script.asked(), 2);
}

/// May read, and may not have upstream asked.
fn reader() -> Caller {
    let scopes = [Scope::UsageRead].into_iter().collect();
    Caller::new("reader", crate::domain::Customers::All, scopes)
}

#[tokio::test]
async fn no_cache_is_honoured_once_for_a_customer_whatever_is_asked() {
    let fixture = Fixture::new([Step::Seats(5); 5]);
    let other_date = Query {
        date: Some(ProcessedDate::parse("2026-11-18").unwrap()),
        ..query(Directive::Any)
    };
    let ask = async |query| {
        let (caller, now) = (Caller::anonymous(), fixture.clock.now());
        let answered = fixture
            .usage
            .answer(query, &caller, CallTrace::default, now);
        answered.await.unwrap().status
    };
    let forced = |query| Query {
        directive: Directive::NoCache,
        ..query
    };
    ask(query(Directive::Any)).await;
    ask(other_date).await;
    fixture.clock.advance(10 * SECOND);
    let before = fixture.script.asked();

    let first = ask(forced(query(Directive::Any))).await;
    fixture.clock.advance(9 * SECOND);
    let other = ask(forced(other_date)).await;
    fixture.clock.advance(SECOND);
    let later = ask(forced(other_date)).await;

    assert_eq!(first.forward, Some(Forward::Request));
    assert_eq!(other.detail, Some("min-refresh-interval"));
    assert_eq!(later.forward, Some(Forward::Request));
    assert_eq!(fixture.script.asked(), before + 2);
}

#[tokio::test]
async fn a_failure_too_says_that_no_cache_was_ignored() {
    let fixture = Fixture::new([Step::Fails(SourceErrorKind::TimedOut)]);

    for _failed_then_remembered in 0..2 {
        let failed = fixture.ask_as(&reader(), Directive::NoCache).await;

        let status = failed.unwrap_err().status;
        assert_eq!(status.detail, Some("refresh-not-allowed"));
    }
    assert_eq!(
        fixture.answer().await.unwrap_err().status.detail,
        Some("timed-out")
    );
}

#[tokio::test]
async fn that_data_is_doubted_is_told_before_all_else() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), Step::Nothing, down, down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(10 * SECOND);
    let detail = |answer: Result<Answer, Unanswered>| answer.unwrap().status.detail;

    let doubted = detail(fixture.ask(Directive::NoCache).await);
    let too_soon = detail(fixture.ask(Directive::NoCache).await);
    let not_allowed = detail(fixture.ask_as(&reader(), Directive::NoCache).await);
    fixture.clock.advance(10 * SECOND);
    let in_vain = detail(fixture.ask(Directive::NoCache).await);
    fixture.clock.advance(120 * SECOND);
    let stale = detail(fixture.answer().await);

    for detail in [doubted, too_soon, not_allowed, in_vain, stale] {
        assert_eq!(detail, Some("suspect"));
    }
    assert_eq!(fixture.script.asked(), 4);
}

#[tokio::test]
async fn what_is_fresh_stays_fresh_when_a_caller_has_upstream_asked_in_vain() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(10 * SECOND);

    let answer = fixture.ask(Directive::NoCache).await.unwrap();

    assert_eq!(answer.result, CacheResult::Bypass);
    assert_eq!(answer.status.detail, Some("unavailable"));
    assert_eq!(fixture.usage.cache().metrics().stale_if_error.get(), 0);
}

#[tokio::test]
async fn only_if_cached_never_asks() {
    let fixture = Fixture::new([Step::Seats(5)]);

    let nothing = fixture.ask(Directive::OnlyIfCached).await.unwrap_err();
    fixture.answer().await.unwrap();
    fixture.clock.advance(60 * SECOND);
    let stale = fixture.ask(Directive::OnlyIfCached).await.unwrap();

    assert!(matches!(nothing.cause, Cause::NotHeld));
    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(fixture.script.asked(), 1);
}

#[tokio::test]
async fn a_purge_wins_over_the_fetch_that_it_overtakes() {
    let fixture = Fixture::new([Step::Seats(5), Step::Seats(6)]);
    fixture.script.hold();
    let (usage, now) = (fixture.usage.clone(), fixture.clock.now());
    let mut before = tokio::task::JoinSet::new();
    before.spawn(async move {
        usage
            .answer(
                query(Directive::Any),
                &Caller::anonymous(),
                CallTrace::default,
                now,
            )
            .await
    });
    fixture.script.wait_for(1).await;

    fixture.usage.purge(PurgeScope::default(), PurgeMode::Hard);
    fixture.script.release_one();
    let overtaken = before.join_next().await.unwrap().unwrap().unwrap();
    fixture.script.release_one();
    let after = fixture.answer().await.unwrap();

    assert!(
        !overtaken.status.stored,
        "who waited has the answer, the cache has not"
    );
    assert_eq!(after.status.forward, Some(Forward::UriMiss));
    assert_eq!(fixture.script.asked(), 2);
}

#[tokio::test]
async fn a_soft_purge_keeps_what_is_held_for_a_failure() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), down]);
    fixture.answer().await.unwrap();

    fixture.usage.purge(PurgeScope::default(), PurgeMode::Soft);
    let stale = fixture.answer().await.unwrap();

    assert_eq!(stale.status.detail, Some("stale-if-error"));
    assert_eq!(fixture.script.asked(), 2);
}

#[tokio::test]
async fn what_was_dropped_while_a_request_waited_is_not_served_to_it() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);
    fixture.script.hold();
    let purge_meanwhile = async {
        fixture.script.wait_for(2).await;
        fixture.usage.purge(PurgeScope::default(), PurgeMode::Hard);
        fixture.script.release_one();
    };

    let (answer, ()) = tokio::join!(fixture.answer(), purge_meanwhile);

    assert!(matches!(answer.unwrap_err().cause, Cause::Source { .. }));
}

#[tokio::test]
async fn what_stands_in_for_a_failure_has_aged_while_the_request_waited() {
    let down = Step::Fails(SourceErrorKind::Unavailable { retry_after: None });
    let fixture = Fixture::new([Step::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);
    fixture.script.hold();
    let meanwhile = async {
        fixture.script.wait_for(2).await;
        fixture.clock.advance(20 * SECOND);
        fixture.script.release_one();
    };

    let (answer, ()) = tokio::join!(fixture.answer(), meanwhile);

    assert_eq!(answer.unwrap().held.age, 140 * SECOND);
}

#[tokio::test]
async fn a_panic_in_a_fetch_is_an_answer_and_frees_the_customer() {
    let fixture = Fixture::new([Step::Panics, Step::Seats(5)]);

    assert_eq!(fixture.failure().await, SourceErrorKind::Interrupted);

    assert!(fixture.answer().await.is_ok());
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_fetch() {
    let fixture = Fixture::new([Step::Seats(5)]);
    fixture.script.hold();
    {
        let asking = fixture.answer();
        tokio::select! {
            biased;
            _ = asking => panic!("the answer is held"),
            () = fixture.script.wait_for(1) => {}
        }
    }

    fixture.script.release_one();
    let joined = fixture.answer().await.unwrap();

    assert_eq!(joined.held.prepared.rows(), 1);
    assert_eq!(fixture.script.asked(), 1);
}

#[tokio::test]
async fn a_coding_is_compressed_once_however_many_ask() {
    let fixture = Fixture::new([Step::Seats(5)]);
    let prepared = fixture.answer().await.unwrap().held.prepared;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (usage, prepared) = (fixture.usage.clone(), Arc::clone(&prepared));
        callers.spawn(async move {
            usage
                .render(&prepared, Form::Csv, Coding::Brotli)
                .await
                .unwrap();
            prepared
                .ready(Form::Csv, Coding::Brotli)
                .unwrap()
                .1
                .body()
                .as_ptr()
                .addr()
        });
    }

    let bodies: std::collections::HashSet<_> = callers.join_all().await.into_iter().collect();

    assert_eq!(bodies.len(), 1);
}
