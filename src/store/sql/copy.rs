//! Stored rows of one store, read and written into another one, whose texts have other numbers.

mod read;
mod rows;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    dictionary::{ProductTexts, WorkloadTexts},
    merge::SnapshotHistory,
};
use crate::{domain::CustomerId, store::StoredCustomers};

/// What a copy begins with. What it says of all customers together is true of a copy only once that has
/// all customers.
#[derive(Debug)]
pub(in crate::store) struct CopyStart {
    pub(in crate::store) customers: Vec<CustomerId>,
    pub(in crate::store) snapshots: u64,
    preferred: i64,
    list: Option<StoredCustomers>,
    fleet: Vec<FleetConfirmation>,
    asked_days: Vec<(i64, i64)>,
}

/// A row of `fleet_confirmed`.
#[derive(Debug)]
struct FleetConfirmation {
    source: i64,
    refreshed_at: i64,
    confirmed_at: i64,
}

/// What a store has of a customer: enough to find out what is missing in another one.
#[derive(Debug, Default)]
pub(in crate::store) struct CustomerState {
    name: Option<String>,
    /// By day and source.
    snapshots: BTreeMap<(i64, i64), SnapshotTimes>,
    newest: Vec<NewestSnapshot>,
    /// Each day with the time when it was asked for.
    asked_days: BTreeMap<i64, i64>,
}

#[derive(Debug)]
struct SnapshotTimes {
    fetched_at: i64,
    confirmed_at: i64,
    generation: i64,
    superseded: BTreeSet<i64>,
}

/// A row of `newest`, with the confirmation of the fleet.
#[derive(Clone, Copy, Debug)]
struct NewestSnapshot {
    source: i64,
    day: i64,
    confirmed_at: i64,
    generation: i64,
}

/// A part of a copy.
#[derive(Debug)]
pub(in crate::store) enum CopyPart {
    Snapshots(CopiedSnapshots),
    /// What is stored of a customer besides snapshots.
    Customer(CustomerId, CustomerState),
}

/// The snapshots of a customer in a range of days.
#[derive(Debug)]
pub(in crate::store) struct CopiedSnapshots {
    customer: CustomerId,
    days: (i64, i64),
    histories: Vec<SnapshotHistory>,
    /// The texts by their numbers in the other store.
    names: BTreeMap<i64, Arc<str>>,
    products: BTreeMap<i64, ProductTexts>,
    workloads: BTreeMap<i64, WorkloadTexts>,
}

/// Counts what was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct CopyCounts {
    pub(in crate::store) snapshots: u64,
    pub(in crate::store) unchanged: u64,
    pub(in crate::store) superseded: u64,
    pub(in crate::store) rows: u64,
    pub(in crate::store) bodies: u64,
}

// === impl CustomerState ===

impl CustomerState {
    /// Returns the number of snapshots.
    pub(in crate::store) fn len(&self) -> u64 {
        self.snapshots.len() as u64
    }

    /// Returns the days whose snapshots another store lacks, or has not as they are here; in ranges that have
    /// no other snapshots in between.
    pub(in crate::store) fn missing_in(&self, other: &Self) -> Vec<Vec<i64>> {
        let mut ranges: Vec<Vec<i64>> = Vec::new();
        let mut days: BTreeMap<i64, bool> = BTreeMap::new();
        for (key, times) in &self.snapshots {
            let copy = other.snapshots.get(key);
            let is_missing = !copy.is_some_and(|copy| times.is_in(copy));
            *days.entry(key.0).or_default() |= is_missing;
        }
        let mut was_missing = false;
        for (day, is_missing) in days {
            match ranges.last_mut() {
                Some(range) if is_missing && was_missing => range.push(day),
                _ if is_missing => ranges.push(vec![day]),
                _ => {}
            }
            was_missing = is_missing;
        }
        ranges
    }

    /// Returns the number of snapshots on one of these days.
    pub(in crate::store) fn count_on(&self, days: &[i64]) -> u64 {
        let on = |day: &i64| {
            self.snapshots
                .range((*day, i64::MIN)..=(*day, i64::MAX))
                .count()
        };
        days.iter().map(on).sum::<usize>() as u64
    }

    /// Removes what a copy has, so that the rest is to be written.
    pub(in crate::store) fn without_copied(mut self, copy: &Self) -> Self {
        self.snapshots.clear();
        self.asked_days.retain(|day, asked_at| {
            let copied = copy.asked_days.get(day);
            copied.is_none_or(|copied| *copied != 0 && copied < asked_at)
        });
        self
    }
}

// === impl SnapshotTimes ===

impl SnapshotTimes {
    /// Returns whether a copy has all of this.
    fn is_in(&self, copy: &Self) -> bool {
        let is_known = |fetched_at: &i64| {
            *fetched_at == copy.fetched_at || copy.superseded.contains(fetched_at)
        };
        let is_current = self.confirmed_at < copy.confirmed_at
            || (self.fetched_at == copy.fetched_at
                && self.confirmed_at == copy.confirmed_at
                && copy.generation <= self.generation);
        is_current && is_known(&self.fetched_at) && self.superseded.iter().all(is_known)
    }
}

// === impl CopyPart ===

impl CopyPart {
    /// Returns the number of rows that it has about.
    pub(in crate::store) fn len(&self) -> usize {
        match self {
            Self::Snapshots(copied) => copied.rows(),
            Self::Customer(_, state) => 1 + state.asked_days.len(),
        }
    }
}

// === impl CopiedSnapshots ===

impl CopiedSnapshots {
    /// Returns the number of rows of all tables.
    pub(in crate::store) fn rows(&self) -> usize {
        let revisions = self.histories.iter().flat_map(|history| &history.revisions);
        revisions.map(|revision| 1 + revision.facts.len()).sum()
    }
}
