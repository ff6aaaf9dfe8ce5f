//! The store in a PostgreSQL database, which any number of processes may share.
//!
//! Threads with a connection and a runtime each, so that the code that all engines share can block. No
//! statement is prepared by name and none changes the session, so a pooler may stand in between.

mod check;
mod connection;
mod coordination;
mod error;
mod migrations;
mod reader;
mod server;
mod tls;
mod values;
mod writer;

use std::sync::Arc;

use self::{
    reader::{PostgresReader, ReadLane},
    server::PostgresServer,
    writer::PostgresWriter,
};
use super::{
    LOOK_UPS_AT_ONCE, QUERIES_AT_ONCE, StoreStartError, UsageStore, schema::source_number,
    sql::store::SqlStore,
};
use crate::{clock::SharedClock, config::PostgresConfig, domain::UpstreamApi, shutdown::Shutdown};

pub use self::check::{DatabaseProblem, check};
pub(super) use self::error::PostgresError;

/// Opens a database, and creates the schema if there is none. A server that cannot be reached now is
/// reached later.
///
/// # Errors
///
/// [`StoreStartError`] if it must not be used.
pub async fn open(
    config: PostgresConfig,
    preferred: UpstreamApi,
    clock: SharedClock,
    shutdown: Shutdown,
) -> Result<Arc<dyn UsageStore>, StoreStartError> {
    let server = Arc::new(PostgresServer::new(config, shutdown));
    let readers = |lane, count| {
        let server = &server;
        (0..count).map(move |_| PostgresReader::new(Arc::clone(server), lane))
    };
    let look_ups = readers(ReadLane::LookUp, LOOK_UPS_AT_ONCE);
    let queries = readers(ReadLane::Query, QUERIES_AT_ONCE);
    let preferred_number = source_number(preferred).unwrap_or_default();
    let writer = PostgresWriter::new(Arc::clone(&server), preferred_number, clock);
    let store = SqlStore::open(Arc::clone(&server), preferred, look_ups, queries, writer);
    Ok(Arc::new(store.await?))
}
