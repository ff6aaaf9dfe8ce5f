//! Texts that are stored once, and their numbers.
//!
//! Numbers begin at 1, follow each other and are never deleted, so entries that another connection
//! added are those after the last known number. An entry that is missing or unreadable all the same, because
//! something else changed the store, costs only the rows that have its number.

use std::{borrow::Cow, hash::Hash, sync::Arc};

use ahash::AHashMap;

use super::{
    Statement,
    connection::{SqlConnection, SqlRow, values},
    error::{SqlError, SqlResult},
};
use crate::{
    domain::{CustomerId, SharedTexts, UsageRow},
    store::sql,
};

/// All dictionaries of one connection.
#[derive(Debug, Default)]
pub(in crate::store) struct Dictionaries {
    pub(in crate::store) customers: Dictionary<CustomerId>,
    pub(in crate::store) customer_names: Dictionary<Arc<str>>,
    pub(in crate::store) products: Dictionary<ProductTexts>,
    pub(in crate::store) workloads: Dictionary<WorkloadTexts>,
}

/// The entries of one table.
#[derive(Debug)]
pub(in crate::store) struct Dictionary<T> {
    /// `None`: missing or unreadable.
    entries: Vec<Option<T>>,
    numbers: AHashMap<T, i64>,
    texts: SharedTexts,
}

/// The texts of a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct ProductTexts {
    pub(in crate::store) product_id: Option<Arc<str>>,
    pub(in crate::store) product_name: Arc<str>,
    pub(in crate::store) service_name: Arc<str>,
    pub(in crate::store) service_code: Option<Arc<str>>,
    pub(in crate::store) channel: Option<Arc<str>>,
}

/// The texts of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct WorkloadTexts {
    pub(in crate::store) workload_name: Arc<str>,
    pub(in crate::store) workload_code: Option<Arc<str>>,
}

/// An entry of a dictionary.
pub(in crate::store) trait DictionaryEntry: Clone + Eq + Hash {
    /// Returns the entries after a number: the number first.
    const AFTER: Statement;

    fn read(row: &dyn SqlRow, texts: &mut SharedTexts) -> SqlResult<Self>;

    fn add(&self, connection: &dyn SqlConnection, number: i64) -> SqlResult<()>;
}

/// The most entries that may be missing in a row; a damaged number must not reserve more memory.
const MAX_MISSING: i64 = 100_000;

// === impl Dictionary ===

impl<T: DictionaryEntry> Dictionary<T> {
    /// Returns the entry of a number.
    pub(in crate::store) fn entry(
        &mut self,
        connection: &dyn SqlConnection,
        number: i64,
    ) -> SqlResult<&T> {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if index >= self.entries.len() {
            self.load(connection)?;
        }
        let entry = self.entries.get(index).and_then(Option::as_ref);
        entry.ok_or_else(|| SqlError::Unreadable(format!("{number} is the number of no text")))
    }

    /// Returns the number of an entry, if it has one.
    pub(in crate::store) fn find(
        &mut self,
        connection: &dyn SqlConnection,
        entry: &T,
    ) -> SqlResult<Option<i64>> {
        if let Some(number) = self.numbers.get(entry) {
            return Ok(Some(*number));
        }
        self.load(connection)?;
        Ok(self.numbers.get(entry).copied())
    }

    /// Returns the number of an entry, which is added if it has none. The dictionary must be dropped
    /// if the transaction fails.
    pub(in crate::store) fn number(
        &mut self,
        connection: &dyn SqlConnection,
        entry: &T,
    ) -> SqlResult<i64> {
        if let Some(number) = self.find(connection, entry)? {
            return Ok(number);
        }
        let number = self.last_number() + 1;
        entry.add(connection, number)?;
        self.push(entry.clone(), number);
        Ok(number)
    }

    /// Returns all entries with their numbers.
    pub(in crate::store) fn all(
        &mut self,
        connection: &dyn SqlConnection,
    ) -> SqlResult<&AHashMap<T, i64>> {
        self.load(connection)?;
        Ok(&self.numbers)
    }

    fn load(&mut self, connection: &dyn SqlConnection) -> SqlResult<()> {
        let last = self.last_number();
        connection.for_each(T::AFTER, values![last], |row| {
            let number: i64 = row.get(0)?;
            let missing = number - self.last_number() - 1;
            if !(0..=MAX_MISSING).contains(&missing) {
                let problem = format!("the texts before number {number} are missing");
                return Err(SqlError::Unreadable(problem));
            }
            for _ in 0..missing {
                self.entries.push(None);
            }
            if missing > 0 {
                tracing::warn!(
                    number,
                    missing,
                    "texts before this number are missing in the store"
                );
            }
            match T::read(row, &mut self.texts) {
                Ok(entry) => self.push(entry, number),
                Err(error @ SqlError::Unreadable(_)) => {
                    tracing::warn!(number, %error, "a text in the store is unreadable");
                    self.entries.push(None);
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    fn push(&mut self, entry: T, number: i64) {
        self.entries.push(Some(entry.clone()));
        self.numbers.insert(entry, number);
    }

    fn last_number(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }
}

impl<T> Default for Dictionary<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            numbers: AHashMap::new(),
            texts: SharedTexts::default(),
        }
    }
}

// === impl DictionaryEntry ===

impl DictionaryEntry for CustomerId {
    const AFTER: Statement = sql::CUSTOMERS_AFTER;

    fn read(row: &dyn SqlRow, _: &mut SharedTexts) -> SqlResult<Self> {
        customer_id(row, 1)
    }

    fn add(&self, connection: &dyn SqlConnection, number: i64) -> SqlResult<()> {
        connection.execute(sql::ADD_CUSTOMER, values![number, self.to_string()])
    }
}

impl DictionaryEntry for Arc<str> {
    const AFTER: Statement = sql::NAMES_AFTER;

    /// Each name is stored once, so there is nothing to share.
    fn read(row: &dyn SqlRow, _: &mut SharedTexts) -> SqlResult<Self> {
        Ok(row.get::<Cow<'_, str>>(1)?.into())
    }

    fn add(&self, connection: &dyn SqlConnection, number: i64) -> SqlResult<()> {
        connection.execute(sql::ADD_NAME, values![number, &**self])
    }
}

impl DictionaryEntry for ProductTexts {
    const AFTER: Statement = sql::PRODUCTS_AFTER;

    fn read(row: &dyn SqlRow, texts: &mut SharedTexts) -> SqlResult<Self> {
        let mut optional = |column| -> SqlResult<Option<Arc<str>>> {
            let text: Option<Cow<'_, str>> = row.get(column)?;
            Ok(text.map(|text| texts.share(text)))
        };
        let (product_id, service_code) = (optional(1)?, optional(4)?);
        let channel = optional(5)?;
        Ok(Self {
            product_id,
            product_name: texts.share(row.get::<Cow<'_, str>>(2)?),
            service_name: texts.share(row.get::<Cow<'_, str>>(3)?),
            service_code,
            channel,
        })
    }

    fn add(&self, connection: &dyn SqlConnection, number: i64) -> SqlResult<()> {
        connection.execute(
            sql::ADD_PRODUCT,
            values![
                number,
                self.product_id.as_deref(),
                &*self.product_name,
                &*self.service_name,
                self.service_code.as_deref(),
                self.channel.as_deref(),
            ],
        )
    }
}

impl DictionaryEntry for WorkloadTexts {
    const AFTER: Statement = sql::WORKLOADS_AFTER;

    fn read(row: &dyn SqlRow, texts: &mut SharedTexts) -> SqlResult<Self> {
        let code: Option<Cow<'_, str>> = row.get(2)?;
        Ok(Self {
            workload_name: texts.share(row.get::<Cow<'_, str>>(1)?),
            workload_code: code.map(|code| texts.share(code)),
        })
    }

    fn add(&self, connection: &dyn SqlConnection, number: i64) -> SqlResult<()> {
        let values = values![number, &*self.workload_name, self.workload_code.as_deref()];
        connection.execute(sql::ADD_WORKLOAD, values)
    }
}

// === impl ProductTexts ===

impl From<&UsageRow> for ProductTexts {
    fn from(row: &UsageRow) -> Self {
        Self {
            product_id: row.product_id.clone(),
            product_name: Arc::clone(&row.product_name),
            service_name: Arc::clone(&row.service_name),
            service_code: row.service_code.clone(),
            channel: row.channel.clone(),
        }
    }
}

// === impl WorkloadTexts ===

impl From<&UsageRow> for WorkloadTexts {
    fn from(row: &UsageRow) -> Self {
        Self {
            workload_name: Arc::clone(&row.workload_name),
            workload_code: row.workload_code.clone(),
        }
    }
}

/// Reads the id of a customer.
pub(in crate::store) fn customer_id(row: &dyn SqlRow, column: usize) -> SqlResult<CustomerId> {
    let text: Cow<'_, str> = row.get(column)?;
    CustomerId::parse(&text)
        .map_err(|_| SqlError::Unreadable(format!("{text:?} is the id of no customer")))
}
