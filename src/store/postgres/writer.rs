use std::{sync::Arc, time::Duration};

use tokio::runtime::{Builder, Runtime};

use super::{
    connection::PostgresSession, error::PostgresError, migrations, server::PostgresServer,
};
use crate::{
    clock::SharedClock,
    store::{
        StoreError, StoreStartError,
        sql::{
            self,
            apply::{self, Changes},
            connection::values,
            error::{SqlError, SqlResult},
            store::{SqlEngine, SqlWriter},
        },
    },
};

/// Migrates and writes the database: the one connection of this process that does.
pub(in crate::store) struct PostgresWriter {
    server: Arc<PostgresServer>,
    /// The number of the call that counts where both have rows; `None`: what the store says.
    preferred: Option<i64>,
    clock: SharedClock,
    /// Made by the thread that uses it.
    runtime: Option<Arc<Runtime>>,
    session: Option<PostgresSession>,
}

/// Attempts of a transaction that conflicts with others, or loses its connection.
pub(super) const MAX_ATTEMPTS: u32 = 3;

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A process that stops in a transaction holds up the others for no longer than this.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = usage_proxy; \
     SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '20s'; \
     SET LOCAL idle_in_transaction_session_timeout = '2s'";

// === impl PostgresWriter ===

impl PostgresWriter {
    pub(super) fn new(
        server: Arc<PostgresServer>,
        preferred: Option<i64>,
        clock: SharedClock,
    ) -> Self {
        Self {
            server,
            preferred,
            clock,
            runtime: None,
            session: None,
        }
    }

    /// Returns the connection, or a new one if there is none. One that finds no schema migrates: an older process must be
    /// able to use a newer schema while both run, so later ones look no more.
    fn take_session(&mut self) -> Result<PostgresSession, PostgresOpenError> {
        let session = self.session.take();
        let has_schema = self.server.is_open();
        if let Some(session) = session.filter(|session| has_schema && !session.is_closed()) {
            return Ok(session);
        }
        let runtime = runtime(&mut self.runtime)?;
        let mut session = PostgresSession::connect(&self.server, runtime)?;
        if !has_schema {
            migrations::migrate(&session, &self.server, self.clock.wall_time())?;
        }
        let preferred = prefer(&mut session, self.preferred);
        self.server.notice_missing_schema(&preferred);
        preferred?;
        self.server.set_has_schema();
        Ok(session)
    }

    fn write_once<T>(
        &mut self,
        work: &impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> Result<T, PostgresOpenError> {
        // After a panic it does not come back: its transaction may be open.
        let mut session = self.take_session()?;
        let result = session.write(BEGIN, TIME_LIMIT, work);
        self.server.notice_missing_schema(&result);
        if !result.as_ref().is_err_and(SqlError::breaks_connection) {
            self.session = Some(session);
        }
        Ok(result?)
    }
}

/// The database cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostgresOpenError {
    /// It must not be used by this program.
    #[error(transparent)]
    Refused(#[from] StoreStartError),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl SqlWriter for PostgresWriter {
    fn open(&mut self) -> Result<Result<(), StoreError>, StoreStartError> {
        match self.take_session() {
            Ok(session) => {
                self.session = Some(session);
                Ok(Ok(()))
            }
            Err(PostgresOpenError::Refused(refused)) => Err(refused),
            Err(PostgresOpenError::Sql(error)) => Ok(Err(StoreError::NotOpen(error.to_string()))),
        }
    }

    fn write<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        let mut attempts = 1;
        loop {
            match self.write_once(&work) {
                // Changes that a lost COMMIT wrote are written again, which changes nothing.
                Err(PostgresOpenError::Sql(SqlError::Postgres(error)))
                    if (error.is_retryable() || error.is_lost()) && attempts < MAX_ATTEMPTS =>
                {
                    attempts += 1;
                }
                Ok(done) => return Ok(done),
                Err(PostgresOpenError::Sql(error)) => return Err(error.into()),
                Err(PostgresOpenError::Refused(error)) => {
                    return Err(StoreError::NotOpen(error.to_string()));
                }
            }
        }
    }

    fn stored_bytes(&mut self) -> Result<u64, StoreError> {
        let bytes: i64 =
            self.write(|changes| changes.connection.query_value(sql::STORED_BYTES, values![]))?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }

    fn close(&mut self) {
        self.session = None;
    }
}

/// Stores which call counts where both have rows.
fn prefer(session: &mut PostgresSession, preferred: Option<i64>) -> SqlResult<()> {
    session.write(BEGIN, TIME_LIMIT, |changes| {
        let stored: i64 = changes
            .connection
            .query_value(sql::PREFERRED_SOURCE, values![])?;
        match preferred {
            Some(preferred) if preferred != stored => apply::prefer(changes.connection, preferred),
            Some(_) | None => Ok(()),
        }
    })
}

/// Returns the runtime of a thread, and makes it where needed.
pub(super) fn runtime(made: &mut Option<Arc<Runtime>>) -> SqlResult<&Arc<Runtime>> {
    if made.is_none() {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| PostgresError::Setup(error.to_string()))?;
        *made = Some(Arc::new(runtime));
    }
    let made = made.as_ref();
    made.ok_or_else(|| PostgresError::Setup("there is no runtime".to_owned()).into())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::shutdown::Shutdown;
    use crate::store::tests::{
        fixtures::{clock, database},
        postgres_server::TestDatabase,
    };

    #[test]
    fn nothing_of_a_transaction_that_panics_is_stored() {
        let place = TestDatabase::create();
        let server = Arc::new(PostgresServer::new(database(&place.url()), Shutdown::new()));
        let mut writer = PostgresWriter::new(server, Some(1), clock());
        let outdate = |changes: &mut Changes<'_>, day: i64| {
            changes
                .connection
                .execute(sql::OUTDATE_TOTAL, values![day])?;
            // Sends it.
            let preferred = changes
                .connection
                .query_value::<i64>(sql::PREFERRED_SOURCE, values![])?;
            Ok(preferred)
        };

        let panicking = || {
            writer.write(|changes| -> SqlResult<()> {
                outdate(changes, 1)?;
                panic!("as planned")
            })
        };
        let panicked = catch_unwind(AssertUnwindSafe(panicking));
        writer.write(|changes| outdate(changes, 2)).unwrap();

        assert!(panicked.is_err());
        let days = place.psql("SELECT day FROM usage_proxy.outdated_total");
        assert_eq!(days, "2");
    }
}
