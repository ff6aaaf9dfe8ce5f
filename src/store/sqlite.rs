//! The store as an SQLite file, for one process, or two while one replaces the other.
//!
//! One thread writes, others read, each on a connection of its own; the log of SQLite (WAL) lets them not
//! wait for each other. Plain threads, since SQLite blocks.

mod connection;
mod file;
mod inspection;
mod migrations;
mod network_file_system;
mod reader;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::inspection::{FileUser, StoreFault, StoreInspection, inspect};
use self::{connection::FileIdentity, file::StoreFile};
pub(super) use self::{connection::OpenError, reader::SqliteReader, writer::SqliteWriter};
use super::{
    LOOK_UPS_AT_ONCE, QUERIES_AT_ONCE, StoreStartError, UsageStore, schema::source_number,
    sql::store::SqlStore,
};
use crate::{clock::SharedClock, domain::UpstreamApi};

/// Opens a file, and creates it if there is none. A file that cannot be opened now is opened later.
///
/// # Errors
///
/// [`StoreStartError`] if it must not be used.
pub async fn open(
    path: PathBuf,
    preferred: UpstreamApi,
    clock: SharedClock,
) -> Result<Arc<dyn UsageStore>, StoreStartError> {
    let file = Arc::new(StoreFile::new(&path));
    let readers = |count| (0..count).map(|_| SqliteReader::new(Arc::clone(&file)));
    let preferred_number = source_number(preferred);
    let writer = SqliteWriter::new(Arc::clone(&file), preferred_number, clock);
    let (look_ups, queries) = (readers(LOOK_UPS_AT_ONCE), readers(QUERIES_AT_ONCE));
    let store = SqlStore::open(Arc::clone(&file), preferred, look_ups, queries, writer);
    Ok(Arc::new(store.await?))
}

/// Opens a file to copy it, and changes nothing. `None` if there is no file, or one without a store.
pub(super) fn copy_source(path: &Path) -> Result<Option<SqliteReader>, OpenError> {
    let file = StoreFile::new(path);
    Ok(match file.open_existing()? {
        true => Some(SqliteReader::new(Arc::new(file))),
        false => None,
    })
}

/// Returns what reads and writes a copy in a file. The writer opens it, and creates it if there is none.
pub(super) fn copy_target(path: &Path, clock: SharedClock) -> (SqliteReader, SqliteWriter) {
    let file = Arc::new(StoreFile::new(path));
    let reader = SqliteReader::new(Arc::clone(&file));
    (reader, SqliteWriter::new(file, None, clock))
}

/// Returns whether two paths lead to one file.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    FileIdentity::of(one).is_ok_and(|identity| identity.is_at(other))
}
