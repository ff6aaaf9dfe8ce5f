//! The store in a PostgreSQL database, which any number of processes may share.
//!
//! Threads with a connection and a runtime each, so that the code that all engines share can block. No
//! statement is prepared by name and none changes the session, so a pooler may stand in between.

mod check;
mod connection;
mod coordination;
mod error;
mod listener;
mod migrations;
mod reader;
mod server;
mod tls;
mod tokens;
mod values;
mod writer;

use std::sync::Arc;

use self::{
    connection::PostgresSession, listener::Listener, reader::ReadLane, server::PostgresServer,
};
use super::{
    Coordination, LOOK_UPS_AT_ONCE, QUERIES_AT_ONCE, StoreError, StoreStartError, UsageStore,
    schema::source_number,
    sql::{error::SqlResult, store::SqlStore},
};
use crate::{clock::SharedClock, config::PostgresConfig, domain::UpstreamApi, shutdown::Shutdown};

pub(super) use self::check::check_connection;
pub use self::check::{DatabaseProblem, check, check_notifications};
pub(super) use self::error::PostgresError;
pub(super) use self::migrations::KNOWN_VERSION;
pub(super) use self::{reader::PostgresReader, writer::PostgresWriter};

/// Connects to a database for coordination alone, and changes nothing in it.
///
/// # Errors
///
/// [`StoreError`] if that fails, or there is no schema yet.
pub async fn coordinate(
    config: PostgresConfig,
    shutdown: Shutdown,
) -> Result<Box<dyn Coordination>, StoreError> {
    let server = PostgresServer::new(config, shutdown);
    Coordination::connect(&server).await?;
    Ok(Box::new(server))
}

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
    let server = Arc::new(PostgresServer::new(config, shutdown.clone()));
    let readers = |lane, count| {
        let server = &server;
        (0..count).map(move |_| PostgresReader::new(Arc::clone(server), lane))
    };
    let look_ups = readers(ReadLane::LookUp, LOOK_UPS_AT_ONCE);
    let queries = readers(ReadLane::Query, QUERIES_AT_ONCE);
    let preferred_number = source_number(preferred);
    let writer = PostgresWriter::new(Arc::clone(&server), preferred_number, clock);
    let store = SqlStore::open(Arc::clone(&server), preferred, look_ups, queries, writer).await?;
    shutdown.spawn(Listener::new(server).run());
    Ok(Arc::new(store))
}

/// Returns the version of the schema of a database; 0 if there is none.
pub(super) fn schema_version(config: PostgresConfig) -> SqlResult<i64> {
    let server = PostgresServer::new(config, Shutdown::new());
    let mut runtime = None;
    let session = PostgresSession::connect(&server, writer::runtime(&mut runtime)?)?;
    migrations::find_version(&session)
}

/// Returns what reads a database for a copy. It connects with the first read, and never makes a schema.
pub(super) fn copy_reader(config: PostgresConfig) -> PostgresReader {
    let server = PostgresServer::new(config, Shutdown::new());
    PostgresReader::new(Arc::new(server), ReadLane::Copy)
}

/// Returns what writes a copy into a database, where it makes the schema if there is none.
pub(super) fn copy_writer(config: PostgresConfig, clock: SharedClock) -> PostgresWriter {
    let server = PostgresServer::new(config, Shutdown::new());
    PostgresWriter::new(Arc::new(server), None, clock)
}
