//! A database that replicas share, in memory and in virtual time: what PostgreSQL does, without SQL.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::{
    cache::{PurgeMode, PurgeScope},
    clock::SharedClock,
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    shutdown::Shutdown,
    store::{
        AcceptedSnapshot, Coordination, CustomerTotals, DateRange, FleetDateTotals,
        FleetHistoryQuery, FleetRefresh, HistoryQuery, HistoryRow, LEASE_TIME, LaterChanges,
        LaterPurges, Lease, LeaseAttempt, LeaseEnd, Notification, Notifications, Notifier,
        OldDates, RecentTotalsQuery, SealedTokens, SharedPause, StoreError, StoreFuture,
        StoreWrite, StoredCustomers, StoredDate, StoredFleetDate, StoredPurge, StoredSnapshot,
        StoredTokens, Upkeep, UsageStore, WantedLease,
    },
};

/// The database.
#[derive(Debug)]
pub(super) struct Database {
    state: Mutex<DatabaseState>,
    /// The state of the server that takes over.
    replicated: Mutex<DatabaseState>,
    grants: Mutex<Vec<Grant>>,
    clock: SharedClock,
    /// All of them; `None`: they hear nothing, as behind a pooler.
    listeners: Option<Mutex<Vec<Link>>>,
    is_stopped: watch::Sender<bool>,
    shutdown: Shutdown,
}

/// A lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    /// The fail-overs before it.
    fail_overs: usize,
    name: Arc<str>,
    fence: i64,
}

/// The connection of one replica.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    database: Arc<Database>,
    origin: i64,
    link: Link,
    /// The generation of the last purge that this replica made; 0: none.
    last_purge: Arc<AtomicI64>,
}

/// The network between a replica and the database.
#[derive(Clone, Debug)]
struct Link {
    is_cut: Arc<AtomicBool>,
    notifier: Notifier,
}

#[derive(Clone, Debug, Default)]
struct DatabaseState {
    snapshots: HashMap<CustomerId, SharedSnapshot>,
    leases: HashMap<Arc<str>, LeaseRow>,
    purges: Vec<PurgeRow>,
    generation: i64,
    generations: HashSet<i64>,
    changes: Vec<ChangeRow>,
    applied: HashMap<i64, (Instant, i64)>,
    /// Those of the statement that runs.
    notifications: Vec<Notification>,
    fail_overs: usize,
}

#[derive(Clone, Debug)]
struct SharedSnapshot {
    accepted: AcceptedSnapshot,
    generation: i64,
}

#[derive(Clone, Debug)]
struct LeaseRow {
    owner: i64,
    fence: i64,
    expires_at: Option<Instant>,
    finished_at: Option<Instant>,
    failed: Option<(Instant, String)>,
}

#[derive(Clone, Copy, Debug)]
struct PurgeRow {
    generation: i64,
    scope: PurgeScope,
    mode: PurgeMode,
    origin: i64,
}

#[derive(Clone, Copy, Debug)]
struct ChangeRow {
    number: i64,
    resource: Resource,
    origin: i64,
}

/// Time until a connection that was cut breaks.
const UNTIL_BROKEN: Duration = Duration::from_secs(2);

/// Time of each statement.
const LATENCY: Duration = Duration::from_millis(2);

// === impl Database ===

impl Database {
    pub(super) fn new(clock: SharedClock) -> Arc<Self> {
        Self::with_listeners(clock, Some(Mutex::default()))
    }

    pub(super) fn without_notifications(clock: SharedClock) -> Arc<Self> {
        Self::with_listeners(clock, None)
    }

    fn with_listeners(clock: SharedClock, listeners: Option<Mutex<Vec<Link>>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            replicated: Mutex::default(),
            grants: Mutex::default(),
            clock,
            listeners,
            is_stopped: watch::Sender::new(false),
            shutdown: Shutdown::new(),
        })
    }

    pub(super) fn connect(self: &Arc<Self>, origin: i64) -> Connection {
        let link = Link {
            is_cut: Arc::default(),
            notifier: Notifier::new(),
        };
        if let Some(listeners) = &self.listeners {
            listeners.lock().unwrap().push(link.clone());
        }
        Connection {
            database: Arc::clone(self),
            origin,
            link,
            last_purge: Arc::default(),
        }
    }

    fn execute<T>(&self, statement: impl FnOnce(&mut DatabaseState, Instant) -> T) -> T {
        let mut state = self.lock();
        let result = statement(&mut state, self.clock.now());
        let notifications = std::mem::take(&mut state.notifications);
        if let Some(listeners) = &self.listeners {
            for listener in &*listeners.lock().unwrap() {
                listener.hear(&notifications);
            }
        }
        result
    }

    /// Lets statements wait from now on, or does all that wait. Whoever sent them may have gone.
    pub(super) fn stop(&self, is_stopped: bool) {
        self.is_stopped.send_replace(is_stopped);
    }

    /// Sends all changes until now to the server that may take over.
    pub(super) fn replicate(&self) {
        *self.replicated.lock().unwrap() = self.lock().clone();
    }

    /// Loses all changes since [`Database::replicate`].
    pub(super) fn fail_over(&self) {
        let mut state = self.lock();
        let fail_overs = state.fail_overs + 1;
        *state = self.replicated.lock().unwrap().clone();
        state.fail_overs = fail_overs;
    }

    /// Returns all leases that were granted.
    pub(super) fn grants(&self) -> Vec<Grant> {
        self.grants.lock().unwrap().clone()
    }

    /// Returns the time in milliseconds.
    fn time(&self) -> i64 {
        self.clock.wall_time().as_millisecond()
    }

    fn lock(&self) -> MutexGuard<'_, DatabaseState> {
        self.state.lock().unwrap()
    }
}

// === impl DatabaseState ===

impl DatabaseState {
    /// Applies a change at a time. Returns the generation of a purge.
    fn apply(&mut self, change: StoreWrite, origin: i64, time: i64) -> Option<i64> {
        match change {
            StoreWrite::Snapshot(accepted) => self.accept(accepted, origin, time),
            StoreWrite::Purge(scope, mode) => return Some(self.purge(scope, mode, origin, time)),
            StoreWrite::LostPurges { applied } => {
                let is_of_all = |purge: &PurgeRow| purge.scope == PurgeScope::default();
                let mut later = self
                    .purges
                    .iter()
                    .filter(|purge| purge.generation > applied);
                if !later.any(is_of_all) {
                    let (scope, mode) = (PurgeScope::default(), PurgeMode::Soft);
                    return Some(self.purge(scope, mode, origin, time));
                }
            }
            _ => {}
        }
        None
    }

    fn purge(&mut self, scope: PurgeScope, mode: PurgeMode, origin: i64, time: i64) -> i64 {
        self.generation = time.max(self.generation + 1);
        self.generations.insert(self.generation);
        self.notifications.push(Notification::Purged);
        self.purges.push(PurgeRow {
            generation: self.generation,
            scope,
            mode,
            origin,
        });
        let customer = scope.customer_id.map(|customer| customer.to_string());
        for (name, row) in &mut self.leases {
            let is_covered = customer
                .as_ref()
                .is_none_or(|customer| name.contains(customer));
            if is_covered && row.owner != origin {
                *row = LeaseRow {
                    owner: row.owner,
                    fence: row.fence + 1,
                    expires_at: None,
                    finished_at: None,
                    failed: None,
                };
            }
        }
        self.generation
    }

    /// Returns whether it had a generation once, and has it no longer.
    fn has_lost(&self, generation: i64) -> bool {
        generation != 0 && !self.generations.contains(&generation)
    }

    fn accept(&mut self, accepted: AcceptedSnapshot, origin: i64, time: i64) {
        let is_lost = |lease: &Lease| {
            let row = self.leases.get(&lease.name);
            row.is_none_or(|row| row.fence != lease.fence)
        };
        if accepted.lease.as_ref().is_some_and(is_lost) {
            return;
        }
        let customer = accepted.usage.customer_id();
        let is_late = |stored: &SharedSnapshot| accepted.fetched_at < stored.accepted.fetched_at;
        if self.snapshots.get(&customer).is_some_and(is_late) {
            return;
        }
        let later = self.purges.iter().find(|purge| {
            accepted
                .purge_generation
                .is_some_and(|applied| applied < purge.generation)
                && purge.origin != origin
                && purge
                    .scope
                    .covers(Some(customer), accepted.usage.processed_date())
        });
        let generation = later.map_or(self.generation, |purge| purge.generation - 1);
        let is_other =
            |before: &SharedSnapshot| before.accepted.usage.rows() != accepted.usage.rows();
        if self.snapshots.get(&customer).is_some_and(is_other) {
            let number = time.max(self.last_change() + 1);
            self.notifications.push(Notification::Changed);
            self.changes.push(ChangeRow {
                number,
                resource: Resource::newest_usage(customer, accepted.api),
                origin,
            });
        }
        let stored = SharedSnapshot {
            accepted,
            generation,
        };
        self.snapshots.insert(customer, stored);
    }

    fn last_change(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.number)
    }

    fn snapshot(&self, customer: CustomerId) -> Option<StoredSnapshot> {
        let SharedSnapshot {
            accepted,
            generation,
        } = self.snapshots.get(&customer)?;
        let date = accepted.usage.processed_date();
        let mut later = self.purges.iter().filter(|purge| {
            purge.generation > *generation && purge.scope.covers(Some(customer), date)
        });
        let is_purged = later.clone().next().is_some();
        if later.any(|purge| purge.mode == PurgeMode::Hard) {
            return None;
        }
        Some(StoredSnapshot {
            api: accepted.api,
            usage: Arc::clone(&accepted.usage),
            native: accepted.native.clone(),
            revision: 1,
            fetched_at: accepted.fetched_at,
            confirmed_at: accepted.fetched_at,
            is_purged,
        })
    }

    fn acquire(
        &mut self,
        wanted: &WantedLease,
        owner: i64,
        now: Instant,
        time: i64,
    ) -> LeaseAttempt {
        let row = self.leases.get(&wanted.name);
        if let Some(row) = row {
            if row.expires_at.is_some_and(|until| until > now) {
                return LeaseAttempt::Held;
            }
            if let Some((until, failure)) = &row.failed
                && *until > now
            {
                return LeaseAttempt::Failed {
                    failure: failure.clone(),
                    remaining: *until - now,
                };
            }
            let unknown = |finished: Instant| finished + wanted.unknown_since >= now;
            if row.finished_at.is_some_and(unknown) {
                return LeaseAttempt::Finished;
            }
        }
        let fence = row.map_or(time, |row| time.max(row.fence + 1));
        let finished_at = row.and_then(|row| row.finished_at);
        let taken = LeaseRow {
            owner,
            fence,
            expires_at: Some(now + LEASE_TIME),
            finished_at,
            failed: None,
        };
        let name = Arc::clone(&wanted.name);
        self.leases.insert(Arc::clone(&name), taken);
        LeaseAttempt::Granted(Lease { name, fence })
    }

    fn held(&mut self, lease: &Lease) -> Option<&mut LeaseRow> {
        let row = self.leases.get_mut(&lease.name)?;
        (row.fence == lease.fence).then_some(row)
    }
}

// === impl Link ===

impl Link {
    fn hear(&self, notifications: &[Notification]) {
        if !self.is_cut.load(Ordering::Relaxed) {
            for notification in notifications {
                self.notifier.send(*notification);
            }
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Breaks the connection from now on, or lets it work again.
    pub(super) fn cut(&self, is_cut: bool) {
        self.link.is_cut.store(is_cut, Ordering::Relaxed);
        if self.database.listeners.is_some() {
            self.link.hear(&[Notification::Unknown]);
        }
    }

    fn run<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&mut DatabaseState, Instant) -> T + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(async move {
            let Database { clock, .. } = &*self.database;
            clock.sleep_until(clock.now() + LATENCY).await;
            if self.link.is_cut.load(Ordering::Relaxed) {
                clock.sleep_until(clock.now() + UNTIL_BROKEN).await;
                return Err(StoreError::NotOpen("the connection broke".to_owned()));
            }
            if !*self.database.is_stopped.borrow() {
                return Ok(self.database.execute(statement));
            }
            let (database, mut stopped) = (
                Arc::clone(&self.database),
                self.database.is_stopped.subscribe(),
            );
            let (sender, executed) = oneshot::channel();
            self.database.shutdown.spawn(async move {
                let _runs = stopped.wait_for(|is_stopped| !is_stopped).await.is_ok();
                let _gone = sender.send(database.execute(statement)).is_err();
            });
            executed.await.map_err(|_| StoreError::Unavailable)
        })
    }

    fn nothing<T: Default + Send + 'static>(&self) -> StoreFuture<'_, T> {
        self.run(|_, _| T::default())
    }
}

impl UsageStore for Connection {
    fn snapshot(&self, resource: Resource) -> StoreFuture<'_, Option<StoredSnapshot>> {
        self.run(move |state, _| state.snapshot(resource.customer()?))
    }

    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>> {
        self.nothing()
    }

    fn all_of_date(&self, _: ProcessedDate) -> StoreFuture<'_, StoredFleetDate> {
        self.run(|_, _| StoredFleetDate {
            snapshots: Vec::new(),
            asked_at: None,
        })
    }

    fn customers(&self) -> StoreFuture<'_, Option<StoredCustomers>> {
        self.nothing()
    }

    fn write(&self, changes: Vec<StoreWrite>) -> StoreFuture<'_, ()> {
        let origin = self.origin;
        let (database, last_purge) = (Arc::clone(&self.database), Arc::clone(&self.last_purge));
        self.run(move |state, _| {
            let time = database.time();
            for change in changes {
                if let Some(generation) = state.apply(change, origin, time) {
                    last_purge.store(generation, Ordering::Relaxed);
                }
            }
        })
    }

    fn dates(&self, _: CustomerId, _: DateRange) -> StoreFuture<'_, Vec<StoredDate>> {
        self.nothing()
    }

    fn history(&self, _: HistoryQuery) -> StoreFuture<'_, Vec<HistoryRow>> {
        self.nothing()
    }

    fn fleet_history(&self, _: FleetHistoryQuery) -> StoreFuture<'_, Vec<FleetDateTotals>> {
        self.nothing()
    }

    fn recent_totals(&self, _: RecentTotalsQuery) -> StoreFuture<'_, Vec<CustomerTotals>> {
        self.nothing()
    }

    fn asked_dates(
        &self,
        _: Option<CustomerId>,
        _: DateRange,
    ) -> StoreFuture<'_, Vec<ProcessedDate>> {
        self.nothing()
    }

    fn purges_after(&self, generation: Option<i64>) -> StoreFuture<'_, LaterPurges> {
        let origin = self.origin;
        let last_own = self.last_purge.load(Ordering::Relaxed);
        let read = self.run(move |state, _| {
            let after = generation.unwrap_or(state.generation);
            let later = state.purges.iter().filter(|purge| purge.generation > after);
            let has_lost_own = generation.is_some() && state.has_lost(last_own);
            LaterPurges {
                generation: state.generation,
                went_back: has_lost_own || state.has_lost(after),
                purges: later
                    .map(|purge| StoredPurge {
                        scope: purge.scope,
                        mode: purge.mode,
                        is_own: purge.origin == origin,
                    })
                    .collect(),
            }
        });
        Box::pin(async move {
            let later = read.await?;
            if later.went_back {
                let (relaxed, last) = (Ordering::Relaxed, &self.last_purge);
                let _is_same = last.compare_exchange(last_own, 0, relaxed, relaxed).is_ok();
            }
            Ok(later)
        })
    }

    fn changes_after(&self, number: Option<i64>) -> StoreFuture<'_, LaterChanges> {
        let origin = self.origin;
        self.run(move |state, _| {
            let last = state.last_change();
            let after = number.unwrap_or(last);
            let later = state.changes.iter().filter(|change| change.number > after);
            LaterChanges {
                number: last,
                has_more: false,
                is_cut: false,
                resources: later
                    .filter(|change| change.origin != origin)
                    .map(|change| change.resource)
                    .collect(),
            }
        })
    }

    fn changed_snapshots(
        &self,
        resources: Vec<Resource>,
    ) -> StoreFuture<'_, Vec<Option<StoredSnapshot>>> {
        self.run(move |state, _| {
            let customers = resources.iter().filter_map(|resource| resource.customer());
            customers.map(|customer| state.snapshot(customer)).collect()
        })
    }

    fn report_applied(&self, generation: i64) -> StoreFuture<'_, Vec<i64>> {
        let origin = self.origin;
        self.run(move |state, now| {
            let before = state.applied.insert(origin, (now, generation));
            if before.is_none_or(|(_, before)| before != generation) {
                state.notifications.push(Notification::PurgesApplied);
            }
            let others = state.applied.iter().filter(|(id, _)| **id != origin);
            others.map(|(_, (_, applied))| *applied).collect()
        })
    }

    fn delete_old(&self, _: OldDates, _: NonZeroUsize) -> StoreFuture<'_, usize> {
        self.nothing()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.nothing()
    }

    fn maintain(&self) -> StoreFuture<'_, Upkeep> {
        self.run(|_, _| Upkeep {
            stored_bytes: 0,
            is_done: true,
        })
    }

    fn coordination(&self) -> Option<&dyn Coordination> {
        Some(self)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Coordination for Connection {
    fn connect(&self) -> StoreFuture<'_, ()> {
        self.nothing()
    }

    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt> {
        let (database, owner) = (Arc::clone(&self.database), self.origin);
        self.run(move |state, now| {
            let attempt = state.acquire(&wanted, owner, now, database.time());
            if let LeaseAttempt::Granted(Lease { name, fence }) = &attempt {
                database.grants.lock().unwrap().push(Grant {
                    fail_overs: state.fail_overs,
                    name: Arc::clone(name),
                    fence: *fence,
                });
            }
            attempt
        })
    }

    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool> {
        self.run(move |state, now| match state.held(&lease) {
            Some(row) => {
                row.expires_at = Some(now + LEASE_TIME);
                true
            }
            None => false,
        })
    }

    fn notifications(&self) -> Notifications {
        self.link.notifier.subscribe()
    }

    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()> {
        self.run(move |state, now| {
            let ended = Notification::lease_ended(&lease.name);
            state.notifications.push(ended);
            if let Some(row) = state.held(&lease) {
                row.expires_at = None;
                match end {
                    LeaseEnd::Finished => row.finished_at = Some(now),
                    LeaseEnd::Abandoned => {}
                    LeaseEnd::Failed { failure, lifetime } => {
                        row.failed = Some((now + lifetime, failure));
                    }
                }
            }
        })
    }

    fn publish_refresh(&self, _: FleetRefresh, _: i64) -> StoreFuture<'_, ()> {
        self.nothing()
    }

    fn last_refresh(&self, _: UpstreamApi) -> StoreFuture<'_, Option<FleetRefresh>> {
        self.nothing()
    }

    fn tokens(&self, _: Arc<str>) -> StoreFuture<'_, Option<StoredTokens>> {
        self.nothing()
    }

    fn swap_tokens(
        &self,
        _: Arc<str>,
        _: Option<i64>,
        _: SealedTokens,
    ) -> StoreFuture<'_, Option<i64>> {
        self.nothing()
    }

    fn share_pause(&self, _: SharedPause) -> StoreFuture<'_, ()> {
        self.nothing()
    }

    fn shared_pauses(&self) -> StoreFuture<'_, Vec<SharedPause>> {
        self.nothing()
    }

    fn server_time(&self) -> StoreFuture<'_, Timestamp> {
        let clock = Arc::clone(&self.database.clock);
        self.run(move |_, _| clock.wall_time())
    }
}
