//! The second cache level, which a miss reads before it asks upstream: the usage of all customers in
//! memory, and the durable store.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{
    fleet::FleetBook,
    purge_marks::{Followed, PurgeMark, PurgeMarks, PurgedBy},
    source::SourceErrorKind,
};
use crate::{
    cache::{AbsenceKind, EarlierAnswer, PurgeMode, PurgeScope, SingleFlight, UsageCache},
    clock::SharedClock,
    domain::{CustomerId, CustomerList, LicenseUsage, ProcessedDate, Resource, UpstreamApi},
    offload,
    render::Rendered,
    shutdown::Shutdown,
    store::{AcceptedSnapshot, DurableStore, Lease, StoreWrite, StoredCustomers, StoredSnapshot},
};

/// The snapshots behind the cache.
#[derive(Debug)]
pub(super) struct SecondLevel {
    cache: Arc<UsageCache>,
    pub(super) book: FleetBook,
    durable: Option<DurableStore>,
    /// The call that the book has the rows of.
    newest_api: UpstreamApi,
    look_ups: SingleFlight<LookUp, ()>,
    /// Ends the pause of the fleet's refresher.
    pub(super) purged: Notify,
    /// The last refresh of all customers.
    coverage: Mutex<Option<Coverage>>,
    pub(super) purges: PurgeMarks,
    /// The number of the last change in the store that this process has taken over; `None`: not known.
    last_change: Mutex<Option<i64>>,
    /// The other processes that use the store.
    other_replicas: AtomicUsize,
    clock: SharedClock,
}

/// An accepted answer with usage of one customer.
#[derive(Clone, Debug)]
pub(super) struct AcceptedUsage {
    pub(super) usage: Arc<LicenseUsage>,
    pub(super) native: Option<Bytes>,
}

/// A snapshot that was accepted earlier.
#[derive(Clone)]
struct EarlierSnapshot {
    usage: Arc<LicenseUsage>,
    native: Option<Bytes>,
    fetched_at: Timestamp,
    confirmed_at: Timestamp,
    is_purged: bool,
}

/// A refresh of all customers, and the time until which its answers are fresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coverage {
    /// Answers that were confirmed at or after this time are covered.
    pub(super) since: Timestamp,
    /// The last check that confirmed them.
    pub(super) confirmed_at: Instant,
    pub(super) fresh_until: Instant,
}

/// A look-up for all requests that want the same at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LookUp {
    resource: Resource,
    /// An older answer is cached.
    is_cached: bool,
}

/// About the size of a rendered row.
pub(super) const ROW_BYTES: usize = 300;

// === impl EarlierSnapshot ===

impl From<StoredSnapshot> for EarlierSnapshot {
    fn from(stored: StoredSnapshot) -> Self {
        Self {
            usage: stored.usage,
            native: stored.native,
            fetched_at: stored.fetched_at,
            confirmed_at: stored.confirmed_at,
            is_purged: stored.is_purged,
        }
    }
}

// === impl SecondLevel ===

impl SecondLevel {
    pub(super) fn new(
        cache: Arc<UsageCache>,
        newest_api: UpstreamApi,
        durable: Option<DurableStore>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            cache,
            book: FleetBook::default(),
            durable,
            newest_api,
            look_ups: SingleFlight::new(shutdown),
            purged: Notify::new(),
            coverage: Mutex::default(),
            purges: PurgeMarks::default(),
            last_change: Mutex::default(),
            other_replicas: AtomicUsize::new(0),
            clock,
        }
    }

    /// Returns the durable store, if there is one.
    pub(super) fn durable(&self) -> Option<&DurableStore> {
        self.durable.as_ref()
    }

    /// Takes the answer for a customer's usage into the cache, if one was accepted earlier; once for
    /// all concurrent requests.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the look-up.
    pub(super) async fn load(self: &Arc<Self>, resource: Resource) {
        let is_usage = resource.customer().is_some() && resource.api().tells_usage();
        if !is_usage || (self.durable.is_none() && self.in_memory(resource).is_none()) {
            return;
        }
        let is_cached = false;
        // Without an answer, the request asks upstream.
        self.join_or_look_up(LookUp {
            resource,
            is_cached,
        })
        .await;
    }

    /// Takes the answer that another process accepted after the cached one, which is stale, into the
    /// cache, if there is one; once for all concurrent requests.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the look-up.
    pub(super) async fn load_newer(self: &Arc<Self>, resource: Resource) {
        let is_usage = resource.customer().is_some() && resource.api().tells_usage();
        if self.durable.is_none() || !is_usage {
            return;
        }
        let is_cached = true;
        self.join_or_look_up(LookUp {
            resource,
            is_cached,
        })
        .await;
    }

    /// Returns those of these answers that this process has cached or booked, or is about to.
    pub(super) fn known_of(&self, resources: &[Resource]) -> Vec<Resource> {
        let now = self.clock.now();
        let is_known = |resource: &Resource| {
            let record = resource.customer().and_then(|it| self.book.record_of(it));
            let has_rows = record.is_some_and(|record| record.usage.is_some());
            // It may have read the answer before.
            let is_read = self.look_ups.is_in_progress(&LookUp {
                resource: *resource,
                is_cached: false,
            });
            is_read
                || self.cache.look_up(*resource, now).is_some()
                || (self.is_booked(*resource) && has_rows)
        };
        resources.iter().copied().filter(is_known).collect()
    }

    /// Replaces an answer by the one that another process has stored. If that cannot be cached, the next
    /// request asks upstream.
    pub(super) async fn take_changed(&self, resource: Resource, stored: Option<StoredSnapshot>) {
        let snapshot = stored
            .map(EarlierSnapshot::from)
            .and_then(|snapshot| self.after_purges(snapshot, PurgeMark::may_be_missing));
        let Some(snapshot) = snapshot else {
            return self.outdate(resource);
        };
        let stored_at = self.instant_of(snapshot.confirmed_at);
        let is_newer = || {
            let now = self.clock.now();
            self.cache.is_newer_than_cached(resource, stored_at, now)
        };
        if snapshot.is_purged || !is_newer() {
            return;
        }
        if let Some(answer) = self.render(&snapshot).await
            && self.cache.take_over(resource, answer, self.clock.now())
        {
            self.book_newer(resource, &snapshot);
        } else if is_newer() {
            self.outdate(resource);
        }
    }

    async fn join_or_look_up(self: &Arc<Self>, look_up: LookUp) {
        let Ok(flight) = self.look_ups.join_or_lead(
            look_up,
            |()| (),
            || Ok::<_, Infallible>(()),
            |guard, ()| {
                let (level, resource) = (Arc::clone(self), look_up.resource);
                async move {
                    let snapshot = match look_up.is_cached {
                        false => level.earlier(resource).await,
                        true => level.newer(resource).await,
                    };
                    let Some(snapshot) = snapshot else {
                        return;
                    };
                    let Some(answer) = level.render(&snapshot).await else {
                        return;
                    };
                    let take = |answer| {
                        let now = level.clock.now();
                        if !look_up.is_cached {
                            drop(level.cache.restore(resource, answer, now));
                        } else if level.cache.take_over(resource, answer, now) {
                            level.book_newer(resource, &snapshot);
                        }
                    };
                    // After a purge in the meantime, it is not taken.
                    drop(guard.complete(answer, take));
                }
            },
        );
        // Without an outcome, the request asks upstream.
        let _aborted = flight.outcome().await;
    }

    /// Marks the cached answer stale, so that the next request asks again.
    fn outdate(&self, resource: Resource) {
        let scope = PurgeScope {
            customer_id: resource.customer(),
            processed_date: resource.date(),
        };
        self.cache.purge(scope, PurgeMode::Soft);
    }

    /// Returns what was accepted earlier.
    async fn earlier(&self, resource: Resource) -> Option<EarlierSnapshot> {
        match self.in_memory(resource) {
            Some(snapshot) => self.after_purges(snapshot, |_| true),
            None => self.in_store(resource).await,
        }
    }

    /// Returns what is stored, if it is newer than what is cached.
    async fn newer(&self, resource: Resource) -> Option<EarlierSnapshot> {
        let snapshot = self.in_store(resource).await?;
        let stored_at = self.instant_of(snapshot.confirmed_at);
        let is_newer =
            |cache: &UsageCache| cache.is_newer_than_cached(resource, stored_at, self.clock.now());
        (!snapshot.is_purged && is_newer(&self.cache)).then_some(snapshot)
    }

    /// Records rows of another process.
    fn book_newer(&self, resource: Resource, snapshot: &EarlierSnapshot) {
        if self.is_booked(resource) {
            let EarlierSnapshot {
                usage,
                fetched_at,
                confirmed_at,
                ..
            } = snapshot;
            self.book.take_over(usage, *fetched_at, *confirmed_at);
        }
    }

    async fn render(&self, snapshot: &EarlierSnapshot) -> Option<EarlierAnswer> {
        let EarlierSnapshot {
            usage,
            native,
            fetched_at,
            confirmed_at,
            is_purged,
        } = snapshot.clone();
        let bytes = usage.rows().len() * ROW_BYTES;
        let render = move || Rendered::new(&usage, native.as_deref(), fetched_at);
        let rendered = offload::run_cpu_bound(bytes, render).await.ok()?;
        let stored_at = self.instant_of(confirmed_at);
        Some(EarlierAnswer {
            rendered,
            stored_at,
            lifetime: self.covered_lifetime(confirmed_at, stored_at),
            is_purged,
        })
    }

    /// Renders rows that another process stored; `None` if a purge includes them.
    pub(super) async fn render_stored(&self, stored: &StoredSnapshot) -> Option<EarlierAnswer> {
        let snapshot = EarlierSnapshot::from(stored.clone());
        let snapshot = self.after_purges(snapshot, PurgeMark::may_be_missing)?;
        if snapshot.is_purged {
            return None;
        }
        self.render(&snapshot).await
    }

    /// Returns the instant of a time before now. A clock that was set back makes nothing younger than
    /// new.
    pub(super) fn instant_of(&self, time: Timestamp) -> Instant {
        let age = self.clock.wall_time().duration_since(time);
        let age = Duration::try_from(age).unwrap_or_default();
        let now = self.clock.now();
        now.checked_sub(age).unwrap_or(now)
    }

    /// Returns the newest rows of a customer, if they are those of this resource. They have no native
    /// body.
    fn in_memory(&self, resource: Resource) -> Option<EarlierSnapshot> {
        let customer = resource.customer()?;
        if resource.api() != UpstreamApi::Commercial || self.newest_api != UpstreamApi::Commercial {
            return None;
        }
        let record = self.book.record_of(customer);
        let record = record.filter(|record| !record.is_of_other_call)?;
        let usage = record.usage?;
        let is_asked_for = resource.date().is_none() || resource.date() == usage.processed_date();
        Some(EarlierSnapshot {
            usage,
            native: None,
            fetched_at: record.fetched_at?,
            confirmed_at: record.confirmed_at?,
            is_purged: record.is_purged,
        })
        .filter(|_| is_asked_for)
    }

    /// Returns what is stored, after the purges that the store may not know.
    async fn in_store(&self, resource: Resource) -> Option<EarlierSnapshot> {
        let durable = self.durable.as_ref()?;
        // The store itself reports its failures.
        let stored = durable.store.snapshot(resource).await.ok()??;
        self.after_purges(stored.into(), PurgeMark::may_be_missing)
    }

    /// Returns whether the book has the rows of this answer.
    fn is_booked(&self, resource: Resource) -> bool {
        resource.date().is_none() && resource.api() == self.newest_api
    }

    /// Applies those purges that count. Returns `None` if a hard one includes the snapshot.
    fn after_purges(
        &self,
        snapshot: EarlierSnapshot,
        counts: fn(&PurgeMark) -> bool,
    ) -> Option<EarlierSnapshot> {
        let customer = snapshot.usage.customer_id();
        let date = snapshot.usage.processed_date();
        let purge = self
            .purges
            .last_effect(customer, date, snapshot.confirmed_at, counts);
        if purge == Some(PurgeMode::Hard) {
            return None;
        }
        Some(EarlierSnapshot {
            is_purged: snapshot.is_purged || purge.is_some(),
            ..snapshot
        })
    }

    /// Sets the refresh that covers answers.
    pub(super) fn set_coverage(&self, covered: Coverage) {
        let mut coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        *coverage = Some(covered);
    }

    /// Returns the age and the freshness lifetime of the data of all customers, where a refresh covers
    /// them.
    pub(super) fn coverage(&self, now: Instant) -> Option<(Duration, Duration)> {
        let coverage = *self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let Coverage {
            confirmed_at,
            fresh_until,
            ..
        } = coverage?;
        Some((
            now.saturating_duration_since(confirmed_at),
            fresh_until.saturating_duration_since(confirmed_at),
        ))
    }

    /// Returns the freshness lifetime of an answer that the refresh of all customers covers.
    fn covered_lifetime(&self, confirmed_at: Timestamp, stored_at: Instant) -> Option<Duration> {
        let coverage = *self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        coverage
            .filter(|covered| confirmed_at >= covered.since)
            .map(|covered| covered.fresh_until.saturating_duration_since(stored_at))
    }

    /// Records an accepted answer for one customer.
    pub(super) fn record_usage(
        &self,
        resource: Resource,
        accepted: AcceptedUsage,
        lease: Option<&Lease>,
    ) {
        let fetched_at = self.clock.wall_time();
        let usage = &accepted.usage;
        if usage.rows().is_empty() && !self.book.accepts(usage.customer_id()) {
            // Anyone can ask for any id.
            return;
        }
        if self.is_booked(resource) {
            self.book.record(&accepted.usage, fetched_at);
        }
        self.write(StoreWrite::Snapshot(AcceptedSnapshot {
            api: resource.api(),
            usage: accepted.usage,
            native: accepted.native,
            asked_date: resource.date(),
            fetched_at,
            purge_generation: self.purges.generation(),
            lease: lease.cloned(),
            is_of_refresh: false,
        }));
    }

    /// Returns the effect of the purges that the store may not know on its rows that were confirmed then.
    pub(super) fn purge_of(
        &self,
        customer: CustomerId,
        date: Option<ProcessedDate>,
        confirmed_at: Timestamp,
    ) -> Option<PurgeMode> {
        self.purges
            .last_effect(customer, date, confirmed_at, PurgeMark::may_be_missing)
    }

    /// Records that upstream has nothing of a customer, or of one date of it.
    pub(super) fn record_absence(&self, resource: Resource, failure: SourceErrorKind) {
        match (failure.absence(), resource.customer(), resource.date()) {
            (Some(AbsenceKind::Customer), Some(customer), _) => {
                self.book.record_failure(customer, failure.as_str());
            }
            (Some(AbsenceKind::Date), customer, Some(date)) => {
                self.record_nothing_processed(customer, date);
            }
            _ => {}
        }
    }

    /// Records that upstream has nothing of a date, of one customer or of all, unless it may come yet.
    pub(super) fn record_nothing_processed(
        &self,
        customer: Option<CustomerId>,
        date: ProcessedDate,
    ) {
        let is_known = customer.is_none_or(|customer| self.book.accepts(customer));
        if is_known && self.book.is_past(date) {
            self.write(StoreWrite::NothingProcessed {
                customer,
                date,
                asked_at: self.clock.wall_time(),
                purge_generation: self.purges.generation(),
            });
        }
    }

    /// Records the list of customers.
    pub(super) fn record_customers(&self, rendered: &Arc<Rendered>, list: Option<CustomerList>) {
        self.book.set_customers(Arc::clone(rendered));
        if let Some(list) = list {
            self.write(StoreWrite::Customers(StoredCustomers {
                list: Arc::new(list),
                fetched_at: self.clock.wall_time(),
            }));
        }
    }

    /// Hands a change to the writer of the store, if there is one.
    pub(super) fn write(&self, change: StoreWrite) {
        if let Some(durable) = &self.durable {
            durable.writer.record(change);
        }
    }

    /// Records a purge. What was accepted before is not served any more as if nothing had happened.
    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode, by: PurgedBy) {
        self.purges.record(scope, mode, by, self.clock.wall_time());
        if mode == PurgeMode::Hard {
            self.book.purge(scope);
        }
        self.purged.notify_one();
        // A question for the newest date may be answered by any date.
        self.look_ups
            .detach(|look_up| scope.covers_customer(look_up.resource.customer()));
        if by == PurgedBy::ThisProcess {
            self.write(StoreWrite::Purge(scope, mode));
        }
    }

    pub(super) fn last_change(&self) -> Option<i64> {
        *self.lock_last_change()
    }

    pub(super) fn set_last_change(&self, number: Option<i64>) {
        *self.lock_last_change() = number;
    }

    fn lock_last_change(&self) -> MutexGuard<'_, Option<i64>> {
        self.last_change
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn other_replicas(&self) -> usize {
        self.other_replicas.load(Ordering::Relaxed)
    }

    pub(super) fn set_other_replicas(&self, count: usize) {
        self.other_replicas.store(count, Ordering::Relaxed);
    }

    /// Takes over what earlier processes stored: the newest rows of all customers, and their list.
    pub(super) async fn warm_start(&self) {
        let Some(durable) = &self.durable else {
            return;
        };
        let store = &durable.store;
        // A purge after this is applied to what is read below.
        self.purges
            .set_followed(match store.purges_after(None).await {
                Ok(purges) => Followed::UpTo(purges.generation),
                Err(_) => Followed::Unknown,
            });
        // A change after this is taken over from the store.
        let changes = store.changes_after(None).await;
        self.set_last_change(changes.ok().map(|changes| changes.number));
        self.load_customers().await;
        match store.newest_of_all().await {
            Ok(snapshots) => {
                for snapshot in &snapshots {
                    if let Some(date) = snapshot.usage.processed_date() {
                        let customer = snapshot.usage.customer_id();
                        self.cache.observe_known_date(customer, snapshot.api, date);
                    }
                    self.book.restore(snapshot, self.newest_api);
                }
                tracing::info!(customers = snapshots.len(), "stored snapshots were read");
            }
            Err(error) => tracing::warn!(%error, "stored snapshots cannot be read"),
        }
    }

    /// Takes the list of customers that another process stored after the cached one, or an earlier one.
    pub(super) async fn load_customers(&self) {
        let Some(durable) = &self.durable else {
            return;
        };
        let stored = match durable.store.customers().await {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the stored list of customers cannot be read");
                return;
            }
        };
        let list = CustomerList::clone(&stored.list);
        let answer = EarlierAnswer {
            rendered: Rendered::of_customers(list, stored.fetched_at),
            stored_at: self.instant_of(stored.fetched_at),
            lifetime: None,
            is_purged: false,
        };
        let now = self.clock.now();
        self.cache.take_over(Resource::Customers, answer, now);
        if let Some(cached) = self.cache.look_up(Resource::Customers, now) {
            self.book.set_customers(cached.rendered);
        }
    }
}
