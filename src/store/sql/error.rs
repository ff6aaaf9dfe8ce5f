use rusqlite::ErrorCode;

use crate::store::{StoreError, postgres::PostgresError};

/// A statement or a stored value is wrong.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum SqlError {
    /// SQLite reports an error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The PostgreSQL server cannot be reached, or reports an error.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A stored value is none that this program writes.
    #[error("{0}")]
    Unreadable(String),
    /// A change can never be stored.
    #[error("{0}")]
    Unstorable(&'static str),
}

pub(in crate::store) type SqlResult<T> = Result<T, SqlError>;

// === impl SqlError ===

impl SqlError {
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

    /// Returns whether a connection to a PostgreSQL server must not be used any more.
    pub(in crate::store) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Postgres(error) if !error.is_retryable())
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Postgres(_) | Self::Unreadable(_) | Self::Unstorable(_) => None,
        }
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Sqlite(_) | SqlError::Unreadable(_) => Self::Failed(error.to_string()),
            SqlError::Postgres(error) => error.into(),
            SqlError::Unstorable(reason) => Self::Unstorable(reason),
        }
    }
}
