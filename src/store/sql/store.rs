//! A store on an SQL engine: threads with connections, and what each question asks of them.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{apply::Changes, error::SqlResult, history, lane::Lane, read::Queries, totals};
use crate::{
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    store::{
        Coordination, CustomerTotals, DateRange, FleetDateTotals, FleetHistoryQuery, HistoryQuery,
        HistoryRow, LaterChanges, LaterPurges, Notification, OldDates, RecentTotalsQuery,
        StoreError, StoreFuture, StoreStartError, StoreWrite, StoredCustomers, StoredDate,
        StoredFleetDate, StoredSnapshot, Upkeep, UsageStore, schema::source_number,
    },
};

/// An engine, as all its threads see it together.
pub(in crate::store) trait SqlEngine:
    fmt::Debug + fmt::Display + Send + Sync + 'static
{
    type Reader: SqlReader;
    type Writer: SqlWriter;

    /// Returns whether readers can open connections: the writer has opened the store.
    fn is_open(&self) -> bool;

    /// A random number that stands for this process.
    fn origin(&self) -> i64 {
        rand::random()
    }

    /// The coordination of replicas; `None` for an engine that is no server.
    fn coordination(&self) -> Option<&dyn Coordination> {
        None
    }
}

/// Reads on a connection of its own.
pub(in crate::store) trait SqlReader: Send + 'static {
    /// Connects, if a request must not wait for that.
    fn connect(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Runs a query that sees one state of the data. It runs again if the engine asks for that.
    fn read<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError>;

    fn close(&mut self);
}

/// Opens, migrates and writes the store: the one connection of this process that does.
pub(in crate::store) trait SqlWriter: Send + 'static {
    /// Opens the store if it is not open.
    ///
    /// # Errors
    ///
    /// [`StoreStartError`] for a store that must not be used.
    fn open(&mut self) -> Result<Result<(), StoreError>, StoreStartError>;

    /// Does work in one transaction. It runs again if the engine asks for that.
    fn write<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError>;

    /// Returns the bytes that the store takes.
    fn stored_bytes(&mut self) -> Result<u64, StoreError>;

    fn close(&mut self);
}

/// A store on an engine.
pub(in crate::store) struct SqlStore<E: SqlEngine> {
    engine: Arc<E>,
    preferred: UpstreamApi,
    /// For reads on the path of a request, which are short.
    look_ups: Lane<E::Reader>,
    /// For reads that can take long.
    queries: Lane<E::Reader>,
    writer: Lane<E::Writer>,
    waiting_writes: Arc<Mutex<Vec<WaitingWrite>>>,
    /// A random number that stands for this process.
    origin: i64,
    /// The generation of the last report: waiting processes report again and again, and must not wake
    /// each other by that.
    reported: AtomicI64,
    /// The generation of the last purge that this process made; 0: none.
    last_purge: Arc<AtomicI64>,
}

/// Changes that wait for the writer, to be written together with others.
struct WaitingWrite {
    changes: Vec<StoreWrite>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

// === impl SqlStore ===

impl<E: SqlEngine> SqlStore<E> {
    /// Starts the threads and opens the store. One that cannot be opened now is opened later.
    ///
    /// # Errors
    ///
    /// [`StoreStartError`] if it must not be used.
    pub(in crate::store) async fn open(
        engine: Arc<E>,
        preferred: UpstreamApi,
        look_ups: impl IntoIterator<Item = E::Reader>,
        queries: impl IntoIterator<Item = E::Reader>,
        writer: E::Writer,
    ) -> Result<Self, StoreStartError> {
        let origin = engine.origin();
        let store = Self {
            engine,
            preferred,
            look_ups: Lane::start("store-look-up", look_ups),
            queries: Lane::start("store-query", queries),
            writer: Lane::start("store-writer", [writer]),
            waiting_writes: Arc::default(),
            origin,
            reported: AtomicI64::new(-1),
            last_purge: Arc::default(),
        };
        let (sender, opened) = oneshot::channel();
        store.writer.send(|writer| {
            let _gone = sender.send(writer.open()).is_err();
        });
        match opened.await {
            Ok(Err(refused)) => return Err(refused),
            Ok(Ok(Err(error))) => tracing::error!(
                store = %store.engine,
                %error,
                "the store cannot be opened; it is retried, and nothing is stored until then"
            ),
            Ok(Ok(Ok(()))) | Err(_) => {}
        }
        Ok(store)
    }

    fn query<T: Send + 'static>(
        &self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(self.queries.run(move |reader| reader.read(query)))
    }

    fn preferred_number(&self) -> i64 {
        source_number(self.preferred).unwrap_or_default()
    }
}

impl<E: SqlEngine> UsageStore for SqlStore<E> {
    fn snapshot(&self, resource: Resource) -> StoreFuture<'_, Option<StoredSnapshot>> {
        let look_up = move |reader: &mut E::Reader| reader.read(|open| open.snapshot(resource));
        Box::pin(self.look_ups.run(look_up))
    }

    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>> {
        let preferred = self.preferred;
        self.query(move |open| open.newest_of_all(preferred))
    }

    fn all_of_date(&self, date: ProcessedDate) -> StoreFuture<'_, StoredFleetDate> {
        let preferred = self.preferred;
        self.query(move |open| open.all_of_date(date, preferred))
    }

    fn customers(&self) -> StoreFuture<'_, Option<StoredCustomers>> {
        self.query(|open| open.customers())
    }

    fn write(&self, changes: Vec<StoreWrite>) -> StoreFuture<'_, ()> {
        let (done, written) = oneshot::channel();
        self.waiting_writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(WaitingWrite { changes, done });
        let (waiting, origin) = (Arc::clone(&self.waiting_writes), self.origin);
        let last_purge = Arc::clone(&self.last_purge);
        self.writer
            .send(move |writer| write_waiting(writer, &waiting, origin, &last_purge));
        Box::pin(async move { written.await.unwrap_or(Err(StoreError::Panicked)) })
    }

    fn dates(&self, customer: CustomerId, range: DateRange) -> StoreFuture<'_, Vec<StoredDate>> {
        let preferred = self.preferred_number();
        self.query(move |open| open.dates(customer, range, preferred))
    }

    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<HistoryRow>> {
        let preferred = self.preferred_number();
        self.query(move |open| open.history(&query, preferred))
    }

    fn fleet_history(&self, query: FleetHistoryQuery) -> StoreFuture<'_, Vec<FleetDateTotals>> {
        let preferred = self.preferred_number();
        self.query(move |open| open.fleet_history(&query, preferred))
    }

    fn recent_totals(&self, query: RecentTotalsQuery) -> StoreFuture<'_, Vec<CustomerTotals>> {
        let preferred = self.preferred_number();
        self.query(move |open| open.recent_totals(&query, preferred))
    }

    fn asked_dates(
        &self,
        customer: Option<CustomerId>,
        range: DateRange,
    ) -> StoreFuture<'_, Vec<ProcessedDate>> {
        self.query(move |open| open.asked_dates(customer, range))
    }

    fn purges_after(&self, generation: Option<i64>) -> StoreFuture<'_, LaterPurges> {
        let origin = self.origin;
        let last_own = self.last_purge.load(Ordering::Relaxed);
        let known_own = generation.and(Some(last_own)).filter(|own| *own != 0);
        let read = move |reader: &mut E::Reader| {
            reader.read(|open| open.purges_after(generation, known_own, origin))
        };
        Box::pin(async move {
            let later = self.look_ups.run(read).await?;
            if later.went_back {
                // It says so once. A purge that was made meanwhile stays.
                let (relaxed, last) = (Ordering::Relaxed, &self.last_purge);
                let _is_same = last.compare_exchange(last_own, 0, relaxed, relaxed).is_ok();
            }
            Ok(later)
        })
    }

    fn changes_after(&self, number: Option<i64>) -> StoreFuture<'_, LaterChanges> {
        let origin = self.origin;
        let read =
            move |reader: &mut E::Reader| reader.read(|open| open.changes_after(number, origin));
        Box::pin(self.look_ups.run(read))
    }

    fn changed_snapshots(
        &self,
        resources: Vec<Resource>,
    ) -> StoreFuture<'_, Vec<Option<StoredSnapshot>>> {
        self.query(move |open| open.snapshots(&resources))
    }

    fn report_applied(&self, generation: i64) -> StoreFuture<'_, Vec<i64>> {
        if self.engine.coordination().is_none() {
            return Box::pin(async { Ok(Vec::new()) });
        }
        let origin = self.origin;
        let is_news = self.reported.swap(generation, Ordering::Relaxed) != generation;
        let report = move |writer: &mut E::Writer| {
            writer.write(|changes| {
                if is_news {
                    changes.connection.notify(Notification::PurgesApplied);
                }
                changes.report_applied(origin, generation)
            })
        };
        Box::pin(self.writer.run(report))
    }

    fn delete_old(&self, old: OldDates, limit: NonZeroUsize) -> StoreFuture<'_, usize> {
        let delete = move |writer: &mut E::Writer| {
            writer.write(|changes| history::delete_old(changes.connection, old, limit))
        };
        Box::pin(self.writer.run(delete))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            if !self.engine.is_open() {
                let open = |writer: &mut E::Writer| match writer.open() {
                    Ok(opened) => opened,
                    Err(refused) => Err(StoreError::NotOpen(refused.to_string())),
                };
                self.writer.run(open).await?;
            }
            if let Some(coordination) = self.engine.coordination() {
                coordination.connect().await?;
            }
            self.look_ups
                .run_on_each(|reader| {
                    // Each connection has texts of its own. The read below reports what is wrong.
                    let _connected = reader.connect().is_ok();
                    let _read = reader.read(|open| open.read_texts()).is_ok();
                })
                .await;
            self.look_ups
                .run(|reader| reader.read(|open| open.read_texts()))
                .await
        })
    }

    fn coordination(&self) -> Option<&dyn Coordination> {
        self.engine.coordination()
    }

    fn maintain(&self) -> StoreFuture<'_, Upkeep> {
        let maintain = |writer: &mut E::Writer| {
            let is_done = writer.write(|changes| {
                totals::compute_outdated(changes.connection, changes.dictionaries)
            })?;
            Ok(Upkeep {
                stored_bytes: writer.stored_bytes()?,
                is_done,
            })
        };
        Box::pin(self.writer.run(maintain))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.look_ups.run_on_each(E::Reader::close).await;
            self.queries.run_on_each(E::Reader::close).await;
            // The last connection of SQLite writes the log into the file and deletes it.
            let close = |writer: &mut E::Writer| {
                writer.close();
                Ok(())
            };
            self.writer.run(close).await
        })
    }
}

impl<E: SqlEngine> fmt::Debug for SqlStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Writes all that waits in one transaction: what came while one was committed goes into the next.
fn write_waiting(
    writer: &mut impl SqlWriter,
    waiting: &Mutex<Vec<WaitingWrite>>,
    origin: i64,
    last_purge: &AtomicI64,
) {
    let waiting = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
    if waiting.is_empty() {
        return;
    }
    let (groups, senders): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .map(|write| (write.changes, write.done))
        .unzip();
    let written = writer.write(|changes| {
        let results = changes.apply_groups(&groups, origin)?;
        Ok((results, changes.last_purge))
    });
    let results = match written {
        Ok((results, purge)) => {
            if let Some(purge) = purge {
                last_purge.store(purge, Ordering::Relaxed);
            }
            results
        }
        Err(error) => groups.iter().map(|_| Err(error.clone())).collect(),
    };
    for (done, result) in senders.into_iter().zip(results) {
        let _gone = done.send(result).is_err();
    }
}
