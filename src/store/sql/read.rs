//! Snapshots and the list of customers, read.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Statement,
    apply::read_facts,
    connection::{SqlConnection, SqlRow, SqlValue, values},
    dictionary::{Dictionaries, customer_id},
    error::{SqlError, SqlResult},
};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{
        CustomerEntry, CustomerId, CustomerList, LicenseUsage, ListedCustomer, ProcessedDate,
        Resource, UpstreamApi, UsageRow,
    },
    store::{
        LaterChanges, LaterPurges, StoredCustomers, StoredFleetDate, StoredPurge, StoredSnapshot,
        native_body::{BodyCodec, is_of_customer},
        schema::{
            ALL_CUSTOMERS, PurgeGenerations, StoredFact, date_of_day, purge_mode_of_number,
            source_number, source_of_number,
        },
        sql,
    },
};

/// The transaction that queries read in, with the texts that its connection has seen.
pub(in crate::store) struct Queries<'a> {
    pub(in crate::store) connection: &'a dyn SqlConnection,
    pub(in crate::store) dictionaries: &'a mut Dictionaries,
    pub(in crate::store) bodies: &'a mut BodyCodec,
}

/// A row of a snapshot, without its facts.
struct SnapshotHead {
    customer: i64,
    source: i64,
    day: i64,
    revision: i64,
    customer_name: Option<i64>,
    fetched_at: i64,
    confirmed_at: i64,
    generation: i64,
}

/// All purges.
#[derive(Default)]
pub(in crate::store) struct PurgeTable {
    /// By customer and day.
    generations: HashMap<(Option<i64>, Option<i64>), PurgeGenerations>,
}

/// The most changes that are read at once.
const CHANGES_OF_A_READ: i64 = 50;

/// Snapshots whose rows an engine may ask for at once.
const FACTS_AHEAD: usize = 200;

// === impl Queries ===

impl Queries<'_> {
    /// Reads all texts, so that no look-up has to.
    pub(in crate::store) fn read_texts(&mut self) -> SqlResult<()> {
        let (connection, dictionaries) = (self.connection, &mut *self.dictionaries);
        dictionaries.customers.all(connection)?;
        dictionaries.customer_names.all(connection)?;
        dictionaries.products.all(connection)?;
        dictionaries.workloads.all(connection)?;
        Ok(())
    }

    /// Returns a snapshot; `None` also for one that is unreadable, since upstream has it too.
    pub(in crate::store) fn snapshot(
        &mut self,
        resource: Resource,
    ) -> SqlResult<Option<StoredSnapshot>> {
        self.readable_snapshot(resource).or_else(|error| {
            let SqlError::Unreadable(_) = error else {
                return Err(error);
            };
            let customer = resource.customer().map(tracing::field::display);
            tracing::warn!(customer.id = customer, %error, "a stored snapshot is unreadable");
            Ok(None)
        })
    }

    fn readable_snapshot(&mut self, resource: Resource) -> SqlResult<Option<StoredSnapshot>> {
        let (Some(customer), Some(source)) = (resource.customer(), source_number(resource.api()))
        else {
            return Ok(None);
        };
        let customers = &mut self.dictionaries.customers;
        let Some(number) = customers.find(self.connection, &customer)? else {
            return Ok(None);
        };
        let Some(date) = resource.date() else {
            let values = values![number, source];
            let head = self
                .connection
                .query_first(sql::NEWEST_SNAPSHOT, values, |row| {
                    SnapshotHead::read(row, 0, number, source)
                })?;
            return self.with_body(customer, head);
        };
        let calls = [UpstreamApi::Commercial, UpstreamApi::Insights];
        for source in calls.into_iter().filter_map(source_number) {
            let values = values![number, source, date.days_since_epoch()];
            let head = self
                .connection
                .query_first(sql::DATED_SNAPSHOT, values, |row| {
                    SnapshotHead::read(row, 0, number, source)
                })?;
            let snapshot = self.with_body(customer, head)?;
            if snapshot.is_some() {
                return Ok(snapshot);
            }
        }
        Ok(None)
    }

    fn with_body(
        &mut self,
        customer: CustomerId,
        head: Option<SnapshotHead>,
    ) -> SqlResult<Option<StoredSnapshot>> {
        let Some(head) = head else {
            return Ok(None);
        };
        let key = [head.customer, head.day, head.source, head.revision];
        let [number, day, source, _] = key;
        let connection = self.connection;
        connection.read_ahead(sql::PURGES_OF_DAY, &[number, day]);
        connection.read_ahead(sql::FACTS, &[number, day, source]);
        connection.read_ahead(sql::BODY, &key);
        let purges = purges_of(connection, number, day)?;
        let Some(snapshot) = self.build(customer, &head, purges)? else {
            return Ok(None);
        };
        let native = self.body(&head)?;
        if native
            .as_deref()
            .is_some_and(|body| !is_of_customer(body, customer))
        {
            tracing::error!(customer.id = %customer, "a stored answer is not of its customer, and not used");
            return Ok(None);
        }
        Ok(Some(StoredSnapshot { native, ..snapshot }))
    }

    pub(in crate::store) fn newest_of_all(
        &mut self,
        preferred: UpstreamApi,
    ) -> SqlResult<Vec<StoredSnapshot>> {
        let heads = self.heads(sql::ALL_NEWEST_SNAPSHOTS, values![])?;
        self.preferred_of_each(heads, preferred)
    }

    pub(in crate::store) fn all_of_date(
        &mut self,
        date: ProcessedDate,
        preferred: UpstreamApi,
    ) -> SqlResult<StoredFleetDate> {
        let day = date.days_since_epoch();
        let heads = self.heads(sql::ALL_SNAPSHOTS_OF_DAY, values![day])?;
        let snapshots = self.preferred_of_each(heads, preferred)?;
        let asked = values![ALL_CUSTOMERS, day];
        let asked_at = self
            .connection
            .query_first(sql::FLEET_ASKED_AT, asked, |row| timestamp(row.get(0)?))?;
        Ok(StoredFleetDate {
            snapshots,
            asked_at,
        })
    }

    fn heads(&self, statement: Statement, values: &[SqlValue<'_>]) -> SqlResult<Vec<SnapshotHead>> {
        self.connection.query_all(statement, values, |row| {
            SnapshotHead::read(row, 2, row.get(0)?, row.get(1)?)
        })
    }

    /// Returns one snapshot of each customer.
    fn preferred_of_each(
        &mut self,
        mut heads: Vec<SnapshotHead>,
        preferred: UpstreamApi,
    ) -> SqlResult<Vec<StoredSnapshot>> {
        let connection = self.connection;
        let purges = PurgeTable::read(connection)?;
        let preferred = source_number(preferred);
        heads.sort_by_key(|head| (head.customer, Some(head.source) != preferred));
        let mut snapshots = Vec::new();
        let mut last = None;
        let facts = |head: &SnapshotHead| [head.customer, head.day, head.source];
        for head in connection.reading_ahead(&heads, FACTS_AHEAD, sql::FACTS, facts) {
            if last == Some(head.customer) {
                continue;
            }
            let purges = purges.of(head.customer, head.day);
            let customers = &mut self.dictionaries.customers;
            let customer = customers.entry(connection, head.customer).copied();
            match customer.and_then(|customer| self.build(customer, head, purges)) {
                Ok(None) => {}
                Ok(Some(snapshot)) => {
                    snapshots.push(snapshot);
                    last = Some(head.customer);
                }
                // One that is unreadable hides no other.
                Err(error @ SqlError::Unreadable(_)) => {
                    let number = head.customer;
                    let customer = self.dictionaries.customers.entry(connection, number).ok();
                    let customer = customer.map(tracing::field::display);
                    tracing::warn!(customer.id = customer, %error, "a stored snapshot is unreadable");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(snapshots)
    }

    /// Returns a snapshot without its body; `None` if a purge hides it.
    fn build(
        &mut self,
        customer: CustomerId,
        head: &SnapshotHead,
        purges: PurgeGenerations,
    ) -> SqlResult<Option<StoredSnapshot>> {
        if purges.hides(head.generation) {
            return Ok(None);
        }
        let facts = read_facts(self.connection, head.customer, head.day, head.source)?;
        let names = &mut self.dictionaries.customer_names;
        let name = match head.customer_name {
            Some(name) => Some(names.entry(self.connection, name)?.to_string()),
            None => None,
        };
        let mut rows = Vec::with_capacity(facts.len());
        for fact in &facts {
            rows.push(self.usage_row(fact, head.day)?);
        }
        let usage = LicenseUsage::new(customer, name, rows).map_err(unreadable)?;
        Ok(Some(StoredSnapshot {
            api: source_of_number(head.source)
                .ok_or_else(|| unreadable(format!("{} is no source", head.source)))?,
            usage: Arc::new(usage),
            native: None,
            revision: u32::try_from(head.revision).map_err(unreadable)?,
            fetched_at: timestamp(head.fetched_at)?,
            confirmed_at: timestamp(head.confirmed_at)?,
            is_purged: purges.includes(head.generation),
        }))
    }

    fn usage_row(&mut self, fact: &StoredFact, day: i64) -> SqlResult<UsageRow> {
        let products = &mut self.dictionaries.products;
        let product = products.entry(self.connection, fact.product)?;
        let workloads = &mut self.dictionaries.workloads;
        let workload = workloads.entry(self.connection, fact.workload)?;
        Ok(UsageRow {
            service_code: product.service_code.clone(),
            service_name: Arc::clone(&product.service_name),
            product_id: product.product_id.clone(),
            product_name: Arc::clone(&product.product_name),
            channel: product.channel.clone(),
            workload_code: workload.workload_code.clone(),
            workload_name: Arc::clone(&workload.workload_name),
            licenses_active: u64::try_from(fact.licenses_active).map_err(unreadable)?,
            licenses_qualified: u64::try_from(fact.licenses_qualified).map_err(unreadable)?,
            reported_usage_percent: fact.reported_usage_percent,
            processed_at: fact
                .processed_at(day)
                .ok_or_else(|| unreadable("a row has no instant"))?,
        })
    }

    fn body(&mut self, head: &SnapshotHead) -> SqlResult<Option<Bytes>> {
        let values = values![head.customer, head.day, head.source, head.revision];
        self.connection.query_first(sql::BODY, values, |row| {
            let bytes: Cow<'_, [u8]> = row.get(2)?;
            let body = self.bodies.decompress(row.get(0)?, &bytes, row.get(1)?);
            Ok(body.map_err(unreadable)?.into())
        })
    }

    /// Reads snapshots; `None` where there is none, or one that cannot be read.
    pub(in crate::store) fn snapshots(
        &mut self,
        resources: &[Resource],
    ) -> SqlResult<Vec<Option<StoredSnapshot>>> {
        let read = |resource: &Resource| match self.snapshot(*resource) {
            Err(error @ SqlError::Unreadable(_)) => {
                tracing::warn!(%error, "a stored snapshot is not taken over");
                Ok(None)
            }
            found => found,
        };
        resources.iter().map(read).collect()
    }

    /// Reads the purges after a generation. The store must still know that generation, and the last purge of
    /// this process.
    pub(in crate::store) fn purges_after(
        &mut self,
        generation: Option<i64>,
        last_own: Option<i64>,
        origin: i64,
    ) -> SqlResult<LaterPurges> {
        let connection = self.connection;
        let newest = connection.query_value(sql::GENERATION, values![])?;
        let mut went_back = false;
        for known in generation.into_iter().chain(last_own) {
            went_back |= has_lost(connection, known, newest)?;
        }
        let after = generation.unwrap_or(newest);
        let rows = connection.query_all(sql::PURGES_AFTER, values![after, newest], |row| {
            let customer: Option<i64> = row.get(1)?;
            let day: Option<i64> = row.get(2)?;
            Ok((row.get(0)?, customer, day, row.get(3)?))
        })?;
        let mut purges = Vec::with_capacity(rows.len());
        for (mode, customer, day, written_by) in rows {
            let written_by: Option<i64> = written_by;
            let mut purge = StoredPurge {
                scope: PurgeScope {
                    customer_id: None,
                    processed_date: day.and_then(date_of_day),
                },
                mode: purge_mode_of_number(mode),
                is_own: written_by == Some(origin),
            };
            if let Some(customer) = customer {
                let customers = &mut self.dictionaries.customers;
                match customers.entry(connection, customer) {
                    Ok(customer) => purge.scope.customer_id = Some(*customer),
                    Err(error @ SqlError::Unreadable(_)) => {
                        tracing::warn!(%error, "a stored purge is of no known customer: all are fetched again");
                        purge.scope = PurgeScope::default();
                        purge.mode = PurgeMode::Soft;
                    }
                    Err(error) => return Err(error),
                }
            }
            purges.push(purge);
        }
        Ok(LaterPurges {
            generation: newest,
            went_back,
            purges,
        })
    }

    /// Reads the next changes of other processes.
    pub(in crate::store) fn changes_after(
        &mut self,
        number: Option<i64>,
        origin: i64,
    ) -> SqlResult<LaterChanges> {
        let connection = self.connection;
        let numbers = connection.query_first(sql::CHANGE_NUMBERS, values![], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let (first, last): (Option<i64>, Option<i64>) = numbers.unwrap_or_default();
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        let mut later = LaterChanges {
            number: last,
            has_more: false,
            is_cut: number.is_some_and(|number| number < first),
            resources: Vec::new(),
        };
        let Some(number) = number.filter(|number| *number < last && !later.is_cut) else {
            return Ok(later);
        };
        let values = values![number, CHANGES_OF_A_READ];
        let rows = connection.query_all(sql::CHANGES_AFTER, values, |row| {
            let change: (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, change, row.get::<i64>(4)?))
        })?;
        later.number = rows.last().map_or(last, |(number, ..)| *number);
        later.has_more = later.number < last;
        for (_, (customer, day, source), by) in rows {
            let Some(api) = source_of_number(source).filter(|_| by != origin) else {
                continue;
            };
            // Without its customer, nobody can have it cached.
            let customer = match self.dictionaries.customers.entry(connection, customer) {
                Ok(customer) => *customer,
                Err(SqlError::Unreadable(_)) => continue,
                Err(error) => return Err(error),
            };
            later.resources.push(Resource::newest_usage(customer, api));
            let dated = date_of_day(day).map(|date| Resource::dated_usage(customer, date));
            later.resources.extend(dated);
        }
        Ok(later)
    }

    pub(in crate::store) fn customers(&self) -> SqlResult<Option<StoredCustomers>> {
        let fetched_at: Option<i64> = self
            .connection
            .query_value(sql::CUSTOMERS_FETCHED_AT, values![])?;
        let Some(fetched_at) = fetched_at else {
            return Ok(None);
        };
        let customers = self
            .connection
            .query_all(sql::LISTED_CUSTOMERS, values![], |row| {
                Ok(ListedCustomer {
                    entry: CustomerEntry {
                        id: customer_id(row, 0)?,
                        name: row.get(1)?,
                        domain: row.get(2)?,
                    },
                    raw: row.get::<String>(3)?.into(),
                })
            })?;
        Ok(Some(StoredCustomers {
            list: Arc::new(CustomerList::new(customers)),
            fetched_at: timestamp(fetched_at)?,
        }))
    }
}

// === impl SnapshotHead ===

impl SnapshotHead {
    /// Reads the columns from this one on: day, revision, name, and the times.
    fn read(row: &dyn SqlRow, first: usize, customer: i64, source: i64) -> SqlResult<Self> {
        let confirmed_at: i64 = row.get(first + 4)?;
        let by_fleet: Option<i64> = row.get(first + 5)?;
        Ok(Self {
            customer,
            source,
            day: row.get(first)?,
            revision: row.get(first + 1)?,
            customer_name: row.get(first + 2)?,
            fetched_at: row.get(first + 3)?,
            confirmed_at: by_fleet.map_or(confirmed_at, |at| at.max(confirmed_at)),
            generation: row.get(first + 6)?,
        })
    }
}

// === impl PurgeTable ===

impl PurgeTable {
    pub(in crate::store) fn read(connection: &dyn SqlConnection) -> SqlResult<Self> {
        let mut table = Self::default();
        connection.for_each(sql::PURGES, values![], |row| {
            let key = (row.get(2)?, row.get(3)?);
            let generations = table.generations.entry(key).or_default();
            generations.include(row.get(0)?, row.get(1)?);
            Ok(())
        })?;
        Ok(table)
    }

    pub(in crate::store) fn of(&self, customer: i64, day: i64) -> PurgeGenerations {
        let (customer, day) = (Some(customer), Some(day));
        let mut all = PurgeGenerations::default();
        for scope in [(customer, day), (customer, None), (None, day), (None, None)] {
            if let Some(purges) = self.generations.get(&scope) {
                all = all.newest(*purges);
            }
        }
        all
    }
}

/// Returns whether the store had a generation once, and has it no longer.
fn has_lost(connection: &dyn SqlConnection, generation: i64, newest: i64) -> SqlResult<bool> {
    if generation >= newest || !connection.is_server() {
        return Ok(generation > newest);
    }
    let found = connection.query_first(sql::KNOWN_GENERATION, values![generation], |_| Ok(()))?;
    Ok(found.is_none())
}

/// Returns the newest purges that include a customer's data of a day.
pub(in crate::store) fn purges_of(
    connection: &dyn SqlConnection,
    customer: i64,
    day: i64,
) -> SqlResult<PurgeGenerations> {
    let mut purges = PurgeGenerations::default();
    connection.for_each(sql::PURGES_OF_DAY, values![customer, day], |row| {
        purges.include(row.get(0)?, row.get(1)?);
        Ok(())
    })?;
    Ok(purges)
}

pub(in crate::store) fn timestamp(milliseconds: i64) -> SqlResult<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(unreadable)
}

pub(in crate::store) fn unreadable(problem: impl ToString) -> SqlError {
    SqlError::Unreadable(problem.to_string())
}
