use std::{num::NonZeroUsize, sync::Arc};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{
    connection::{self, OpenError, prepare},
    file::{OpenFile, StoreFile},
};
use crate::{
    clock::SharedClock,
    domain::ProcessedDate,
    store::{
        StoreError, StoreStartError, StoreWrite, Upkeep,
        native_body::BodyCodec,
        sql::{
            self,
            apply::Changes,
            dictionary::Dictionaries,
            error::{SqliteError, SqliteResult},
            history, totals,
        },
    },
    text::error_chain,
};

/// Opens, migrates and writes the file: the one connection of this process that does.
pub(super) struct SqliteWriter {
    file: Arc<StoreFile>,
    /// The number of the call that counts where both have rows.
    preferred: i64,
    clock: SharedClock,
    openings: u64,
    open: Option<WriteConnection>,
}

struct WriteConnection {
    file: OpenFile,
    connection: Connection,
    dictionaries: Dictionaries,
    bodies: BodyCodec,
}

// === impl SqliteWriter ===

impl SqliteWriter {
    pub(super) fn new(file: Arc<StoreFile>, preferred: i64, clock: SharedClock) -> Self {
        Self {
            file,
            preferred,
            clock,
            openings: 0,
            open: None,
        }
    }

    /// Opens the file if it is not open, or no longer the one that is at its path.
    ///
    /// # Errors
    ///
    /// [`StoreStartError`] for a file that must not be used.
    pub(super) fn open(&mut self) -> Result<Result<(), StoreError>, StoreStartError> {
        match self.connection() {
            Ok(_) => Ok(Ok(())),
            Err(OpenError::Refused(refused)) => Err(refused),
            Err(error) => Ok(Err(self.file.not_open(&error_chain(&error)))),
        }
    }

    /// Applies groups of changes in one transaction, each group wholly or not at all.
    pub(super) fn write(
        &mut self,
        groups: &[Vec<StoreWrite>],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.in_transaction(|connection| {
            let mut results = Vec::with_capacity(groups.len());
            for group in groups {
                results.push(connection.apply_group(group)?);
            }
            Ok(results)
        })
    }

    pub(super) fn delete_before(
        &mut self,
        date: ProcessedDate,
        limit: NonZeroUsize,
    ) -> Result<usize, StoreError> {
        self.in_transaction(|open| history::delete_before(&open.connection, date, limit))
    }

    pub(super) fn maintain(&mut self) -> Result<Upkeep, StoreError> {
        let is_done = self.in_transaction(|open| {
            totals::compute_outdated(&open.connection, &mut open.dictionaries)
        })?;
        let stored_bytes = connection::stored_bytes(self.file.path());
        let stored_bytes = stored_bytes.map_err(|error| StoreError::NotOpen(error.to_string()))?;
        Ok(Upkeep {
            stored_bytes,
            is_done,
        })
    }

    pub(super) fn close(&mut self) {
        self.open = None;
        self.file.set_closed("it was closed".to_owned());
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut WriteConnection) -> SqliteResult<T>,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        let open = self
            .connection()
            .map_err(|error| file.not_open(&error_chain(&error)))?;
        let result = open.in_transaction(work);
        if let Err(error) = &result {
            if error.is_corruption() {
                file.set_damaged(open.file);
            }
            // Once it can be written again, this connection could not do it.
            if error.is_unwritable() {
                self.open = None;
            }
        }
        Ok(result?)
    }

    fn connection(&mut self) -> Result<&mut WriteConnection, OpenError> {
        if self.open.is_some() && self.file.current().is_err() {
            self.open = None;
            tracing::warn!(
                file = %self.file.path().display(),
                "the file of the store is damaged, or was deleted or replaced; it is opened again"
            );
        }
        // Opened below only if it is not open.
        if self.open.is_none() {
            if self.file.is_damaged() {
                self.quarantine()?;
            }
            let opened = match self.open_file() {
                Err(OpenError::Sqlite(error)) if error.is_corruption() => {
                    self.quarantine()?;
                    self.open_file()
                }
                opened => opened,
            };
            match opened {
                Ok(connection) => self.open = Some(connection),
                Err(error) => {
                    self.file.set_closed(error_chain(&error));
                    return Err(error);
                }
            }
        }
        self.open
            .as_mut()
            .ok_or_else(|| std::io::Error::other("the file is not open").into())
    }

    fn open_file(&mut self) -> Result<WriteConnection, OpenError> {
        let now = self.clock.wall_time();
        let (mut connection, identity, access) = connection::open_writer(self.file.path(), now)?;
        prefer(&mut connection, self.preferred)?;
        let bodies = BodyCodec::new()?;
        self.openings += 1;
        Ok(WriteConnection {
            file: self.file.set_open(identity, access, self.openings),
            connection,
            dictionaries: Dictionaries::default(),
            bodies,
        })
    }

    fn quarantine(&self) -> Result<(), OpenError> {
        let aside = connection::quarantine(self.file.path(), self.clock.wall_time())?;
        tracing::error!(
            file = %self.file.path().display(),
            moved_to = %aside.display(),
            "the file of the store is damaged: it was moved aside, and a new one is begun"
        );
        Ok(())
    }
}

// === impl WriteConnection ===

impl WriteConnection {
    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> SqliteResult<T>,
    ) -> SqliteResult<T> {
        // A transaction that began with reading could not wait for another process's.
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let result = work(self).and_then(|done| {
            self.connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        if result.is_err() {
            // Texts that this transaction added have no numbers any more.
            self.dictionaries = Dictionaries::default();
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
        }
        result
    }

    /// Applies a group. The outer error is one that ends the transaction.
    fn apply_group(&mut self, group: &[StoreWrite]) -> SqliteResult<Result<(), StoreError>> {
        self.connection.execute_batch("SAVEPOINT of_group")?;
        let mut changes = Changes {
            connection: &self.connection,
            dictionaries: &mut self.dictionaries,
            bodies: &mut self.bodies,
        };
        let applied = group.iter().try_for_each(|change| changes.apply(change));
        match applied {
            Ok(()) => {
                self.connection.execute_batch("RELEASE of_group")?;
                Ok(Ok(()))
            }
            Err(error @ SqliteError::Unstorable(_)) => {
                self.dictionaries = Dictionaries::default();
                self.connection
                    .execute_batch("ROLLBACK TO of_group; RELEASE of_group")?;
                Ok(Err(error.into()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Stores which call counts where both have rows. A file that cannot be written stays readable.
fn prefer(connection: &mut Connection, preferred: i64) -> SqliteResult<()> {
    let stored: i64 =
        prepare(connection, sql::PREFERRED_SOURCE)?.query_row([], |row| row.get(0))?;
    if stored == preferred {
        return Ok(());
    }
    let set = |connection: &mut Connection| {
        let immediate = TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(immediate)?;
        prepare(&transaction, sql::SET_PREFERRED_SOURCE)?.execute([preferred])?;
        prepare(&transaction, sql::OUTDATE_ALL_TOTALS)?.execute([])?;
        transaction.commit()
    };
    match set(connection) {
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::ReadOnly) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
