//! Parameters and columns between [`SqlValue`] and PostgreSQL's types.

use std::{borrow::Cow, error::Error};

use bytes::BytesMut;
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

use crate::store::sql::{
    connection::{SqlRow, SqlValue},
    error::{SqlError, SqlResult},
};

/// Stands for the character 0, which PostgreSQL's texts cannot have, when followed by `0`; doubled, it
/// stands for itself.
const ESCAPE: char = '\u{2400}';

type BoxError = Box<dyn Error + Sync + Send>;

// === impl SqlValue ===

impl SqlValue<'_> {
    /// Returns the type that is sent with the value. The server infers the type of NULL.
    pub(super) fn postgres_type(&self) -> Type {
        match self {
            Self::Null => Type::UNKNOWN,
            Self::Integer(_) => Type::INT8,
            Self::Real(_) => Type::FLOAT8,
            Self::Text(_) => Type::TEXT,
            Self::Blob(_) => Type::BYTEA,
        }
    }

    /// Returns a copy that borrows nothing.
    pub(super) fn to_static(&self) -> SqlValue<'static> {
        match self {
            Self::Null => SqlValue::Null,
            Self::Integer(value) => SqlValue::Integer(*value),
            Self::Real(value) => SqlValue::Real(*value),
            Self::Text(text) => SqlValue::Text(Cow::Owned(text.clone().into_owned())),
            Self::Blob(bytes) => SqlValue::Blob(Cow::Owned(bytes.clone().into_owned())),
        }
    }
}

impl ToSql for SqlValue<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(value) => value.to_sql(ty, out),
            Self::Real(value) => value.to_sql(ty, out),
            Self::Text(text) => escape(text).to_sql(ty, out),
            Self::Blob(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for SqlValue<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(match *ty {
            Type::INT2 => Self::Integer(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => Self::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Integer(i64::from_sql(ty, raw)?),
            Type::FLOAT8 => Self::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => Self::Blob(Cow::Borrowed(raw)),
            _ => Self::Text(unescape(<&str>::from_sql(ty, raw)?)),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, BoxError> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        let numbers_and_bytes = [
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT8,
            Type::BYTEA,
        ];
        numbers_and_bytes.contains(ty) || <&str as FromSql<'_>>::accepts(ty)
    }
}

// === impl SqlRow ===

impl SqlRow for Row {
    fn value(&self, column: usize) -> SqlResult<SqlValue<'_>> {
        let value = self.try_get(column);
        value.map_err(|error| SqlError::Unreadable(error.to_string()))
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let doubled = text.replace(ESCAPE, "\u{2400}\u{2400}");
    Cow::Owned(doubled.replace('\0', "\u{2400}0"))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ESCAPE if characters.next() == Some('0') => plain.push('\0'),
            character => plain.push(character),
        }
    }
    Cow::Owned(plain)
}
