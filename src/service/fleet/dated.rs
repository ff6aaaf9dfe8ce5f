//! The usage of all customers on a given date.

use std::{
    collections::HashMap,
    convert::Infallible,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::dated_rows::{DatedRows, DatedUsage};
use crate::{
    cache::{
        CachedFailure, EarlierAnswer, FlightRole, PurgeMode, SingleFlight, StoreChange, UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{Caller, CustomerId, FleetUsage, LicenseUsage, ProcessedDate, Resource, UpstreamApi},
    lru_map::LruMap,
    render::Rendered,
    service::{
        backfill::STORE_ADVICE,
        call_leases::{CallLease, Turn},
        concurrency_limiter::FetchReason,
        fetcher::{Fetcher, fleet_calls::FleetAnswer},
        second_level::SecondLevel,
        source::{CallIds, CallTrace, SourceError, SourceErrorKind},
    },
    shutdown::Shutdown,
    store::{AcceptedSnapshot, StoreError, StoreWrite, StoredFleetDate, StoredSnapshot},
};

/// A read of what is stored of a date has begun within this time.
const MAX_READ_TIME: Duration = Duration::from_secs(1);

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
    /// The reads of the store, so that concurrent requests for a date wait for one.
    reads: SingleFlight<ProcessedDate, StoredDateRows>,
    recent: LruMap<ProcessedDate, RecentDate>,
    /// The time of the last call for a date. After a purge, stored rows count only if a call came later.
    fetched_at: LruMap<ProcessedDate, Instant>,
    purged_at: Mutex<Option<Instant>>,
    /// The time for which rows of a date are served without looking again.
    fresh_for: Duration,
    /// The time for which upstream is not asked again for a past date that it has nothing of.
    past_absence_fresh_for: Duration,
    /// The least time between two calls that callers request by `no-cache`.
    min_refresh_interval: Duration,
    clock: SharedClock,
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
    pub(in crate::service) usage: Arc<FleetUsage>,
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

/// The rows of a date that are stored, perhaps none; an error if that is not known.
type StoredDateRows = Result<DatedRows, StoreError>;

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
            flights: SingleFlight::new(shutdown.clone()),
            reads: SingleFlight::new(shutdown),
            recent: LruMap::new(Self::MAX_DATES),
            fetched_at: LruMap::new(Self::MAX_FETCHED_DATES),
            purged_at: Mutex::default(),
            past_absence_fresh_for: config.past_absence_fresh_for,
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
        if let Some(recent) = self.recent_result(date, refresh, now) {
            return self.respond(date, recent, None);
        }
        let stored = self.stored(date).await;
        // From the store, or from the call of another request in the meantime.
        if let Some(recent) = self.recent_result(date, refresh, now) {
            return self.respond(date, recent, None);
        }
        let (role, result) = self.join_or_fetch(date, stored, caller, trace).await;
        self.respond(date, result, Some(role))
    }

    /// Returns the last result for a date, if it answers a request without a call.
    fn recent_result(
        &self,
        date: ProcessedDate,
        refresh: bool,
        now: Instant,
    ) -> Option<FetchedDate> {
        let recent = self.recent.get(&date)?;
        let is_usable = match &recent.result {
            Ok(rows) if refresh => {
                rows.call_ids.is_some() && now < rows.at + self.min_refresh_interval
            }
            Err(failure) if refresh && failure.error.kind.is_authoritative() => {
                now < failure.failed_at + self.min_refresh_interval
            }
            _ => now < recent.expires_at,
        };
        is_usable.then_some(recent.result)
    }

    fn respond(
        &self,
        date: ProcessedDate,
        result: FetchedDate,
        call: Option<FlightRole>,
    ) -> Result<DatedFleet, DatedFailure> {
        match result {
            Ok(rows) => Ok(self.fleet(date, &rows, call)),
            Err(failure) => Err(DatedFailure { failure, call }),
        }
    }

    /// Returns what is known of a date without any call.
    pub(in crate::service) async fn known_usage(
        self: &Arc<Self>,
        date: ProcessedDate,
    ) -> Option<DatedFleet> {
        let rows = match self.rows_in_memory(date) {
            Some(rows) => rows,
            None => self.stored(date).await.ok().filter(DatedRows::has_rows)?,
        };
        Some(self.fleet(date, &rows, None))
    }

    /// Returns the rows of a date that were fetched or read last, whatever their age.
    fn rows_in_memory(&self, date: ProcessedDate) -> Option<DatedRows> {
        let rows = self.recent.get(&date)?.result.ok()?;
        Some(DatedRows {
            call_ids: None,
            ..rows
        })
    }

    /// Asks again for every date that is requested from now on.
    pub(in crate::service) fn purge(&self) {
        *self.lock_purged_at() = Some(self.clock.now());
        self.forget();
    }

    /// Reads the store again for every date that is requested from now on.
    pub(in crate::service) fn forget(&self) {
        self.flights.detach(|_| true);
        self.reads.detach(|_| true);
        self.recent.clear();
    }

    /// Reads the store again for a date of which it has other rows now.
    pub(in crate::service) fn forget_date(&self, date: ProcessedDate) {
        self.flights.detach(|other| *other == date);
        self.reads.detach(|other| *other == date);
        self.recent.remove(&date);
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
        stored: StoredDateRows,
        caller: &Caller,
        trace: CallTrace,
    ) -> (FlightRole, FetchedDate) {
        let Ok(flight) = self.flights.join_or_lead(
            date,
            |()| (),
            || Ok::<_, Infallible>(()),
            |guard, ()| {
                let (fleets, caller) = (Arc::clone(self), caller.clone());
                async move {
                    let (result, expires_at) = fleets
                        .fetch_or_fall_back(date, stored, &caller, trace)
                        .await;
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

    /// Fetches a date, or falls back on the rows before if that fails. Returns the time until which the
    /// result counts, too.
    async fn fetch_or_fall_back(
        &self,
        date: ProcessedDate,
        stored: StoredDateRows,
        caller: &Caller,
        trace: CallTrace,
    ) -> (FetchedDate, Instant) {
        let fetched = self.fetch_rows(date, caller, FetchReason::Request, trace, &stored);
        let failure = match fetched.await {
            Ok(rows) => {
                let expires_at = rows.at + self.fresh_for;
                return (Ok(rows), expires_at);
            }
            Err(failure) => failure,
        };
        let expires_at = failure.expires_at;
        let before = self.rows_before(date, &stored);
        (before.ok_or(failure), expires_at)
    }

    /// Returns the rows of a date that are known before a call, if there are any.
    fn rows_before(&self, date: ProcessedDate, stored: &StoredDateRows) -> Option<DatedRows> {
        let stored = stored.as_ref().ok().filter(|rows| rows.has_rows());
        stored.cloned().or_else(|| self.rows_in_memory(date))
    }

    fn remember(&self, date: ProcessedDate, result: &FetchedDate, expires_at: Instant) {
        let result = result.clone();
        self.recent.insert(date, RecentDate { result, expires_at });
    }

    /// Fetches a date into the store, for no request.
    ///
    /// # Errors
    ///
    /// The failure of the call, or of the store: rows that cannot be compared with those before must not
    /// be stored.
    pub(in crate::service) async fn fetch(
        self: &Arc<Self>,
        date: ProcessedDate,
        caller: &Caller,
    ) -> Result<(), Arc<CachedFailure<SourceError>>> {
        let stored = self.stored(date).await;
        if let Err(error) = &stored {
            let detail = format!("{error}; {STORE_ADVICE}");
            return Err(self.fetcher.not_stored_failure(&detail));
        }
        let trace = CallTrace::default();
        let fetched = self.fetch_rows(date, caller, FetchReason::Refresh, trace, &stored);
        fetched.await.map(drop)
    }

    async fn fetch_rows(
        &self,
        date: ProcessedDate,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
        stored: &StoredDateRows,
    ) -> FetchedDate {
        let mut stored = stored.clone();
        let lease = match self.turn_or_rows(date, &mut stored).await {
            Ok(lease) => lease,
            Err(result) => return result,
        };
        let fetched = self
            .fetcher
            .fetch_fleet(Some(date), caller, reason, trace)
            .await;
        match fetched {
            Ok(answer) => {
                let rows = self.accept(date, answer, &stored).await;
                if let Some(lease) = lease {
                    lease.finish();
                }
                Ok(rows)
            }
            Err(failure) => {
                self.fetcher.fail_lease(lease, &failure);
                Err(self.remembered_failure(date, failure))
            }
        }
    }

    /// Waits for the turn of this process, unless another has fetched the date by then. What is stored is
    /// read again if it may have changed.
    async fn turn_or_rows(
        &self,
        date: ProcessedDate,
        stored: &mut StoredDateRows,
    ) -> Result<Option<CallLease>, FetchedDate> {
        let resource = Resource::FleetUsage(Some(date));
        let now = self.clock.now();
        let mut read_at = now.checked_sub(MAX_READ_TIME).unwrap_or(now);
        loop {
            let turn = self.fetcher.leases().turn(resource, read_at).await;
            let lease = match turn {
                Turn::Own(lease) => return Ok(lease),
                Turn::Failed(error) => {
                    let failure = self.fetcher.uncached_source_failure(error);
                    return Err(Err(self.remembered_failure(date, failure)));
                }
                Turn::Next(lease) => Some(lease),
                Turn::Answered => None,
            };
            read_at = self.clock.now();
            *stored = self.read_store(date).await;
            match stored {
                Ok(rows) if rows.are_whole() => return Err(Ok(rows.clone())),
                Ok(_) | Err(_) if lease.is_some() => return Ok(lease),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Records that upstream has nothing of a date, if that is the failure, and returns it.
    fn remembered_failure(
        &self,
        date: ProcessedDate,
        failure: Arc<CachedFailure<SourceError>>,
    ) -> Arc<CachedFailure<SourceError>> {
        if failure.error.kind != SourceErrorKind::NothingProcessed {
            return failure;
        }
        self.level.record_nothing_processed(None, date);
        match self.level.book.is_past(date) {
            true => self.past_absence(failure.error.clone(), failure.failed_at),
            false => failure,
        }
    }

    /// Returns the failure of a past date that upstream has nothing of.
    fn past_absence(
        &self,
        error: SourceError,
        failed_at: Instant,
    ) -> Arc<CachedFailure<SourceError>> {
        let lifetime = self.past_absence_fresh_for;
        Arc::new(CachedFailure::uncached(error, failed_at, lifetime))
    }

    /// Reads what is stored of a date, once for all concurrent requests, and remembers it if it needs no
    /// call.
    async fn stored(self: &Arc<Self>, date: ProcessedDate) -> StoredDateRows {
        let Ok(flight) = self.reads.join_or_lead(
            date,
            |()| (),
            || Ok::<_, Infallible>(()),
            |guard, ()| {
                let fleets = Arc::clone(self);
                async move {
                    let stored = fleets.read_store(date).await;
                    let remember = |stored: StoredDateRows| {
                        fleets.remember_stored(date, &stored);
                        stored
                    };
                    // After a purge in the meantime, it is not remembered.
                    guard
                        .complete(stored, remember)
                        .unwrap_or_else(|stored| stored)
                }
            },
        );
        let read = flight.outcome().await;
        read.unwrap_or(Err(StoreError::Unavailable))
    }

    async fn read_store(&self, date: ProcessedDate) -> StoredDateRows {
        let now = self.clock.now();
        let Some(durable) = self.level.durable() else {
            return Ok(DatedRows::none(now));
        };
        // The store itself reports its failures.
        let StoredFleetDate {
            snapshots,
            asked_at,
        } = durable.store.all_of_date(date).await?;
        // The store may not have written the last purges yet.
        let purge_of = |stored: &StoredSnapshot| {
            let customer = stored.usage.customer_id();
            self.level
                .purge_of(customer, Some(date), stored.confirmed_at)
        };
        let is_purged = snapshots
            .iter()
            .any(|stored| stored.is_purged || purge_of(stored).is_some());
        let oldest = snapshots.iter().map(|stored| stored.confirmed_at).min();
        let is_readable = |stored: &StoredSnapshot| purge_of(stored) != Some(PurgeMode::Hard);
        let usages = snapshots.into_iter().filter(is_readable);
        Ok(DatedRows {
            usages: Arc::new(usages.map(DatedUsage::from).collect()),
            is_whole: asked_at.is_some() && !is_purged,
            asked_at,
            at: oldest.map_or(now, |oldest| self.level.instant_of(oldest)),
            call_ids: None,
            built: Arc::default(),
        })
    }

    /// Remembers what is stored if it needs no call, unless a newer result is known by now.
    fn remember_stored(&self, date: ProcessedDate, stored: &StoredDateRows) {
        let now = self.clock.now();
        let Ok(rows) = stored else {
            return;
        };
        if self.is_purged(date) || self.recent_result(date, false, now).is_some() {
            return;
        }
        if rows.are_whole() {
            self.remember(date, &Ok(rows.clone()), now + self.fresh_for);
        } else if let Some(absence) = self.stored_absence(date, rows) {
            let expires_at = absence.expires_at;
            self.remember(date, &Err(absence), expires_at);
        }
    }

    /// Returns the failure of a past date that upstream had nothing of when it was last asked, if that
    /// was not too long ago.
    fn stored_absence(
        &self,
        date: ProcessedDate,
        rows: &DatedRows,
    ) -> Option<Arc<CachedFailure<SourceError>>> {
        let is_absent = !rows.has_rows() && self.level.book.is_past(date);
        let asked_at = rows.asked_at.filter(|_| is_absent)?;
        let error = SourceError::without_reply(
            SourceErrorKind::NothingProcessed,
            format!("Partner Center has no usage for {date}"),
        );
        let absence = self.past_absence(error, self.level.instant_of(asked_at));
        (self.clock.now() < absence.expires_at).then_some(absence)
    }

    /// Stores the rows of all customers. Suspect rows of a customer do not replace those before.
    ///
    /// While the store does not answer, nothing is stored: suspect rows could replace good ones that are
    /// not known. The rows are served for a while, and then fetched again.
    async fn accept(
        &self,
        date: ProcessedDate,
        answer: FleetAnswer,
        stored: &StoredDateRows,
    ) -> DatedRows {
        let at = self.clock.wall_time();
        let write = |change| {
            if stored.is_ok() {
                self.level.write(change);
            }
        };
        let before = self.rows_before(date, stored);
        let before = before.iter().flat_map(|rows| &*rows.usages);
        let mut before: HashMap<CustomerId, &DatedUsage> = before
            .map(|before| (before.usage.customer_id(), before))
            .collect();
        let mut accepted = Vec::with_capacity(answer.usages.len());
        for usage in answer.usages {
            let usage = Arc::new(usage);
            let before = before.remove(&usage.customer_id());
            let is_unchanged = before.is_some_and(|before| before.usage == usage);
            if let Some(before) = before
                && !is_unchanged
                && self.is_suspect(date, before, &usage, at).await
            {
                accepted.push(before.clone());
                continue;
            }
            write(StoreWrite::Snapshot(AcceptedSnapshot {
                api: UpstreamApi::Commercial,
                usage: Arc::clone(&usage),
                native: None,
                asked_date: Some(date),
                fetched_at: at,
                purge_generation: self.level.purges.generation(),
                lease: None,
                is_of_refresh: false,
            }));
            let unchanged = before.filter(|_| is_unchanged);
            accepted.push(DatedUsage {
                usage,
                fetched_at: unchanged.map_or(at, |before| before.fetched_at),
            });
        }
        accepted.extend(before.into_values().cloned());
        write(StoreWrite::FleetFetched {
            date,
            asked_at: at,
            purge_generation: self.level.purges.generation(),
        });
        let now = self.clock.now();
        if stored.is_ok() {
            self.fetched_at.insert(date, now);
        }
        DatedRows {
            usages: Arc::new(accepted),
            is_whole: true,
            asked_at: Some(at),
            at: now,
            call_ids: Some(answer.call_ids),
            built: Arc::default(),
        }
    }

    /// Compares rows of a customer with those before, by the rules of the cache.
    async fn is_suspect(
        &self,
        date: ProcessedDate,
        before: &DatedUsage,
        usage: &LicenseUsage,
        at: Timestamp,
    ) -> bool {
        // Many customers may have other rows.
        tokio::task::yield_now().await;
        let resource = Resource::dated_usage(usage.customer_id(), date);
        let now = self.clock.now();
        if self.cache.look_up(resource, now).is_none() {
            let Ok(rendered) = Rendered::new(&before.usage, None, before.fetched_at) else {
                return true;
            };
            let earlier = EarlierAnswer {
                rendered,
                stored_at: self.level.instant_of(before.fetched_at),
                lifetime: None,
                is_purged: false,
            };
            drop(self.cache.restore(resource, earlier, now));
        }
        let Ok(rendered) = Rendered::new(usage, None, at) else {
            return true;
        };
        let stored = self.cache.store(resource, rendered, now);
        matches!(stored.change, StoreChange::Suspect(_))
    }

    fn fleet(&self, date: ProcessedDate, rows: &DatedRows, role: Option<FlightRole>) -> DatedFleet {
        let today = self.level.book.usage().unwrap_or_default();
        DatedFleet {
            usage: rows.built.get_or_build(&today, || rows.fleet(date, &today)),
            read_at: rows.at,
            call: role.map(|role| DatedCall {
                role,
                ids: rows.call_ids,
            }),
        }
    }
}
