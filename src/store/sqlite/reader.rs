use std::sync::Arc;

use rusqlite::Connection;

use super::{
    connection::{self, FileAccess},
    file::{OpenFile, StoreFile},
};
use crate::store::{
    StoreError,
    native_body::BodyCodec,
    sql::{
        dictionary::Dictionaries,
        error::SqliteResult,
        read::{ReadConnection, unreadable},
    },
};

/// Reads the file on a connection of its own.
pub(super) struct Reader {
    file: Arc<StoreFile>,
    open: Option<(OpenFile, ReadConnection)>,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(file: Arc<StoreFile>) -> Self {
        Self { file, open: None }
    }

    /// Runs a query that sees one state of the data.
    pub(super) fn read<T>(
        &mut self,
        query: impl FnOnce(&mut ReadConnection) -> SqliteResult<T>,
    ) -> Result<T, StoreError> {
        let file = self.file.current().inspect_err(|_| self.open = None)?;
        if self.open.as_ref().is_none_or(|(opened, _)| *opened != file) {
            self.open = None;
        }
        let result = match &mut self.open {
            Some((_, connection)) => in_transaction(connection, query),
            None => open(&self.file, file.access).and_then(|connection| {
                let (_, connection) = self.open.insert((file, connection));
                in_transaction(connection, query)
            }),
        };
        result.map_err(|error| {
            if error.is_corruption() {
                self.file.set_damaged(file);
            }
            // Another connection may fare better.
            self.open = None;
            error.into()
        })
    }

    pub(super) fn close(&mut self) {
        self.open = None;
    }
}

fn open(file: &StoreFile, access: FileAccess) -> SqliteResult<ReadConnection> {
    Ok(ReadConnection {
        connection: connection::open_reader(file.path(), access)?,
        dictionaries: Dictionaries::default(),
        bodies: BodyCodec::new().map_err(unreadable)?,
    })
}

fn in_transaction<T>(
    connection: &mut ReadConnection,
    query: impl FnOnce(&mut ReadConnection) -> SqliteResult<T>,
) -> SqliteResult<T> {
    run(&connection.connection, "BEGIN")?;
    let result = query(connection);
    // After some errors, SQLite itself has ended it.
    if !connection.connection.is_autocommit() {
        // It has changed nothing, so both ways to end it are the same.
        run(&connection.connection, "ROLLBACK")?;
    }
    result
}

fn run(connection: &Connection, statement: &str) -> SqliteResult<()> {
    connection::prepare(connection, statement)?.execute([])?;
    Ok(())
}
