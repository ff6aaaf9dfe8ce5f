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
pub(in crate::store) struct SqliteWriter {
    file: Arc<StoreFile>,
    /// The number of the call that counts where both have rows; `None`: what the store says.
    preferred: Option<i64>,
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
    pub(super) fn new(file: Arc<StoreFile>, preferred: Option<i64>, clock: SharedClock) -> Self {
        Self {
            file,
            preferred,
            clock,
            openings: 0,
            open: None,
        }
    }

    fn take_connection(&mut self) -> Result<WriteConnection, OpenError> {
        if let Some(open) = self.open.take() {
            if self.file.current().is_ok() {
                return Ok(open);
            }
            tracing::warn!(
                file = %self.file.path().display(),
                "the file of the store is damaged, or was deleted or replaced; it is opened again"
            );
        }
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
        opened.inspect_err(|error| self.file.set_closed(error_chain(error)))
    }

    fn open_file(&mut self) -> Result<WriteConnection, OpenError> {
        let now = self.clock.wall_time();
        let (mut connection, identity, access) = connection::open_writer(self.file.path(), now)?;
        if let Some(preferred) = self.preferred {
            prefer(&mut connection, preferred)?;
        }
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
        match self.take_connection() {
            Ok(open) => {
                self.open = Some(open);
                Ok(Ok(()))
            }
            Err(OpenError::Refused(refused)) => Err(refused),
            Err(error) => Ok(Err(self.file.not_open(&error_chain(&error)))),
        }
    }

    fn write<T>(
        &mut self,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> Result<T, StoreError> {
        // After a panic it does not come back: its transaction may be half done.
        let mut open = self
            .take_connection()
            .map_err(|error| self.file.not_open(&error_chain(&error)))?;
        let result = open.in_transaction(work);
        if let Err(error) = &result
            && error.is_corruption()
        {
            self.file.set_damaged(open.file);
        }
        // Once the file can be written again, a connection that could not write it before cannot do so.
        if !result.as_ref().is_err_and(|error| error.is_unwritable()) {
            self.open = Some(open);
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
            last_purge: None,
            has_changed: false,
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{
        domain::UpstreamApi,
        store::tests::fixtures::{clock, customer, newest, row, usage},
    };

    #[test]
    fn a_panic_in_a_transaction_holds_up_no_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(StoreFile::new(&folder.path().join("usage.db")));
        let mut writer = SqliteWriter::new(file, Some(1), clock());
        let rows = vec![row("E3", "Teams", 3, 5, "2026-11-26")];
        let usage = usage(customer(1), rows);
        let change = newest(UpstreamApi::Insights, &usage, "2026-11-28T06:00:00Z");

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            writer.write::<()>(|_| panic!("as the test wants it"))
        }));
        let groups = [vec![change]];
        let written = writer.write(|changes| changes.apply_groups(&groups, 0));

        assert!(panicked.is_err());
        assert!(written.unwrap()[0].is_ok());
    }
}
