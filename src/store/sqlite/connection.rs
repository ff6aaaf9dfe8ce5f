//! Opening the file: settings, checks, and what identifies it.

use std::{
    borrow::Cow,
    fs::{self, OpenOptions},
    io,
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{
    Connection, OpenFlags, Row, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

use super::{migrations, network_file_system};
use crate::store::{
    StoreStartError,
    sql::{
        Statement,
        connection::{SqlConnection, SqlRow, SqlValue},
        error::{SqlError, SqlResult},
    },
};

/// Identifies a file while it exists, whatever its path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// The way in which a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileAccess {
    /// As usual; SQLite finds out by itself whether the file can be written.
    Usual,
    /// Not even the files beside it can be made, which SQLite needs to read with others.
    Immutable,
}

/// The file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum OpenError {
    /// It must not be opened by this program as it is configured.
    #[error(transparent)]
    Refused(#[from] StoreStartError),
    /// SQLite reports an error.
    #[error(transparent)]
    Sqlite(#[from] SqlError),
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Time that the writer waits for another process's transaction.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a reader waits; in WAL mode it hardly ever has to.
const READER_BUSY_TIMEOUT: Duration = Duration::from_millis(10);

/// The log is cut to this size after a checkpoint.
const MAX_IDLE_LOG_BYTES: i64 = 16 * 1024 * 1024;

/// Prepared statements of a connection; more than there are.
const STATEMENTS: usize = 128;

/// Only the user of the service reads the file: it has customers' names and counts.
const FILE_MODE: u32 = 0o600;

/// The characters of a path that mean something else in a URI.
const URI_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');

/// The file names that SQLite derives from a database's name.
const COMPANION_SUFFIXES: [&str; 2] = ["-wal", "-shm"];

/// Opens the file for the writer, and creates and migrates it where needed.
pub(super) fn open_writer(
    path: &Path,
    now: Timestamp,
) -> Result<(Connection, FileIdentity, FileAccess), OpenError> {
    check_file_system(path)?;
    let mut create = OpenOptions::new();
    create.write(true).create(true).truncate(false);
    match create.mode(FILE_MODE).open(path) {
        // A file that cannot be written can be read all the same.
        Ok(_) => {}
        Err(_) if path.is_file() => {}
        Err(error) => return Err(error.into()),
    }
    let identity = FileIdentity::of(path)?;
    match open_with(path, now, FileAccess::Usual) {
        Err(OpenError::Sqlite(error)) if error.is_unwritable() && !has_log(path) => {
            let connection = open_with(path, now, FileAccess::Immutable)?;
            Ok((connection, identity, FileAccess::Immutable))
        }
        Err(error) => Err(error),
        Ok(connection) => Ok((connection, identity, FileAccess::Usual)),
    }
}

/// Refuses a file where SQLite's log does not work.
pub(super) fn check_file_system(path: &Path) -> Result<(), StoreStartError> {
    match network_file_system::of(folder_of(path)) {
        Some(name) => Err(StoreStartError::NetworkFileSystem {
            path: path.to_owned(),
            name,
        }),
        None => Ok(()),
    }
}

/// Returns the folder of a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Follows symbolic links to the file, which may not exist yet. SQLite puts its other files beside it.
pub(super) fn real_path(path: &Path) -> PathBuf {
    // As Linux.
    const MAX_LINKS: usize = 40;

    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

/// Opens a file to look at it. It makes no files and takes no locks, and sees nothing of the log.
pub(super) fn open_inspected(path: &Path) -> SqlResult<Connection> {
    open(path, FileAccess::Immutable, READER_BUSY_TIMEOUT)
}

fn open_with(path: &Path, now: Timestamp, access: FileAccess) -> Result<Connection, OpenError> {
    let mut connection = open(path, access, WRITER_BUSY_TIMEOUT)?;
    migrations::check_owner(&connection, path)?;
    if access == FileAccess::Usual {
        set_up(&connection)?;
    }
    migrations::migrate(&mut connection, path, now)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> SqlResult<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let problem = format!("SQLite keeps journal mode {mode} in place of WAL");
        return Err(SqlError::Unreadable(problem));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", MAX_IDLE_LOG_BYTES)?;
    Ok(())
}

/// Finds out how a file can be read that no writer of this process has opened; `None` if it has no store.
pub(super) fn check_source(path: &Path) -> Result<Option<FileAccess>, OpenError> {
    check_file_system(path)?;
    let check = |access| -> Result<Option<FileAccess>, OpenError> {
        let connection = open_reader(path, access)?;
        migrations::check_owner(&connection, path)?;
        let has_store = migrations::check_version(&connection, path)? > 0;
        Ok(has_store.then_some(access))
    };
    match check(FileAccess::Usual) {
        Err(OpenError::Sqlite(error)) if error.is_unwritable() && !has_log(path) => {
            check(FileAccess::Immutable)
        }
        checked => checked,
    }
}

/// Opens a file for a reader, which the writer has opened before.
pub(super) fn open_reader(path: &Path, access: FileAccess) -> SqlResult<Connection> {
    let connection = open(path, access, READER_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path, access: FileAccess, busy_timeout: Duration) -> SqlResult<Connection> {
    let connection = match access {
        FileAccess::Usual => {
            // Without the flag that makes `file:` in a path mean something.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(path, flags)?
        }
        FileAccess::Immutable => {
            let path = percent_encode(path.as_os_str().as_bytes(), URI_PATH);
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?
        }
    };
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Returns whether the file has a log, without which its content may be torn.
pub(super) fn has_log(path: &Path) -> bool {
    fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Moves a damaged file and its companions aside, and returns its new name.
pub(super) fn quarantine(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let mut names = (0..).map(|attempt| match attempt {
        0 => with_suffix(path, &format!(".corrupt-{stamp}")),
        _ => with_suffix(path, &format!(".corrupt-{stamp}-{attempt}")),
    });
    let Some(aside) = names.find(|name| !name.exists()) else {
        return Err(io::ErrorKind::AlreadyExists.into());
    };
    // The log first: without its file it means nothing, and a new file must not meet it.
    for suffix in COMPANION_SUFFIXES {
        match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Returns the bytes of the file and its log.
pub(super) fn stored_bytes(path: &Path) -> io::Result<u64> {
    let log = fs::metadata(with_suffix(path, "-wal")).map_or(0, |log| log.len());
    Ok(fs::metadata(path)?.len() + log)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

// === impl Connection ===

impl SqlConnection for Connection {
    fn execute(&self, statement: Statement, values: &[SqlValue<'_>]) -> SqlResult<()> {
        let mut statement = self.prepare_cached(statement.question_marks)?;
        statement.execute(params_from_iter(values))?;
        Ok(())
    }

    fn query(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        each: &mut dyn FnMut(&dyn SqlRow) -> SqlResult<ControlFlow<()>>,
    ) -> SqlResult<()> {
        let mut statement = self.prepare_cached(statement.question_marks)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl SqlRow for Row<'_> {
    fn value(&self, column: usize) -> SqlResult<SqlValue<'_>> {
        Ok(match self.get_ref(column)? {
            ValueRef::Null => SqlValue::Null,
            ValueRef::Integer(value) => SqlValue::Integer(value),
            ValueRef::Real(value) => SqlValue::Real(value),
            ValueRef::Text(text) => {
                let text = str::from_utf8(text)
                    .map_err(|_| SqlError::Unreadable(format!("column {column} is not UTF-8")))?;
                SqlValue::Text(Cow::Borrowed(text))
            }
            ValueRef::Blob(bytes) => SqlValue::Blob(Cow::Borrowed(bytes)),
        })
    }
}

impl ToSql for SqlValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

// === impl FileIdentity ===

impl FileIdentity {
    /// Returns the identity of the file that has this path now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Returns whether the path still leads to this file.
    pub(super) fn is_at(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|now| now == self)
    }
}
