//! The rows of one body, no more than are believable.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

/// Rows of one body. A page has up to 10,000, and any row that says something takes hundreds of
/// bytes. Rows of nothing are two bytes long and would take a hundred times that once they are read.
pub(super) const MOST_ROWS: usize = 100_000;

/// A sequence of at most [`MOST_ROWS`].
#[derive(Debug)]
pub(super) struct RowList<T>(pub(super) Vec<T>);

struct RowsVisitor<T>(PhantomData<T>);

// === impl Rows ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for RowList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for RowsVisitor<T> {
    type Value = RowList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<RowList<T>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = sequence.next_element()? {
            if rows.len() == MOST_ROWS {
                let fault = format_args!("too many rows, expected at most {MOST_ROWS} rows");
                return Err(A::Error::custom(fault));
            }
            rows.push(row);
        }
        Ok(RowList(rows))
    }
}
