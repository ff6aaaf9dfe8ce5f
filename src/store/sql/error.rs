use rusqlite::ErrorCode;

use crate::store::StoreError;

/// A statement or a stored value is wrong.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum SqliteError {
    /// SQLite reports an error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A stored value is none that this program writes.
    #[error("{0}")]
    Unreadable(String),
    /// A change can never be stored.
    #[error("{0}")]
    Unstorable(&'static str),
}

pub(in crate::store) type SqliteResult<T> = Result<T, SqliteError>;

// === impl SqliteError ===

impl SqliteError {
    /// Returns whether the file itself is damaged.
    pub(in crate::store) fn is_corruption(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }

    /// Returns whether the file, or one beside it, cannot be written.
    pub(in crate::store) fn is_unwritable(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
        )
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Unreadable(_) | Self::Unstorable(_) => None,
        }
    }
}

impl From<SqliteError> for StoreError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Sqlite(_) | SqliteError::Unreadable(_) => Self::Failed(error.to_string()),
            SqliteError::Unstorable(reason) => Self::Unstorable(reason),
        }
    }
}
