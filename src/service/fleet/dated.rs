use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    cache::{CachedFailure, FlightRole, PurgeMode, SingleFlight, StoreChange, UsageCache},
    clock::SharedClock,
    config::CacheConfig,
    domain::{
        Caller, CustomerId, FleetEntry, FleetStatus, FleetUsage, LicenseUsage, ProcessedDate,
        Resource, UpstreamApi,
    },
    lru_map::LruMap,
    render::Rendered,
    service::{
        concurrency_limiter::FetchReason,
        fetcher::Fetcher,
        second_level::SecondLevel,
        source::{AnswerContent, CallIds, CallTrace, SourceAnswer, SourceError, SourceErrorKind},
    },
    shutdown::Shutdown,
    store::{AcceptedSnapshot, DateRange, StoreWrite, StoredSnapshot},
};

/// The usage of all customers on given dates.
///
/// It comes from the store; a date that was never fetched whole is fetched by one call with all pages,
/// which all requests share.
#[derive(Debug)]
pub(in crate::service) struct DatedFleets {
    fetcher: Arc<Fetcher>,
    level: Arc<SecondLevel>,
    cache: Arc<UsageCache>,
    flights: SingleFlight<ProcessedDate, FetchedDate>,
    recent: LruMap<ProcessedDate, RecentDate>,
    /// The time of the last call for a date. After a purge, stored rows count only if a call came later.
    fetched_at: LruMap<ProcessedDate, Instant>,
    purged_at: Mutex<Option<Instant>>,
    /// The time for which rows of a date are served without looking again.
    fresh_for: Duration,
    /// The least time between two calls that callers request by `no-cache`.
    min_refresh_interval: Duration,
    clock: SharedClock,
}

/// The rows of all customers on a date.
#[derive(Clone, Debug)]
struct DatedRows {
    usages: Arc<Vec<DatedUsage>>,
    /// All customers were asked for.
    is_whole: bool,
    at: Instant,
    /// The ids of the call that fetched them; `None` for rows of the store.
    call_ids: Option<CallIds>,
}

/// The rows of a customer on a date.
#[derive(Clone, Debug)]
struct DatedUsage {
    usage: Arc<LicenseUsage>,
    fetched_at: Timestamp,
}

/// The last result for a date.
#[derive(Clone, Debug)]
struct RecentDate {
    result: FetchedDate,
    expires_at: Instant,
}

/// The usage of all customers on a date.
#[derive(Clone, Debug)]
pub(in crate::service) struct DatedFleet {
    pub(in crate::service) usage: FleetUsage,
    /// The time when it was fetched, or read from the store.
    pub(in crate::service) read_at: Instant,
    /// The call that this request waited for; `None` if it waited for none.
    pub(in crate::service) call: Option<DatedCall>,
}

/// The usage of a date is not known.
#[derive(Clone, Debug)]
pub(in crate::service) struct DatedFailure {
    pub(in crate::service) failure: Arc<CachedFailure<SourceError>>,
    /// The call that this request waited for; `None` if an earlier one failed.
    pub(in crate::service) call: Option<FlightRole>,
}

/// A call for all customers that a request waited for.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct DatedCall {
    pub(in crate::service) role: FlightRole,
    /// `None` if the call failed, and stored rows are served.
    pub(in crate::service) ids: Option<CallIds>,
}

type FetchedDate = Result<DatedRows, Arc<CachedFailure<SourceError>>>;

// === impl DatedFleets ===

impl DatedFleets {
    /// The dates whose rows are in memory. 5,000 customers with 8 rows take about 8 MB a date.
    const MAX_DATES: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    /// The dates whose last call is remembered.
    const MAX_FETCHED_DATES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

    pub(in crate::service) fn new(
        fetcher: Arc<Fetcher>,
        level: Arc<SecondLevel>,
        cache: Arc<UsageCache>,
        config: &CacheConfig,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            fetcher,
            level,
            fresh_for: cache.fresh_for(),
            cache,
            flights: SingleFlight::new(shutdown),
            recent: LruMap::new(Self::MAX_DATES),
            fetched_at: LruMap::new(Self::MAX_FETCHED_DATES),
            purged_at: Mutex::default(),
            min_refresh_interval: config.min_refresh_interval,
            clock,
        }
    }

    /// Returns the usage of all customers on a date. `refresh` asks upstream although the date is known,
    /// unless that was done a moment ago.
    ///
    /// # Errors
    ///
    /// The failure of the call, where nothing of the date is stored.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the call.
    pub(in crate::service) async fn usage(
        self: &Arc<Self>,
        date: ProcessedDate,
        refresh: bool,
        caller: &Caller,
        trace: CallTrace,
    ) -> Result<DatedFleet, DatedFailure> {
        let now = self.clock.now();
        let is_usable = |recent: &RecentDate| match &recent.result {
            Ok(rows) if refresh => {
                rows.call_ids.is_some() && now < rows.at + self.min_refresh_interval
            }
            _ => now < recent.expires_at,
        };
        if let Some(recent) = self.recent.get(&date).filter(is_usable) {
            return match recent.result {
                Ok(rows) => Ok(self.fleet(date, &rows, None)),
                Err(failure) => Err(DatedFailure {
                    failure,
                    call: None,
                }),
            };
        }
        if !refresh
            && !self.is_purged(date)
            && let Some(rows) = self.stored(date).await.filter(DatedRows::are_whole)
        {
            self.remember(date, &Ok(rows.clone()), now + self.fresh_for);
            return Ok(self.fleet(date, &rows, None));
        }
        let (role, result) = self.join_or_fetch(date, caller, trace).await;
        match result {
            Ok(rows) => Ok(self.fleet(date, &rows, Some(role))),
            Err(failure) => Err(DatedFailure {
                failure,
                call: Some(role),
            }),
        }
    }

    /// Returns what is known of a date without any call.
    pub(in crate::service) async fn known_usage(&self, date: ProcessedDate) -> Option<DatedFleet> {
        let rows = match self.recent.get(&date) {
            Some(RecentDate {
                result: Ok(rows), ..
            }) => rows,
            _ => self
                .stored(date)
                .await
                .filter(|rows| !rows.usages.is_empty())?,
        };
        Some(self.fleet(date, &rows, None))
    }

    /// Asks again for every date that is requested from now on.
    pub(in crate::service) fn purge(&self) {
        *self.lock_purged_at() = Some(self.clock.now());
        self.flights.detach(|_| true);
        self.recent.clear();
    }

    fn is_purged(&self, date: ProcessedDate) -> bool {
        let purged_at = *self.lock_purged_at();
        purged_at.is_some_and(|purged_at| {
            let fetched_at = self.fetched_at.get(&date);
            fetched_at.is_none_or(|fetched_at| fetched_at <= purged_at)
        })
    }

    fn lock_purged_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.purged_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn join_or_fetch(
        self: &Arc<Self>,
        date: ProcessedDate,
        caller: &Caller,
        trace: CallTrace,
    ) -> (FlightRole, FetchedDate) {
        let Ok(flight) = self.flights.join_or_lead(
            date,
            |()| (),
            || Ok::<_, std::convert::Infallible>(()),
            |guard, ()| {
                let (fleets, caller) = (Arc::clone(self), caller.clone());
                async move {
                    let (result, expires_at) =
                        fleets.fetch_or_fall_back(date, &caller, trace).await;
                    let remember = |result: FetchedDate| {
                        fleets.remember(date, &result, expires_at);
                        result
                    };
                    guard
                        .complete(result, remember)
                        .unwrap_or_else(|result| result)
                }
            },
        );
        let role = flight.role;
        let outcome = flight.outcome().await;
        let result = outcome.unwrap_or_else(|_aborted| Err(self.fetcher.aborted_failure()));
        (role, result)
    }

    /// Fetches a date, or reads the rows that are stored if that fails. Returns the time until which
    /// the result counts, too.
    async fn fetch_or_fall_back(
        &self,
        date: ProcessedDate,
        caller: &Caller,
        trace: CallTrace,
    ) -> (FetchedDate, Instant) {
        let stored = self.stored(date).await;
        let before = stored.as_ref().map_or(&[][..], |rows| &rows.usages);
        let fetched = self.fetch_rows(date, caller, FetchReason::Request, trace, before);
        let failure = match fetched.await {
            Ok(rows) => {
                let expires_at = rows.at + self.fresh_for;
                return (Ok(rows), expires_at);
            }
            Err(failure) => failure,
        };
        let expires_at = failure.expires_at;
        let rows = stored.filter(|rows| !rows.usages.is_empty());
        (rows.ok_or(failure), expires_at)
    }

    fn remember(&self, date: ProcessedDate, result: &FetchedDate, expires_at: Instant) {
        let result = result.clone();
        self.recent.insert(date, RecentDate { result, expires_at });
    }

    /// Fetches a date into the store, for no request.
    ///
    /// # Errors
    ///
    /// The failure of the call.
    pub(in crate::service) async fn fetch(
        &self,
        date: ProcessedDate,
        caller: &Caller,
    ) -> Result<(), Arc<CachedFailure<SourceError>>> {
        let trace = CallTrace::default();
        let stored = self.stored(date).await;
        let before = stored.as_ref().map_or(&[][..], |rows| &rows.usages);
        let fetched = self.fetch_rows(date, caller, FetchReason::Refresh, trace, before);
        fetched.await.map(drop)
    }

    async fn fetch_rows(
        &self,
        date: ProcessedDate,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
        before: &[DatedUsage],
    ) -> FetchedDate {
        let resource = Resource::FleetUsage(Some(date));
        let fetched = self
            .fetcher
            .fetch_fleet(resource, caller, reason, trace)
            .await;
        match fetched {
            Ok(answer) => Ok(self.accept(date, answer, before).await),
            Err(failure) => {
                if failure.error.kind == SourceErrorKind::NothingProcessed {
                    self.level.record_nothing_processed(None, date);
                }
                Err(failure)
            }
        }
    }

    async fn stored(&self, date: ProcessedDate) -> Option<DatedRows> {
        let store = &self.level.durable()?.store;
        let range = DateRange {
            from: date,
            to: date,
        };
        // The store itself reports its failures.
        let usages = store.all_of_date(date).await.ok()?;
        let asked = store.asked_dates(None, range).await.ok()?;
        // The store may not have written the last purges yet.
        let purge_of = |stored: &StoredSnapshot| {
            let customer = stored.usage.customer_id();
            self.level
                .purge_of(customer, Some(date), stored.confirmed_at)
        };
        let is_purged = usages
            .iter()
            .any(|stored| stored.is_purged || purge_of(stored).is_some());
        let oldest = usages.iter().map(|stored| stored.confirmed_at).min();
        let now = self.clock.now();
        let is_readable = |stored: &StoredSnapshot| purge_of(stored) != Some(PurgeMode::Hard);
        let usages = usages.into_iter().filter(is_readable);
        Some(DatedRows {
            usages: Arc::new(usages.map(DatedUsage::from).collect()),
            is_whole: !asked.is_empty() && !is_purged,
            at: oldest.map_or(now, |oldest| self.level.instant_of(oldest)),
            call_ids: None,
        })
    }

    /// Stores the rows of all customers. Suspect rows of a customer do not replace those before.
    async fn accept(
        &self,
        date: ProcessedDate,
        answer: SourceAnswer,
        before: &[DatedUsage],
    ) -> DatedRows {
        let usages = match answer.content {
            AnswerContent::Fleet(usages) => usages,
            _ => Vec::new(),
        };
        let at = self.clock.wall_time();
        let mut before: HashMap<CustomerId, &DatedUsage> = before
            .iter()
            .map(|before| (before.usage.customer_id(), before))
            .collect();
        let mut accepted = Vec::with_capacity(usages.len());
        for usage in usages {
            let usage = Arc::new(usage);
            let before = before.remove(&usage.customer_id());
            let is_unchanged = before.is_some_and(|before| before.usage == usage);
            if let Some(before) = before
                && !is_unchanged
                && self.is_suspect(date, &usage, at).await
            {
                accepted.push(before.clone());
                continue;
            }
            self.level.write(StoreWrite::Snapshot(AcceptedSnapshot {
                api: UpstreamApi::Commercial,
                usage: Arc::clone(&usage),
                native: None,
                asked_date: Some(date),
                fetched_at: at,
            }));
            let unchanged = before.filter(|_| is_unchanged);
            accepted.push(DatedUsage {
                usage,
                fetched_at: unchanged.map_or(at, |before| before.fetched_at),
            });
        }
        accepted.extend(before.into_values().cloned());
        self.level
            .write(StoreWrite::FleetFetched { date, asked_at: at });
        let now = self.clock.now();
        self.fetched_at.insert(date, now);
        DatedRows {
            usages: Arc::new(accepted),
            is_whole: true,
            at: now,
            call_ids: Some(answer.call_ids),
        }
    }

    /// Compares rows of a customer with those before, by the rules of the cache.
    async fn is_suspect(&self, date: ProcessedDate, usage: &LicenseUsage, at: Timestamp) -> bool {
        let resource = Resource::dated_usage(usage.customer_id(), date);
        self.level.load(resource).await;
        let Ok(rendered) = Rendered::new(usage, None, at) else {
            return true;
        };
        let stored = self.cache.store(resource, rendered, self.clock.now());
        matches!(stored.change, StoreChange::Suspect(_))
    }

    fn fleet(&self, date: ProcessedDate, rows: &DatedRows, role: Option<FlightRole>) -> DatedFleet {
        let usages: HashMap<CustomerId, &DatedUsage> = rows
            .usages
            .iter()
            .filter(|dated| dated.usage.processed_date() == Some(date))
            .map(|dated| (dated.usage.customer_id(), dated))
            .collect();
        let without_rows = if rows.is_whole {
            FleetStatus::Empty
        } else {
            FleetStatus::NotFetched
        };
        let today = self.level.book.usage().unwrap_or_default();
        let entries = today.entries.iter().map(|entry| {
            let usage = usages.get(&entry.customer_id);
            let status = match usage {
                Some(_) => FleetStatus::Current,
                None if entry.status == FleetStatus::Failed => FleetStatus::Failed,
                None => without_rows,
            };
            Arc::new(FleetEntry {
                customer_id: entry.customer_id,
                customer_name: Arc::clone(&entry.customer_name),
                status,
                usage: usage.map(|dated| Arc::clone(&dated.usage)),
                fetched_at: usage.map(|dated| dated.fetched_at),
                failure: entry.failure.filter(|_| status == FleetStatus::Failed),
            })
        });
        DatedFleet {
            usage: FleetUsage {
                processed_date: Some(date),
                entries: entries.collect(),
            },
            read_at: rows.at,
            call: role.map(|role| DatedCall {
                role,
                ids: rows.call_ids,
            }),
        }
    }
}

// === impl DatedUsage ===

impl From<StoredSnapshot> for DatedUsage {
    fn from(stored: StoredSnapshot) -> Self {
        Self {
            usage: stored.usage,
            fetched_at: stored.fetched_at,
        }
    }
}

// === impl DatedRows ===

impl DatedRows {
    /// Returns true if every customer was asked for, and some have rows. A date without any may have
    /// been asked for too early.
    fn are_whole(&self) -> bool {
        self.is_whole && !self.usages.is_empty()
    }
}
