//! The numbers that stand for things in all engines, and rows between the domain and a table.

use crate::{
    cache::PurgeMode,
    domain::{ProcessedAt, ProcessedDate, UpstreamApi, UsageRow},
};

/// In place of a customer's number: all customers together.
pub(super) const ALL_CUSTOMERS: i64 = 0;

/// The day of an answer for the newest date that had no rows.
pub(super) const NO_DAY: i64 = -2_147_483_648;

/// In place of the day of a purge: all days.
pub(super) const ALL_DAYS: i64 = -2_147_483_648;

/// The snapshot has rows.
pub(super) const STATE_ROWS: i64 = 1;

/// The answer had no rows.
pub(super) const STATE_EMPTY: i64 = 2;

/// The generation of a snapshot that was copied from another store: older than every purge of this one.
pub(super) const COPIED: i64 = 0;

/// The generation of a snapshot that a soft purge of the store that it was copied from includes.
pub(super) const COPIED_PURGED_SOFT: i64 = -1;

/// The generation of a snapshot that a hard purge of the store that it was copied from includes.
pub(super) const COPIED_PURGED_HARD: i64 = -2;

const PURGE_SOFT: i64 = 1;

const PURGE_HARD: i64 = 2;

const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;

/// A row of usage, with numbers in place of texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StoredFact {
    pub(super) product: i64,
    pub(super) workload: i64,
    pub(super) licenses_active: i64,
    pub(super) licenses_qualified: i64,
    pub(super) reported_usage_percent: Option<f64>,
    /// Nanoseconds since the beginning of the snapshot's day.
    pub(super) processed_offset: i64,
}

/// The newest generation of purges that include a snapshot, by mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct PurgeGenerations {
    soft: i64,
    hard: i64,
}

/// Returns the number of a call for usage; `None` for any other call.
pub(super) fn source_number(api: UpstreamApi) -> Option<i64> {
    match api {
        UpstreamApi::Insights => Some(1),
        UpstreamApi::Commercial => Some(2),
        UpstreamApi::Customers
        | UpstreamApi::Deployment
        | UpstreamApi::PartnerUsage
        | UpstreamApi::PartnerDeployment => None,
    }
}

/// Returns the call of a number.
pub(super) fn source_of_number(number: i64) -> Option<UpstreamApi> {
    let mut calls = UpstreamApi::OF_USAGE.into_iter();
    calls.find(|api| source_number(*api) == Some(number))
}

/// Returns the number of a mode; the stronger is the larger.
pub(super) const fn purge_mode_number(mode: PurgeMode) -> i64 {
    match mode {
        PurgeMode::Soft => PURGE_SOFT,
        PurgeMode::Hard => PURGE_HARD,
    }
}

// === impl StoredFact ===

impl StoredFact {
    /// Returns `None` for a value that no column can have.
    pub(super) fn new(row: &UsageRow, day: i64, product: i64, workload: i64) -> Option<Self> {
        let midnight = i128::from(day) * NANOSECONDS_PER_DAY;
        let offset = row.processed_at.0.as_nanosecond() - midnight;
        Some(Self {
            product,
            workload,
            licenses_active: i64::try_from(row.licenses_active).ok()?,
            licenses_qualified: i64::try_from(row.licenses_qualified).ok()?,
            reported_usage_percent: row.reported_usage_percent,
            processed_offset: i64::try_from(offset).ok()?,
        })
    }

    /// Returns the instant of a row of this day; `None` if there is no such instant.
    pub(super) fn processed_at(&self, day: i64) -> Option<ProcessedAt> {
        let midnight = i128::from(day) * NANOSECONDS_PER_DAY;
        let instant = midnight + i128::from(self.processed_offset);
        jiff::Timestamp::from_nanosecond(instant)
            .ok()
            .map(ProcessedAt)
    }
}

// === impl PurgeGenerations ===

impl PurgeGenerations {
    /// Includes a purge.
    pub(super) fn include(&mut self, mode: i64, generation: i64) {
        let newest = match mode {
            PURGE_HARD => &mut self.hard,
            _ => &mut self.soft,
        };
        *newest = generation.max(*newest);
    }

    /// Returns the newer of each mode.
    pub(super) fn newest(self, other: Self) -> Self {
        Self {
            soft: self.soft.max(other.soft),
            hard: self.hard.max(other.hard),
        }
    }

    /// Returns whether a hard purge came after this generation.
    pub(super) fn hides(self, generation: i64) -> bool {
        generation < self.hard
    }

    /// Returns whether any purge came after this generation.
    pub(super) fn includes(self, generation: i64) -> bool {
        generation < self.hard.max(self.soft)
    }

    /// Returns the generation that a snapshot of this one has in another store, where the same is served
    /// of it.
    pub(super) fn copied(self, generation: i64) -> i64 {
        if self.hides(generation) {
            COPIED_PURGED_HARD
        } else if self.includes(generation) {
            COPIED_PURGED_SOFT
        } else {
            COPIED
        }
    }
}

impl Default for PurgeGenerations {
    /// Without any purge, only those of the store count that a snapshot was copied from.
    fn default() -> Self {
        Self {
            soft: COPIED,
            hard: COPIED_PURGED_SOFT,
        }
    }
}

/// Returns the mode of a number.
pub(super) const fn purge_mode_of_number(number: i64) -> PurgeMode {
    match number {
        PURGE_HARD => PurgeMode::Hard,
        _ => PurgeMode::Soft,
    }
}

/// Returns the date of a day's number; `None` for [`NO_DAY`].
pub(super) fn date_of_day(day: i64) -> Option<ProcessedDate> {
    ProcessedDate::from_days_since_epoch(day)
}
