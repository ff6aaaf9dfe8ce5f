//! The file, as the threads that use it see it together.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    connection::{self, FileAccess, FileIdentity, OpenError, real_path},
    reader::SqliteReader,
    writer::SqliteWriter,
};
use crate::store::{StoreError, sql::store::SqlEngine};

/// The file of a store, which can be damaged, deleted or replaced while it is open.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    state: Mutex<FileState>,
}

#[derive(Debug)]
enum FileState {
    /// The writer has not opened it, for this reason.
    Closed(String),
    Open(OpenFile),
    /// The content of this file is damaged.
    Damaged(OpenFile),
}

/// A file that the writer has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFile {
    identity: FileIdentity,
    pub(super) access: FileAccess,
    /// Counts how often the path was opened: an inode can be used again.
    opening: u64,
}

// === impl StoreFile ===

impl StoreFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: real_path(path),
            state: Mutex::new(FileState::Closed("it was not opened yet".to_owned())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file, if it is still the one at the path.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOpen`] with the reason.
    pub(super) fn current(&self) -> Result<OpenFile, StoreError> {
        match &*self.lock() {
            FileState::Open(file) if file.identity.is_at(&self.path) => Ok(*file),
            FileState::Open(_) => Err(self.not_open("the file was deleted or replaced")),
            FileState::Damaged(_) => Err(self.not_open("the file is damaged")),
            FileState::Closed(reason) => Err(self.not_open(reason)),
        }
    }

    pub(super) fn set_open(
        &self,
        identity: FileIdentity,
        access: FileAccess,
        opening: u64,
    ) -> OpenFile {
        let file = OpenFile {
            identity,
            access,
            opening,
        };
        *self.lock() = FileState::Open(file);
        file
    }

    /// Opens a file for readers alone, and changes nothing. Returns false if it has no store.
    pub(super) fn open_existing(&self) -> Result<bool, OpenError> {
        let identity = match FileIdentity::of(&self.path) {
            Ok(identity) => identity,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(access) = connection::check_source(&self.path)? else {
            return Ok(false);
        };
        self.set_open(identity, access, 0);
        Ok(true)
    }

    pub(super) fn not_open(&self, reason: &str) -> StoreError {
        StoreError::NotOpen(format!("{}: {reason}", self.path.display()))
    }

    pub(super) fn set_closed(&self, reason: String) {
        *self.lock() = FileState::Closed(reason);
    }

    /// Records that a file turned out to be damaged, unless another is open by now.
    pub(super) fn set_damaged(&self, damaged: OpenFile) {
        let mut state = self.lock();
        if matches!(&*state, FileState::Open(file) if *file == damaged) {
            *state = FileState::Damaged(damaged);
        }
    }

    /// Returns whether the file at the path is known to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        matches!(&*self.lock(), FileState::Damaged(file) if file.identity.is_at(&self.path))
    }

    fn lock(&self) -> MutexGuard<'_, FileState> {
        // It is assigned whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqlEngine for StoreFile {
    type Reader = SqliteReader;
    type Writer = SqliteWriter;

    fn is_open(&self) -> bool {
        self.current().is_ok()
    }
}

impl fmt::Display for StoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
