//! A look at the file that changes nothing, for commands that check a configuration.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat, statvfs},
    process::{Flock, FlockType, fcntl_getlk},
};

use super::{
    connection::{
        OpenError, check_file_system, folder_of, has_log, open_inspected, real_path, stored_bytes,
        with_suffix,
    },
    migrations,
};
use crate::{store::StoreStartError, text::error_chain};

/// A file that the service can use, or make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInspection {
    /// The file, without symbolic links.
    pub path: PathBuf,
    /// The bytes of the file and its log; `None` if there is no file yet.
    pub stored_bytes: Option<u64>,
    /// The bytes that are free on its file system; `None` if the system does not say.
    pub free_bytes: Option<u64>,
    /// A process that has the file open; `None` if there is none, or the system does not say.
    pub opened_by: Option<FileUser>,
}

/// Another process that has a file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUser {
    /// By its number.
    Process(i32),
    /// A process that this one cannot see, such as one of another container.
    Invisible,
}

/// The service cannot use the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The service does not start with it.
    #[error(transparent)]
    Refused(#[from] StoreStartError),
    /// The service keeps nothing until that is mended.
    #[error("store.url: {}: {reason}", path.display())]
    Unusable {
        /// The file, or its folder.
        path: PathBuf,
        /// The reason, and what to do.
        reason: String,
    },
}

/// The first bytes of every SQLite file.
const SQLITE_HEADER: &[u8; 16] = b"SQLite format 3\0";

/// A process that has the file open has a lock on this byte of the `-shm` file (`UNIX_SHM_DMS` of SQLite).
const OPEN_LOCK_BYTE: u64 = 128;

/// Looks at the file of a store as this user, and changes nothing.
///
/// # Errors
///
/// [`StoreFault`] if the service of this user cannot use it.
pub fn inspect(path: &Path) -> Result<StoreInspection, StoreFault> {
    let path = real_path(path);
    let folder = folder_of(&path);
    let is_folder = fs::metadata(folder).map(|metadata| metadata.is_dir());
    match is_folder {
        Ok(true) => {}
        Ok(false) => return Err(unusable(folder, "is no folder")),
        Err(error) => {
            let reason = format!("{error}; make the folder, and give it to the service's user");
            return Err(unusable(folder, reason));
        }
    }
    check_file_system(&path)?;
    if !is_allowed(folder, Access::WRITE_OK | Access::EXEC_OK) {
        let reason = "this user cannot write in the folder; give it to the service's user";
        return Err(unusable(folder, reason));
    }
    let stored_bytes = match stored_bytes(&path) {
        Ok(bytes) => {
            check_file(&path)?;
            Some(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&path, error.to_string())),
    };
    let free = statvfs(folder).ok();
    Ok(StoreInspection {
        stored_bytes,
        free_bytes: free.map(|free| free.f_bavail.saturating_mul(free.f_frsize)),
        opened_by: opened_by(&path),
        path,
    })
}

fn check_file(path: &Path) -> Result<(), StoreFault> {
    if !path.is_file() {
        return Err(unusable(path, "is no file"));
    }
    if !is_allowed(path, Access::READ_OK | Access::WRITE_OK) {
        let reason = "this user cannot read and write the file; give it to the service's user";
        return Err(unusable(path, reason));
    }
    let mut header = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = SQLITE_HEADER.len() as u64;
        file.take(length).read_to_end(&mut header)
    });
    if let Err(error) = read {
        return Err(unusable(path, error.to_string()));
    }
    if header.is_empty() {
        // The service makes it a database, or has its first pages still in the log.
        return Ok(());
    }
    if header != SQLITE_HEADER {
        let reason = "is no SQLite database; the service renames it, and begins a new one";
        return Err(unusable(path, reason));
    }
    match check_content(path) {
        Err(OpenError::Refused(refused)) => Err(refused.into()),
        // Pages that are only in the log may be missing.
        Err(error) if !has_log(path) => Err(unusable(path, error_chain(&error))),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn check_content(path: &Path) -> Result<(), OpenError> {
    let connection = open_inspected(path)?;
    migrations::check_owner(&connection, path)?;
    migrations::check_version(&connection, path).map(drop)
}

fn is_allowed(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

fn opened_by(path: &Path) -> Option<FileUser> {
    let index = File::open(with_suffix(path, "-shm")).ok()?;
    let mut lock = Flock::from(FlockType::WriteLock);
    (lock.start, lock.length) = (OPEN_LOCK_BYTE, 1);
    let conflicting = fcntl_getlk(&index, &lock).ok()??;
    // The system gives 0 for a process of another PID namespace, which rustix takes for none.
    Some(match conflicting.pid {
        Some(process) => FileUser::Process(process.as_raw_pid()),
        None => FileUser::Invisible,
    })
}

impl fmt::Display for FileUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(number) => write!(f, "process {number}"),
            Self::Invisible => f.write_str("a process outside this container"),
        }
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> StoreFault {
    StoreFault::Unusable {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};

    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{UsageStore, tests::fixtures};

    async fn store() -> (TempDir, PathBuf, std::sync::Arc<dyn UsageStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = fixtures::open(&folder, crate::domain::UpstreamApi::Insights).await;
        let path = folder.path().join("usage.db");
        (folder, path, store)
    }

    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[tokio::test]
    async fn a_file_of_ours_is_usable_whether_it_is_open_or_not() {
        let (folder, path, store) = store().await;
        let link = folder.path().join("link.db");
        symlink(&path, &link).unwrap();

        let open = inspect(&link).unwrap();
        store.close().await.unwrap();
        let closed = inspect(&path).unwrap();

        assert_eq!((&open.path, &closed.path), (&path, &path));
        assert!(closed.stored_bytes.is_some_and(|bytes| bytes > 0));
        assert!(closed.free_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(files(&folder), 2, "nothing is left behind");
    }

    #[test]
    fn a_file_that_is_missing_will_be_made() {
        let folder = tempfile::tempdir().unwrap();

        let found = inspect(&folder.path().join("usage.db")).unwrap();

        assert_eq!((found.stored_bytes, found.opened_by), (None, None));
        assert_eq!(files(&folder), 0);
    }

    #[tokio::test]
    async fn what_the_service_would_refuse_is_refused() {
        let (_folder, newer, store) = store().await;
        store.close().await.unwrap();
        let connection = Connection::open(&newer).unwrap();
        connection
            .execute("INSERT INTO schema_version VALUES (999, 0)", [])
            .unwrap();
        drop(connection);
        let other_folder = tempfile::tempdir().unwrap();
        let other = other_folder.path().join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE other (id INTEGER)")
            .unwrap();

        for (path, expected) in [(newer, "schema version 999"), (other, "another program")] {
            let refused = inspect(&path).unwrap_err();

            assert!(matches!(refused, StoreFault::Refused(_)), "{refused:?}");
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_keeps_the_service_from_its_file_is_named() {
        let (_folder, damaged, store) = store().await;
        store.close().await.unwrap();
        let file = fs::OpenOptions::new().write(true).open(&damaged).unwrap();
        file.write_all_at(&[0xa5; 4096], 100).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.db");
        fs::write(&text, "This is a text and no database.").unwrap();

        for (path, expected) in [
            (damaged, "malformed"),
            (text.clone(), "no SQLite database"),
            (text.join("usage.db"), "is no folder"),
            (folder.path().join("missing/usage.db"), "make the folder"),
            (folder.path().to_owned(), "is no file"),
        ] {
            let fault = inspect(&path).unwrap_err();

            assert!(matches!(fault, StoreFault::Unusable { .. }), "{fault:?}");
            assert!(fault.to_string().contains(expected), "{expected}: {fault}");
        }
    }
}
