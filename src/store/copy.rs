//! Copies of a whole store, such as from SQLite to PostgreSQL, while both may be in use.
//!
//! A copy goes through the customers, and compares for each what both stores have. It reads each part in a
//! transaction of its own, and writes some parts together in another one. So a copy that was stopped
//! continues where it ended, and a second one only adds what came since.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use tokio::sync::oneshot;

use super::{
    StoreError, StoreStartError, postgres,
    sql::{
        self,
        apply::Changes,
        connection::values,
        copy::{CopyCounts, CopyPart, CopyStart},
        error::SqlResult,
        read::Queries,
        store::{SqlReader, SqlWriter},
    },
    sqlite::{self, OpenError, StoreFault},
};
use crate::{clock::SharedClock, config::PostgresConfig, domain::CustomerId, text::error_chain};

/// The place of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PostgresConfig>),
}

/// The two stores of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySide {
    /// The store that is read.
    Source,
    /// The store that is written.
    Target,
}

/// A copy failed. What was copied before stays.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A store must not be used, or cannot be what is copied.
    #[error("{problem}")]
    Refused {
        /// The store.
        side: CopySide,
        /// The problem.
        problem: String,
    },
    /// A store cannot be reached, read or written.
    #[error("{problem}")]
    Failed {
        /// The store.
        side: CopySide,
        /// The problem.
        problem: String,
    },
    /// Both stores are the same.
    #[error("both are the same store")]
    SameStore,
    /// [`CopyProgress::stop`] was called.
    #[error("the copy was stopped")]
    Stopped,
}

/// Counts what a copy has done so far, and stops it.
#[derive(Debug, Default)]
pub struct CopyProgress {
    is_stopped: AtomicBool,
    customers: AtomicU64,
    total: AtomicU64,
    snapshots: AtomicU64,
    unchanged: AtomicU64,
    superseded: AtomicU64,
    rows: AtomicU64,
    bodies: AtomicU64,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Customers that were looked at.
    pub customers: u64,
    /// Snapshots of the source as it began.
    pub total: u64,
    /// Snapshots that were written.
    pub snapshots: u64,
    /// Snapshots that the target had.
    pub unchanged: u64,
    /// Earlier revisions that were written.
    pub superseded: u64,
    /// Rows that were written, of all revisions.
    pub rows: u64,
    /// Native bodies that were written.
    pub bodies: u64,
}

/// Reads a store of either engine.
enum CopyReader {
    Sqlite(Box<sqlite::SqliteReader>),
    Postgres(Box<postgres::PostgresReader>),
}

/// Writes a store of either engine.
enum CopyWriter {
    Sqlite(Box<sqlite::SqliteWriter>),
    Postgres(Box<postgres::PostgresWriter>),
}

/// A copy in progress.
struct StoreCopy<'a> {
    source: CopyReader,
    target: CopyReader,
    writer: CopyWriter,
    start: CopyStart,
    progress: &'a CopyProgress,
    /// Parts that wait to be written together.
    waiting: Vec<CopyPart>,
}

/// Rows that are written in one transaction: a service that uses the same store waits for less than a second.
const ROWS_AT_ONCE: usize = if cfg!(test) { 20 } else { 5000 };

/// Days of a customer that are read first, before it is known how many rows a day has.
const FIRST_DAYS: usize = 8;

/// Copies a store into another one. What is there and newer stays.
///
/// # Errors
///
/// [`CopyError`]. What was copied before stays, and another copy continues.
///
/// # Cancel safety
///
/// Dropping the future lets the copy continue on its thread.
pub async fn copy(
    source: StorePlace,
    target: StorePlace,
    clock: SharedClock,
    progress: Arc<CopyProgress>,
) -> Result<CopySummary, CopyError> {
    let (sender, result) = oneshot::channel();
    let places = (source.clone(), target.clone());
    let copying = move || {
        let done = StoreCopy::open(&places, clock, &progress).and_then(StoreCopy::run);
        let _gone = sender.send(done.map(|()| progress.summary())).is_err();
    };
    let thread = thread::Builder::new().name("store-copy".to_owned());
    let failed = |problem: String| CopyError::Failed {
        side: CopySide::Target,
        problem,
    };
    thread
        .spawn(copying)
        .map_err(|error| failed(error.to_string()))?;
    let result = result.await;
    match result.unwrap_or_else(|_panicked| Err(failed("the copy panicked".to_owned()))) {
        Err(CopyError::Failed { side, problem }) => {
            let place = match side {
                CopySide::Source => source,
                CopySide::Target => target,
            };
            let problem = advice(side, place).await.unwrap_or(problem);
            Err(CopyError::Failed { side, problem })
        }
        result => result,
    }
}

/// Returns what is wrong with a database, and what to do; `None` if it looks right.
async fn advice(side: CopySide, place: StorePlace) -> Option<String> {
    let StorePlace::Postgres(config) = place else {
        return None;
    };
    let checked = match side {
        CopySide::Source => postgres::check_connection(*config).await,
        CopySide::Target => postgres::check(*config).await.map(drop),
    };
    let problem = checked.err()?;
    Some(format!("{}: {}", problem.said, problem.action))
}

// === impl CopySide ===

impl CopySide {
    fn refused(self, problem: impl ToString) -> CopyError {
        CopyError::Refused {
            side: self,
            problem: problem.to_string(),
        }
    }

    fn failed(self, problem: impl ToString) -> CopyError {
        CopyError::Failed {
            side: self,
            problem: problem.to_string(),
        }
    }
}

// === impl StoreCopy ===

impl<'a> StoreCopy<'a> {
    fn open(
        (source, target): &(StorePlace, StorePlace),
        clock: SharedClock,
        progress: &'a CopyProgress,
    ) -> Result<Self, CopyError> {
        if let (StorePlace::Sqlite(source), StorePlace::Sqlite(target)) = (source, target)
            && sqlite::is_same_file(source, target)
        {
            return Err(CopyError::SameStore);
        }
        let mut source = open_source(source)?;
        let start = source.read(|open| open.copy_start());
        let start = start.map_err(|error| CopySide::Source.failed(error))?;
        let (mut target, writer) = open_target(target, clock)?;
        if let Some(identity) = source.server_identity(CopySide::Source)?
            && target.server_identity(CopySide::Target)? == Some(identity)
        {
            return Err(CopyError::SameStore);
        }
        progress.total.store(start.snapshots, Ordering::Relaxed);
        Ok(Self {
            source,
            target,
            writer,
            start,
            progress,
            waiting: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), CopyError> {
        write(&mut self.writer, |changes| changes.begin_copy(&self.start))?;
        for customer in self.start.customers.clone() {
            self.copy_customer(customer)?;
            self.progress.customers.fetch_add(1, Ordering::Relaxed);
        }
        self.flush()?;
        write(&mut self.writer, |changes| changes.end_copy(&self.start))?;
        self.writer.close();
        Ok(())
    }

    fn copy_customer(&mut self, customer: CustomerId) -> Result<(), CopyError> {
        let copy = self.target.read(|open| open.customer_state(customer));
        let copy = copy.map_err(|error| CopySide::Target.failed(error))?;
        let state = self.read(|open| open.customer_state(customer))?;
        let missing = state.missing_in(&copy);
        let to_compare: u64 = missing.iter().map(|days| state.count_on(days)).sum();
        let unchanged = state.len() - to_compare;
        self.progress
            .unchanged
            .fetch_add(unchanged, Ordering::Relaxed);
        for days in missing {
            let mut days = &days[..];
            let mut count = FIRST_DAYS;
            while let Some((now, later)) = split(days, count) {
                let range = (now.first().copied(), now.last().copied());
                let (Some(from), Some(to)) = range else {
                    break;
                };
                let part = self.read(|open| open.copied_snapshots(customer, (from, to)))?;
                count = (now.len() * ROWS_AT_ONCE / part.rows().max(1)).max(1);
                self.add(CopyPart::Snapshots(part))?;
                days = later;
            }
        }
        self.add(CopyPart::Customer(customer, state.without_copied(&copy)))
    }

    fn read<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> Result<T, CopyError> {
        let read = self.source.read(query);
        read.map_err(|error| CopySide::Source.failed(error))
    }

    /// Adds a part, and writes all that waits if it is enough.
    fn add(&mut self, part: CopyPart) -> Result<(), CopyError> {
        if self.progress.is_stopped.load(Ordering::Relaxed) {
            return Err(CopyError::Stopped);
        }
        self.waiting.push(part);
        match self.waiting.iter().map(CopyPart::len).sum::<usize>() < ROWS_AT_ONCE {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), CopyError> {
        let parts = std::mem::take(&mut self.waiting);
        let written = write(&mut self.writer, |changes| {
            changes.copy(&self.start, &parts)
        })?;
        self.progress.add(written);
        Ok(())
    }
}

/// Takes the first days of a list.
fn split(days: &[i64], count: usize) -> Option<(&[i64], &[i64])> {
    (!days.is_empty()).then(|| days.split_at(count.min(days.len())))
}

fn write<T>(
    writer: &mut CopyWriter,
    work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
) -> Result<T, CopyError> {
    writer
        .write(work)
        .map_err(|error| CopySide::Target.failed(error))
}

fn open_source(place: &StorePlace) -> Result<CopyReader, CopyError> {
    let side = CopySide::Source;
    match place {
        StorePlace::Sqlite(path) => match sqlite::copy_source(path) {
            Ok(Some(reader)) => Ok(CopyReader::Sqlite(Box::new(reader))),
            Ok(None) if path.exists() => {
                Err(side.refused(format_args!("{} has no store", path.display())))
            }
            Ok(None) => Err(side.refused(format_args!("{} does not exist", path.display()))),
            Err(OpenError::Refused(refused)) => Err(side.refused(refused)),
            Err(error) => {
                let problem = error_chain(&error);
                Err(side.failed(format_args!("{}: {problem}", path.display())))
            }
        },
        StorePlace::Postgres(config) => {
            let found = postgres::schema_version((**config).clone());
            let found = found.map_err(|error| side.failed(error))?;
            let known = i64::try_from(postgres::KNOWN_VERSION).unwrap_or(i64::MAX);
            match found {
                0 => Err(side.refused(format_args!("{} has no store", config.url))),
                found if found > known => Err(side.refused(StoreStartError::NewerSchema {
                    store: config.url.to_string(),
                    found,
                    known,
                })),
                _ => {
                    let reader = postgres::copy_reader((**config).clone());
                    Ok(CopyReader::Postgres(Box::new(reader)))
                }
            }
        }
    }
}

fn open_target(
    place: &StorePlace,
    clock: SharedClock,
) -> Result<(CopyReader, CopyWriter), CopyError> {
    let side = CopySide::Target;
    let (reader, mut writer) = match place {
        StorePlace::Sqlite(path) => {
            sqlite::inspect(path).map_err(|fault| match fault {
                StoreFault::Refused(refused) => side.refused(refused),
                unusable @ StoreFault::Unusable { .. } => side.failed(unusable),
            })?;
            let (reader, writer) = sqlite::copy_target(path, clock);
            (
                CopyReader::Sqlite(Box::new(reader)),
                CopyWriter::Sqlite(Box::new(writer)),
            )
        }
        StorePlace::Postgres(config) => (
            CopyReader::Postgres(Box::new(postgres::copy_reader((**config).clone()))),
            CopyWriter::Postgres(Box::new(postgres::copy_writer((**config).clone(), clock))),
        ),
    };
    let opened = writer.open().map_err(|refused| side.refused(refused))?;
    opened.map_err(|error| side.failed(error))?;
    Ok((reader, writer))
}

// === impl CopyReader ===

impl CopyReader {
    /// Returns a text that only this database of this server has; `None` for a file.
    fn server_identity(&mut self, side: CopySide) -> Result<Option<String>, CopyError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(reader) => {
                let identity = |open: &mut Queries<'_>| {
                    open.connection.query_value(sql::SERVER_IDENTITY, values![])
                };
                reader
                    .read(identity)
                    .map(Some)
                    .map_err(|error| side.failed(error))
            }
        }
    }
}

impl SqlReader for CopyReader {
    fn read<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(reader) => reader.read(query),
            Self::Postgres(reader) => reader.read(query),
        }
    }

    fn close(&mut self) {
        match self {
            Self::Sqlite(reader) => reader.close(),
            Self::Postgres(reader) => reader.close(),
        }
    }
}

// === impl CopyWriter ===

impl SqlWriter for CopyWriter {
    fn open(&mut self) -> Result<Result<(), StoreError>, StoreStartError> {
        match self {
            Self::Sqlite(writer) => writer.open(),
            Self::Postgres(writer) => writer.open(),
        }
    }

    fn write<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(writer) => writer.write(work),
            Self::Postgres(writer) => writer.write(work),
        }
    }

    fn stored_bytes(&mut self) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(writer) => writer.stored_bytes(),
            Self::Postgres(writer) => writer.stored_bytes(),
        }
    }

    fn close(&mut self) {
        match self {
            Self::Sqlite(writer) => writer.close(),
            Self::Postgres(writer) => writer.close(),
        }
    }
}

// === impl CopyProgress ===

impl CopyProgress {
    /// Lets the copy end before its next part.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Returns what was done so far.
    pub fn summary(&self) -> CopySummary {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CopySummary {
            customers: count(&self.customers),
            total: count(&self.total),
            snapshots: count(&self.snapshots),
            unchanged: count(&self.unchanged),
            superseded: count(&self.superseded),
            rows: count(&self.rows),
            bodies: count(&self.bodies),
        }
    }

    fn add(&self, written: CopyCounts) {
        for (sum, count) in [
            (&self.snapshots, written.snapshots),
            (&self.unchanged, written.unchanged),
            (&self.superseded, written.superseded),
            (&self.rows, written.rows),
            (&self.bodies, written.bodies),
        ] {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for CopySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} customers, {} of {} snapshots: {} copied with {} earlier revisions, {} rows and {} native \
             bodies; {} were there",
            self.customers,
            self.snapshots + self.unchanged,
            self.total,
            self.snapshots,
            self.superseded,
            self.rows,
            self.bodies,
            self.unchanged,
        )
    }
}
