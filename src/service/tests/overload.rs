//! More wanted than can be fetched: each caller has its turn, and nobody waits in vain.

use tokio::task::JoinSet;

use super::*;
use crate::{
    cache::Shed,
    domain::{Customers, Scope},
};

type Answers = JoinSet<Result<Answer, Unanswered>>;

impl Fixture {
    /// A source that answers whatever it is asked.
    fn tireless() -> Self {
        Self::new(std::iter::repeat_n(Step::Seats(5), 10_000))
    }

    fn spawn(&self, answers: &mut Answers, caller: &Caller, customer: u128) {
        let (usage, caller, now) = (self.usage.clone(), caller.clone(), self.clock.now());
        answers.spawn(async move {
            usage
                .answer(query_of(customer), &caller, CallTrace::default, now)
                .await
        });
    }

    /// Requests for these customers, all of which are under way.
    async fn ask_for(&self, caller: &Caller, customers: std::ops::Range<u128>) -> Answers {
        let in_flight = &self.usage.cache().metrics().fills_in_flight;
        let wanted = in_flight.get() + i64::try_from(customers.clone().count()).unwrap();
        let mut answers = JoinSet::new();
        for customer in customers {
            self.spawn(&mut answers, caller, customer);
        }
        while in_flight.get() < wanted {
            tokio::task::yield_now().await;
        }
        answers
    }

    /// Has one call of the source take this long.
    async fn take(&self, time: Duration) {
        let mut slow = self.ask_for(&Caller::anonymous(), 1_000..1_001).await;
        self.script.wait_for(1).await;
        self.clock.advance(time);
        self.script.release_one();
        slow.join_next().await.unwrap().unwrap().unwrap();
    }

    fn waiting(&self) -> i64 {
        self.usage.cache().metrics().fills_waiting.get()
    }

    fn shed(&self, reason: Shed) -> u64 {
        self.usage.cache().metrics().shed_so_far(reason)
    }

    async fn ask_of(&self, customer: u128) -> Result<Answer, Unanswered> {
        let (caller, now) = (Caller::anonymous(), self.clock.now());
        soon(
            self.usage
                .answer(query_of(customer), &caller, CallTrace::default, now),
        )
        .await
    }
}

/// What must not wait for a call that is held fails instead of hanging.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, answer).await.unwrap()
}

fn named(name: &str) -> Caller {
    Caller::new(name, Customers::All, Scope::ALL.into_iter().collect())
}

fn customer(number: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

fn query_of(number: u128) -> Query {
    Query {
        customer_id: customer(number),
        ..query(Directive::Any)
    }
}

fn retry_after(unanswered: &Unanswered) -> Duration {
    match &unanswered.cause {
        Cause::Source {
            failure,
            retry_after,
        } if matches!(failure.error.kind, SourceErrorKind::Overloaded { .. }) => *retry_after,
        other => panic!("expected that it was shed, not {other:?}"),
    }
}

#[tokio::test]
async fn a_caller_with_thousands_of_misses_keeps_no_place_from_another() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let _flood = fixture.ask_for(&named("flood"), 0..3_000).await;

    let mut other = fixture.ask_for(&named("other"), 9_999..10_000).await;

    fixture.script.wait_for(PLACES / 2 + 1).await;
    assert_eq!(*fixture.script.last.lock().unwrap(), Some(customer(9_999)));
    assert_eq!(fixture.waiting(), 3_000 - (PLACES / 2) as i64);
    for _ in 0..=PLACES / 2 {
        fixture.script.release_one();
    }
    assert!(other.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn who_wants_what_another_waits_for_does_not_wait_in_its_line() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let mut flood = fixture.ask_for(&named("flood"), 0..3_000).await;
    fixture.script.wait_for(PLACES / 2).await;
    fixture.clock.advance(5 * SECOND);
    let mut other = JoinSet::new();

    fixture.spawn(&mut other, &named("other"), 2_999);

    soon(fixture.script.wait_for(PLACES / 2 + 1)).await;
    assert_eq!(*fixture.script.last.lock().unwrap(), Some(customer(2_999)));
    let asked_at = *fixture.script.last_asked_at.lock().unwrap();
    assert_eq!(asked_at, Some(fixture.clock.now()), "it has its whole time");
    assert_eq!(fixture.waiting(), 3_000 - 1 - (PLACES / 2) as i64);
    for _ in 0..=PLACES / 2 {
        fixture.script.release_one();
    }
    assert!(other.join_next().await.unwrap().unwrap().is_ok());
    assert!(flood.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn an_answer_does_not_wait_behind_the_refresh_of_another() {
    let fixture = Fixture::tireless();
    fixture.ask_of(2_999).await.unwrap();
    fixture.clock.advance(110 * SECOND);
    fixture.script.hold();
    let flood = named("flood");
    let _flood = fixture.ask_for(&flood, 0..1_000).await;
    let mut refreshing = fixture.ask_for(&flood, 2_999..3_000).await;
    let stale = refreshing.join_next().await.unwrap().unwrap().unwrap();
    fixture.clock.advance(10 * SECOND);
    let mut other = JoinSet::new();

    fixture.spawn(&mut other, &named("other"), 2_999);

    assert_eq!(stale.result, CacheResult::Stale);
    soon(fixture.script.wait_for(1 + PLACES / 2 + 1)).await;
    assert_eq!(*fixture.script.last.lock().unwrap(), Some(customer(2_999)));
}

#[tokio::test]
async fn who_asked_first_waits_no_longer_because_others_ask_later() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let _flood = fixture.ask_for(&named("flood"), 0..2).await;
    let mut first = fixture.ask_for(&named("flood"), 2..3).await;
    let _other = fixture.ask_for(&named("other"), 100..102).await;
    fixture.script.wait_for(PLACES).await;
    fixture.clock.advance(20 * SECOND);
    let mut later = JoinSet::new();
    fixture.spawn(&mut later, &named("other"), 2);
    fixture.clock.asleep(1, DEADLINE).await;

    fixture.clock.advance(5 * SECOND);
    let shed = soon(first.join_next()).await.unwrap().unwrap().unwrap_err();

    assert!(retry_after(&shed) > Duration::ZERO);
    assert_eq!(fixture.waiting(), 1, "the call waits on for who has time");
    for _ in 0..=PLACES {
        fixture.script.release_one();
    }
    assert!(soon(later.join_next()).await.unwrap().unwrap().is_ok());
    assert_eq!(fixture.shed(Shed::Deadline), 0, "it was made");
}

#[tokio::test]
async fn a_turn_that_is_not_needed_any_more_is_anothers() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let _flood = fixture.ask_for(&named("flood"), 0..3).await;
    let _other = fixture.ask_for(&named("other"), 100..102).await;
    fixture.script.wait_for(PLACES).await;
    // The third of the flood waits in both lines.
    let mut both = JoinSet::new();
    fixture.spawn(&mut both, &named("other"), 2);
    let collapsed = &fixture.usage.cache().metrics().collapsed;
    while collapsed.get() < 1 {
        tokio::task::yield_now().await;
    }
    let _more = fixture.ask_for(&named("other"), 102..103).await;

    for _ in 0..PLACES {
        fixture.script.release_one();
    }

    soon(fixture.script.wait_for(PLACES + 2)).await;
    assert_eq!(fixture.waiting(), 0);
    for _ in 0..2 {
        fixture.script.release_one();
    }
    assert!(soon(both.join_next()).await.unwrap().unwrap().is_ok());
    let _all = fixture.ask_for(&Caller::anonymous(), 200..204).await;
    soon(fixture.script.wait_for(PLACES + 2 + PLACES)).await;
}

#[tokio::test]
async fn callers_take_turns_however_many_one_has_waiting() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let _flood = fixture.ask_for(&Caller::anonymous(), 0..1_000).await;
    let _one = fixture.ask_for(&named("one"), 9_999..10_000).await;
    fixture.script.wait_for(PLACES).await;

    for round in 1..=2 {
        fixture.script.release_one();
        fixture.script.wait_for(PLACES + round).await;
    }

    assert_eq!(*fixture.script.last.lock().unwrap(), Some(customer(9_999)));
}

#[tokio::test]
async fn where_callers_are_not_told_apart_they_have_all_places() {
    let fixture = Fixture::tireless();
    fixture.script.hold();

    let _asked = fixture.ask_for(&Caller::anonymous(), 0..100).await;

    fixture.script.wait_for(PLACES).await;
    assert_eq!(fixture.waiting(), 100 - PLACES as i64);
}

#[tokio::test]
async fn a_hit_waits_for_no_place() {
    let fixture = Fixture::tireless();
    fixture.ask_of(9_999).await.unwrap();
    fixture.script.hold();
    let _flood = fixture.ask_for(&Caller::anonymous(), 0..4_000).await;

    let hit = fixture.ask_of(9_999).await.unwrap();

    assert_eq!(hit.result, CacheResult::Hit);
}

#[tokio::test]
async fn who_joins_a_call_takes_no_place() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let mut asked = fixture.ask_for(&Caller::anonymous(), 0..1).await;
    for _ in 0..PLACES {
        fixture.spawn(&mut asked, &Caller::anonymous(), 0);
    }

    let _others = fixture.ask_for(&Caller::anonymous(), 1..4).await;

    fixture.script.wait_for(PLACES).await;
    assert_eq!(fixture.waiting(), 0);
}

#[tokio::test]
async fn a_miss_that_could_not_be_answered_in_time_is_shed_with_an_honest_wait() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    fixture.take(5 * SECOND).await;
    // Four places, five seconds each: the sixteenth that waits is served after 20 s, in 5 more.
    let _asked = fixture.ask_for(&Caller::anonymous(), 0..20).await;

    let shed = fixture.ask_of(20).await.unwrap_err();

    assert_eq!(retry_after(&shed), Duration::from_millis(21_250));
    assert_eq!(shed.result, Some(CacheResult::Miss));
    assert_eq!(shed.status.detail, Some("overloaded"));
    assert_eq!(shed.status.forward, None);
    assert_eq!(fixture.shed(Shed::Caller), 1);
    assert_eq!(fixture.waiting(), 16, "what was shed does not wait");
}

#[tokio::test]
async fn what_is_held_is_served_where_a_miss_would_be_shed() {
    let fixture = Fixture::tireless();
    fixture.ask_of(9_999).await.unwrap();
    fixture.clock.advance(120 * SECOND);
    fixture.script.hold();
    let _flood = fixture.ask_for(&Caller::anonymous(), 0..4_100).await;

    let stale = fixture.ask_of(9_999).await.unwrap();

    assert_eq!(fixture.shed(Shed::Caller), 1);
    assert_eq!(stale.result, CacheResult::Stale);
    assert!(stale.status.hit);
    assert_eq!(stale.status.detail, Some("stale-if-error"));
}

#[tokio::test]
async fn a_flood_takes_no_more_memory_than_those_who_may_wait() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let flood = named("flood");
    let _waiting = fixture.ask_for(&flood, 0..4_098).await;
    let mut more = JoinSet::new();
    for customer in 10_000..11_000 {
        fixture.spawn(&mut more, &flood, customer);
    }

    let shed = soon(more.join_all()).await;

    assert!(shed.iter().all(Result::is_err));
    assert_eq!(fixture.shed(Shed::Caller), 1_000);
    assert_eq!(fixture.waiting(), 4_096);
    let in_flight = fixture.usage.cache().metrics().fills_in_flight.get();
    assert_eq!(in_flight, 4_096 + (PLACES / 2) as i64);
}

#[tokio::test]
async fn who_waits_until_the_deadline_is_shed_and_may_ask_again() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let _asked = fixture
        .ask_for(&Caller::anonymous(), 0..PLACES as u128)
        .await;
    let mut late = fixture.ask_for(&Caller::anonymous(), 10..11).await;

    fixture.clock.asleep(1, DEADLINE).await;
    fixture.clock.advance(DEADLINE);
    let shed = late.join_next().await.unwrap().unwrap().unwrap_err();

    assert!(retry_after(&shed) > Duration::ZERO);
    assert_eq!(fixture.shed(Shed::Deadline), 1);
    assert_eq!(fixture.waiting(), 0);
    for _ in 0..=PLACES {
        fixture.script.release_one();
    }
    assert!(fixture.ask_of(10).await.is_ok(), "it is not remembered");
}

#[tokio::test]
async fn who_hangs_up_makes_no_room_before_its_call_has_ended() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    let asked = fixture.ask_for(&named("flood"), 0..100).await;
    fixture.script.wait_for(PLACES / 2).await;

    drop(asked);
    let _again = fixture.ask_for(&named("flood"), 200..300).await;

    assert_eq!(fixture.script.asked(), PLACES / 2);
    fixture.script.release_one();
    fixture.script.wait_for(PLACES / 2 + 1).await;
}

#[tokio::test]
async fn a_place_comes_back_from_a_call_that_panics() {
    let panics = std::iter::repeat_n(Step::Panics, PLACES);
    let fixture = Fixture::new(panics.chain([Step::Seats(5)]));

    for customer in 0..PLACES as u128 {
        fixture.ask_of(customer).await.unwrap_err();
    }

    assert!(fixture.ask_of(99).await.is_ok());
}

#[tokio::test]
async fn a_refresh_that_would_come_too_late_is_left_to_a_later_request() {
    let fixture = Fixture::tireless();
    fixture.script.hold();
    fixture.take(60 * SECOND).await;
    fixture.script.release_one();
    fixture.ask_of(9_999).await.unwrap();
    fixture.clock.advance(60 * SECOND);
    let _busy = fixture
        .ask_for(&Caller::anonymous(), 0..PLACES as u128)
        .await;

    let stale = fixture.ask_of(9_999).await.unwrap();

    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(fixture.shed(Shed::Refresh), 1);
    assert_eq!(fixture.shed(Shed::Caller), 0, "nobody was turned away");
}
