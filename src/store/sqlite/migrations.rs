//! The schema, by number. A release adds to it and never changes what the one before reads or writes,
//! so that both can run during a rolling restart.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::connection::OpenError;
use crate::store::{StoreStartError, sql::error::SqlError};

/// The statements of each version, the first is version 1.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/0001_snapshots.sql"),
    include_str!("migrations/0002_purge_origin.sql"),
    include_str!("migrations/0003_changes.sql"),
];

/// Marks a file as ours: `upxy` in ASCII.
const APPLICATION_ID: i64 = 0x7570_7879;

/// Refuses the database of another program.
pub(super) fn check_owner(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let owner: i64 = one_value(connection, "PRAGMA application_id")?;
    let tables: i64 = one_value(connection, "SELECT count(*) FROM sqlite_schema")?;
    if owner != APPLICATION_ID && tables > 0 {
        return Err(StoreStartError::OtherProgram(path.to_owned()).into());
    }
    Ok(())
}

/// Refuses a schema that a newer release has written. Returns its version.
pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let found = version(connection)?;
    refuse_newer(found, path)?;
    Ok(found)
}

fn refuse_newer(found: i64, path: &Path) -> Result<(), StoreStartError> {
    let known = known_version();
    if found > known {
        let store = path.display().to_string();
        return Err(StoreStartError::NewerSchema {
            store,
            found,
            known,
        });
    }
    Ok(())
}

fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the schema up to the newest known version.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    now: Timestamp,
) -> Result<(), OpenError> {
    if version(connection)? == known_version() {
        return Ok(());
    }
    // Another process may migrate at the same time: what counts is the version seen inside.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(SqlError::from)?;
    let found = version(&transaction)?;
    refuse_newer(found, path)?;
    let apply = || -> rusqlite::Result<()> {
        if found == 0 {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.execute_batch(
                "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) \
                 STRICT",
            )?;
        }
        for (version, statements) in (1..).zip(MIGRATIONS).skip_while(|(next, _)| *next <= found) {
            transaction.execute_batch(statements)?;
            transaction.execute(
                "INSERT INTO schema_version (version, applied_at) VALUES (?1, ?2)",
                (version, now.as_millisecond()),
            )?;
        }
        Ok(())
    };
    apply().map_err(SqlError::from)?;
    transaction.commit().map_err(SqlError::from)?;
    Ok(())
}

/// Returns the version of the schema; 0 before the first.
fn version(connection: &Connection) -> Result<i64, SqlError> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_version'";
    match one_value(connection, table)? {
        0 => Ok(0),
        _ => one_value(
            connection,
            "SELECT coalesce(max(version), 0) FROM schema_version",
        ),
    }
}

fn one_value(connection: &Connection, statement: &str) -> Result<i64, SqlError> {
    Ok(connection.query_row(statement, [], |row| row.get(0))?)
}
