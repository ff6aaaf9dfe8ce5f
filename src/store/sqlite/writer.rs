use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{
    connection::{self, OpenError},
    file::{OpenFile, StoreFile},
};
use crate::{
    clock::SharedClock,
    store::{
        StoreError, StoreStartError,
        native_body::BodyCodec,
        sql::{
            self,
            apply::{self, Changes},
            connection::{SqlConnection, values},
            dictionary::Dictionaries,
            error::{SqlError, SqlResult},
            store::SqlWriter,
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

impl SqlWriter for SqliteWriter {
    /// Opens the file if it is not open, or no longer the one that is at its path.
    fn open(&mut self) -> Result<Result<(), StoreError>, StoreStartError> {
        match self.connection() {
            Ok(_) => Ok(Ok(())),
            Err(OpenError::Refused(refused)) => Err(refused),
            Err(error) => Ok(Err(self.file.not_open(&error_chain(&error)))),
        }
    }

    fn write<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
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

    fn stored_bytes(&mut self) -> Result<u64, StoreError> {
        let bytes = connection::stored_bytes(self.file.path());
        bytes.map_err(|error| StoreError::NotOpen(error.to_string()))
    }

    fn close(&mut self) {
        self.open = None;
        self.file.set_closed("it was closed".to_owned());
    }
}

// === impl WriteConnection ===

impl WriteConnection {
    fn in_transaction<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        // A transaction that began with reading could not wait for another process's.
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut changes = Changes {
            connection: &self.connection,
            dictionaries: &mut self.dictionaries,
            bodies: &mut self.bodies,
        };
        let result = work(&mut changes).and_then(|done| {
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
}

/// Stores which call counts where both have rows. A file that cannot be written stays readable.
fn prefer(connection: &mut Connection, preferred: i64) -> SqlResult<()> {
    let shared: &dyn SqlConnection = connection;
    if shared.query_value::<i64>(sql::PREFERRED_SOURCE, values![])? == preferred {
        return Ok(());
    }
    let mut set = || -> SqlResult<()> {
        let immediate = TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(immediate)?;
        apply::prefer(&*transaction, preferred)?;
        Ok(transaction.commit()?)
    };
    match set() {
        Err(SqlError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            Ok(())
        }
        set => set,
    }
}
