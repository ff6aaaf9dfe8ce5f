//! The store as an SQLite file, for one process, or two while one replaces the other.
//!
//! One thread writes, others read, each on a connection of its own; the log of SQLite (WAL) lets them not
//! wait for each other. Plain threads, since SQLite blocks.

pub(super) mod connection;
mod file;
mod migrations;
mod network_file_system;
mod reader;
mod writer;

use std::{
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use self::{file::StoreFile, reader::Reader, writer::SqliteWriter};
use super::{
    CustomerTotals, DateRange, FleetDateTotals, FleetHistoryQuery, HistoryQuery, HistoryRow,
    RecentTotalsQuery, StoreError, StoreFuture, StoreStartError, StoreWrite, StoredCustomers,
    StoredDate, StoredSnapshot, Upkeep, UsageStore,
    schema::source_number,
    sql::{error::SqliteResult, lane::Lane, read::ReadConnection},
};
use crate::{
    clock::SharedClock,
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
};

/// A store in an SQLite file.
pub struct SqliteStore {
    file: Arc<StoreFile>,
    preferred: UpstreamApi,
    /// For reads on the path of a request, which are short.
    look_ups: Lane<Reader>,
    /// For reads that can take long.
    queries: Lane<Reader>,
    writer: Lane<SqliteWriter>,
    waiting_writes: Arc<Mutex<Vec<WaitingWrite>>>,
}

/// Changes that wait for the writer, to be written together with others.
struct WaitingWrite {
    changes: Vec<StoreWrite>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// A query that takes seconds does not hold up all others.
const QUERY_THREADS: usize = 2;

// === impl SqliteStore ===

impl SqliteStore {
    /// Opens the file, and creates it if there is none. A file that cannot be opened now is opened
    /// later.
    ///
    /// # Errors
    ///
    /// [`StoreStartError`] if it must not be used.
    pub async fn open(
        path: PathBuf,
        preferred: UpstreamApi,
        clock: SharedClock,
    ) -> Result<Self, StoreStartError> {
        let file = Arc::new(StoreFile::new(path));
        let readers = |count| (0..count).map(|_| Reader::new(Arc::clone(&file)));
        let preferred_number = source_number(preferred).unwrap_or_default();
        let writer = SqliteWriter::new(Arc::clone(&file), preferred_number, clock);
        let store = Self {
            preferred,
            look_ups: Lane::start("store-look-up", readers(1)),
            queries: Lane::start("store-query", readers(QUERY_THREADS)),
            writer: Lane::start("store-writer", [writer]),
            waiting_writes: Arc::default(),
            file,
        };
        let (sender, opened) = oneshot::channel();
        store.writer.send(|writer| {
            let _gone = sender.send(writer.open()).is_err();
        });
        match opened.await {
            Ok(Err(refused)) => return Err(refused),
            Ok(Ok(Err(error))) => tracing::error!(
                file = %store.file.path().display(),
                %error,
                "the store cannot be opened; it is tried again and again, and nothing is kept until then"
            ),
            Ok(Ok(Ok(()))) | Err(_) => {}
        }
        Ok(store)
    }

    fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut ReadConnection) -> SqliteResult<T> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(self.queries.run(move |reader| reader.read(query)))
    }

    fn preferred_number(&self) -> i64 {
        source_number(self.preferred).unwrap_or_default()
    }
}

impl UsageStore for SqliteStore {
    fn snapshot(&self, resource: Resource) -> StoreFuture<'_, Option<StoredSnapshot>> {
        let look_up = move |reader: &mut Reader| reader.read(|open| open.snapshot(resource));
        Box::pin(self.look_ups.run(look_up))
    }

    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>> {
        let preferred = self.preferred;
        self.query(move |open| open.newest_of_all(preferred))
    }

    fn all_of_date(&self, date: ProcessedDate) -> StoreFuture<'_, Vec<StoredSnapshot>> {
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
        let waiting = Arc::clone(&self.waiting_writes);
        self.writer
            .send(move |writer| write_waiting(writer, &waiting));
        Box::pin(async move { written.await.unwrap_or(Err(StoreError::Unavailable)) })
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

    fn delete_before(&self, date: ProcessedDate, limit: NonZeroUsize) -> StoreFuture<'_, usize> {
        let delete = move |writer: &mut SqliteWriter| writer.delete_before(date, limit);
        Box::pin(self.writer.run(delete))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            if self.file.current().is_err() {
                let open = |writer: &mut SqliteWriter| match writer.open() {
                    Ok(opened) => opened,
                    Err(refused) => Err(StoreError::NotOpen(refused.to_string())),
                };
                self.writer.run(open).await?;
            }
            self.look_ups
                .run(|reader| reader.read(ReadConnection::read_texts))
                .await
        })
    }

    fn maintain(&self) -> StoreFuture<'_, Upkeep> {
        Box::pin(self.writer.run(SqliteWriter::maintain))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.look_ups.run_on_each(Reader::close).await;
            self.queries.run_on_each(Reader::close).await;
            // The last connection writes the log into the file and deletes it.
            let close = |writer: &mut SqliteWriter| {
                writer.close();
                Ok(())
            };
            self.writer.run(close).await
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Writes all that waits in one transaction: what came while one was committed goes into the next.
fn write_waiting(writer: &mut SqliteWriter, waiting: &Mutex<Vec<WaitingWrite>>) {
    let waiting = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
    if waiting.is_empty() {
        return;
    }
    let (groups, senders): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .map(|write| (write.changes, write.done))
        .unzip();
    let results = match writer.write(&groups) {
        Ok(results) => results,
        Err(error) => groups.iter().map(|_| Err(error.clone())).collect(),
    };
    for (done, result) in senders.into_iter().zip(results) {
        let _gone = done.send(result).is_err();
    }
}
