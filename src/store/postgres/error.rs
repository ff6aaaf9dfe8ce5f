use tokio_postgres::error::SqlState;

use crate::{store::StoreError, text::error_chain};

/// The server cannot be reached, or reports an error.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum PostgresError {
    /// It did not answer in time.
    #[error("the server does not answer in time")]
    TimedOut,
    /// There is no connection, and this call must not wait for one.
    #[error("{0}")]
    NotConnected(String),
    /// A connection cannot be made, or broke; or a statement failed.
    #[error("{}", message(.0))]
    Server(#[from] tokio_postgres::Error),
    /// The files for the connection are missing or wrong, or the system fails.
    #[error("{0}")]
    Setup(String),
}

// === impl PostgresError ===

impl PostgresError {
    /// Returns whether the same transaction may succeed now.
    pub(in crate::store) fn is_retryable(&self) -> bool {
        let states = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        self.state().is_some_and(|state| states.contains(state))
    }

    /// Returns whether two processes created the same thing at the same time.
    pub(super) fn is_duplicate(&self) -> bool {
        let states = [
            SqlState::UNIQUE_VIOLATION,
            SqlState::DUPLICATE_SCHEMA,
            SqlState::DUPLICATE_TABLE,
        ];
        self.state().is_some_and(|state| states.contains(state))
    }

    /// Returns whether the schema, or the database, is not there any more.
    pub(in crate::store) fn lacks_schema(&self) -> bool {
        let states = [
            SqlState::UNDEFINED_TABLE,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::UNDEFINED_DATABASE,
        ];
        self.state().is_some_and(|state| states.contains(state))
    }

    /// Returns whether the server answered a statement with this error.
    pub(super) fn is_answer(&self) -> bool {
        self.state().is_some() && !self.is_lost()
    }

    /// Returns whether the connection was lost before or during a statement.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Server(error) => match error.as_db_error() {
                // The server ends it, or is starting or stopping.
                Some(error) => error.code().code().starts_with("57P"),
                None => true,
            },
            Self::NotConnected(_) => true,
            Self::TimedOut | Self::Setup(_) => false,
        }
    }

    pub(super) fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            Self::TimedOut | Self::NotConnected(_) | Self::Setup(_) => None,
        }
    }
}

impl From<PostgresError> for StoreError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::TimedOut => Self::Unavailable,
            PostgresError::NotConnected(_) | PostgresError::Setup(_) => {
                Self::NotOpen(error.to_string())
            }
            PostgresError::Server(_) => Self::Failed(error.to_string()),
        }
    }
}

/// Returns what the server says, without the rows that it may quote.
fn message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error_chain(error),
    }
}
