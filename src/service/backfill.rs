//! The backfill: past dates are fetched into the store, one call with all pages for each.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    UsageService,
    fetcher::Fetcher,
    fleet::DatedFleets,
    second_level::SecondLevel,
    source::{SourceError, SourceErrorKind},
};
use crate::{
    cache::CachedFailure,
    clock::SharedClock,
    domain::{Caller, CallerScope, CustomerAccess, CustomerId, ProcessedDate, Resource},
    panic,
    shutdown::Shutdown,
    store::{DateRange, DurableStore, StoreError},
};

/// The past dates to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackfillRequest {
    /// The dates.
    pub range: DateRange,
    /// Only this customer; `None`: all customers together.
    pub customer: Option<CustomerId>,
}

/// The progress of a backfill.
#[derive(Clone, Debug)]
pub struct BackfillProgress {
    /// The request.
    pub request: BackfillRequest,
    /// The state.
    pub state: BackfillState,
    /// All dates of the range.
    pub dates: usize,
    /// Dates that were stored, or asked for in vain, before.
    pub skipped: usize,
    /// Dates that were fetched.
    pub fetched: usize,
    /// Dates of which Partner Center has nothing, which is remembered.
    pub without_data: usize,
    /// The time of the start.
    pub started_at: Timestamp,
    /// The date that failed and is tried again.
    pub retried: Option<FailedDate>,
    /// The dates that failed for good, in the order in which they were tried.
    pub failed: Vec<FailedDate>,
    /// The reason if it ended before the first date.
    pub error: Option<Arc<str>>,
}

/// A date that was not fetched.
#[derive(Clone, Debug)]
pub struct FailedDate {
    /// The date.
    pub date: ProcessedDate,
    /// The number of attempts.
    pub attempts: u32,
    /// The reason of the last one.
    pub error: Arc<str>,
}

/// The state of a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum BackfillState {
    /// It fetches dates.
    Running,
    /// Every date is stored or has no data.
    Done,
    /// It was stopped. What it fetched is kept.
    Stopped,
    /// Dates failed: all that were tried, or it ended at one whose reason concerns every date.
    Failed,
}

/// A range of dates that cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "from is {from} and to is {to}; expected from not after to, to not after today ({today}), and from \
     not before {oldest}: Partner Center keeps {months} months",
    months = ProcessedDate::RETENTION_MONTHS
)]
pub struct BackfillRangeError {
    from: ProcessedDate,
    to: ProcessedDate,
    today: ProcessedDate,
    oldest: ProcessedDate,
}

/// A backfill cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// There is no store.
    #[error("there is no store to fetch past dates into; set store.url")]
    NoStore,
    /// Another one is running.
    #[error(
        "a backfill is running already; GET /backfill shows its progress, DELETE /backfill stops it"
    )]
    Running,
    /// The customer is not in the partner's list of customers.
    #[error("the customer is not in the list of customers (GET /v1/customers)")]
    UnknownCustomer,
}

/// The backfill of this process: one at a time.
#[derive(Debug)]
pub(super) struct Backfill {
    latest: Mutex<Option<BackfillRun>>,
    fetcher: Arc<Fetcher>,
    level: Arc<SecondLevel>,
    dated_fleets: Arc<DatedFleets>,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The backfill that runs or ran last.
#[derive(Debug)]
struct BackfillRun {
    progress: BackfillProgress,
    stop: CancellationToken,
}

type DateFailure = Arc<CachedFailure<SourceError>>;

/// Advice for a store that fails.
pub(super) const STORE_ADVICE: &str =
    "the note of /readyz and `usage-proxy doctor` say what is wrong with the store";

// === impl BackfillRequest ===

impl BackfillRequest {
    /// Checks the dates of a request.
    ///
    /// # Errors
    ///
    /// [`BackfillRangeError`] if Partner Center can have no such dates.
    pub fn new(
        range: DateRange,
        customer: Option<CustomerId>,
        today: ProcessedDate,
    ) -> Result<Self, BackfillRangeError> {
        let DateRange { from, to } = range;
        let oldest = today.months_before(ProcessedDate::RETENTION_MONTHS);
        if from > to || to > today || from < oldest {
            return Err(BackfillRangeError {
                from,
                to,
                today,
                oldest,
            });
        }
        Ok(Self { range, customer })
    }
}

// === impl UsageService ===

impl UsageService {
    /// Starts to fetch past dates, unless they are stored: the newest first.
    ///
    /// # Errors
    ///
    /// [`BackfillError`].
    pub fn start_backfill(&self, request: BackfillRequest) -> Result<(), BackfillError> {
        self.inner.backfill.start(request)
    }

    /// Returns the progress of the backfill that runs or ran last.
    pub fn backfill_progress(&self) -> Option<BackfillProgress> {
        let latest = self.inner.backfill.lock();
        latest.as_ref().map(|run| run.progress.clone())
    }

    /// Stops the backfill. The date that is being fetched is dropped; all others are kept.
    pub fn stop_backfill(&self) {
        self.inner.backfill.stop();
    }
}

// === impl Backfill ===

impl Backfill {
    /// The attempts for a date, each a call with its own retries.
    const MAX_ATTEMPTS: u32 = 10;

    /// The attempts for a date whose answers are wrong. Other dates are tried all the same.
    const MAX_ATTEMPTS_OF_WRONG_DATE: u32 = 3;

    /// The pause after the first failure; it doubles each time.
    const MIN_PAUSE: Duration = Duration::from_secs(5);

    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        level: Arc<SecondLevel>,
        dated_fleets: Arc<DatedFleets>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            latest: Mutex::default(),
            fetcher,
            level,
            dated_fleets,
            clock,
            shutdown,
        }
    }

    fn start(self: &Arc<Self>, request: BackfillRequest) -> Result<(), BackfillError> {
        let durable = self.level.durable().ok_or(BackfillError::NoStore)?;
        let durable = durable.clone();
        let is_listed = |customer| {
            let list = self.level.book.customers();
            let list = list.as_ref().and_then(|list| list.customers());
            list.is_none_or(|list| list.find(customer).is_some())
        };
        if !request.customer.is_none_or(is_listed) {
            return Err(BackfillError::UnknownCustomer);
        }
        let mut latest = self.lock();
        let is_running = |run: &BackfillRun| run.progress.state == BackfillState::Running;
        if latest.as_ref().is_some_and(is_running) {
            return Err(BackfillError::Running);
        }
        let stop = CancellationToken::new();
        *latest = Some(BackfillRun {
            progress: BackfillProgress {
                request,
                state: BackfillState::Running,
                dates: request.range.dates().count(),
                skipped: 0,
                fetched: 0,
                without_data: 0,
                started_at: self.clock.wall_time(),
                retried: None,
                failed: Vec::new(),
                error: None,
            },
            stop: stop.clone(),
        });
        let backfill = Arc::clone(self);
        self.shutdown.spawn(async move {
            let run = pin!(backfill.run(request, &durable));
            if let Some(ended) = stop.run_until_cancelled(panic::catch(run)).await {
                let state = ended.unwrap_or(BackfillState::Failed);
                backfill.update(|progress| progress.state = state);
            }
        });
        Ok(())
    }

    fn stop(&self) {
        if let Some(run) = &mut *self.lock()
            && run.progress.state == BackfillState::Running
        {
            run.progress.state = BackfillState::Stopped;
            run.stop.cancel();
        }
    }

    async fn run(&self, request: BackfillRequest, durable: &DurableStore) -> BackfillState {
        let BackfillRequest { range, customer } = request;
        let known: HashSet<ProcessedDate> = match durable.store.asked_dates(customer, range).await {
            Ok(asked) => asked.into_iter().collect(),
            Err(error) => {
                let reason = format!("{error}; {STORE_ADVICE}");
                self.update(|progress| progress.error = Some(reason.into()));
                return BackfillState::Failed;
            }
        };
        self.update(|progress| progress.skipped = known.len());
        let mut ended = BackfillState::Done;
        for date in range.dates().rev().filter(|date| !known.contains(date)) {
            let Err(kind) = self.fetch_and_store(date, customer, durable).await else {
                continue;
            };
            ended = BackfillState::Failed;
            if !is_of_one_date(kind) {
                break;
            }
        }
        ended
    }

    /// Fetches a date, again and again if that can help, until it is stored.
    async fn fetch_and_store(
        &self,
        date: ProcessedDate,
        customer: Option<CustomerId>,
        durable: &DurableStore,
    ) -> Result<(), SourceErrorKind> {
        let mut attempts = 0;
        loop {
            let fetched = self.fetch(date, customer).await;
            let flushed = durable.writer.flush().await;
            let failure = match self.stored(fetched, flushed) {
                Ok(has_data) => {
                    self.update(|progress| {
                        progress.retried = None;
                        progress.fetched += usize::from(has_data);
                        progress.without_data += usize::from(!has_data);
                    });
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let error = &failure.error;
            tracing::warn!(processed_date = %date, %error, "a past date was not fetched");
            attempts += 1;
            let failed = FailedDate {
                date,
                attempts,
                error: error.to_string().into(),
            };
            if attempts >= max_attempts(error.kind) {
                self.update(|progress| {
                    progress.retried = None;
                    progress.failed.push(failed);
                });
                return Err(error.kind);
            }
            self.update(|progress| progress.retried = Some(failed));
            let backoff = Self::MIN_PAUSE * 2_u32.pow(attempts - 1);
            let pause = backoff.max(error.retry_after.unwrap_or_default());
            self.clock.sleep_until(self.clock.now() + pause).await;
        }
    }

    /// Fetches a date. Returns false if upstream has nothing of it.
    async fn fetch(
        &self,
        date: ProcessedDate,
        customer: Option<CustomerId>,
    ) -> Result<bool, DateFailure> {
        let caller = background_caller();
        let fetched = match customer {
            None => self.dated_fleets.fetch(date, &caller).await,
            Some(customer) => {
                let resource = Resource::dated_usage(customer, date);
                self.fetcher.fetch_if_stale(resource, &caller).await
            }
        };
        match fetched {
            Ok(()) => Ok(true),
            Err(failure) if failure.error.kind == SourceErrorKind::NothingProcessed => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Returns the result of a date, which counts only if it is durable.
    fn stored(
        &self,
        fetched: Result<bool, DateFailure>,
        flushed: Result<(), StoreError>,
    ) -> Result<bool, DateFailure> {
        match flushed {
            Err(error) if fetched.is_ok() => {
                let detail = format!("{error}; {STORE_ADVICE}");
                Err(self.fetcher.not_stored_failure(&detail))
            }
            _ => fetched,
        }
    }

    fn update(&self, change: impl FnOnce(&mut BackfillProgress)) {
        if let Some(run) = &mut *self.lock()
            && run.progress.state == BackfillState::Running
        {
            change(&mut run.progress);
        }
    }

    /// The progress is consistent after a panic: each step changes one field or all.
    fn lock(&self) -> MutexGuard<'_, Option<BackfillRun>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the attempts that may help against a failure.
const fn max_attempts(kind: SourceErrorKind) -> u32 {
    match kind {
        // A person must act.
        SourceErrorKind::CredentialsRejected
        | SourceErrorKind::Rejected
        | SourceErrorKind::UnknownCustomer
        | SourceErrorKind::NoRelationship => 1,
        kind if is_of_one_date(kind) => Backfill::MAX_ATTEMPTS_OF_WRONG_DATE,
        _ => Backfill::MAX_ATTEMPTS,
    }
}

/// Returns whether a failure says nothing about other dates.
const fn is_of_one_date(kind: SourceErrorKind) -> bool {
    matches!(kind, SourceErrorKind::Malformed | SourceErrorKind::Suspect)
}

/// Returns the caller of calls that no request waits for. It has its own queue, so that it takes its
/// turn behind the requests of others.
pub(super) fn background_caller() -> Caller {
    let scopes = CallerScope::ALL.into_iter().collect();
    Caller::new("(background)", CustomerAccess::All, scopes)
}
