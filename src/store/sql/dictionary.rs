//! Texts that are stored once, and their numbers.
//!
//! Numbers begin at 1, follow each other and are never deleted, so entries that another connection
//! added are those after the last known number.

use std::{hash::Hash, sync::Arc};

use ahash::AHashMap;
use rusqlite::{Connection, Row, params};

use super::error::{SqliteError, SqliteResult};
use crate::{
    domain::{CustomerId, SharedTexts, UsageRow},
    store::{sql, sqlite::connection::prepare},
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
    entries: Vec<T>,
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

/// What a dictionary has.
pub(in crate::store) trait DictionaryEntry: Clone + Eq + Hash {
    /// Returns the entries after a number: the number first.
    const AFTER: &'static str;

    fn read(row: &Row<'_>, texts: &mut SharedTexts) -> SqliteResult<Self>;

    fn add(&self, connection: &Connection, number: i64) -> rusqlite::Result<usize>;
}

// === impl Dictionary ===

impl<T: DictionaryEntry> Dictionary<T> {
    /// Returns the entry of a number.
    pub(in crate::store) fn entry(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> SqliteResult<&T> {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if index >= self.entries.len() {
            self.load(connection)?;
        }
        self.entries
            .get(index)
            .ok_or_else(|| SqliteError::Unreadable(format!("{number} is the number of no text")))
    }

    /// Returns the number of an entry, if it has one.
    pub(in crate::store) fn find(
        &mut self,
        connection: &Connection,
        entry: &T,
    ) -> SqliteResult<Option<i64>> {
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
        connection: &Connection,
        entry: &T,
    ) -> SqliteResult<i64> {
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
        connection: &Connection,
    ) -> SqliteResult<&AHashMap<T, i64>> {
        self.load(connection)?;
        Ok(&self.numbers)
    }

    fn load(&mut self, connection: &Connection) -> SqliteResult<()> {
        let mut statement = prepare(connection, T::AFTER)?;
        let mut rows = statement.query([self.last_number()])?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            if number != self.last_number() + 1 {
                let problem = format!("the texts before number {number} are missing");
                return Err(SqliteError::Unreadable(problem));
            }
            let entry = T::read(row, &mut self.texts)?;
            self.push(entry, number);
        }
        Ok(())
    }

    fn push(&mut self, entry: T, number: i64) {
        self.entries.push(entry.clone());
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
    const AFTER: &'static str = sql::CUSTOMERS_AFTER;

    fn read(row: &Row<'_>, _: &mut SharedTexts) -> SqliteResult<Self> {
        customer_id(row, 1)
    }

    fn add(&self, connection: &Connection, number: i64) -> rusqlite::Result<usize> {
        prepare(connection, sql::ADD_CUSTOMER)?.execute(params![number, self.to_string()])
    }
}

impl DictionaryEntry for Arc<str> {
    const AFTER: &'static str = sql::NAMES_AFTER;

    fn read(row: &Row<'_>, texts: &mut SharedTexts) -> SqliteResult<Self> {
        Ok(texts.share(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?))
    }

    fn add(&self, connection: &Connection, number: i64) -> rusqlite::Result<usize> {
        prepare(connection, sql::ADD_NAME)?.execute(params![number, self])
    }
}

impl DictionaryEntry for ProductTexts {
    const AFTER: &'static str = sql::PRODUCTS_AFTER;

    fn read(row: &Row<'_>, texts: &mut SharedTexts) -> SqliteResult<Self> {
        let mut optional = |column| -> rusqlite::Result<Option<Arc<str>>> {
            let text: Option<String> = row.get(column)?;
            Ok(text.map(|text| texts.share(text)))
        };
        let (product_id, service_code) = (optional(1)?, optional(4)?);
        let channel = optional(5)?;
        Ok(Self {
            product_id,
            product_name: texts.share(row.get::<_, String>(2)?),
            service_name: texts.share(row.get::<_, String>(3)?),
            service_code,
            channel,
        })
    }

    fn add(&self, connection: &Connection, number: i64) -> rusqlite::Result<usize> {
        prepare(connection, sql::ADD_PRODUCT)?.execute(params![
            number,
            self.product_id,
            self.product_name,
            self.service_name,
            self.service_code,
            self.channel
        ])
    }
}

impl DictionaryEntry for WorkloadTexts {
    const AFTER: &'static str = sql::WORKLOADS_AFTER;

    fn read(row: &Row<'_>, texts: &mut SharedTexts) -> SqliteResult<Self> {
        let code: Option<String> = row.get(2)?;
        Ok(Self {
            workload_name: texts.share(row.get::<_, String>(1)?),
            workload_code: code.map(|code| texts.share(code)),
        })
    }

    fn add(&self, connection: &Connection, number: i64) -> rusqlite::Result<usize> {
        let parameters = params![number, self.workload_name, self.workload_code];
        prepare(connection, sql::ADD_WORKLOAD)?.execute(parameters)
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
pub(in crate::store) fn customer_id(row: &Row<'_>, column: usize) -> SqliteResult<CustomerId> {
    let text: String = row.get(column)?;
    CustomerId::parse(&text)
        .map_err(|_| SqliteError::Unreadable(format!("{text:?} is the id of no customer")))
}
