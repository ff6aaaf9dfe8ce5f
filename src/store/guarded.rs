//! Limits what a store that is slow or gone costs its callers.

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    Coordination, CustomerTotals, DateRange, FleetDateTotals, FleetHistoryQuery, FleetRefresh,
    HistoryQuery, HistoryRow, LOOK_UPS_AT_ONCE, LaterChanges, LaterPurges, Lease, LeaseAttempt,
    LeaseEnd, Notifications, OldDates, RecentTotalsQuery, SealedTokens, SharedPause, StoreError,
    StoreFuture, StoreWrite, StoredCustomers, StoredDate, StoredFleetDate, StoredSnapshot,
    StoredTokens, Upkeep, UsageStore, WantedLease,
    metrics::{LeaseOutcome, StoreHealth, StoreMetrics, StoreOperation, StoreOutcome},
};
use crate::{
    clock::{SharedClock, with_deadline},
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    panic,
    shutdown::Shutdown,
};

/// A store whose calls take a bounded time, and which is not called while it fails.
///
/// A breaker opens when three reads in a row that precede an upstream call miss their time or fail, and at
/// once when the store cannot be opened. While it is open every read that a miss waits for fails at once,
/// and probes in the background find out when the store works again. Writes and polls are tried all the
/// same: no miss waits for them, and a store that is too slow for look-ups can still answer them.
#[derive(Clone, Debug)]
pub struct GuardedStore(Arc<Guard>);

#[derive(Debug)]
struct Guard {
    store: Arc<dyn UsageStore>,
    clock: SharedClock,
    shutdown: Shutdown,
    metrics: StoreMetrics,
    health: StoreHealth,
    breaker: Mutex<Breaker>,
    /// The last look-up that failed.
    missed: Mutex<Option<Resource>>,
    /// A permit for each look-up that the store works on at once.
    turns: Semaphore,
}

#[derive(Clone, Copy, Debug)]
enum Breaker {
    Closed { misses: u32 },
    Open,
}

/// Time of a look-up on the path of a request, from its turn. No request may be delayed by more than
/// 20 ms in all, and timers and tasks are late by a few.
const LOOK_UP_BUDGET: Duration = Duration::from_millis(8);

/// Time of a request for a lease on the path of a request.
const LEASE_BUDGET: Duration = Duration::from_millis(7);

/// Time for which a look-up waits for its turn. That many come at once is no fault of the store, so
/// missing it does not open the breaker.
const TURN_BUDGET: Duration = Duration::from_millis(3);

/// Time to read all customers of a date, which a request does before it asks upstream: the most that
/// 5,000 customers may take.
const FLEET_DATE_BUDGET: Duration = Duration::from_secs(1);

/// Time of a read that is repeated each second, and of what precedes a request for a token.
const POLL_BUDGET: Duration = Duration::from_secs(1);

/// Time of reads that are the whole answer.
const QUERY_BUDGET: Duration = Duration::from_secs(5);

/// Time of reads and writes that no request waits for.
const BACKGROUND_BUDGET: Duration = Duration::from_secs(30);

const MISSES_TO_OPEN: u32 = 3;

const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// Time of a probe, which may open the store.
const PROBE_BUDGET: Duration = Duration::from_secs(2);

const PROBES_TO_CLOSE: u32 = 2;

// === impl GuardedStore ===

impl GuardedStore {
    /// Guards a store.
    pub fn new(
        store: Arc<dyn UsageStore>,
        clock: SharedClock,
        shutdown: Shutdown,
        metrics: StoreMetrics,
    ) -> Self {
        Self(Arc::new(Guard {
            store,
            clock,
            shutdown,
            health: StoreHealth::new(&metrics),
            metrics,
            breaker: Mutex::new(Breaker::Closed { misses: 0 }),
            missed: Mutex::default(),
            turns: Semaphore::new(LOOK_UPS_AT_ONCE),
        }))
    }

    /// Returns the health of the store.
    pub fn health(&self) -> StoreHealth {
        self.0.health.clone()
    }

    async fn look_up(&self, resource: Resource) -> Result<Option<StoredSnapshot>, StoreError> {
        let guard = &self.0;
        let latest = guard.clock.now() + TURN_BUDGET;
        let turn = with_deadline(&guard.clock, latest, guard.turns.acquire()).await;
        let Some(Ok(_turn)) = turn else {
            return guard.reject(StoreOperation::Snapshot);
        };
        let found = self.call(StoreOperation::Snapshot, LOOK_UP_BUDGET, |store| {
            store.snapshot(resource)
        });
        let found = found.await;
        if found.is_err() {
            *lock(&guard.missed) = Some(resource);
        }
        found
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        operation: StoreOperation,
        budget: Duration,
        call: impl FnOnce(&'a dyn UsageStore) -> StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        let guard = &self.0;
        if guard.is_open() && !operation.is_background() {
            let rejected = guard.reject(operation);
            return Box::pin(async { rejected });
        }
        let call = call(&*guard.store);
        Box::pin(async move {
            let result = guard.measure(operation, budget, call).await;
            guard.judge(operation, &result);
            result
        })
    }

    fn coordinate<'a, T: Send + 'a>(
        &'a self,
        operation: StoreOperation,
        budget: Duration,
        call: impl FnOnce(&'a dyn Coordination) -> StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        self.call(operation, budget, |store| match store.coordination() {
            Some(coordination) => call(coordination),
            None => Box::pin(async { Err(StoreError::Unavailable) }),
        })
    }
}

impl UsageStore for GuardedStore {
    fn snapshot(&self, resource: Resource) -> StoreFuture<'_, Option<StoredSnapshot>> {
        Box::pin(self.look_up(resource))
    }

    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>> {
        self.call(StoreOperation::NewestOfAll, BACKGROUND_BUDGET, |store| {
            store.newest_of_all()
        })
    }

    fn all_of_date(&self, date: ProcessedDate) -> StoreFuture<'_, StoredFleetDate> {
        self.call(StoreOperation::AllOfDate, FLEET_DATE_BUDGET, |store| {
            store.all_of_date(date)
        })
    }

    fn customers(&self) -> StoreFuture<'_, Option<StoredCustomers>> {
        self.call(StoreOperation::Customers, QUERY_BUDGET, |store| {
            store.customers()
        })
    }

    fn write(&self, changes: Vec<StoreWrite>) -> StoreFuture<'_, ()> {
        self.call(StoreOperation::Write, BACKGROUND_BUDGET, |store| {
            store.write(changes)
        })
    }

    fn dates(&self, customer: CustomerId, range: DateRange) -> StoreFuture<'_, Vec<StoredDate>> {
        self.call(StoreOperation::Dates, QUERY_BUDGET, |store| {
            store.dates(customer, range)
        })
    }

    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<HistoryRow>> {
        self.call(StoreOperation::History, QUERY_BUDGET, |store| {
            store.history(query)
        })
    }

    fn fleet_history(&self, query: FleetHistoryQuery) -> StoreFuture<'_, Vec<FleetDateTotals>> {
        self.call(StoreOperation::FleetHistory, QUERY_BUDGET, |store| {
            store.fleet_history(query)
        })
    }

    fn recent_totals(&self, query: RecentTotalsQuery) -> StoreFuture<'_, Vec<CustomerTotals>> {
        self.call(StoreOperation::RecentTotals, QUERY_BUDGET, |store| {
            store.recent_totals(query)
        })
    }

    fn asked_dates(
        &self,
        customer: Option<CustomerId>,
        range: DateRange,
    ) -> StoreFuture<'_, Vec<ProcessedDate>> {
        self.call(StoreOperation::AskedDates, QUERY_BUDGET, |store| {
            store.asked_dates(customer, range)
        })
    }

    fn purges_after(&self, generation: Option<i64>) -> StoreFuture<'_, LaterPurges> {
        self.call(StoreOperation::Purges, POLL_BUDGET, |store| {
            store.purges_after(generation)
        })
    }

    fn changes_after(&self, number: Option<i64>) -> StoreFuture<'_, LaterChanges> {
        self.call(StoreOperation::Changes, POLL_BUDGET, |store| {
            store.changes_after(number)
        })
    }

    fn changed_snapshots(
        &self,
        resources: Vec<Resource>,
    ) -> StoreFuture<'_, Vec<Option<StoredSnapshot>>> {
        self.call(StoreOperation::ChangedSnapshots, POLL_BUDGET, |store| {
            store.changed_snapshots(resources)
        })
    }

    fn report_applied(&self, generation: i64) -> StoreFuture<'_, Vec<i64>> {
        self.call(StoreOperation::ReportApplied, POLL_BUDGET, |store| {
            store.report_applied(generation)
        })
    }

    fn delete_old(&self, old: OldDates, limit: NonZeroUsize) -> StoreFuture<'_, usize> {
        self.call(StoreOperation::Delete, BACKGROUND_BUDGET, |store| {
            store.delete_old(old, limit)
        })
    }

    fn maintain(&self) -> StoreFuture<'_, Upkeep> {
        self.call(StoreOperation::Maintain, BACKGROUND_BUDGET, |store| {
            store.maintain()
        })
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.call(StoreOperation::Probe, PROBE_BUDGET, |store| store.probe())
    }

    fn coordination(&self) -> Option<&dyn Coordination> {
        self.0.store.coordination().map(|_| self as _)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.0.store.close()
    }
}

impl Coordination for GuardedStore {
    fn connect(&self) -> StoreFuture<'_, ()> {
        self.probe()
    }

    fn notifications(&self) -> Notifications {
        self.0.store.notifications()
    }

    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt> {
        let budget = match wanted.is_urgent {
            true => LEASE_BUDGET,
            false => POLL_BUDGET,
        };
        let attempt = self.coordinate(StoreOperation::AcquireLease, budget, |coordination| {
            coordination.acquire_lease(wanted)
        });
        let metrics = &self.0.metrics;
        Box::pin(async {
            let attempt = attempt.await?;
            let outcome = match attempt {
                LeaseAttempt::Granted(_) => {
                    metrics.leases_held.inc();
                    LeaseOutcome::Granted
                }
                LeaseAttempt::Held => LeaseOutcome::Held,
                LeaseAttempt::Finished | LeaseAttempt::Failed { .. } => LeaseOutcome::Finished,
            };
            metrics.record_lease(outcome);
            Ok(attempt)
        })
    }

    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool> {
        self.coordinate(StoreOperation::RenewLease, POLL_BUDGET, |coordination| {
            coordination.renew_lease(lease)
        })
    }

    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()> {
        self.0.metrics.leases_held.dec();
        self.coordinate(StoreOperation::ReleaseLease, POLL_BUDGET, |coordination| {
            coordination.release_lease(lease, end)
        })
    }

    fn publish_refresh(&self, refresh: FleetRefresh, fence: i64) -> StoreFuture<'_, ()> {
        self.coordinate(
            StoreOperation::PublishRefresh,
            POLL_BUDGET,
            |coordination| coordination.publish_refresh(refresh, fence),
        )
    }

    fn last_refresh(&self, api: UpstreamApi) -> StoreFuture<'_, Option<FleetRefresh>> {
        self.coordinate(StoreOperation::LastRefresh, POLL_BUDGET, |coordination| {
            coordination.last_refresh(api)
        })
    }

    fn share_pause(&self, pause: SharedPause) -> StoreFuture<'_, ()> {
        self.coordinate(StoreOperation::SharePause, POLL_BUDGET, |coordination| {
            coordination.share_pause(pause)
        })
    }

    fn shared_pauses(&self) -> StoreFuture<'_, Vec<SharedPause>> {
        self.coordinate(StoreOperation::SharedPauses, POLL_BUDGET, |coordination| {
            coordination.shared_pauses()
        })
    }

    fn server_time(&self) -> StoreFuture<'_, Timestamp> {
        self.coordinate(StoreOperation::ServerTime, POLL_BUDGET, |coordination| {
            coordination.server_time()
        })
    }

    fn tokens(&self, account: Arc<str>) -> StoreFuture<'_, Option<StoredTokens>> {
        self.coordinate(StoreOperation::Tokens, POLL_BUDGET, |coordination| {
            coordination.tokens(account)
        })
    }

    fn swap_tokens(
        &self,
        account: Arc<str>,
        seen: Option<i64>,
        tokens: SealedTokens,
    ) -> StoreFuture<'_, Option<i64>> {
        self.coordinate(StoreOperation::SwapTokens, POLL_BUDGET, |coordination| {
            coordination.swap_tokens(account, seen, tokens)
        })
    }
}

// === impl Guard ===

impl Guard {
    fn reject<T>(&self, operation: StoreOperation) -> Result<T, StoreError> {
        self.metrics
            .record(operation, StoreOutcome::Rejected, Duration::ZERO);
        Err(StoreError::Unavailable)
    }

    /// Waits for a call, until its time is over.
    async fn measure<T>(
        &self,
        operation: StoreOperation,
        budget: Duration,
        call: StoreFuture<'_, T>,
    ) -> Result<T, StoreError> {
        let started = self.clock.now();
        let result = with_deadline(&self.clock, started + budget, call).await;
        let outcome = match &result {
            Some(Ok(_)) => StoreOutcome::Success,
            Some(Err(_)) => StoreOutcome::Error,
            None => StoreOutcome::Timeout,
        };
        let took = self.clock.now().saturating_duration_since(started);
        self.metrics.record(operation, outcome, took);
        result.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Lets the result of a call open the breaker.
    fn judge<T>(self: &Arc<Self>, operation: StoreOperation, result: &Result<T, StoreError>) {
        if operation == StoreOperation::Write {
            self.judge_write(result);
        }
        match result {
            Err(error @ StoreError::NotOpen(_)) => self.open_breaker(error),
            Err(error) if operation == StoreOperation::Probe => self.open_breaker(error),
            // Other reads have so much time that missing it says little.
            _ if !operation.precedes_upstream_call() => {}
            Ok(_) => {
                if let Breaker::Closed { misses } = &mut *lock(&self.breaker) {
                    *misses = 0;
                }
            }
            Err(error) => {
                let is_enough = match &mut *lock(&self.breaker) {
                    Breaker::Closed { misses } => {
                        *misses += 1;
                        *misses >= MISSES_TO_OPEN
                    }
                    Breaker::Open => false,
                };
                if is_enough {
                    self.open_breaker(error);
                }
            }
        }
    }

    fn judge_write<T>(&self, result: &Result<T, StoreError>) {
        match result {
            Ok(_) => self.health.set_write_problem(None),
            Err(StoreError::Unstorable(_)) => {}
            Err(error) => self.health.set_write_problem(Some(error.to_string())),
        }
    }

    /// Opens the breaker, and probes the store until it works again.
    fn open_breaker(self: &Arc<Self>, error: &StoreError) {
        let before = std::mem::replace(&mut *lock(&self.breaker), Breaker::Open);
        if matches!(before, Breaker::Open) {
            return;
        }
        const MESSAGE: &str =
            "the store is not read until it works again; requests are served without it";
        match error {
            StoreError::Unavailable => tracing::warn!(%error, "{MESSAGE}"),
            _ => tracing::error!(%error, "{MESSAGE}"),
        }
        self.health.set_read_problem(Some(error.to_string()));
        self.shutdown.spawn(Arc::clone(self).probe_until_good());
    }

    async fn probe_until_good(self: Arc<Self>) {
        let mut good = 0;
        while good < PROBES_TO_CLOSE {
            let next = self.clock.now() + PROBE_INTERVAL;
            self.clock.sleep_until(next).await;
            let probed = panic::catch(pin!(self.probe())).await;
            match probed.unwrap_or(Err(StoreError::Panicked)) {
                Ok(()) => good += 1,
                Err(error) => {
                    good = 0;
                    self.health.set_read_problem(Some(error.to_string()));
                }
            }
        }
        *lock(&self.breaker) = Breaker::Closed { misses: 0 };
        self.health.set_read_problem(None);
        tracing::info!("the store works again");
    }

    /// Probes the store, and then times the look-up that failed last: a probe itself may connect.
    async fn probe(&self) -> Result<(), StoreError> {
        self.measure(StoreOperation::Probe, PROBE_BUDGET, self.store.probe())
            .await?;
        let missed = *lock(&self.missed);
        if let Some(resource) = missed {
            let latest = self.clock.now() + LOOK_UP_BUDGET;
            let found = with_deadline(&self.clock, latest, self.store.snapshot(resource));
            // Only its time counts: content that cannot be read must not close the store to others.
            if found.await.is_none() {
                return Err(StoreError::Unavailable);
            }
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        matches!(*lock(&self.breaker), Breaker::Open)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // It is assigned whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
