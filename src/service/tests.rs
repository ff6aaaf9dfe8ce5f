use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use tokio::sync::{Notify, Semaphore};

use super::{
    source::{
        AnswerContent, CallIds, FetchFuture, SourceAnswer, SourceCall, SourceError, SourceErrorKind,
    },
    *,
};
use crate::{
    cache::{CacheMetrics, CacheResult, ForwardReason},
    clock::{Clock, ManualClock},
    domain::{
        CallerScope, CustomerEntry, CustomerList, LicenseUsage, ListedCustomer, ProcessedAt,
        UsageRow, samples,
    },
    jitter::Jitter,
    portfolio_file::CurrentPortfolio,
};

mod overload;
mod shared_store;
mod simulated_replicas;

const SECOND: Duration = Duration::from_secs(1);

/// Calls under way.
const MAX_CONCURRENCY: usize = 4;

/// Longer than any test has a caller wait.
const SOFT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The deadline of a call.
const DEADLINE: Duration = Duration::from_secs(25);

/// A source that answers from a script, each answer as it is let go.
#[derive(Debug)]
struct ScriptedSource {
    steps: Mutex<VecDeque<SourceStep>>,
    call_count: AtomicUsize,
    /// The customer of the last call.
    last_customer: Mutex<Option<CustomerId>>,
    /// The time of the last request.
    last_requested_at: Mutex<Option<Instant>>,
    call_arrived: Notify,
    released: Semaphore,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SourceStep {
    Seats(u64),
    Nothing,
    /// The list of customers, with the documented one.
    Customers,
    /// All customers of a date: the documented one.
    Fleet(u64),
    Fails(SourceErrorKind),
    Panics,
}

// === impl ScriptedSource ===

impl ScriptedSource {
    fn new(answers: impl IntoIterator<Item = SourceStep>) -> Arc<Self> {
        Arc::new(Self {
            steps: Mutex::new(answers.into_iter().collect()),
            call_count: AtomicUsize::new(0),
            last_customer: Mutex::default(),
            last_requested_at: Mutex::default(),
            call_arrived: Notify::new(),
            released: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// From now on every answer waits for [`ScriptedSource::release_one`].
    fn hold_answers(&self) {
        self.released.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn release_one(&self) {
        self.released.add_permits(1);
    }

    fn calls(&self) -> usize {
        self.call_count.load(Ordering::SeqCst)
    }

    async fn wait_for(&self, calls: usize) {
        loop {
            let arrived = self.call_arrived.notified();
            if self.calls() >= calls {
                return;
            }
            arrived.await;
        }
    }
}

impl UsageSource for ScriptedSource {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        Box::pin(async move {
            let step = self
                .steps
                .lock()
                .unwrap()
                .pop_front()
                .expect("a further answer");
            *self.last_customer.lock().unwrap() = call.resource.customer();
            *self.last_requested_at.lock().unwrap() = Some(call.requested_at);
            self.call_count.fetch_add(1, Ordering::SeqCst);
            self.call_arrived.notify_waiters();
            self.released.acquire().await.unwrap().forget();
            let ids = CallIds {
                request_id: uuid::Uuid::new_v4(),
                correlation_id: uuid::Uuid::new_v4(),
            };
            match step {
                SourceStep::Seats(seats) => Ok(SourceAnswer {
                    content: AnswerContent::Usage {
                        usage: usage_with_seats(call.resource, seats),
                        native: Some("{}".into()),
                    },
                    call_ids: ids,
                    memory: None,
                }),
                SourceStep::Nothing => Ok(SourceAnswer {
                    content: AnswerContent::Usage {
                        usage: LicenseUsage::new(customer_of(&call), None, Vec::new()).unwrap(),
                        native: Some("{}".into()),
                    },
                    call_ids: ids,
                    memory: None,
                }),
                SourceStep::Customers => Ok(SourceAnswer {
                    content: AnswerContent::Customers(CustomerList::new(vec![ListedCustomer {
                        entry: CustomerEntry {
                            id: documented_customer(),
                            name: "Contoso".to_owned(),
                            domain: None,
                        },
                        raw: "{}".into(),
                    }])),
                    call_ids: ids,
                    memory: None,
                }),
                SourceStep::Fleet(seats) => {
                    let date = call.resource.date().unwrap();
                    let resource = Resource::dated_usage(documented_customer(), date);
                    Ok(SourceAnswer {
                        content: AnswerContent::Fleet(vec![usage_with_seats(resource, seats)]),
                        call_ids: ids,
                        memory: None,
                    })
                }
                SourceStep::Fails(kind) => Err(SourceError {
                    call_ids: Some(ids),
                    ..SourceError::without_reply(kind, "as the test wants it")
                }),
                SourceStep::Panics => panic!("as the test wants it"),
            }
        })
    }
}

pub(super) fn documented_customer() -> CustomerId {
    CustomerId::parse("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04").unwrap()
}

fn customer_of(call: &SourceCall) -> CustomerId {
    call.resource.customer().unwrap()
}

pub(super) fn usage_with_seats(resource: Resource, seats: u64) -> LicenseUsage {
    let processed = match resource.date() {
        Some(date) => format!("{date}T00:00:00Z"),
        None => "2026-11-19T00:00:00Z".to_owned(),
    };
    let row = UsageRow {
        product_name: "PLAN".into(),
        licenses_qualified: seats,
        processed_at: ProcessedAt(processed.parse().unwrap()),
        ..samples::row()
    };
    LicenseUsage::new(resource.customer().unwrap(), None, vec![row]).unwrap()
}

pub(super) struct ServiceFixture {
    pub(super) service: UsageService,
    pub(super) clock: Arc<ManualClock>,
    source: Arc<ScriptedSource>,
}

impl ServiceFixture {
    /// Fresh for a minute, served while revalidating for another, in place of an error for ten.
    pub(super) fn new(answers: impl IntoIterator<Item = SourceStep>) -> Self {
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
        let script = ScriptedSource::new(answers);
        let metrics = CacheMetrics::new(&Registry::new()).unwrap();
        let usage = UsageService::new(ServiceParts {
            config: &config,
            limits: CallLimits {
                max_concurrency: NonZeroUsize::new(MAX_CONCURRENCY).unwrap(),
                deadline: DEADLINE,
            },
            newest_api: UpstreamApi::Insights,
            cache: UsageCache::new(&config, Jitter::Fixed(0.5), metrics),
            source: Arc::clone(&script) as _,
            durable: None,
            portfolio: CurrentPortfolio::default(),
            clock: Arc::clone(&clock) as _,
            fleet_metrics: FleetMetrics::new(&Registry::new()).unwrap(),
            shutdown: &Shutdown::new(),
        });
        Self {
            service: usage,
            clock,
            source: script,
        }
    }

    async fn answer_with(&self, directive: CacheDirective) -> Result<UsageAnswer, UsageError> {
        self.answer_as(&Caller::anonymous(), directive).await
    }

    async fn answer_as(
        &self,
        caller: &Caller,
        directive: CacheDirective,
    ) -> Result<UsageAnswer, UsageError> {
        let now = self.clock.now();
        self.service
            .answer(usage_query(directive), caller, CallTrace::default, now)
            .await
    }

    pub(super) async fn answer(&self) -> Result<UsageAnswer, UsageError> {
        self.answer_with(CacheDirective::Any).await
    }

    async fn failure_kind(&self) -> SourceErrorKind {
        match self.answer().await.unwrap_err().kind {
            ErrorKind::Source { failure, .. } => failure.error.kind,
            ErrorKind::NotCached | ErrorKind::NotAllowed => panic!("expected the source's failure"),
        }
    }
}

fn usage_query(directive: CacheDirective) -> UsageQuery {
    UsageQuery {
        customer_id: documented_customer(),
        format: Format::Simplified,
        date: None,
        directive,
    }
}

#[tokio::test]
async fn a_fault_is_cached_for_a_second_and_twice_as_long_the_next_time() {
    let down = SourceStep::Fails(SourceErrorKind::Unavailable);
    let fixture = ServiceFixture::new([down, down, SourceStep::Seats(5)]);

    fixture.failure_kind().await;
    fixture.failure_kind().await;
    assert_eq!(fixture.source.calls(), 1);
    fixture.clock.advance(SECOND);
    fixture.failure_kind().await;
    assert_eq!(fixture.source.calls(), 2);
    fixture.clock.advance(SECOND);
    fixture.failure_kind().await;
    assert_eq!(fixture.source.calls(), 2);
    fixture.clock.advance(SECOND);

    assert!(fixture.answer().await.is_ok());
}

/// May read, and may not have upstream asked.
fn reader() -> Caller {
    let scopes = [CallerScope::UsageRead].into_iter().collect();
    Caller::new("reader", crate::domain::CustomerAccess::All, scopes)
}

#[tokio::test]
async fn no_cache_is_limited_per_customer_across_dates() {
    let fixture = ServiceFixture::new([SourceStep::Seats(5); 5]);
    let other_date = UsageQuery {
        date: Some(ProcessedDate::parse("2026-11-18").unwrap()),
        ..usage_query(CacheDirective::Any)
    };
    let ask = async |query| {
        let (caller, now) = (Caller::anonymous(), fixture.clock.now());
        let answered = fixture
            .service
            .answer(query, &caller, CallTrace::default, now);
        answered.await.unwrap().status
    };
    let forced = |query| UsageQuery {
        directive: CacheDirective::NoCache,
        ..query
    };
    ask(usage_query(CacheDirective::Any)).await;
    ask(other_date).await;
    fixture.clock.advance(10 * SECOND);
    let before = fixture.source.calls();

    let first = ask(forced(usage_query(CacheDirective::Any))).await;
    fixture.clock.advance(9 * SECOND);
    let other = ask(forced(other_date)).await;
    fixture.clock.advance(SECOND);
    let later = ask(forced(other_date)).await;

    assert_eq!(first.forward, Some(ForwardReason::Request));
    assert_eq!(other.detail, Some("min-refresh-interval"));
    assert_eq!(later.forward, Some(ForwardReason::Request));
    assert_eq!(fixture.source.calls(), before + 2);
}

#[tokio::test]
async fn a_failure_also_says_that_no_cache_was_ignored() {
    let fixture = ServiceFixture::new([SourceStep::Fails(SourceErrorKind::TimedOut)]);

    for _failed_then_remembered in 0..2 {
        let failed = fixture.answer_as(&reader(), CacheDirective::NoCache).await;

        let status = failed.unwrap_err().status;
        assert_eq!(status.detail, Some("refresh-not-allowed"));
    }
    assert_eq!(
        fixture.answer().await.unwrap_err().status.detail,
        Some("timed-out")
    );
}

#[tokio::test]
async fn suspect_is_the_first_detail_in_cache_status() {
    let down = SourceStep::Fails(SourceErrorKind::Unavailable);
    let fixture = ServiceFixture::new([SourceStep::Seats(5), SourceStep::Nothing, down, down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(10 * SECOND);
    let detail = |answer: Result<UsageAnswer, UsageError>| answer.unwrap().status.detail;

    let suspect = detail(fixture.answer_with(CacheDirective::NoCache).await);
    let too_soon = detail(fixture.answer_with(CacheDirective::NoCache).await);
    let not_allowed = detail(fixture.answer_as(&reader(), CacheDirective::NoCache).await);
    fixture.clock.advance(10 * SECOND);
    let failed = detail(fixture.answer_with(CacheDirective::NoCache).await);
    fixture.clock.advance(120 * SECOND);
    let stale = detail(fixture.answer().await);

    for detail in [suspect, too_soon, not_allowed, failed, stale] {
        assert_eq!(detail, Some("suspect"));
    }
    assert_eq!(fixture.source.calls(), 4);
}

#[tokio::test]
async fn a_fresh_answer_stays_fresh_after_a_failed_no_cache_request() {
    let down = SourceStep::Fails(SourceErrorKind::Unavailable);
    let fixture = ServiceFixture::new([SourceStep::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(10 * SECOND);

    let answer = fixture.answer_with(CacheDirective::NoCache).await.unwrap();

    assert_eq!(answer.result, CacheResult::Bypass);
    assert_eq!(answer.status.detail, Some("unavailable"));
    assert_eq!(fixture.service.cache().metrics().stale_if_error.get(), 0);
}

#[tokio::test]
async fn an_answer_purged_during_a_request_is_not_served_to_it() {
    let down = SourceStep::Fails(SourceErrorKind::Unavailable);
    let fixture = ServiceFixture::new([SourceStep::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);
    fixture.source.hold_answers();
    let purge_meanwhile = async {
        fixture.source.wait_for(2).await;
        fixture
            .service
            .purge(PurgeScope::default(), PurgeMode::Hard);
        fixture.source.release_one();
    };

    let (answer, ()) = tokio::join!(fixture.answer(), purge_meanwhile);

    assert!(matches!(answer.unwrap_err().kind, ErrorKind::Source { .. }));
}

#[tokio::test]
async fn the_age_of_a_fallback_includes_the_wait() {
    let down = SourceStep::Fails(SourceErrorKind::Unavailable);
    let fixture = ServiceFixture::new([SourceStep::Seats(5), down]);
    fixture.answer().await.unwrap();
    fixture.clock.advance(120 * SECOND);
    fixture.source.hold_answers();
    let meanwhile = async {
        fixture.source.wait_for(2).await;
        fixture.clock.advance(20 * SECOND);
        fixture.source.release_one();
    };

    let (answer, ()) = tokio::join!(fixture.answer(), meanwhile);

    assert_eq!(answer.unwrap().cached.age, 140 * SECOND);
}

#[tokio::test]
async fn a_panic_in_a_fetch_is_an_error_and_the_next_request_fetches_again() {
    let fixture = ServiceFixture::new([SourceStep::Panics, SourceStep::Seats(5)]);

    assert_eq!(fixture.failure_kind().await, SourceErrorKind::Interrupted);

    assert!(fixture.answer().await.is_ok());
}

#[tokio::test]
async fn concurrent_requests_compress_a_body_once() {
    let fixture = ServiceFixture::new([SourceStep::Seats(5)]);
    let rendered = fixture.answer().await.unwrap().cached.rendered;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (usage, rendered) = (fixture.service.clone(), Arc::clone(&rendered));
        callers.spawn(async move {
            usage
                .render(&rendered, Format::Csv, ContentCoding::Brotli)
                .await
                .unwrap();
            rendered
                .ready(Format::Csv, ContentCoding::Brotli)
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

#[tokio::test]
async fn the_fleet_of_a_date_is_built_once_while_the_customers_of_today_are_the_same() {
    let answers = [
        SourceStep::Customers,
        SourceStep::Fleet(5),
        SourceStep::Seats(7),
    ];
    let fixture = ServiceFixture::new(answers);
    let date = ProcessedDate::parse("2026-10-01").unwrap();
    let fleet = async || {
        let (service, now) = (&fixture.service, fixture.clock.now());
        let caller = Caller::anonymous();
        let fleet = service.fleet(
            Some(date),
            CacheDirective::Any,
            &caller,
            CallTrace::default,
            now,
        );
        fleet.await.unwrap().usage
    };

    let (first, second) = (fleet().await, fleet().await);
    fixture.answer().await.unwrap();
    let third = fleet().await;

    assert_eq!(first.entries.len(), 1);
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &third));
}
