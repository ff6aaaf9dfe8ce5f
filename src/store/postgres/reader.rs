use std::{mem, sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use super::{
    connection::PostgresSession,
    error::PostgresError,
    server::PostgresServer,
    writer::{MAX_ATTEMPTS, runtime},
};
use crate::store::{
    StoreError,
    sql::{
        error::{SqlError, SqlResult},
        read::Queries,
        store::SqlReader,
    },
};

/// Reads the database on a connection of its own.
pub(in crate::store) struct PostgresReader {
    server: Arc<PostgresServer>,
    lane: ReadLane,
    /// Made by the thread that uses it.
    runtime: Option<Arc<Runtime>>,
    session: Result<PostgresSession, String>,
}

/// The purpose of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadLane {
    /// A request waits: it never connects while one does.
    LookUp,
    /// It may take seconds, and connects when it has to.
    Query,
    /// No request waits, so that it may take long, and connects when it has to.
    Copy,
}

// === impl PostgresReader ===

impl PostgresReader {
    pub(super) fn new(server: Arc<PostgresServer>, lane: ReadLane) -> Self {
        Self {
            server,
            lane,
            runtime: None,
            session: Err("there is no connection yet".to_owned()),
        }
    }

    fn reconnect(&mut self) -> SqlResult<()> {
        let connected = runtime(&mut self.runtime)
            .and_then(|runtime| PostgresSession::connect(&self.server, runtime));
        self.session = connected.map_err(|error| error.to_string());
        match &self.session {
            Ok(_) => Ok(()),
            Err(problem) => Err(PostgresError::NotConnected(problem.clone()).into()),
        }
    }

    fn notice_close(&mut self) {
        if self.session.as_ref().is_ok_and(PostgresSession::is_closed) {
            self.session = Err("the server closed the connection".to_owned());
        }
    }

    fn read_once<T>(&mut self, query: &impl Fn(&mut Queries<'_>) -> SqlResult<T>) -> SqlResult<T> {
        self.notice_close();
        if let Err(problem) = &self.session {
            return Err(PostgresError::NotConnected(problem.clone()).into());
        }
        // After a panic it does not come back: its transaction may be open.
        let mut session = mem::replace(&mut self.session, Err("a read panicked".to_owned()))
            .map_err(PostgresError::NotConnected)?;
        let result = session.read(self.lane.begin(), self.lane.time_limit(), query);
        self.server.notice_missing_schema(&result);
        self.session = match &result {
            Err(error) if error.breaks_connection() => Err(error.to_string()),
            Ok(_) | Err(_) => Ok(session),
        };
        result
    }
}

impl SqlReader for PostgresReader {
    fn connect(&mut self) -> Result<(), StoreError> {
        self.notice_close();
        if self.session.is_err() {
            self.reconnect()?;
        }
        Ok(())
    }

    fn read<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        let mut may_connect = self.lane != ReadLane::LookUp;
        let mut attempts = 1;
        loop {
            match self.read_once(&query) {
                Err(SqlError::Postgres(error)) if error.is_lost() && may_connect => {
                    may_connect = false;
                    self.reconnect()?;
                }
                Err(SqlError::Postgres(error))
                    if error.is_retryable() && attempts < MAX_ATTEMPTS =>
                {
                    attempts += 1;
                }
                result => return Ok(result?),
            }
        }
    }

    fn close(&mut self) {
        self.session = Err("it was closed".to_owned());
    }
}

// === impl ReadLane ===

impl ReadLane {
    /// Returns the time after which a thread gives up, whatever the server does.
    fn time_limit(self) -> Duration {
        match self {
            Self::LookUp => Duration::from_millis(250),
            Self::Query => Duration::from_secs(5),
            Self::Copy => Duration::from_secs(60),
        }
    }

    fn begin(self) -> &'static str {
        match self {
            Self::LookUp => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL search_path = usage_proxy; SET LOCAL statement_timeout = '250ms'"
            }
            Self::Query => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL search_path = usage_proxy; SET LOCAL statement_timeout = '5s'"
            }
            Self::Copy => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL search_path = usage_proxy; SET LOCAL statement_timeout = '60s'"
            }
        }
    }
}
