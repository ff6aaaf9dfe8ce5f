//! Changes that wait for the store, in a bounded amount of memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{AcceptedSnapshot, StoreWrite};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerId, ProcessedDate, UpstreamApi},
};

/// Changes in their order.
#[derive(Debug)]
pub(super) struct PendingWrites {
    changes: BTreeMap<u64, PendingWrite>,
    /// The last change of each key.
    latest: HashMap<WriteKey, u64>,
    next_number: u64,
    bytes: usize,
    max_bytes: usize,
    /// Dates of which rows were dropped, and when.
    incomplete: HashMap<ProcessedDate, Timestamp>,
}

#[derive(Debug)]
struct PendingWrite {
    key: WriteKey,
    change: StoreWrite,
    bytes: usize,
}

/// The reason why a later change may take the place of an earlier one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// Nothing is lost by it.
    Lossless,
    /// The store fails, and only the last content counts.
    NewestWins,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum WriteKey {
    Snapshot {
        customer: CustomerId,
        api: UpstreamApi,
        date: Option<ProcessedDate>,
        asked_date: Option<ProcessedDate>,
    },
    NothingProcessed(Option<CustomerId>, ProcessedDate),
    FleetConfirmed(UpstreamApi),
    FleetFetched(ProcessedDate),
    Customers,
    Purge(Option<CustomerId>, Option<ProcessedDate>, bool),
    LostPurges,
}

/// About the bytes of a row, whose texts are shared.
const ROW_BYTES: usize = 120;

/// About the bytes of a change beside its rows.
const CHANGE_BYTES: usize = 400;

// === impl PendingWrites ===

impl PendingWrites {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            changes: BTreeMap::new(),
            latest: HashMap::new(),
            next_number: 1,
            bytes: 0,
            max_bytes,
            incomplete: HashMap::new(),
        }
    }

    /// Adds a change, and returns how many were dropped to make room.
    pub(super) fn push(&mut self, change: StoreWrite, merge: Merge, now: Timestamp) -> usize {
        if self.is_wrong_by_now(&change) {
            return 1;
        }
        let key = WriteKey::of(&change);
        if let Some(number) = self.latest.get(&key).copied()
            && let Some(earlier) = self.changes.get(&number)
            && (merge == Merge::NewestWins || includes(&change, &earlier.change))
        {
            self.remove(number);
        }
        let bytes = size(&change);
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += bytes;
        self.latest.insert(key.clone(), number);
        self.changes
            .insert(number, PendingWrite { key, change, bytes });
        self.make_room(now)
    }

    /// Returns the first changes and the number of the last of them.
    pub(super) fn first(&self, limit: usize) -> Option<(u64, Vec<StoreWrite>)> {
        let first = self.changes.iter().take(limit);
        let last = *first.clone().next_back()?.0;
        Some((
            last,
            first.map(|(_, pending)| pending.change.clone()).collect(),
        ))
    }

    /// Removes all changes up to this number, because they are durable or can never be.
    pub(super) fn remove_up_to(&mut self, last: u64) {
        while let Some(number) = self.changes.keys().next().copied()
            && number <= last
        {
            self.remove(number);
        }
    }

    /// Returns the number of the last change that waits; `None` if none does.
    pub(super) fn last_number(&self) -> Option<u64> {
        self.changes.keys().next_back().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether so much waits that it should be written at once.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes > self.max_bytes / 2
    }

    fn remove(&mut self, number: u64) {
        let Some(removed) = self.changes.remove(&number) else {
            return;
        };
        self.bytes -= removed.bytes;
        if self.latest.get(&removed.key) == Some(&number) {
            self.latest.remove(&removed.key);
        }
    }

    /// Drops the oldest changes, but no purge: purges are few, and what they hide must stay hidden.
    fn make_room(&mut self, now: Timestamp) -> usize {
        let mut dropped = 0;
        while self.bytes > self.max_bytes
            && let Some((number, pending)) = self
                .changes
                .iter()
                .find(|(_, pending)| !is_purge(&pending.change))
        {
            let number = *number;
            if let StoreWrite::Snapshot(snapshot) = &pending.change
                && let Some(date) = snapshot.date()
            {
                self.incomplete.insert(date, now);
            }
            self.remove(number);
            dropped += 1;
        }
        if dropped > 0 {
            let changes = self.changes.iter();
            let wrong: Vec<_> = changes
                .filter(|(_, pending)| self.is_wrong_by_now(&pending.change))
                .map(|(number, _)| *number)
                .collect();
            dropped += wrong.len();
            for number in wrong {
                self.remove(number);
            }
        }
        dropped
    }

    /// Returns whether a change says that a date is stored, of which rows were dropped since.
    fn is_wrong_by_now(&self, change: &StoreWrite) -> bool {
        matches!(change, StoreWrite::FleetFetched { date, asked_at, .. }
            if self.incomplete.get(date).is_some_and(|dropped_at| asked_at <= dropped_at))
    }
}

// === impl WriteKey ===

impl WriteKey {
    fn of(change: &StoreWrite) -> Self {
        match change {
            StoreWrite::Snapshot(snapshot) => Self::Snapshot {
                customer: snapshot.usage.customer_id(),
                api: snapshot.api,
                date: snapshot.date(),
                asked_date: snapshot.asked_date,
            },
            StoreWrite::NothingProcessed { customer, date, .. } => {
                Self::NothingProcessed(*customer, *date)
            }
            StoreWrite::FleetConfirmed { api, .. } => Self::FleetConfirmed(*api),
            StoreWrite::FleetFetched { date, .. } => Self::FleetFetched(*date),
            StoreWrite::Customers(_) => Self::Customers,
            StoreWrite::Purge(scope, mode) => {
                let PurgeScope {
                    customer_id,
                    processed_date,
                } = scope;
                Self::Purge(*customer_id, *processed_date, *mode == PurgeMode::Hard)
            }
            StoreWrite::LostPurges { .. } => Self::LostPurges,
        }
    }
}

// === impl AcceptedSnapshot ===

impl AcceptedSnapshot {
    /// The date that it is stored under; `None` for an answer for the newest date that has no rows.
    pub(super) fn date(&self) -> Option<ProcessedDate> {
        self.usage.processed_date().or(self.asked_date)
    }
}

/// Returns whether a change hides something that is stored.
pub(super) fn is_purge(change: &StoreWrite) -> bool {
    matches!(
        change,
        StoreWrite::Purge(..) | StoreWrite::LostPurges { .. }
    )
}

/// Returns whether nothing of an earlier change with the same key is missing in a later one.
fn includes(later: &StoreWrite, earlier: &StoreWrite) -> bool {
    match (later, earlier) {
        (StoreWrite::Snapshot(later), StoreWrite::Snapshot(earlier)) => {
            (Arc::ptr_eq(&later.usage, &earlier.usage) || later.usage == earlier.usage)
                && later.native == earlier.native
        }
        (
            StoreWrite::FleetConfirmed {
                refreshed_at: later,
                ..
            },
            StoreWrite::FleetConfirmed {
                refreshed_at: earlier,
                ..
            },
        ) => later == earlier,
        _ => true,
    }
}

fn size(change: &StoreWrite) -> usize {
    let content = match change {
        StoreWrite::Snapshot(snapshot) => {
            let body = snapshot.native.as_ref().map_or(0, |body| body.len());
            snapshot.usage.rows().len() * ROW_BYTES + body
        }
        StoreWrite::Customers(customers) => customers
            .list
            .customers()
            .iter()
            .map(|listed| listed.raw.len() + listed.entry.name.len() + ROW_BYTES)
            .sum(),
        StoreWrite::NothingProcessed { .. }
        | StoreWrite::FleetConfirmed { .. }
        | StoreWrite::FleetFetched { .. }
        | StoreWrite::Purge(..)
        | StoreWrite::LostPurges { .. } => 0,
    };
    CHANGE_BYTES + content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fixtures::{at, customer, newest, row, usage};

    const MORNING: &str = "2026-11-28T06:00:00Z";
    const NOON: &str = "2026-11-28T12:00:00Z";

    fn snapshot(number: u32, active: u64, fetched_at: &str) -> StoreWrite {
        let rows = vec![row("E3", "Teams", active, 9, "2026-11-26")];
        newest(
            UpstreamApi::Insights,
            &usage(customer(number), rows),
            fetched_at,
        )
    }

    fn fleet_fetched(asked_at: &str) -> StoreWrite {
        StoreWrite::FleetFetched {
            date: ProcessedDate::parse("2026-11-26").unwrap(),
            asked_at: at(asked_at),
            purge_generation: None,
        }
    }

    fn pushed(max_bytes: usize, merge: Merge, changes: Vec<StoreWrite>) -> (PendingWrites, usize) {
        let mut pending = PendingWrites::new(max_bytes);
        let dropped = changes
            .into_iter()
            .map(|change| pending.push(change, merge, at(NOON)))
            .sum();
        (pending, dropped)
    }

    #[test]
    fn the_same_content_again_takes_the_place_of_the_first() {
        let changes = vec![snapshot(1, 3, MORNING), snapshot(1, 3, NOON)];

        let (pending, _) = pushed(usize::MAX, Merge::Lossless, changes);

        assert_eq!(pending.len(), 1);
        assert_eq!(pending.first(9).unwrap().0, 2, "the second");
    }

    #[test]
    fn a_correction_takes_the_place_of_the_first_only_while_the_store_fails() {
        let changes = || vec![snapshot(1, 3, MORNING), snapshot(1, 4, NOON)];

        let (works, _) = pushed(usize::MAX, Merge::Lossless, changes());
        let (fails, _) = pushed(usize::MAX, Merge::NewestWins, changes());

        assert_eq!((works.len(), fails.len()), (2, 1));
    }

    #[test]
    fn the_oldest_are_dropped_when_too_much_waits_but_no_purge() {
        let purge = StoreWrite::Purge(PurgeScope::default(), PurgeMode::Hard);
        let room_for_three = 3 * CHANGE_BYTES + 2 * ROW_BYTES;
        let changes = vec![
            purge,
            snapshot(1, 3, MORNING),
            snapshot(2, 3, MORNING),
            snapshot(3, 3, MORNING),
        ];

        let (pending, dropped) = pushed(room_for_three, Merge::Lossless, changes);

        assert_eq!((pending.len(), dropped), (3, 1));
        let (_, left) = pending.first(9).unwrap();
        assert!(matches!(left[0], StoreWrite::Purge(..)));
    }

    #[test]
    fn a_date_of_which_rows_were_dropped_is_not_fetched() {
        let room_for_one = CHANGE_BYTES + ROW_BYTES;
        let changes = vec![
            snapshot(1, 3, MORNING),
            snapshot(2, 3, MORNING),
            fleet_fetched(MORNING),
        ];

        let (mut pending, dropped) = pushed(room_for_one, Merge::Lossless, changes);
        assert_eq!((pending.len(), dropped), (1, 2));

        pending.remove_up_to(pending.last_number().unwrap());
        pending.push(
            fleet_fetched("2026-11-28T12:00:01Z"),
            Merge::Lossless,
            at(NOON),
        );
        assert_eq!(pending.len(), 1, "it was fetched again");
    }
}
