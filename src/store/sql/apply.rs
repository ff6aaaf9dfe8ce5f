//! Changes, applied inside a transaction.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    Statement,
    connection::{SqlConnection, SqlValue, values},
    dictionary::{Dictionaries, ProductTexts, WorkloadTexts},
    error::{SqlError, SqlResult},
};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerId, CustomerList, ProcessedDate, UpstreamApi},
    store::{
        AcceptedSnapshot, Notification, StoreError, StoreWrite,
        coordination::purged_leases,
        native_body::{self, BodyCodec},
        schema::{
            ALL_CUSTOMERS, ALL_DAYS, NO_DAY, STATE_EMPTY, STATE_ROWS, StoredFact,
            purge_mode_number, source_number,
        },
        sql,
    },
};

/// The transaction that changes are applied in.
pub(in crate::store) struct Changes<'a> {
    pub(in crate::store) connection: &'a dyn SqlConnection,
    pub(in crate::store) dictionaries: &'a mut Dictionaries,
    pub(in crate::store) bodies: &'a mut BodyCodec,
    /// The generation of the last purge of this transaction.
    pub(in crate::store) last_purge: Option<i64>,
    /// Something changed that other processes may have cached.
    pub(in crate::store) has_changed: bool,
}

/// So many generations ago, all processes had applied a purge long ago: where each purge has the next number,
/// and where it has a time.
const OLD_GENERATIONS: i64 = 1_000;

const GENERATIONS_OF_A_DAY: i64 = 24 * 60 * 60 * 1_000;

/// A write that waited no longer than this may be late. Over a greater distance, a clock that was wrong and
/// is right now is the likelier cause, and must not keep out all that is fetched.
const MAX_WAIT_MILLISECONDS: i64 = 24 * 60 * 60 * 1000;

/// The primary key of a stored snapshot.
#[derive(Clone, Copy)]
struct StoredSnapshotKey {
    customer: i64,
    day: i64,
    source: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// It is the current content.
    Current {
        /// Other processes may have cached what was before: other rows of its date, or another newest date.
        replaces: bool,
    },
    /// The current content was fetched later.
    Late,
}

/// A purge of another process.
struct LaterPurge {
    generation: i64,
    /// `None`: all.
    customer: Option<i64>,
    /// `None`: all.
    day: Option<i64>,
}

// === impl Changes ===

impl Changes<'_> {
    /// Applies groups of changes, each group wholly or not at all. The outer error is one that ends the
    /// transaction.
    pub(in crate::store) fn apply_groups(
        &mut self,
        groups: &[Vec<StoreWrite>],
        origin: i64,
    ) -> SqlResult<Vec<Result<(), StoreError>>> {
        let later = self.later_purges(groups, origin)?;
        let mut results = Vec::with_capacity(groups.len());
        for group in groups {
            let last_purge = self.last_purge;
            self.run(sql::BEGIN_GROUP, values![])?;
            let applied = self.read_ahead(group).and_then(|()| {
                group
                    .iter()
                    .try_for_each(|change| self.apply(change, origin, &later))
            });
            match applied {
                Ok(()) => results.push(Ok(())),
                Err(error @ SqlError::Unstorable(_)) => {
                    // Texts that this group added have no numbers any more.
                    *self.dictionaries = Dictionaries::default();
                    self.last_purge = last_purge;
                    self.run(sql::UNDO_GROUP, values![])?;
                    results.push(Err(error.into()));
                }
                Err(error) => return Err(error),
            }
            self.run(sql::END_GROUP, values![])?;
        }
        if self.has_changed {
            self.run(sql::DELETE_OLD_CHANGES, values![])?;
            // That of a purge wakes the same processes.
            if self.last_purge.is_none() {
                self.connection.notify(Notification::Changed);
            }
        }
        Ok(results)
    }

    /// Announces what the first snapshot of each customer will ask for. Until then, only snapshots of
    /// other customers change anything.
    fn read_ahead(&mut self, group: &[StoreWrite]) -> SqlResult<()> {
        if !self.connection.is_server() {
            return Ok(());
        }
        let mut customers = HashSet::new();
        for change in group {
            let StoreWrite::Snapshot(accepted) = change else {
                break;
            };
            if !customers.insert(accepted.usage.customer_id()) {
                continue;
            }
            for (statement, key) in self.key(accepted)?.reads() {
                self.connection.read_ahead(statement, &key);
            }
        }
        Ok(())
    }

    /// Returns the purges of other processes that this one had not applied when it accepted the first of
    /// the answers.
    fn later_purges(&self, groups: &[Vec<StoreWrite>], origin: i64) -> SqlResult<Vec<LaterPurge>> {
        let generations = groups.iter().flatten().filter_map(|change| match change {
            StoreWrite::Snapshot(accepted) => accepted.purge_generation,
            StoreWrite::NothingProcessed {
                purge_generation, ..
            }
            | StoreWrite::FleetFetched {
                purge_generation, ..
            } => *purge_generation,
            _ => None,
        });
        let Some(oldest) = generations.min() else {
            return Ok(Vec::new());
        };
        let values = values![oldest, origin];
        self.connection
            .query_all(sql::OTHER_PURGES_AFTER, values, |row| {
                Ok(LaterPurge {
                    generation: row.get(0)?,
                    customer: row.get(1)?,
                    day: row.get(2)?,
                })
            })
    }

    fn apply(&mut self, change: &StoreWrite, origin: i64, later: &[LaterPurge]) -> SqlResult<()> {
        match change {
            StoreWrite::Snapshot(snapshot) => self.accept(snapshot, origin, later),
            StoreWrite::NothingProcessed {
                customer,
                date,
                asked_at,
                purge_generation,
            } => {
                let customer = match customer {
                    Some(customer) => self.customer(*customer)?,
                    None => ALL_CUSTOMERS,
                };
                self.add_asked_day_unless(later, *purge_generation, customer, *date, *asked_at)
            }
            StoreWrite::FleetFetched {
                date,
                asked_at,
                purge_generation: applied,
            } => self.add_asked_day_unless(later, *applied, ALL_CUSTOMERS, *date, *asked_at),
            StoreWrite::FleetConfirmed {
                api,
                refreshed_at,
                confirmed_at,
            } => self.confirm_fleet(*api, *refreshed_at, *confirmed_at),
            StoreWrite::Customers(customers) => {
                let fetched_at = customers.fetched_at.as_millisecond();
                let stored: Option<i64> = self
                    .connection
                    .query_value(sql::CUSTOMERS_FETCHED_AT, values![])?;
                if stored.is_some_and(|stored| is_late(fetched_at, stored)) {
                    return Ok(());
                }
                self.set_customers(&customers.list)?;
                self.run(sql::SET_CUSTOMERS_FETCHED_AT, values![fetched_at])
            }
            StoreWrite::Purge(scope, mode) => self.purge(*scope, *mode, origin),
            StoreWrite::LostPurges { applied } => {
                let values = values![*applied];
                let later: i64 = self
                    .connection
                    .query_value(sql::PURGES_OF_ALL_AFTER, values)?;
                match later {
                    0 => self.purge(PurgeScope::default(), PurgeMode::Soft, origin),
                    _ => Ok(()),
                }
            }
        }
    }

    fn accept(
        &mut self,
        accepted: &AcceptedSnapshot,
        origin: i64,
        later: &[LaterPurge],
    ) -> SqlResult<()> {
        if let Some(lease) = accepted
            .lease
            .as_ref()
            .filter(|_| self.connection.is_server())
        {
            let values = values![&*lease.name, lease.fence];
            let held: i64 = self.connection.query_value(sql::LEASE, values)?;
            if held == 0 {
                return Ok(());
            }
        }
        let key = self.key(accepted)?;
        let stored = self.accept_as(key, accepted)?;
        if stored != Stored::Late
            && let Some(applied) = accepted.purge_generation
            && let Some(purge) = later
                .iter()
                .find(|purge| purge.is_after(applied, key.customer, key.day))
        {
            let before = purge.generation - 1;
            let values = values![key.customer, key.day, key.source, before];
            self.run(sql::LOWER_SNAPSHOT, values)?;
            if accepted.asked_date.is_none() {
                self.run(sql::LOWER_NEWEST, values)?;
            }
        }
        // Only processes on a server learn of refreshes.
        let is_known = accepted.is_of_refresh && self.connection.is_server();
        if stored == (Stored::Current { replaces: true }) && !is_known {
            self.add_change(key, origin)?;
        }
        if self.connection.is_server() {
            for (statement, key) in key.reads() {
                self.connection.forget(statement, &key);
            }
        }
        Ok(())
    }

    fn accept_as(
        &mut self,
        key: StoredSnapshotKey,
        accepted: &AcceptedSnapshot,
    ) -> SqlResult<Stored> {
        if let Some(date) = accepted.date() {
            self.run(sql::ADD_DAY, values![key.day, date.to_string()])?;
        }
        let mut stored = self.store_content(key, accepted)?;
        let Stored::Current { replaces } = &mut stored else {
            return Ok(stored);
        };
        match accepted.asked_date {
            None => *replaces |= self.move_newest(key, accepted.fetched_at)?,
            // Rows of another date say that there are none of this one.
            Some(asked) if asked.days_since_epoch() != key.day => {
                self.add_asked_day(key.customer, asked, accepted.fetched_at)?;
            }
            // Without rows of it, it is the newest no longer, and which is is not known.
            Some(_) if accepted.usage.rows().is_empty() => self.run(
                sql::DELETE_NEWEST,
                values![key.customer, key.day, key.source],
            )?,
            Some(_) => {}
        }
        Ok(stored)
    }

    /// Records a change for other processes.
    fn add_change(&mut self, key: StoredSnapshotKey, origin: i64) -> SqlResult<()> {
        let add = match self.connection.is_server() {
            true => sql::ADD_CHANGE_BY_CLOCK,
            false => sql::ADD_CHANGE,
        };
        self.has_changed = true;
        self.run(add, values![key.customer, key.day, key.source, origin])
    }

    fn key(&mut self, accepted: &AcceptedSnapshot) -> SqlResult<StoredSnapshotKey> {
        let date = accepted.date();
        Ok(StoredSnapshotKey {
            customer: self.customer(accepted.usage.customer_id())?,
            day: date.map_or(NO_DAY, ProcessedDate::days_since_epoch),
            source: source(accepted.api)?,
        })
    }

    /// Stores the content as new, as a correction, or as the same again. If another process has stored
    /// what it fetched later, nothing changes.
    fn store_content(
        &mut self,
        key: StoredSnapshotKey,
        accepted: &AcceptedSnapshot,
    ) -> SqlResult<Stored> {
        let StoredSnapshotKey {
            customer,
            day,
            source,
        } = key;
        let at = accepted.fetched_at.as_millisecond();
        let current: Option<(i64, i64)> = self.connection.query_first(
            sql::CURRENT_REVISION,
            values![customer, day, source],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if current.is_some_and(|(_, confirmed_at)| is_late(at, confirmed_at)) {
            return Ok(Stored::Late);
        }
        let current = current.map(|(revision, _)| revision);
        let facts = self.facts(accepted, day)?;
        let state = match facts.is_empty() {
            true => STATE_EMPTY,
            false => STATE_ROWS,
        };
        let name = self.customer_name(customer, accepted.usage.customer_name())?;
        let revision = match current {
            None => {
                let values = values![customer, day, source, state, name, at];
                self.run(sql::ADD_SNAPSHOT, values)?;
                self.add_facts(key, &facts)?;
                1
            }
            Some(revision) if read_facts(self.connection, customer, day, source)? == facts => {
                let values = values![customer, day, source, name, at];
                self.run(sql::CONFIRM_SNAPSHOT, values)?;
                revision
            }
            Some(revision) => {
                self.run(sql::SUPERSEDE_SNAPSHOT, values![customer, day, source])?;
                let earlier = values![customer, day, source, revision];
                self.run(sql::SUPERSEDE_FACTS, earlier)?;
                self.run(sql::DELETE_FACTS, values![customer, day, source])?;
                let values = values![customer, day, source, state, name, at];
                self.run(sql::CORRECT_SNAPSHOT, values)?;
                self.add_facts(key, &facts)?;
                revision + 1
            }
        };
        if current != Some(revision) {
            self.run(sql::OUTDATE_TOTAL, values![day])?;
        }
        self.set_body(key, revision, accepted)?;
        Ok(Stored::Current {
            replaces: current.is_some_and(|current| current != revision),
        })
    }

    /// Returns the rows by the numbers of product and workload.
    fn facts(&mut self, accepted: &AcceptedSnapshot, day: i64) -> SqlResult<Vec<StoredFact>> {
        let mut facts = Vec::with_capacity(accepted.usage.rows().len());
        for row in accepted.usage.rows() {
            let (products, workloads) = (
                &mut self.dictionaries.products,
                &mut self.dictionaries.workloads,
            );
            let product = products.number(self.connection, &ProductTexts::from(row))?;
            let workload = workloads.number(self.connection, &WorkloadTexts::from(row))?;
            let fact = StoredFact::new(row, day, product, workload)
                .ok_or(SqlError::Unstorable("a row's value is out of range"))?;
            facts.push(fact);
        }
        facts.sort_by_key(|fact| (fact.product, fact.workload));
        Ok(facts)
    }

    fn add_facts(&self, key: StoredSnapshotKey, facts: &[StoredFact]) -> SqlResult<()> {
        for fact in facts {
            self.run(
                sql::ADD_FACT,
                values![
                    key.customer,
                    key.day,
                    key.source,
                    fact.product,
                    fact.workload,
                    fact.licenses_active,
                    fact.licenses_qualified,
                    fact.reported_usage_percent,
                    fact.processed_offset
                ],
            )?;
        }
        Ok(())
    }

    fn set_body(
        &mut self,
        key: StoredSnapshotKey,
        revision: i64,
        accepted: &AcceptedSnapshot,
    ) -> SqlResult<()> {
        let Some(body) = &accepted.native else {
            return Ok(());
        };
        let compressed = self.bodies.compress(body);
        let compressed =
            compressed.map_err(|_| SqlError::Unstorable("a body cannot be compressed"))?;
        let length = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.run(
            sql::SET_BODY,
            values![
                key.customer,
                key.day,
                key.source,
                revision,
                native_body::CODEC,
                length,
                &compressed[..]
            ],
        )
    }

    /// Lets the newest date of a customer be that of an answer, but never an older one than before,
    /// unless that was purged. Returns whether there was another one.
    fn move_newest(&self, key: StoredSnapshotKey, confirmed_at: Timestamp) -> SqlResult<bool> {
        let confirmed_at = confirmed_at.as_millisecond();
        let newest: Option<(i64, i64, i64)> = self.connection.query_first(
            sql::NEWEST_DAY,
            values![key.customer, key.source],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        if let Some((day, accepted_in, stored_at)) = newest {
            if is_late(confirmed_at, stored_at) && (key.day <= day || day == NO_DAY) {
                return Ok(false);
            }
            if key.day != NO_DAY
                && key.day < day
                && !super::read::purges_of(self.connection, key.customer, day)?.hides(accepted_in)
            {
                return Ok(false);
            }
        }
        self.run(
            sql::SET_NEWEST,
            values![key.customer, key.source, key.day, confirmed_at],
        )?;
        Ok(newest.is_some_and(|(day, ..)| day != key.day))
    }

    fn confirm_fleet(
        &self,
        api: UpstreamApi,
        refreshed_at: Timestamp,
        confirmed_at: Timestamp,
    ) -> SqlResult<()> {
        let source = source(api)?;
        let refreshed_at = refreshed_at.as_millisecond();
        self.run(sql::KEEP_FLEET_CONFIRMATION, values![source, refreshed_at])?;
        let confirmed_at = confirmed_at.as_millisecond();
        self.run(
            sql::SET_FLEET_CONFIRMED,
            values![source, refreshed_at, confirmed_at],
        )
    }

    pub(in crate::store) fn set_customers(&mut self, list: &CustomerList) -> SqlResult<()> {
        let listed = self
            .connection
            .query_all(sql::LISTED_CUSTOMER_IDS, values![], |row| row.get(0))?;
        let mut unlisted: HashSet<i64> = listed.into_iter().collect();
        for listed in list.customers() {
            let entry = &listed.entry;
            let customer = self.customer(entry.id)?;
            unlisted.remove(&customer);
            self.run(
                sql::SET_LISTED_CUSTOMER,
                values![
                    customer,
                    &*entry.name,
                    entry.domain.as_deref(),
                    &*listed.raw
                ],
            )?;
            if !entry.name.is_empty() {
                self.run(sql::NAME_CUSTOMER, values![customer, &*entry.name])?;
            }
        }
        for customer in unlisted {
            self.run(sql::DELETE_LISTED_CUSTOMER, values![customer])?;
        }
        Ok(())
    }

    fn purge(&mut self, scope: PurgeScope, mode: PurgeMode, origin: i64) -> SqlResult<()> {
        let customer = match scope.customer_id {
            Some(customer) => self.customer(customer)?,
            None => ALL_CUSTOMERS,
        };
        let day = scope
            .processed_date
            .map_or(ALL_DAYS, ProcessedDate::days_since_epoch);
        let asked_days = match mode {
            PurgeMode::Soft => sql::OUTDATE_ASKED_DAYS,
            PurgeMode::Hard => sql::FORGET_ASKED_DAYS,
        };
        self.run(asked_days, values![customer, day])?;
        if self.connection.is_server() {
            let of_others = values![purged_leases(scope), origin];
            self.run(sql::END_PURGED_LEASES, of_others)?;
            self.connection.notify(Notification::Purged);
        }
        let mode = purge_mode_number(mode);
        let is_server = self.connection.is_server();
        let (next, long_ago) = match is_server {
            true => (sql::NEXT_GENERATION_BY_CLOCK, GENERATIONS_OF_A_DAY),
            false => (sql::NEXT_GENERATION, OLD_GENERATIONS),
        };
        let included = values![customer, day, mode, origin, long_ago];
        self.run(sql::DELETE_INCLUDED_PURGES, included)?;
        let generation: i64 = self.connection.query_value(next, values![])?;
        if is_server {
            self.run(sql::ADD_GENERATION, values![generation])?;
            self.run(sql::DELETE_OLD_GENERATIONS, values![])?;
        }
        let purge = values![generation, customer, day, mode, origin];
        self.run(sql::ADD_PURGE, purge)?;
        self.last_purge = Some(generation);
        Ok(())
    }

    /// Records what a process has applied, and returns what others have.
    pub(in crate::store) fn report_applied(
        &self,
        origin: i64,
        generation: i64,
    ) -> SqlResult<Vec<i64>> {
        self.run(sql::REPORT_REPLICA, values![origin, generation])?;
        self.run(sql::DELETE_OLD_REPLICAS, values![])?;
        self.run(sql::DELETE_OLD_LEASES, values![])?;
        self.run(sql::DELETE_OLD_THROTTLES, values![])?;
        self.connection
            .query_all(sql::OTHER_REPLICAS, values![origin], |row| row.get(0))
    }

    /// Adds a day, unless another process purged it after upstream was asked.
    fn add_asked_day_unless(
        &self,
        later: &[LaterPurge],
        applied: Option<i64>,
        customer: i64,
        date: ProcessedDate,
        asked_at: Timestamp,
    ) -> SqlResult<()> {
        let day = date.days_since_epoch();
        let is_purged = applied.is_some_and(|applied| {
            let mut later = later.iter();
            later.any(|purge| purge.is_after(applied, customer, day))
        });
        match is_purged {
            true => Ok(()),
            false => self.add_asked_day(customer, date, asked_at),
        }
    }

    fn add_asked_day(
        &self,
        customer: i64,
        date: ProcessedDate,
        asked_at: Timestamp,
    ) -> SqlResult<()> {
        let asked_at = asked_at.as_millisecond();
        self.run(
            sql::ADD_ASKED_DAY,
            values![customer, date.days_since_epoch(), asked_at],
        )
    }

    pub(in crate::store) fn customer(&mut self, customer: CustomerId) -> SqlResult<i64> {
        let customers = &mut self.dictionaries.customers;
        customers.number(self.connection, &customer)
    }

    /// Returns the number of the name, and makes it the customer's.
    fn customer_name(&mut self, customer: i64, name: Option<&str>) -> SqlResult<Option<i64>> {
        let Some(name) = name else {
            return Ok(None);
        };
        self.run(sql::NAME_CUSTOMER, values![customer, name])?;
        let names = &mut self.dictionaries.customer_names;
        names.number(self.connection, &name.into()).map(Some)
    }

    pub(in crate::store) fn run(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
    ) -> SqlResult<()> {
        self.connection.execute(statement, values)
    }
}

// === impl LaterPurge ===

impl LaterPurge {
    /// Returns whether it came after this generation, and includes data of this customer, or of all
    /// customers together, and this day.
    fn is_after(&self, generation: i64, customer: i64, day: i64) -> bool {
        let includes = |purged| customer == ALL_CUSTOMERS || customer == purged;
        self.generation > generation
            && self.customer.is_none_or(includes)
            && self.day.is_none_or(|purged| purged == day)
    }
}

// === impl StoredSnapshotKey ===

impl StoredSnapshotKey {
    /// Returns the queries that accepting a snapshot runs, and whose results it changes.
    fn reads(self) -> [(Statement, Vec<i64>); 3] {
        let snapshot = vec![self.customer, self.day, self.source];
        [
            (sql::CURRENT_REVISION, snapshot.clone()),
            (sql::FACTS, snapshot),
            (sql::NEWEST_DAY, vec![self.customer, self.source]),
        ]
    }
}

/// Returns whether an answer waited to be written, while another process stored what it fetched later.
fn is_late(fetched_at: i64, stored_at: i64) -> bool {
    (1..=MAX_WAIT_MILLISECONDS).contains(&stored_at.saturating_sub(fetched_at))
}

fn source(api: UpstreamApi) -> SqlResult<i64> {
    source_number(api).ok_or(SqlError::Unstorable("only a customer's usage is stored"))
}

/// Stores which call counts where both have rows.
pub(in crate::store) fn prefer(connection: &dyn SqlConnection, preferred: i64) -> SqlResult<()> {
    connection.execute(sql::SET_PREFERRED_SOURCE, values![preferred])?;
    connection.execute(sql::OUTDATE_ALL_TOTALS, values![])
}

/// Returns the current rows of a snapshot.
pub(in crate::store) fn read_facts(
    connection: &dyn SqlConnection,
    customer: i64,
    day: i64,
    source: i64,
) -> SqlResult<Vec<StoredFact>> {
    let values = values![customer, day, source];
    connection.query_all(sql::FACTS, values, |row| {
        Ok(StoredFact {
            product: row.get(0)?,
            workload: row.get(1)?,
            licenses_active: row.get(2)?,
            licenses_qualified: row.get(3)?,
            reported_usage_percent: row.get(4)?,
            processed_offset: row.get(5)?,
        })
    })
}
