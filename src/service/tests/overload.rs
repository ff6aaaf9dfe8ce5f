//! More calls than can be made at once: each caller gets its share, and none waits too long.

use tokio::task::JoinSet;

use super::*;
use crate::{
    cache::ShedReason,
    domain::{CallerScope, CustomerAccess},
};

type PendingAnswers = JoinSet<Result<UsageAnswer, UsageError>>;

impl ServiceFixture {
    /// A source that answers whatever it is asked.
    fn with_endless_answers() -> Self {
        Self::new(std::iter::repeat_n(SourceStep::Seats(5), 10_000))
    }

    fn spawn_request(&self, answers: &mut PendingAnswers, caller: &Caller, customer: u128) {
        let (usage, caller, now) = (self.service.clone(), caller.clone(), self.clock.now());
        answers.spawn(async move {
            usage
                .answer(query_for(customer), &caller, CallTrace::default, now)
                .await
        });
    }

    /// Requests for these customers, all of which are under way.
    async fn spawn_requests(
        &self,
        caller: &Caller,
        customers: std::ops::Range<u128>,
    ) -> PendingAnswers {
        let in_flight = &self.service.cache().metrics().fills_in_flight;
        let wanted = in_flight.get() + i64::try_from(customers.clone().count()).unwrap();
        let mut answers = JoinSet::new();
        for customer in customers {
            self.spawn_request(&mut answers, caller, customer);
        }
        while in_flight.get() < wanted {
            tokio::task::yield_now().await;
        }
        answers
    }

    /// Has one call of the source take this long.
    async fn complete_call_after(&self, time: Duration) {
        let mut slow = self
            .spawn_requests(&Caller::anonymous(), 1_000..1_001)
            .await;
        self.source.wait_for(1).await;
        self.clock.advance(time);
        self.source.release_one();
        slow.join_next().await.unwrap().unwrap().unwrap();
    }

    fn waiting_calls(&self) -> i64 {
        self.service.cache().metrics().fills_waiting.get()
    }

    fn shed_calls(&self, reason: ShedReason) -> u64 {
        self.service.cache().metrics().shed_count(reason)
    }

    async fn answer_for(&self, customer: u128) -> Result<UsageAnswer, UsageError> {
        let (caller, now) = (Caller::anonymous(), self.clock.now());
        within_timeout(
            self.service
                .answer(query_for(customer), &caller, CallTrace::default, now),
        )
        .await
    }
}

/// Fails instead of hanging, if an answer waits for a call on hold.
async fn within_timeout<T>(answer: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, answer).await.unwrap()
}

fn named_caller(name: &str) -> Caller {
    Caller::new(
        name,
        CustomerAccess::All,
        CallerScope::ALL.into_iter().collect(),
    )
}

fn numbered_customer(number: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

fn query_for(number: u128) -> UsageQuery {
    UsageQuery {
        customer_id: numbered_customer(number),
        ..usage_query(CacheDirective::Any)
    }
}

fn retry_after(unanswered: &UsageError) -> Duration {
    match &unanswered.kind {
        ErrorKind::Source {
            failure,
            retry_after,
        } if matches!(failure.error.kind, SourceErrorKind::Overloaded) => *retry_after,
        other => panic!("expected that it was shed, not {other:?}"),
    }
}

#[tokio::test]
async fn thousands_of_misses_of_one_caller_do_not_block_another() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let _flood = fixture
        .spawn_requests(&named_caller("flood"), 0..3_000)
        .await;

    let mut other = fixture
        .spawn_requests(&named_caller("other"), 9_999..10_000)
        .await;

    fixture.source.wait_for(MAX_CONCURRENCY / 2 + 1).await;
    assert_eq!(
        *fixture.source.last_customer.lock().unwrap(),
        Some(numbered_customer(9_999))
    );
    assert_eq!(
        fixture.waiting_calls(),
        3_000 - (MAX_CONCURRENCY / 2) as i64
    );
    for _ in 0..=MAX_CONCURRENCY / 2 {
        fixture.source.release_one();
    }
    assert!(other.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_follower_does_not_wait_in_the_queue_of_the_leader() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let mut flood = fixture
        .spawn_requests(&named_caller("flood"), 0..3_000)
        .await;
    fixture.source.wait_for(MAX_CONCURRENCY / 2).await;
    fixture.clock.advance(5 * SECOND);
    let mut other = JoinSet::new();

    fixture.spawn_request(&mut other, &named_caller("other"), 2_999);

    within_timeout(fixture.source.wait_for(MAX_CONCURRENCY / 2 + 1)).await;
    assert_eq!(
        *fixture.source.last_customer.lock().unwrap(),
        Some(numbered_customer(2_999))
    );
    let asked_at = *fixture.source.last_requested_at.lock().unwrap();
    assert_eq!(asked_at, Some(fixture.clock.now()), "it has its whole time");
    assert_eq!(
        fixture.waiting_calls(),
        3_000 - 1 - (MAX_CONCURRENCY / 2) as i64
    );
    for _ in 0..=MAX_CONCURRENCY / 2 {
        fixture.source.release_one();
    }
    assert!(other.join_next().await.unwrap().unwrap().is_ok());
    assert!(flood.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn of_two_requests_that_share_a_call_after_a_purge_one_has_its_ids() {
    let fixture = ServiceFixture::with_endless_answers();
    let caller = Caller::anonymous();
    fixture.source.hold_answers();
    let mut running = fixture
        .spawn_requests(&caller, 0..MAX_CONCURRENCY as u128)
        .await;
    fixture.source.wait_for(MAX_CONCURRENCY).await;
    let mut before = fixture.spawn_requests(&caller, 9_000..9_001).await;
    let scope = PurgeScope {
        customer_id: Some(numbered_customer(9_000)),
        processed_date: None,
    };
    fixture.service.purge(scope, PurgeMode::Soft);
    let mut after = fixture.spawn_requests(&caller, 9_000..9_001).await;

    for _ in 0..=MAX_CONCURRENCY {
        fixture.source.release_one();
    }
    while within_timeout(running.join_next()).await.is_some() {}
    let mut answers = Vec::new();
    for requests in [&mut before, &mut after] {
        let answer = within_timeout(requests.join_next()).await;
        answers.push(answer.unwrap().unwrap().unwrap());
    }

    assert_eq!(fixture.source.calls(), MAX_CONCURRENCY + 1);
    let ids = answers.iter().filter(|answer| answer.call_ids.is_some());
    assert_eq!(ids.count(), 1);
}

#[tokio::test]
async fn requests_go_before_background_refreshes() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.answer_for(2_999).await.unwrap();
    fixture.clock.advance(110 * SECOND);
    fixture.source.hold_answers();
    let flood = named_caller("flood");
    let _flood = fixture.spawn_requests(&flood, 0..1_000).await;
    let mut refreshing = fixture.spawn_requests(&flood, 2_999..3_000).await;
    let stale = refreshing.join_next().await.unwrap().unwrap().unwrap();
    fixture.clock.advance(10 * SECOND);
    let mut other = JoinSet::new();

    fixture.spawn_request(&mut other, &named_caller("other"), 2_999);

    assert_eq!(stale.result, CacheResult::Stale);
    within_timeout(fixture.source.wait_for(1 + MAX_CONCURRENCY / 2 + 1)).await;
    assert_eq!(
        *fixture.source.last_customer.lock().unwrap(),
        Some(numbered_customer(2_999))
    );
}

#[tokio::test]
async fn later_requests_do_not_delay_earlier_ones() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let _flood = fixture.spawn_requests(&named_caller("flood"), 0..2).await;
    let mut first = fixture.spawn_requests(&named_caller("flood"), 2..3).await;
    let _other = fixture
        .spawn_requests(&named_caller("other"), 100..102)
        .await;
    fixture.source.wait_for(MAX_CONCURRENCY).await;
    fixture.clock.advance(20 * SECOND);
    let mut later = JoinSet::new();
    fixture.spawn_request(&mut later, &named_caller("other"), 2);
    fixture.clock.wait_for_sleepers_until(1, DEADLINE).await;

    fixture.clock.advance(5 * SECOND);
    let shed = within_timeout(first.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();

    assert!(retry_after(&shed) > Duration::ZERO);
    assert_eq!(
        fixture.waiting_calls(),
        1,
        "the call waits on for who has time"
    );
    for _ in 0..=MAX_CONCURRENCY {
        fixture.source.release_one();
    }
    assert!(
        within_timeout(later.join_next())
            .await
            .unwrap()
            .unwrap()
            .is_ok()
    );
    assert_eq!(fixture.shed_calls(ShedReason::Deadline), 0, "it was made");
}

#[tokio::test]
async fn an_abandoned_permit_goes_to_the_next_caller() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let _flood = fixture.spawn_requests(&named_caller("flood"), 0..3).await;
    let _other = fixture
        .spawn_requests(&named_caller("other"), 100..102)
        .await;
    fixture.source.wait_for(MAX_CONCURRENCY).await;
    // The third of the flood waits in both lines.
    let mut both = JoinSet::new();
    fixture.spawn_request(&mut both, &named_caller("other"), 2);
    let collapsed = &fixture.service.cache().metrics().collapsed;
    while collapsed.get() < 1 {
        tokio::task::yield_now().await;
    }
    let _more = fixture
        .spawn_requests(&named_caller("other"), 102..103)
        .await;

    for _ in 0..MAX_CONCURRENCY {
        fixture.source.release_one();
    }

    within_timeout(fixture.source.wait_for(MAX_CONCURRENCY + 2)).await;
    assert_eq!(fixture.waiting_calls(), 0);
    for _ in 0..2 {
        fixture.source.release_one();
    }
    assert!(
        within_timeout(both.join_next())
            .await
            .unwrap()
            .unwrap()
            .is_ok()
    );
    let _all = fixture.spawn_requests(&Caller::anonymous(), 200..204).await;
    within_timeout(
        fixture
            .source
            .wait_for(MAX_CONCURRENCY + 2 + MAX_CONCURRENCY),
    )
    .await;
}

#[tokio::test]
async fn callers_take_turns_however_many_calls_one_has_waiting() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let _flood = fixture.spawn_requests(&Caller::anonymous(), 0..1_000).await;
    let _one = fixture
        .spawn_requests(&named_caller("one"), 9_999..10_000)
        .await;
    fixture.source.wait_for(MAX_CONCURRENCY).await;

    fixture.source.release_one();
    fixture.source.wait_for(MAX_CONCURRENCY + 1).await;

    assert_eq!(
        *fixture.source.last_customer.lock().unwrap(),
        Some(numbered_customer(9_999))
    );
}

#[tokio::test]
async fn anonymous_callers_share_all_permits() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();

    let _asked = fixture.spawn_requests(&Caller::anonymous(), 0..100).await;

    fixture.source.wait_for(MAX_CONCURRENCY).await;
    assert_eq!(fixture.waiting_calls(), 100 - MAX_CONCURRENCY as i64);
}

#[tokio::test]
async fn a_miss_that_would_be_late_is_shed_with_a_realistic_retry_after() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    fixture.complete_call_after(5 * SECOND).await;
    // Four places, five seconds each: the sixteenth that waits is served after 20 s, in 5 more.
    let _asked = fixture.spawn_requests(&Caller::anonymous(), 0..20).await;

    let shed = fixture.answer_for(20).await.unwrap_err();

    assert_eq!(retry_after(&shed), Duration::from_millis(21_250));
    assert_eq!(shed.result, Some(CacheResult::Miss));
    assert_eq!(shed.status.detail, Some("overloaded"));
    assert_eq!(shed.status.forward, None);
    assert_eq!(fixture.shed_calls(ShedReason::Caller), 1);
    assert_eq!(fixture.waiting_calls(), 16, "what was shed does not wait");
}

#[tokio::test]
async fn a_flood_uses_no_more_memory_than_the_queue_limit() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let flood = named_caller("flood");
    let _waiting = fixture.spawn_requests(&flood, 0..4_098).await;
    let mut more = JoinSet::new();
    for customer in 10_000..11_000 {
        fixture.spawn_request(&mut more, &flood, customer);
    }

    let shed = within_timeout(more.join_all()).await;

    assert!(shed.iter().all(Result::is_err));
    assert_eq!(fixture.shed_calls(ShedReason::Caller), 1_000);
    assert_eq!(fixture.waiting_calls(), 4_096);
    let in_flight = fixture.service.cache().metrics().fills_in_flight.get();
    assert_eq!(in_flight, 4_096 + (MAX_CONCURRENCY / 2) as i64);
}

#[tokio::test]
async fn a_request_shed_at_the_deadline_may_be_retried() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let _asked = fixture
        .spawn_requests(&Caller::anonymous(), 0..MAX_CONCURRENCY as u128)
        .await;
    let mut late = fixture.spawn_requests(&Caller::anonymous(), 10..11).await;

    fixture.clock.wait_for_sleepers_until(1, DEADLINE).await;
    fixture.clock.advance(DEADLINE);
    let shed = late.join_next().await.unwrap().unwrap().unwrap_err();

    assert!(retry_after(&shed) > Duration::ZERO);
    assert_eq!(fixture.shed_calls(ShedReason::Deadline), 1);
    assert_eq!(fixture.waiting_calls(), 0);
    for _ in 0..=MAX_CONCURRENCY {
        fixture.source.release_one();
    }
    assert!(
        fixture.answer_for(10).await.is_ok(),
        "the rejection is not cached"
    );
}

#[tokio::test]
async fn a_disconnected_caller_keeps_its_permit_until_the_call_ends() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    let waiting = fixture.spawn_requests(&named_caller("flood"), 0..100).await;
    fixture.source.wait_for(MAX_CONCURRENCY / 2).await;

    drop(waiting);
    let _again = fixture
        .spawn_requests(&named_caller("flood"), 200..300)
        .await;

    assert_eq!(fixture.source.calls(), MAX_CONCURRENCY / 2);
    fixture.source.release_one();
    fixture.source.wait_for(MAX_CONCURRENCY / 2 + 1).await;
}

#[tokio::test]
async fn a_panicking_call_releases_its_permit() {
    let panics = std::iter::repeat_n(SourceStep::Panics, MAX_CONCURRENCY);
    let fixture = ServiceFixture::new(panics.chain([SourceStep::Seats(5)]));

    for customer in 0..MAX_CONCURRENCY as u128 {
        fixture.answer_for(customer).await.unwrap_err();
    }

    assert!(fixture.answer_for(99).await.is_ok());
}

#[tokio::test]
async fn a_refresh_that_would_be_late_is_skipped() {
    let fixture = ServiceFixture::with_endless_answers();
    fixture.source.hold_answers();
    fixture.complete_call_after(60 * SECOND).await;
    fixture.source.release_one();
    fixture.answer_for(9_999).await.unwrap();
    fixture.clock.advance(60 * SECOND);
    let _busy = fixture
        .spawn_requests(&Caller::anonymous(), 0..MAX_CONCURRENCY as u128)
        .await;

    let stale = fixture.answer_for(9_999).await.unwrap();

    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(fixture.shed_calls(ShedReason::Refresh), 1);
    assert_eq!(
        fixture.shed_calls(ShedReason::Caller),
        0,
        "no request was rejected"
    );
}
