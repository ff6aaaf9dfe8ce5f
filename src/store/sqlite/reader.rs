use std::sync::Arc;

use rusqlite::Connection;

use super::{
    connection,
    file::{OpenFile, StoreFile},
};
use crate::store::{
    StoreError,
    native_body::BodyCodec,
    sql::{
        dictionary::Dictionaries,
        error::SqlResult,
        read::{Queries, unreadable},
        store::SqlReader,
    },
};

/// Reads the file on a connection of its own.
pub(in crate::store) struct SqliteReader {
    file: Arc<StoreFile>,
    open: Option<ReadConnection>,
}

struct ReadConnection {
    file: OpenFile,
    connection: Connection,
    dictionaries: Dictionaries,
    bodies: BodyCodec,
}

// === impl SqliteReader ===

impl SqliteReader {
    pub(super) fn new(file: Arc<StoreFile>) -> Self {
        Self { file, open: None }
    }
}

impl SqlReader for SqliteReader {
    fn read<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        // After an error or a panic, another connection may fare better.
        let opened = self.open.take();
        let file = self.file.current()?;
        let connection = match opened.filter(|open| open.file == file) {
            Some(connection) => Ok(connection),
            None => ReadConnection::open(&self.file, file),
        };
        let result = connection.and_then(|mut connection| {
            let found = connection.in_transaction(query)?;
            self.open = Some(connection);
            Ok(found)
        });
        result.map_err(|error| {
            if error.is_corruption() {
                self.file.set_damaged(file);
            }
            error.into()
        })
    }

    fn close(&mut self) {
        self.open = None;
    }
}

// === impl ReadConnection ===

impl ReadConnection {
    fn open(path: &StoreFile, file: OpenFile) -> SqlResult<Self> {
        Ok(Self {
            file,
            connection: connection::open_reader(path.path(), file.access)?,
            dictionaries: Dictionaries::default(),
            bodies: BodyCodec::new().map_err(unreadable)?,
        })
    }

    fn in_transaction<T>(
        &mut self,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        self.run("BEGIN")?;
        let result = query(&mut Queries {
            connection: &self.connection,
            dictionaries: &mut self.dictionaries,
            bodies: &mut self.bodies,
        });
        // After some errors, SQLite itself has ended it.
        if !self.connection.is_autocommit() {
            // It has changed nothing, so both ways to end it are the same.
            self.run("ROLLBACK")?;
        }
        result
    }

    fn run(&self, statement: &str) -> SqlResult<()> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
}
