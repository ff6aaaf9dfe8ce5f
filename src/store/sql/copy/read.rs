//! A store, read for a copy.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
};

use super::{
    CopiedSnapshots, CopyStart, CustomerState, FleetConfirmation, NewestSnapshot, SnapshotTimes,
};
use crate::{
    domain::CustomerId,
    store::{
        schema::{ALL_CUSTOMERS, StoredFact},
        sql::{
            self,
            connection::{SqlConnection, SqlRow, values},
            dictionary::{Dictionary, DictionaryEntry},
            error::SqlResult,
            merge::{Revision, SnapshotHistory, StoredBody},
            read::{PurgeTable, Queries, unreadable},
        },
    },
};

// === impl Queries ===

impl Queries<'_> {
    pub(in crate::store) fn copy_start(&mut self) -> SqlResult<CopyStart> {
        let connection = self.connection;
        let numbers = self.dictionaries.customers.all(connection)?;
        let numbers = numbers
            .iter()
            .map(|(customer, number)| (*number, *customer));
        let customers: BTreeMap<i64, CustomerId> = numbers.collect();
        let snapshots: i64 = connection.query_value(sql::SNAPSHOT_COUNT, values![])?;
        Ok(CopyStart {
            customers: customers.into_values().collect(),
            snapshots: u64::try_from(snapshots).unwrap_or_default(),
            preferred: connection.query_value(sql::PREFERRED_SOURCE, values![])?,
            list: self.customers()?,
            fleet: fleet_confirmations(connection)?,
            asked_days: asked_days(connection, ALL_CUSTOMERS)?,
        })
    }

    /// Returns what is stored of a customer. Generations are as those of a copy.
    pub(in crate::store) fn customer_state(
        &mut self,
        customer: CustomerId,
    ) -> SqlResult<CustomerState> {
        let connection = self.connection;
        let customers = &mut self.dictionaries.customers;
        let Some(customer) = customers.find(connection, &customer)? else {
            return Ok(CustomerState::default());
        };
        for statement in [
            sql::CUSTOMER_NAME,
            sql::NEWEST_OF_CUSTOMER,
            sql::SNAPSHOT_TIMES,
            sql::SUPERSEDED_TIMES,
            sql::ASKED_DAYS_OF_CUSTOMER,
        ] {
            connection.read_ahead(statement, &[customer]);
        }
        let purges = PurgeTable::read(connection)?;
        let mut newest = newest_of(connection, customer)?;
        for newest in &mut newest {
            let purges = purges.of(customer, newest.day);
            newest.generation = purges.copied(newest.generation);
        }
        Ok(CustomerState {
            name: connection.query_value(sql::CUSTOMER_NAME, values![customer])?,
            snapshots: snapshot_times(connection, customer, &purges)?,
            newest,
            asked_days: asked_days(connection, customer)?.into_iter().collect(),
        })
    }

    /// Returns the snapshots of a customer in a range of days, with all their revisions.
    pub(in crate::store) fn copied_snapshots(
        &mut self,
        customer: CustomerId,
        days: (i64, i64),
    ) -> SqlResult<CopiedSnapshots> {
        let connection = self.connection;
        let number = self.dictionaries.customers.find(connection, &customer)?;
        let number = number.ok_or_else(|| unreadable("a customer has gone"))?;
        let mut histories = histories(connection, number, days)?;
        let purges = PurgeTable::read(connection)?;
        let (mut names, mut products, mut workloads) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for history in &mut histories {
            let purges = purges.of(number, history.day);
            history.generation = purges.copied(history.generation);
            for revision in &history.revisions {
                if let Some(name) = revision.customer_name {
                    add_text(
                        connection,
                        &mut self.dictionaries.customer_names,
                        name,
                        &mut names,
                    )?;
                }
                for fact in &revision.facts {
                    let known = &mut self.dictionaries.products;
                    add_text(connection, known, fact.product, &mut products)?;
                    let known = &mut self.dictionaries.workloads;
                    add_text(connection, known, fact.workload, &mut workloads)?;
                }
            }
        }
        Ok(CopiedSnapshots {
            customer,
            days,
            histories,
            names,
            products,
            workloads,
        })
    }
}

pub(super) fn announce_histories(
    connection: &dyn SqlConnection,
    customer: i64,
    (from, to): (i64, i64),
) {
    for statement in [
        sql::SNAPSHOTS_OF_DAYS,
        sql::FACTS_OF_DAYS,
        sql::BODIES_OF_DAYS,
        sql::SUPERSEDED_SNAPSHOTS_OF_DAYS,
        sql::SUPERSEDED_FACTS_OF_DAYS,
    ] {
        connection.read_ahead(statement, &[customer, from, to]);
    }
}

/// Returns all that is stored of a customer in a range of days.
pub(super) fn histories(
    connection: &dyn SqlConnection,
    customer: i64,
    days: (i64, i64),
) -> SqlResult<Vec<SnapshotHistory>> {
    /// Of each day, source and revision.
    type Revisions = BTreeMap<(i64, i64, i64), Revision>;

    announce_histories(connection, customer, days);
    let key = values![customer, days.0, days.1];
    let mut revisions = Revisions::new();
    let mut current = Vec::new();
    let read = |row: &dyn SqlRow| -> SqlResult<_> {
        let key = (row.get(0)?, row.get(1)?, row.get(2)?);
        let revision = Revision {
            state: row.get(3)?,
            customer_name: row.get(4)?,
            fetched_at: row.get(5)?,
            confirmed_at: row.get(6)?,
            facts: Vec::new(),
            body: None,
        };
        Ok((key, revision))
    };
    connection.for_each(sql::SUPERSEDED_SNAPSHOTS_OF_DAYS, key, |row| {
        let (key, revision) = read(row)?;
        revisions.insert(key, revision);
        Ok(())
    })?;
    connection.for_each(sql::SNAPSHOTS_OF_DAYS, key, |row| {
        let (key, revision) = read(row)?;
        current.push((key, row.get(7)?));
        revisions.insert(key, revision);
        Ok(())
    })?;
    let numbers: HashMap<(i64, i64), i64> = current
        .iter()
        .map(|((day, source, revision), _)| ((*day, *source), *revision))
        .collect();
    connection.for_each(sql::FACTS_OF_DAYS, key, |row| {
        let (day, source): (i64, i64) = (row.get(0)?, row.get(1)?);
        let revision = numbers.get(&(day, source));
        let revision = revision.and_then(|number| revisions.get_mut(&(day, source, *number)));
        revision
            .ok_or_else(|| unreadable("a row is of no snapshot"))?
            .facts
            .push(fact(row)?);
        Ok(())
    })?;
    connection.for_each(sql::SUPERSEDED_FACTS_OF_DAYS, key, |row| {
        let revision = revisions.get_mut(&(row.get(0)?, row.get(1)?, row.get(8)?));
        revision
            .ok_or_else(|| unreadable("a row is of no snapshot"))?
            .facts
            .push(fact(row)?);
        Ok(())
    })?;
    connection.for_each(sql::BODIES_OF_DAYS, key, |row| {
        if let Some(revision) = revisions.get_mut(&(row.get(0)?, row.get(1)?, row.get(2)?)) {
            revision.body = Some(StoredBody {
                codec: row.get(3)?,
                length: row.get(4)?,
                bytes: row.get::<Cow<'_, [u8]>>(5)?.into_owned(),
            });
        }
        Ok(())
    })?;
    let mut revisions = revisions.into_iter().peekable();
    let mut histories = Vec::with_capacity(current.len());
    for ((day, source, _), generation) in current {
        let mut of_snapshot = Vec::new();
        while let Some((_, revision)) =
            revisions.next_if(|(key, _)| (key.0, key.1) <= (day, source))
        {
            of_snapshot.push(revision);
        }
        histories.push(SnapshotHistory {
            day,
            source,
            revisions: of_snapshot,
            generation,
        });
    }
    Ok(histories)
}

/// Reads a row after its day and source.
fn fact(row: &dyn SqlRow) -> SqlResult<StoredFact> {
    Ok(StoredFact {
        product: row.get(2)?,
        workload: row.get(3)?,
        licenses_active: row.get(4)?,
        licenses_qualified: row.get(5)?,
        reported_usage_percent: row.get(6)?,
        processed_offset: row.get(7)?,
    })
}

fn snapshot_times(
    connection: &dyn SqlConnection,
    customer: i64,
    purges: &PurgeTable,
) -> SqlResult<BTreeMap<(i64, i64), SnapshotTimes>> {
    let mut all = BTreeMap::new();
    connection.for_each(sql::SNAPSHOT_TIMES, values![customer], |row| {
        let day = row.get(0)?;
        let times = SnapshotTimes {
            fetched_at: row.get(2)?,
            confirmed_at: row.get(3)?,
            generation: purges.of(customer, day).copied(row.get(4)?),
            superseded: BTreeSet::new(),
        };
        all.insert((day, row.get(1)?), times);
        Ok(())
    })?;
    connection.for_each(sql::SUPERSEDED_TIMES, values![customer], |row| {
        if let Some(times) = all.get_mut(&(row.get(0)?, row.get(1)?)) {
            times.superseded.insert(row.get(2)?);
        }
        Ok(())
    })?;
    Ok(all)
}

/// Returns the newest snapshots of a customer, as the fleet confirmed them.
pub(super) fn newest_of(
    connection: &dyn SqlConnection,
    customer: i64,
) -> SqlResult<Vec<NewestSnapshot>> {
    connection.query_all(sql::NEWEST_OF_CUSTOMER, values![customer], |row| {
        let (confirmed_at, by_fleet): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
        Ok(NewestSnapshot {
            source: row.get(0)?,
            day: row.get(1)?,
            confirmed_at: by_fleet.map_or(confirmed_at, |at| at.max(confirmed_at)),
            generation: row.get(4)?,
        })
    })
}

pub(super) fn fleet_confirmations(
    connection: &dyn SqlConnection,
) -> SqlResult<Vec<FleetConfirmation>> {
    connection.query_all(sql::FLEET_CONFIRMATIONS, values![], |row| {
        Ok(FleetConfirmation {
            source: row.get(0)?,
            refreshed_at: row.get(1)?,
            confirmed_at: row.get(2)?,
        })
    })
}

fn asked_days(connection: &dyn SqlConnection, customer: i64) -> SqlResult<Vec<(i64, i64)>> {
    let statement = sql::ASKED_DAYS_OF_CUSTOMER;
    connection.query_all(statement, values![customer], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Returns the time when the list of customers arrived.
pub(super) fn listed_at(connection: &dyn SqlConnection) -> SqlResult<Option<i64>> {
    connection.query_value(sql::CUSTOMERS_FETCHED_AT, values![])
}

fn add_text<T: DictionaryEntry>(
    connection: &dyn SqlConnection,
    known: &mut Dictionary<T>,
    number: i64,
    texts: &mut BTreeMap<i64, T>,
) -> SqlResult<()> {
    if let Entry::Vacant(vacant) = texts.entry(number) {
        vacant.insert(known.entry(connection, number)?.clone());
    }
    Ok(())
}
