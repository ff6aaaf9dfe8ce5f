//! The connection of any engine, as the code that all engines share sees it.

use std::{borrow::Cow, ops::ControlFlow};

use super::{
    Statement,
    error::{SqlError, SqlResult},
};
use crate::store::Notification;

/// A connection inside a transaction.
pub(in crate::store) trait SqlConnection {
    /// Runs a statement without a result. An engine may send it later, before the next query or the end of
    /// the transaction, which then returns its error.
    fn execute(&self, statement: Statement, values: &[SqlValue<'_>]) -> SqlResult<()>;

    /// Runs a statement and passes its rows on, until one of them says to stop.
    fn query(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        each: &mut dyn FnMut(&dyn SqlRow) -> SqlResult<ControlFlow<()>>,
    ) -> SqlResult<()>;

    /// Announces a query, whose result no statement changes before it runs. An engine with a network in
    /// between asks for many at once.
    fn read_ahead(&self, _statement: Statement, _key: &[i64]) {}

    /// Forgets the result of an announced query, because it changes now.
    fn forget(&self, _statement: Statement, _key: &[i64]) {}

    /// Returns whether processes share a server, over a network: [`read_ahead`](Self::read_ahead) is of
    /// use, and there are leases.
    fn is_server(&self) -> bool {
        false
    }

    /// Notifies other processes once the transaction is committed.
    fn notify(&self, _notification: Notification) {}
}

/// A row of a result.
pub(in crate::store) trait SqlRow {
    /// Returns the value of a column, counted from 0.
    fn value(&self, column: usize) -> SqlResult<SqlValue<'_>>;
}

/// A parameter, or a value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum SqlValue<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

/// A type that a value of a row can be read as.
pub(in crate::store) trait FromSqlValue<'a>: Sized {
    /// Returns `None` for a value of another type.
    fn from_value(value: SqlValue<'a>) -> Option<Self>;
}

/// Makes a slice of parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::connection::SqlValue::from($value)),*] };
}
pub(in crate::store) use values;

// === impl SqlConnection ===

impl dyn SqlConnection + '_ {
    /// Passes all rows of a query on.
    pub(in crate::store) fn for_each(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        mut each: impl FnMut(&dyn SqlRow) -> SqlResult<()>,
    ) -> SqlResult<()> {
        self.query(statement, values, &mut |row| {
            each(row).map(ControlFlow::Continue)
        })
    }

    /// Returns the first row of a query; `None` if there is none.
    pub(in crate::store) fn query_first<T>(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        mut read: impl FnMut(&dyn SqlRow) -> SqlResult<T>,
    ) -> SqlResult<Option<T>> {
        let mut first = None;
        self.query(statement, values, &mut |row| {
            first = Some(read(row)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// Returns the one value of a query that has one row.
    pub(in crate::store) fn query_value<T: for<'a> FromSqlValue<'a>>(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
    ) -> SqlResult<T> {
        let value = self.query_first(statement, values, |row| row.get(0))?;
        value.ok_or_else(|| SqlError::Unreadable("a query has no row".to_owned()))
    }

    /// Returns what is read of each row of a query.
    pub(in crate::store) fn query_all<T>(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        mut read: impl FnMut(&dyn SqlRow) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        let mut all = Vec::new();
        self.for_each(statement, values, |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }
}

impl dyn SqlConnection + '_ {
    /// Iterates over items, and announces a query about each, for `count` of them at a time.
    pub(in crate::store) fn reading_ahead<'a, T, const N: usize>(
        &'a self,
        items: &'a [T],
        count: usize,
        statement: Statement,
        key: impl Fn(&T) -> [i64; N] + 'a,
    ) -> impl Iterator<Item = &'a T> {
        items.chunks(count).flat_map(move |chunk| {
            if self.is_server() {
                for item in chunk {
                    self.read_ahead(statement, &key(item));
                }
            }
            chunk
        })
    }
}

// === impl SqlRow ===

impl<'r> dyn SqlRow + 'r {
    /// Reads the value of a column, counted from 0.
    pub(in crate::store) fn get<'a, T: FromSqlValue<'a>>(&'a self, column: usize) -> SqlResult<T> {
        T::from_value(self.value(column)?)
            .ok_or_else(|| SqlError::Unreadable(format!("column {column} has another type")))
    }
}

// === impl SqlValue ===

impl From<i64> for SqlValue<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for SqlValue<'_> {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl<'a> From<&'a str> for SqlValue<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for SqlValue<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}

impl<'a> From<&'a [u8]> for SqlValue<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Blob(Cow::Borrowed(value))
    }
}

impl<'a, T: Into<SqlValue<'a>>> From<Option<T>> for SqlValue<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

// === impl FromSqlValue ===

impl FromSqlValue<'_> for i64 {
    fn from_value(value: SqlValue<'_>) -> Option<Self> {
        match value {
            SqlValue::Integer(value) => Some(value),
            _ => None,
        }
    }
}

impl FromSqlValue<'_> for f64 {
    fn from_value(value: SqlValue<'_>) -> Option<Self> {
        match value {
            SqlValue::Real(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> FromSqlValue<'a> for Cow<'a, str> {
    fn from_value(value: SqlValue<'a>) -> Option<Self> {
        match value {
            SqlValue::Text(value) => Some(value),
            _ => None,
        }
    }
}

impl FromSqlValue<'_> for String {
    fn from_value(value: SqlValue<'_>) -> Option<Self> {
        Cow::<'_, str>::from_value(value).map(Cow::into_owned)
    }
}

impl<'a> FromSqlValue<'a> for Cow<'a, [u8]> {
    fn from_value(value: SqlValue<'a>) -> Option<Self> {
        match value {
            SqlValue::Blob(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a, T: FromSqlValue<'a>> FromSqlValue<'a> for Option<T> {
    fn from_value(value: SqlValue<'a>) -> Option<Self> {
        match value {
            SqlValue::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
