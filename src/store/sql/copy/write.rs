//! A copy, written beside what a store has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    CopiedSnapshots, CopyCounts, CopyPart, CopyStart, CustomerState, FleetConfirmation,
    NewestSnapshot,
    read::{announce_histories, fleet_confirmations, histories, listed_at, newest_of},
    rows::{RowInserter, fact_values, last_revision, snapshot_values},
};
use crate::store::{
    schema::{ALL_CUSTOMERS, COPIED_PURGED_HARD, COPIED_PURGED_SOFT, NO_DAY, date_of_day},
    sql::{
        self,
        apply::{Changes, prefer},
        connection::{SqlConnection, values},
        dictionary::{Dictionary, DictionaryEntry},
        error::SqlResult,
        merge::{SnapshotHistory, merge_generations},
        read::{purges_of, unreadable},
    },
};

/// The times when two stores received the list of customers, which has their names.
#[derive(Clone, Copy)]
struct ListTimes {
    ours: Option<i64>,
    copied: Option<i64>,
}

// === impl Changes ===

impl Changes<'_> {
    /// Writes what must be there before the customers.
    pub(in crate::store) fn begin_copy(&mut self, start: &CopyStart) -> SqlResult<()> {
        if self.dictionaries.customers.all(self.connection)?.is_empty() {
            prefer(self.connection, start.preferred)?;
        }
        let Some(list) = &start.list else {
            return Ok(());
        };
        let fetched_at = list.fetched_at.as_millisecond();
        if listed_at(self.connection)?.is_some_and(|ours| ours >= fetched_at) {
            return Ok(());
        }
        self.set_customers(&list.list)?;
        self.run(sql::SET_CUSTOMERS_FETCHED_AT, values![fetched_at])
    }

    /// Writes what is true once all customers are there.
    pub(in crate::store) fn end_copy(&mut self, start: &CopyStart) -> SqlResult<()> {
        let ours = self.dictionaries.customers.all(self.connection)?;
        if !start
            .customers
            .iter()
            .all(|customer| ours.contains_key(customer))
        {
            return Err(unreadable("it was replaced during the copy"));
        }
        for (day, asked_at) in &start.asked_days {
            self.run(sql::COPY_ASKED_DAY, values![ALL_CUSTOMERS, *day, *asked_at])?;
        }
        let ours = fleet_confirmations(self.connection)?;
        for copied in &start.fleet {
            let mut ours = ours.iter();
            let is_newer = |ours: &FleetConfirmation| {
                ours.source == copied.source && ours.confirmed_at >= copied.confirmed_at
            };
            if ours.any(is_newer) {
                continue;
            }
            let key = values![copied.source, copied.refreshed_at];
            self.run(sql::KEEP_FLEET_CONFIRMATION, key)?;
            let values = values![copied.source, copied.refreshed_at, copied.confirmed_at];
            self.run(sql::SET_FLEET_CONFIRMED, values)?;
        }
        Ok(())
    }

    /// Writes parts of a copy. What is here and newer stays.
    pub(in crate::store) fn copy(
        &mut self,
        start: &CopyStart,
        parts: &[CopyPart],
    ) -> SqlResult<CopyCounts> {
        let lists = ListTimes {
            ours: listed_at(self.connection)?,
            copied: start
                .list
                .as_ref()
                .map(|list| list.fetched_at.as_millisecond()),
        };
        for part in parts {
            self.announce(part)?;
        }
        let mut counts = CopyCounts::default();
        let mut days = BTreeSet::new();
        let mut snapshots = RowInserter::of_snapshots();
        let mut facts = RowInserter::of_facts();
        let mut superseded = RowInserter::of_superseded_facts();
        for part in parts {
            match part {
                CopyPart::Snapshots(copied) => {
                    let customer = self.customer(copied.customer)?;
                    for history in self.changed(customer, copied, &mut counts)? {
                        days.insert(history.day);
                        snapshots.add(self.connection, snapshot_values(customer, &history))?;
                        let mut inserters = (&mut facts, &mut superseded);
                        self.add_history(customer, &history, &mut inserters, &mut counts)?;
                    }
                }
                CopyPart::Customer(customer, state) => {
                    let number = self.customer(*customer)?;
                    self.copy_customer(number, state, lists)?;
                }
            }
        }
        snapshots.finish(self.connection)?;
        facts.finish(self.connection)?;
        superseded.finish(self.connection)?;
        for day in days {
            if let Some(date) = date_of_day(day) {
                self.run(sql::ADD_DAY, values![day, date.to_string()])?;
            }
            self.run(sql::OUTDATE_TOTAL, values![day])?;
        }
        Ok(counts)
    }

    /// Announces what a part will ask for.
    fn announce(&mut self, part: &CopyPart) -> SqlResult<()> {
        match part {
            CopyPart::Snapshots(copied) => {
                let customer = self.customer(copied.customer)?;
                announce_histories(self.connection, customer, copied.days);
            }
            CopyPart::Customer(customer, _) => {
                let customer = self.customer(*customer)?;
                let newest = sql::NEWEST_OF_CUSTOMER;
                self.connection.read_ahead(newest, &[customer]);
            }
        }
        Ok(())
    }

    /// Returns the histories that differ from those that are here, which are deleted.
    fn changed(
        &mut self,
        customer: i64,
        copied: &CopiedSnapshots,
        counts: &mut CopyCounts,
    ) -> SqlResult<Vec<SnapshotHistory>> {
        let ours = histories(self.connection, customer, copied.days)?;
        let mut ours: HashMap<(i64, i64), SnapshotHistory> = ours
            .into_iter()
            .map(|history| ((history.day, history.source), history))
            .collect();
        let mut changed = Vec::new();
        for history in copied.renumbered(self)? {
            let Some(before) = ours.remove(&(history.day, history.source)) else {
                changed.push(history);
                continue;
            };
            let mut merged = before.clone();
            merged.merge(history);
            if merged == before {
                counts.unchanged += 1;
                continue;
            }
            self.delete_before_copy(customer, &before)?;
            if merged.generation < before.generation && merged.day != NO_DAY {
                self.apply_copied_purge(customer, &merged)?;
            }
            changed.push(merged);
        }
        Ok(changed)
    }

    fn delete_before_copy(&self, customer: i64, history: &SnapshotHistory) -> SqlResult<()> {
        let key = values![customer, history.day, history.source];
        for statement in [
            sql::DELETE_FACTS,
            sql::DELETE_SUPERSEDED_FACTS,
            sql::DELETE_BODIES,
            sql::DELETE_SUPERSEDED_SNAPSHOTS,
            sql::DELETE_SNAPSHOT,
        ] {
            self.run(statement, key)?;
        }
        Ok(())
    }

    /// Applies a purge of the other store that came after an earlier copy: the date is no longer one that was
    /// fetched whole.
    fn apply_copied_purge(&self, customer: i64, history: &SnapshotHistory) -> SqlResult<()> {
        let asked_days = match history.generation {
            COPIED_PURGED_HARD => sql::FORGET_ASKED_DAYS,
            COPIED_PURGED_SOFT => sql::OUTDATE_ASKED_DAYS,
            _ => return Ok(()),
        };
        self.run(asked_days, values![customer, history.day])
    }

    /// Adds all of a history but the snapshot itself.
    fn add_history(
        &self,
        customer: i64,
        history: &SnapshotHistory,
        (facts, superseded_facts): &mut (&mut RowInserter, &mut RowInserter),
        counts: &mut CopyCounts,
    ) -> SqlResult<()> {
        let (day, source) = (history.day, history.source);
        counts.snapshots += 1;
        for (number, revision) in (1..).zip(&history.revisions) {
            let is_current = number == last_revision(history);
            if !is_current {
                counts.superseded += 1;
                self.run(
                    sql::COPY_SUPERSEDED_SNAPSHOT,
                    values![
                        customer,
                        day,
                        source,
                        number,
                        revision.state,
                        revision.customer_name,
                        revision.fetched_at,
                        revision.confirmed_at
                    ],
                )?;
            }
            for fact in &revision.facts {
                counts.rows += 1;
                let values = fact_values(customer, history, fact);
                match is_current {
                    true => facts.add(self.connection, values)?,
                    false => {
                        let values = values.into_iter().chain([number.into()]);
                        superseded_facts.add(self.connection, values)?;
                    }
                }
            }
            if let Some(body) = &revision.body {
                counts.bodies += 1;
                self.run(
                    sql::SET_BODY,
                    values![
                        customer,
                        day,
                        source,
                        number,
                        body.codec,
                        body.length,
                        &body.bytes[..]
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn copy_customer(
        &self,
        customer: i64,
        copied: &CustomerState,
        lists: ListTimes,
    ) -> SqlResult<()> {
        let ours = newest_of(self.connection, customer)?;
        if let Some(name) = &copied.name {
            let known_at = ours.iter().map(|newest| newest.confirmed_at).max();
            let copied_at = copied.newest.iter().map(|newest| newest.confirmed_at).max();
            let name_it = match known_at.max(lists.ours) > copied_at.max(lists.copied) {
                true => sql::NAME_UNNAMED_CUSTOMER,
                false => sql::NAME_CUSTOMER,
            };
            self.run(name_it, values![customer, &**name])?;
        }
        for copied in &copied.newest {
            let ours = ours.iter().find(|ours| ours.source == copied.source);
            self.copy_newest(customer, ours, copied)?;
        }
        for (day, asked_at) in &copied.asked_days {
            self.run(sql::COPY_ASKED_DAY, values![customer, *day, *asked_at])?;
        }
        Ok(())
    }

    /// Lets the newest date of a customer be the later one, as if one store had seen both.
    fn copy_newest(
        &self,
        customer: i64,
        ours: Option<&NewestSnapshot>,
        copied: &NewestSnapshot,
    ) -> SqlResult<()> {
        let (mut confirmed_at, mut generation) = (copied.confirmed_at, copied.generation);
        if let Some(ours) = ours {
            let hides = |newest: &NewestSnapshot| {
                let purges = purges_of(self.connection, customer, newest.day)?;
                SqlResult::Ok(purges.hides(newest.generation))
            };
            let is_same = (ours.day, ours.confirmed_at) == (copied.day, copied.confirmed_at);
            if !is_same {
                let is_older = match copied.confirmed_at < ours.confirmed_at {
                    true => copied.day <= ours.day || ours.day == NO_DAY,
                    false => copied.day != NO_DAY && copied.day < ours.day,
                };
                // A purged date keeps none away, and replaces none.
                if (is_older || hides(copied)?) && !hides(ours)? {
                    return Ok(());
                }
            }
            if ours.day == copied.day {
                let (ours, copied) = (
                    (ours.generation, ours.confirmed_at),
                    (copied.generation, copied.confirmed_at),
                );
                generation = merge_generations(ours, copied);
                confirmed_at = confirmed_at.max(ours.1);
            }
            if is_same && generation == ours.generation {
                return Ok(());
            }
        }
        self.run(
            sql::COPY_NEWEST,
            values![
                customer,
                copied.source,
                copied.day,
                confirmed_at,
                generation
            ],
        )
    }
}

// === impl CopiedSnapshots ===

impl CopiedSnapshots {
    /// Lets all numbers be those of the store that is written.
    fn renumbered(&self, changes: &mut Changes<'_>) -> SqlResult<Vec<SnapshotHistory>> {
        let connection = changes.connection;
        let known = &mut *changes.dictionaries;
        let names = numbers(connection, &mut known.customer_names, &self.names)?;
        let products = numbers(connection, &mut known.products, &self.products)?;
        let workloads = numbers(connection, &mut known.workloads, &self.workloads)?;
        let number = |numbers: &HashMap<i64, i64>, text: i64| {
            let number = numbers.get(&text).copied();
            number.ok_or_else(|| unreadable("a text has no number"))
        };
        let mut histories = self.histories.clone();
        for revision in histories
            .iter_mut()
            .flat_map(|history| &mut history.revisions)
        {
            if let Some(name) = &mut revision.customer_name {
                *name = number(&names, *name)?;
            }
            for fact in &mut revision.facts {
                fact.product = number(&products, fact.product)?;
                fact.workload = number(&workloads, fact.workload)?;
            }
            revision
                .facts
                .sort_by_key(|fact| (fact.product, fact.workload));
        }
        Ok(histories)
    }
}

/// Returns the number here of each number there.
fn numbers<T: DictionaryEntry>(
    connection: &dyn SqlConnection,
    known: &mut Dictionary<T>,
    texts: &BTreeMap<i64, T>,
) -> SqlResult<HashMap<i64, i64>> {
    let numbers = texts.iter();
    numbers
        .map(|(number, text)| Ok((*number, known.number(connection, text)?)))
        .collect()
}
