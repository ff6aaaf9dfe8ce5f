//! The schema, by number. A release adds to it and never changes what the one before reads or writes,
//! so that both can run during a rolling update.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    connection::{End, PostgresConnection, PostgresSession},
    server::PostgresServer,
    writer::{MAX_ATTEMPTS, PostgresOpenError},
};
use crate::store::{
    StoreStartError,
    sql::{
        self,
        connection::{SqlConnection, values},
        error::{SqlError, SqlResult},
    },
};

/// The statements of each version, the first is version 1.
const MIGRATIONS: [&str; 10] = [
    include_str!("migrations/0001_snapshots.sql"),
    include_str!("migrations/0002_purge_origin.sql"),
    include_str!("migrations/0003_replicas.sql"),
    include_str!("migrations/0004_leases.sql"),
    include_str!("migrations/0005_fleet_refresh.sql"),
    include_str!("migrations/0006_tokens.sql"),
    include_str!("migrations/0007_throttles.sql"),
    include_str!("migrations/0008_purge_generations.sql"),
    include_str!("migrations/0009_faster_views.sql"),
    include_str!("migrations/0010_changes.sql"),
];

/// The newest version that this release knows.
pub(in crate::store) const KNOWN_VERSION: usize = MIGRATIONS.len();

const TIME_LIMIT: Duration = Duration::from_secs(60);

const BEGIN_READ: &str = "BEGIN READ ONLY; SET LOCAL search_path = usage_proxy, pg_catalog";

/// A user who owns the schema may have no right to create one, which even `IF NOT EXISTS` needs.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'; \
     DO $$ BEGIN IF to_regnamespace('usage_proxy') IS NULL THEN CREATE SCHEMA usage_proxy; END IF; END $$; \
     SET LOCAL search_path = usage_proxy; \
     CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL); \
     LOCK TABLE schema_version IN EXCLUSIVE MODE";

/// Brings the schema up to the newest known version. One process does, and others wait for it.
pub(super) fn migrate(
    session: &PostgresSession,
    server: &PostgresServer,
    now: Timestamp,
) -> Result<(), PostgresOpenError> {
    let known = i64::try_from(KNOWN_VERSION).unwrap_or(i64::MAX);
    let connection = session.connection();
    let mut attempts = 1;
    let found = loop {
        // A role that may not change the schema can use one that is up to date.
        let found = find_version(session)?;
        if found >= known {
            break found;
        }
        let migrated =
            connection.in_transaction(BEGIN, End::Durable, TIME_LIMIT, || apply(connection, now));
        match migrated {
            // Another process began with an empty database at the same time.
            Err(SqlError::Postgres(error))
                if attempts < MAX_ATTEMPTS && (error.is_duplicate() || error.is_retryable()) =>
            {
                attempts += 1;
            }
            migrated => break migrated?,
        }
    };
    if found > known {
        let store = server.to_string();
        return Err(StoreStartError::NewerSchema {
            store,
            found,
            known,
        }
        .into());
    }
    Ok(())
}

/// Returns the version of the schema of a database; 0 if there is none.
pub(super) fn find_version(session: &PostgresSession) -> SqlResult<i64> {
    let connection = session.connection();
    connection.in_transaction(BEGIN_READ, End::Durable, TIME_LIMIT, || version(connection))
}

/// Applies what is missing under the lock of the table, and returns the version.
fn apply(connection: &PostgresConnection, now: Timestamp) -> SqlResult<i64> {
    let shared: &dyn SqlConnection = connection;
    let mut found: i64 = shared.query_value(sql::SCHEMA_VERSION, values![])?;
    for (version, statements) in (1..).zip(MIGRATIONS) {
        if version > found {
            connection.batch(statements);
            let values = values![version, now.as_millisecond()];
            connection.execute(sql::ADD_SCHEMA_VERSION, values)?;
            found = version;
        }
    }
    Ok(found)
}

/// Returns the version of the schema; 0 before the first.
fn version(connection: &PostgresConnection) -> SqlResult<i64> {
    let shared: &dyn SqlConnection = connection;
    match shared.query_value::<i64>(sql::SCHEMA_TABLES, values![])? {
        0 => Ok(0),
        _ => shared.query_value(sql::SCHEMA_VERSION, values![]),
    }
}
