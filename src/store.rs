//! The durable store of accepted snapshots: history, and a warm start.
//!
//! [`UsageStore`] is what an engine does. Nothing here assumes that only one process writes.

mod coordination;
pub mod copy;
mod customer_set;
mod guarded;
mod leases;
mod metrics;
mod native_body;
mod notifications;
mod pending;
pub mod postgres;
mod schema;
mod sql;
pub mod sqlite;
mod totals;
mod writer;

use std::{fmt, future::Future, num::NonZeroUsize, path::PathBuf, pin::Pin, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use prometheus::Registry;

#[cfg(test)]
pub(crate) use self::notifications::Notifier;
pub use self::{
    coordination::{
        Coordination, FleetRefresh, LEASE_RENEWAL, LEASE_TIME, Lease, LeaseAttempt, LeaseEnd,
        MAX_FAILURE_TIME, SealedTokens, SharedPause, StoredTokens, WantedLease, lease_name,
    },
    guarded::GuardedStore,
    leases::{HeldLease, LeaseTurn, Leases},
    metrics::{StoreHealth, StoreMetrics},
    notifications::{Notification, Notifications},
    writer::{StoreWriter, WriterConfig},
};
pub use crate::domain::DateRange;
use crate::{
    cache::{PurgeMode, PurgeScope},
    clock::SharedClock,
    config::{StoreConfig, StoreUrl},
    domain::{
        CustomerId, CustomerList, LicenseUsage, Portfolio, ProcessedDate, Resource, UpstreamApi,
    },
    shutdown::Shutdown,
};

/// A durable store of snapshots.
///
/// All methods may be called at the same time. A call that fails has changed nothing.
pub trait UsageStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the snapshot that answers for a customer's usage: the newest of its call, or that of a
    /// date, where the call that knows dates comes first. After a hard purge, nothing older is
    /// returned.
    ///
    /// It is on the path of a miss: it fails rather than wait for longer than a few milliseconds.
    fn snapshot(&self, resource: Resource) -> StoreFuture<'_, Option<StoredSnapshot>>;

    /// Returns the newest snapshot of every customer, of the preferred call where both have one,
    /// without native bodies.
    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>>;

    /// Returns what is stored of this date, of all customers together.
    fn all_of_date(&self, date: ProcessedDate) -> StoreFuture<'_, StoredFleetDate>;

    /// Returns the list of customers, if one was stored.
    fn customers(&self) -> StoreFuture<'_, Option<StoredCustomers>>;

    /// Writes all changes in one transaction, in their order.
    fn write(&self, changes: Vec<StoreWrite>) -> StoreFuture<'_, ()>;

    /// Returns the dates of a customer in this range, oldest first, that have rows.
    fn dates(&self, customer: CustomerId, range: DateRange) -> StoreFuture<'_, Vec<StoredDate>>;

    /// Returns rows of a customer's history in the order of [`HistoryPosition`], after a position.
    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<HistoryRow>>;

    /// Returns the totals of each date, oldest first.
    fn fleet_history(&self, query: FleetHistoryQuery) -> StoreFuture<'_, Vec<FleetDateTotals>>;

    /// Returns the totals of each customer's last dates. Customers without any are left out.
    fn recent_totals(&self, query: RecentTotalsQuery) -> StoreFuture<'_, Vec<CustomerTotals>>;

    /// Returns the dates in this range that are stored or for which upstream was asked: for this
    /// customer, or for all customers together.
    fn asked_dates(
        &self,
        customer: Option<CustomerId>,
        range: DateRange,
    ) -> StoreFuture<'_, Vec<ProcessedDate>>;

    /// Returns the purges after a generation, oldest first. `None` is the generation of now.
    ///
    /// It fails within a second.
    fn purges_after(&self, generation: Option<i64>) -> StoreFuture<'_, LaterPurges>;

    /// Returns the next changes by other processes after one that is known by its number. With `None`,
    /// returns only the number of the last change.
    ///
    /// It fails within a second.
    fn changes_after(&self, number: Option<i64>) -> StoreFuture<'_, LaterChanges>;

    /// Returns snapshots, in the order of the resources; `None` where there is none, or one that cannot be
    /// read. No request waits for them.
    fn changed_snapshots(
        &self,
        resources: Vec<Resource>,
    ) -> StoreFuture<'_, Vec<Option<StoredSnapshot>>>;

    /// Records that this process has applied all purges up to a generation. Returns the generations that
    /// all others have applied that did so in the last 10 s; none from an engine that is no server.
    fn report_applied(&self, generation: i64) -> StoreFuture<'_, Vec<i64>>;

    /// Deletes at most `limit` snapshots of old dates, and returns their number.
    fn delete_old(&self, old: OldDates, limit: NonZeroUsize) -> StoreFuture<'_, usize>;

    /// Reads anything, and connects again where the connection is lost.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// Does a part of the work that no caller waits for, such as computing totals again; a short one.
    fn maintain(&self) -> StoreFuture<'_, Upkeep>;

    /// The coordination of the processes that share the store; `None` where each works by itself.
    fn coordination(&self) -> Option<&dyn Coordination> {
        None
    }

    /// Returns what other processes do from now on; nothing where each works by itself.
    fn notifications(&self) -> Notifications {
        self.coordination()
            .map_or_else(Notifications::default, Coordination::notifications)
    }

    /// Closes all connections. A later call opens them again.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// The look-ups that a store works on at the same time, so that a slow one does not hold up all others.
const LOOK_UPS_AT_ONCE: usize = 4;

/// The other reads that a store works on at the same time.
const QUERIES_AT_ONCE: usize = 2;

/// The future of a store's method.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store of a process, with its writer.
#[derive(Clone, Debug)]
pub struct DurableStore {
    /// Answers reads, each in bounded time.
    pub store: Arc<dyn UsageStore>,
    /// Writes behind the answers.
    pub writer: StoreWriter,
    /// The health of the store, for operators.
    pub health: StoreHealth,
}

/// The dependencies of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreDeps<'a> {
    /// The time.
    pub clock: &'a SharedClock,
    /// Ends the tasks.
    pub shutdown: &'a Shutdown,
    /// Takes the metrics.
    pub registry: &'a Registry,
    /// The call that counts where both have rows of a customer and date.
    pub preferred: UpstreamApi,
}

/// A change to write.
#[derive(Clone, Debug)]
pub enum StoreWrite {
    /// An accepted answer. The same rows again only confirm what is stored; other rows become a
    /// revision.
    Snapshot(AcceptedSnapshot),
    /// Upstream was asked for a date of a customer, or of all customers together, and has nothing.
    NothingProcessed {
        /// `None`: a call for all customers.
        customer: Option<CustomerId>,
        /// The date.
        date: ProcessedDate,
        /// The time of the answer.
        asked_at: Timestamp,
        /// As in [`AcceptedSnapshot`].
        purge_generation: Option<i64>,
    },
    /// A check found no newer date, so all newest snapshots of this call that were fetched or
    /// confirmed since the last refresh of the fleet are confirmed.
    FleetConfirmed {
        /// The call.
        api: UpstreamApi,
        /// The time of the last refresh of the fleet.
        refreshed_at: Timestamp,
        /// The time of the check.
        confirmed_at: Timestamp,
    },
    /// All rows of all customers of a date were fetched by one call, whether they changed or not.
    FleetFetched {
        /// The date.
        date: ProcessedDate,
        /// The time of the answer.
        asked_at: Timestamp,
        /// As in [`AcceptedSnapshot`].
        purge_generation: Option<i64>,
    },
    /// The list of customers.
    Customers(StoredCustomers),
    /// A purge. It deletes no history.
    Purge(PurgeScope, PurgeMode),
    /// A soft purge of everything, because the store has lost purges, unless another process has made one
    /// after this generation.
    LostPurges {
        /// The last generation that this process had applied.
        applied: i64,
    },
}

/// An accepted answer for one customer.
#[derive(Clone, Debug)]
pub struct AcceptedSnapshot {
    /// The call that returned it.
    pub api: UpstreamApi,
    /// The rows; none at all is an answer too.
    pub usage: Arc<LicenseUsage>,
    /// The body, where clients know its form.
    pub native: Option<Bytes>,
    /// The date that was asked for; `None`: the newest.
    pub asked_date: Option<ProcessedDate>,
    /// The arrival of the answer.
    pub fetched_at: Timestamp,
    /// The last purge that this process had applied then: the answer may be older than a later one of
    /// another process. `None`: it is older than none.
    pub purge_generation: Option<i64>,
    /// The lease that the call was made under: once that is lost, the answer is too late, and is not
    /// stored.
    pub lease: Option<Lease>,
    /// True if a refresh of all customers brought it: other processes on a server learn of that as a whole.
    pub is_of_refresh: bool,
}

/// A snapshot as it is stored.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    /// The call that returned it.
    pub api: UpstreamApi,
    /// The rows, with the customer's name.
    pub usage: Arc<LicenseUsage>,
    /// The body; `None` where the call has no native form or bodies were not asked for.
    pub native: Option<Bytes>,
    /// 1 for the first content of this date, and one more for each correction.
    pub revision: u32,
    /// The arrival of this content.
    pub fetched_at: Timestamp,
    /// The last time when upstream sent the same, or a check confirmed it.
    pub confirmed_at: Timestamp,
    /// True after a soft purge: it may be served, but upstream must be asked.
    pub is_purged: bool,
}

/// The stored snapshots of a date, of all customers together.
#[derive(Clone, Debug)]
pub struct StoredFleetDate {
    /// One of each customer that has rows of the date, without native bodies.
    pub snapshots: Vec<StoredSnapshot>,
    /// The last time when one call asked for the date of all customers.
    pub asked_at: Option<Timestamp>,
}

/// The purges after a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaterPurges {
    /// The generation of the last purge of all: greater with each.
    pub generation: i64,
    /// True if the store went back in time: it has lost a purge that this process has applied or made.
    pub went_back: bool,
    /// The purges, oldest first. One that a later one of the same process includes is left out.
    pub purges: Vec<StoredPurge>,
}

/// A purge as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPurge {
    /// The data that it includes.
    pub scope: PurgeScope,
    /// Its effect.
    pub mode: PurgeMode,
    /// True if this process has written it.
    pub is_own: bool,
}

/// Changes of stored usage that other processes made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaterChanges {
    /// The number of the last change that this answer covers; greater with each change. It is smaller than the
    /// known one after a fail-over that lost changes, and the usage with them.
    pub number: i64,
    /// More changes follow.
    pub has_more: bool,
    /// Changes are missing: they were deleted before this process read them.
    pub is_cut: bool,
    /// The answers that may be cached as they were before: of a customer whose newest date is another one,
    /// or of a date that was corrected.
    pub resources: Vec<Resource>,
}

/// The stored list of customers.
#[derive(Clone, Debug)]
pub struct StoredCustomers {
    /// The customers.
    pub list: Arc<CustomerList>,
    /// The time when it arrived.
    pub fetched_at: Timestamp,
}

/// A stored date of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredDate {
    /// The date.
    pub date: ProcessedDate,
    /// The arrival of the current content.
    pub fetched_at: Timestamp,
    /// The last time when upstream sent the same.
    pub confirmed_at: Timestamp,
    /// The number of corrections: revisions after the first.
    pub corrections: u32,
}

/// A request for rows of a customer's history.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// The customer.
    pub customer: CustomerId,
    /// The dates.
    pub range: DateRange,
    /// Microsoft's names and ids of products; empty: all products. Letter case does not count.
    pub products: Vec<String>,
    /// Microsoft's name or code of a workload; letter case does not count.
    pub workload: Option<String>,
    /// Only rows after this position.
    pub after: Option<HistoryPosition>,
    /// The most rows.
    pub limit: NonZeroUsize,
}

/// The order of history: by date, then by names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPosition {
    /// The processed date.
    pub date: ProcessedDate,
    /// A number of the store for product and workload, stable over time.
    pub row: (i64, i64),
}

/// One row of a customer's history.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// Its place in the order.
    pub position: HistoryPosition,
    /// The product.
    pub product_name: Arc<str>,
    /// GUID of the product, where upstream sent one.
    pub product_id: Option<Arc<str>>,
    /// The service.
    pub service_name: Arc<str>,
    /// The sales channel.
    pub channel: Option<Arc<str>>,
    /// The workload.
    pub workload_name: Arc<str>,
    /// Seats that were used.
    pub licenses_active: u64,
    /// Seats that could have been used.
    pub licenses_qualified: u64,
}

/// A request for the totals of the fleet on each date.
#[derive(Clone, Debug)]
pub struct FleetHistoryQuery {
    /// The dates.
    pub range: DateRange,
    /// The customers that count; `None`: all. Whoever may not read all customers has a list here.
    pub customers: Option<Vec<CustomerId>>,
    /// The products that count.
    pub products: ProductFilter,
    /// True to count only those customers that have every date of the range.
    pub constant_cohort: bool,
}

/// A request for the totals of customers on their last dates.
#[derive(Clone, Debug)]
pub struct RecentTotalsQuery {
    /// The customers.
    pub customers: Vec<CustomerId>,
    /// The last date that counts.
    pub until: ProcessedDate,
    /// The most dates of a customer.
    pub dates: NonZeroUsize,
    /// The products that count.
    pub products: ProductFilter,
}

/// The totals of a customer on its last dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerTotals {
    /// The customer.
    pub customer: CustomerId,
    /// The totals of each date, oldest first. A date without a product that counts is left out.
    pub totals: Vec<FleetDateTotals>,
}

/// The products that count in a total; letter case does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductFilter {
    /// Microsoft's names and ids; empty: all products.
    pub products: Vec<String>,
    /// Microsoft's names and codes of services; empty: all.
    pub services: Vec<String>,
    /// Sales channels; empty: all.
    pub channels: Vec<String>,
    /// Names and ids of products that count nowhere.
    pub excluded: Vec<String>,
    /// Ids of products that count although their name is excluded.
    pub kept_ids: Vec<String>,
}

/// The totals of the fleet on a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetDateTotals {
    /// The date.
    pub date: ProcessedDate,
    /// The customers that have rows of this date and count.
    pub customers: u64,
    /// The sum over customers and products of the seats of the product.
    pub licenses_qualified: u64,
    /// The sum of the active seats in each product's busiest workload.
    pub licenses_active: u64,
    /// The sum of the seats that are used in no workload.
    pub licenses_unused: u64,
}

/// The dates that are kept no longer. Both conditions must hold: a clock that was set forward deletes
/// nothing that would be kept beside the newest stored date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldDates {
    /// They are before this date.
    pub before: ProcessedDate,
    /// They are more days than this before the newest stored date.
    pub days_before_newest: i64,
}

/// The result of a part of a store's upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// The bytes that the store takes.
    pub stored_bytes: u64,
    /// True if nothing is left to do for now.
    pub is_done: bool,
}

/// The store failed. Answers do not depend on it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer in time, or is not asked because it failed a moment ago.
    #[error("the store does not answer in time")]
    Unavailable,
    /// It cannot be opened or reached.
    #[error("the store cannot be opened: {0}")]
    NotOpen(String),
    /// The database reports an error.
    #[error("the store failed: {0}")]
    Failed(String),
    /// This change can never be stored; another attempt fails too.
    #[error("a change cannot be stored: {0}")]
    Unstorable(&'static str),
    /// A call panicked.
    #[error("a call to the store panicked; the log has the place")]
    Panicked,
}

/// The store must not be used as it is configured, so the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StoreStartError {
    /// A newer release of the program has written it.
    #[error(
        "store.url: {store} has schema version {found}, and this program knows versions up to {known}: \
         use the newer release that wrote it"
    )]
    NewerSchema {
        /// The file or database.
        store: String,
        /// Its version.
        found: i64,
        /// The newest known version.
        known: i64,
    },
    /// The file would be damaged.
    #[error(
        "store.url: {} is on a network file system ({name}), where SQLite's write-ahead log cannot \
         work and the file would be damaged: use a local disk",
        path.display()
    )]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The file system.
        name: &'static str,
    },
    /// The file is an SQLite database with other tables.
    #[error("store.url: {} is a database of another program", .0.display())]
    OtherProgram(PathBuf),
    /// Two components have a metric of the same name.
    #[error("cannot register the metrics of the store")]
    Metrics(#[from] prometheus::Error),
}

/// Opens the store of the configuration; `None` if there is none.
///
/// A store that cannot be opened now is opened as soon as that works.
///
/// # Errors
///
/// [`StoreStartError`] if it must not be used.
pub async fn open(
    config: &StoreConfig,
    deps: StoreDeps<'_>,
) -> Result<Option<DurableStore>, StoreStartError> {
    let clock = || Arc::clone(deps.clock);
    let engine = match (&config.url, config.postgres()) {
        (_, Some(database)) => {
            let shutdown = deps.shutdown.clone();
            postgres::open(database, deps.preferred, clock(), shutdown).await?
        }
        (Some(StoreUrl::Sqlite(path)), None) => {
            sqlite::open(path.clone(), deps.preferred, clock()).await?
        }
        (_, None) => return Ok(None),
    };
    let metrics = StoreMetrics::new(deps.registry)?;
    let store = GuardedStore::new(engine, clock(), deps.shutdown.clone(), metrics.clone());
    // A failure opens the breaker, which tries again in the background.
    let _is_open = store.probe().await.is_ok();
    let health = store.health();
    let store: Arc<dyn UsageStore> = Arc::new(store);
    let config = WriterConfig {
        flush_within: config.flush_within,
        keep: config.keep,
    };
    let writer = StoreWriter::start(Arc::clone(&store), config, clock(), metrics, deps.shutdown);
    Ok(Some(DurableStore {
        store,
        writer,
        health,
    }))
}

// === impl ProductFilter ===

impl ProductFilter {
    /// All products but those that count in no fleet number.
    pub fn without_excluded(portfolio: &Portfolio) -> Self {
        Self {
            excluded: portfolio.excluded_products().map(str::to_owned).collect(),
            kept_ids: portfolio.kept_ids().map(str::to_owned).collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
