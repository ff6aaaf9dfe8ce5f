//! Changes, applied inside a transaction.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    dictionary::{Dictionaries, ProductTexts, WorkloadTexts},
    error::{SqliteError, SqliteResult},
};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerId, CustomerList, ProcessedDate, UpstreamApi},
    store::{
        AcceptedSnapshot, StoreWrite,
        native_body::{self, BodyCodec},
        schema::{
            ALL_CUSTOMERS, ALL_DAYS, NO_DAY, STATE_EMPTY, STATE_ROWS, StoredFact,
            purge_mode_number, source_number,
        },
        sql,
        sqlite::connection::prepare,
    },
};

/// The transaction that changes are applied in.
pub(in crate::store) struct Changes<'a> {
    pub(in crate::store) connection: &'a Connection,
    pub(in crate::store) dictionaries: &'a mut Dictionaries,
    pub(in crate::store) bodies: &'a mut BodyCodec,
}

/// The key of a snapshot.
#[derive(Clone, Copy)]
struct SnapshotKey {
    customer: i64,
    day: i64,
    source: i64,
}

// === impl Changes ===

impl Changes<'_> {
    pub(in crate::store) fn apply(&mut self, change: &StoreWrite) -> SqliteResult<()> {
        match change {
            StoreWrite::Snapshot(snapshot) => self.accept(snapshot),
            StoreWrite::NothingProcessed {
                customer,
                date,
                asked_at,
            } => {
                let customer = match customer {
                    Some(customer) => self.customer(*customer)?,
                    None => ALL_CUSTOMERS,
                };
                self.add_asked_day(customer, *date, *asked_at)
            }
            StoreWrite::FleetFetched { date, asked_at } => {
                self.add_asked_day(ALL_CUSTOMERS, *date, *asked_at)
            }
            StoreWrite::FleetConfirmed {
                api,
                refreshed_at,
                confirmed_at,
            } => self.confirm_fleet(*api, *refreshed_at, *confirmed_at),
            StoreWrite::Customers(customers) => {
                self.set_customers(&customers.list)?;
                let fetched_at = customers.fetched_at.as_millisecond();
                self.run(sql::SET_CUSTOMERS_FETCHED_AT, [fetched_at])
            }
            StoreWrite::Purge(scope, mode) => self.purge(*scope, *mode),
        }
    }

    fn accept(&mut self, accepted: &AcceptedSnapshot) -> SqliteResult<()> {
        let usage = &accepted.usage;
        let date = usage.processed_date().or(accepted.asked_date);
        let key = SnapshotKey {
            customer: self.customer(usage.customer_id())?,
            day: date.map_or(NO_DAY, ProcessedDate::days_since_epoch),
            source: source(accepted.api)?,
        };
        if let Some(date) = date {
            self.run(sql::ADD_DAY, params![key.day, date.to_string()])?;
        }
        let generation = self.generation()?;
        self.store_content(key, accepted, generation)?;
        match accepted.asked_date {
            None => self.move_newest(key, accepted.fetched_at, generation),
            // Rows of another date say that there are none of this one.
            Some(asked) if asked.days_since_epoch() != key.day => {
                self.add_asked_day(key.customer, asked, accepted.fetched_at)
            }
            // Without rows of it, it is the newest no longer, and which is is not known.
            Some(_) if usage.rows().is_empty() => self.run(
                sql::DELETE_NEWEST,
                params![key.customer, key.day, key.source],
            ),
            Some(_) => Ok(()),
        }
    }

    /// Stores the content as new, as a correction, or as the same again.
    fn store_content(
        &mut self,
        key: SnapshotKey,
        accepted: &AcceptedSnapshot,
        generation: i64,
    ) -> SqliteResult<()> {
        let SnapshotKey {
            customer,
            day,
            source,
        } = key;
        let facts = self.facts(accepted, day)?;
        let state = match facts.is_empty() {
            true => STATE_EMPTY,
            false => STATE_ROWS,
        };
        let name = self.customer_name(customer, accepted.usage.customer_name())?;
        let at = accepted.fetched_at.as_millisecond();
        let current: Option<i64> = prepare(self.connection, sql::CURRENT_REVISION)?
            .query_row(params![customer, day, source], |row| row.get(0))
            .optional()?;
        let revision = match current {
            None => {
                let values = params![customer, day, source, state, name, at, generation];
                self.run(sql::ADD_SNAPSHOT, values)?;
                self.add_facts(key, &facts)?;
                1
            }
            Some(revision) if read_facts(self.connection, customer, day, source)? == facts => {
                let values = params![customer, day, source, name, at, generation];
                self.run(sql::CONFIRM_SNAPSHOT, values)?;
                revision
            }
            // It was written by an attempt whose outcome was not known, and corrected since.
            Some(_) if self.was_superseded(key, at)? => return Ok(()),
            Some(revision) => {
                self.run(sql::SUPERSEDE_SNAPSHOT, params![customer, day, source])?;
                let earlier = params![customer, day, source, revision];
                self.run(sql::SUPERSEDE_FACTS, earlier)?;
                self.run(sql::DELETE_FACTS, params![customer, day, source])?;
                let values = params![customer, day, source, state, name, at, generation];
                self.run(sql::CORRECT_SNAPSHOT, values)?;
                self.add_facts(key, &facts)?;
                revision + 1
            }
        };
        if current != Some(revision) {
            self.run(sql::OUTDATE_TOTAL, [day])?;
        }
        self.set_body(key, revision, accepted)
    }

    fn was_superseded(&self, key: SnapshotKey, fetched_at: i64) -> SqliteResult<bool> {
        let mut statement = prepare(self.connection, sql::SUPERSEDED_REVISION)?;
        Ok(statement.exists([key.customer, key.day, key.source, fetched_at])?)
    }

    /// Returns the rows by the numbers of product and workload.
    fn facts(&mut self, accepted: &AcceptedSnapshot, day: i64) -> SqliteResult<Vec<StoredFact>> {
        let mut facts = Vec::with_capacity(accepted.usage.rows().len());
        for row in accepted.usage.rows() {
            let (products, workloads) = (
                &mut self.dictionaries.products,
                &mut self.dictionaries.workloads,
            );
            let product = products.number(self.connection, &ProductTexts::from(row))?;
            let workload = workloads.number(self.connection, &WorkloadTexts::from(row))?;
            let fact = StoredFact::new(row, day, product, workload)
                .ok_or(SqliteError::Unstorable("a row's value is out of range"))?;
            facts.push(fact);
        }
        facts.sort_by_key(|fact| (fact.product, fact.workload));
        Ok(facts)
    }

    fn add_facts(&self, key: SnapshotKey, facts: &[StoredFact]) -> SqliteResult<()> {
        let mut statement = prepare(self.connection, sql::ADD_FACT)?;
        for fact in facts {
            statement.execute(params![
                key.customer,
                key.day,
                key.source,
                fact.product,
                fact.workload,
                fact.licenses_active,
                fact.licenses_qualified,
                fact.reported_usage_percent,
                fact.processed_offset
            ])?;
        }
        Ok(())
    }

    fn set_body(
        &mut self,
        key: SnapshotKey,
        revision: i64,
        accepted: &AcceptedSnapshot,
    ) -> SqliteResult<()> {
        let Some(body) = &accepted.native else {
            return Ok(());
        };
        let compressed = self.bodies.compress(body);
        let compressed =
            compressed.map_err(|_| SqliteError::Unstorable("a body cannot be compressed"))?;
        let length = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.run(
            sql::SET_BODY,
            params![
                key.customer,
                key.day,
                key.source,
                revision,
                native_body::CODEC,
                length,
                compressed
            ],
        )
    }

    /// Lets the newest date of a customer be that of an answer, but never an older one than before,
    /// unless that was purged.
    fn move_newest(
        &self,
        key: SnapshotKey,
        confirmed_at: Timestamp,
        generation: i64,
    ) -> SqliteResult<()> {
        let newest: Option<(i64, i64)> = prepare(self.connection, sql::NEWEST_DAY)?
            .query_row(params![key.customer, key.source], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        if let Some((day, accepted_in)) = newest
            && key.day != NO_DAY
            && key.day < day
            && !super::read::purges_of(self.connection, key.customer, day)?.hides(accepted_in)
        {
            return Ok(());
        }
        let confirmed_at = confirmed_at.as_millisecond();
        self.run(
            sql::SET_NEWEST,
            params![key.customer, key.source, key.day, confirmed_at, generation],
        )
    }

    fn confirm_fleet(
        &self,
        api: UpstreamApi,
        refreshed_at: Timestamp,
        confirmed_at: Timestamp,
    ) -> SqliteResult<()> {
        let source = source(api)?;
        let refreshed_at = refreshed_at.as_millisecond();
        self.run(sql::KEEP_FLEET_CONFIRMATION, [source, refreshed_at])?;
        let confirmed_at = confirmed_at.as_millisecond();
        self.run(
            sql::SET_FLEET_CONFIRMED,
            [source, refreshed_at, confirmed_at],
        )
    }

    fn set_customers(&mut self, list: &CustomerList) -> SqliteResult<()> {
        let mut unlisted: HashSet<i64> = prepare(self.connection, sql::LISTED_CUSTOMER_IDS)?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for listed in list.customers() {
            let entry = &listed.entry;
            let customer = self.customer(entry.id)?;
            unlisted.remove(&customer);
            self.run(
                sql::SET_LISTED_CUSTOMER,
                params![customer, entry.name, entry.domain, listed.raw],
            )?;
            if !entry.name.is_empty() {
                self.run(sql::NAME_CUSTOMER, params![customer, entry.name])?;
            }
        }
        for customer in unlisted {
            self.run(sql::DELETE_LISTED_CUSTOMER, [customer])?;
        }
        Ok(())
    }

    fn purge(&mut self, scope: PurgeScope, mode: PurgeMode) -> SqliteResult<()> {
        let customer = match scope.customer_id {
            Some(customer) => self.customer(customer)?,
            None => ALL_CUSTOMERS,
        };
        let day = scope
            .processed_date
            .map_or(ALL_DAYS, ProcessedDate::days_since_epoch);
        if mode == PurgeMode::Hard {
            self.run(sql::FORGET_ASKED_DAYS, [customer, day])?;
        }
        let mode = purge_mode_number(mode);
        self.run(sql::DELETE_INCLUDED_PURGES, [customer, day, mode])?;
        let generation: i64 =
            prepare(self.connection, sql::NEXT_GENERATION)?.query_row([], |row| row.get(0))?;
        self.run(sql::ADD_PURGE, [generation, customer, day, mode])
    }

    fn add_asked_day(
        &self,
        customer: i64,
        date: ProcessedDate,
        asked_at: Timestamp,
    ) -> SqliteResult<()> {
        let asked_at = asked_at.as_millisecond();
        self.run(
            sql::ADD_ASKED_DAY,
            [customer, date.days_since_epoch(), asked_at],
        )
    }

    fn customer(&mut self, customer: CustomerId) -> SqliteResult<i64> {
        let customers = &mut self.dictionaries.customers;
        customers.number(self.connection, &customer)
    }

    /// Returns the number of the name, and makes it the customer's.
    fn customer_name(&mut self, customer: i64, name: Option<&str>) -> SqliteResult<Option<i64>> {
        let Some(name) = name else {
            return Ok(None);
        };
        self.run(sql::NAME_CUSTOMER, params![customer, name])?;
        let names = &mut self.dictionaries.customer_names;
        names.number(self.connection, &name.into()).map(Some)
    }

    fn generation(&self) -> SqliteResult<i64> {
        let mut statement = prepare(self.connection, sql::GENERATION)?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    fn run(&self, statement: &str, parameters: impl rusqlite::Params) -> SqliteResult<()> {
        prepare(self.connection, statement)?.execute(parameters)?;
        Ok(())
    }
}

fn source(api: UpstreamApi) -> SqliteResult<i64> {
    source_number(api).ok_or(SqliteError::Unstorable("only a customer's usage is stored"))
}

/// Returns the current rows of a snapshot.
pub(in crate::store) fn read_facts(
    connection: &Connection,
    customer: i64,
    day: i64,
    source: i64,
) -> SqliteResult<Vec<StoredFact>> {
    let mut statement = prepare(connection, sql::FACTS)?;
    let facts = statement.query_map([customer, day, source], |row| {
        Ok(StoredFact {
            product: row.get(0)?,
            workload: row.get(1)?,
            licenses_active: row.get(2)?,
            licenses_qualified: row.get(3)?,
            reported_usage_percent: row.get(4)?,
            processed_offset: row.get(5)?,
        })
    })?;
    Ok(facts.collect::<Result<_, _>>()?)
}
