//! The purges that this process has applied, for rows that it reads from the store afterwards.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerId, ProcessedDate},
};

/// The last purges, and how many of those in the store this process has applied.
#[derive(Debug, Default)]
pub(super) struct PurgeMarks {
    marks: Mutex<Vec<PurgeMark>>,
    followed: Mutex<Followed>,
}

/// A purge, and the time when this process applied it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PurgeMark {
    scope: PurgeScope,
    mode: PurgeMode,
    by: PurgedBy,
    at: Timestamp,
}

/// The process that a purge was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PurgedBy {
    /// This one: the store may not have written it yet.
    ThisProcess,
    /// Another one: it comes from the store.
    AnotherProcess,
    /// Maybe any: the store has lost it.
    Unknown,
}

/// The purges in the store that this process has applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Followed {
    /// Nobody looks for them.
    #[default]
    Nothing,
    /// The store could not be read yet.
    Unknown,
    /// All up to this generation.
    UpTo(i64),
}

/// The number of remembered purges: more than anyone makes within `store.flush_within`.
const MAX_MARKS: usize = 1_000;

// === impl PurgeMarks ===

impl PurgeMarks {
    /// Records a purge, in place of an earlier one of the same data.
    pub(super) fn record(&self, scope: PurgeScope, mode: PurgeMode, by: PurgedBy, at: Timestamp) {
        let mut marks = self.lock_marks();
        marks.retain(|mark| (mark.scope, mark.mode, mark.by) != (scope, mode, by));
        if marks.len() == MAX_MARKS {
            marks.remove(0);
        }
        marks.push(PurgeMark {
            scope,
            mode,
            by,
            at,
        });
    }

    /// Returns the effect of those purges that count on rows that were confirmed then. `None` if there are
    /// none.
    pub(super) fn last_effect(
        &self,
        customer: CustomerId,
        date: Option<ProcessedDate>,
        confirmed_at: Timestamp,
        counts: fn(&PurgeMark) -> bool,
    ) -> Option<PurgeMode> {
        let marks = self.lock_marks();
        let mut later = marks.iter().filter(|mark| {
            counts(mark) && mark.scope.covers(Some(customer), date) && confirmed_at <= mark.at
        });
        let first = later.next()?;
        let is_hard =
            first.mode == PurgeMode::Hard || later.any(|mark| mark.mode == PurgeMode::Hard);
        Some(match is_hard {
            true => PurgeMode::Hard,
            false => PurgeMode::Soft,
        })
    }

    /// Returns whether this process has applied a purge since then.
    pub(super) fn any_since(&self, time: Timestamp) -> bool {
        self.lock_marks().iter().any(|mark| mark.at >= time)
    }

    /// Returns the last purge in the store that this process has applied, for an answer that it accepts.
    pub(super) fn generation(&self) -> Option<i64> {
        match self.followed() {
            Followed::Nothing => None,
            // It may be older than any purge.
            Followed::Unknown => Some(0),
            Followed::UpTo(generation) => Some(generation),
        }
    }

    /// Returns the purges in the store that this process has applied.
    pub(super) fn followed(&self) -> Followed {
        *self.lock_followed()
    }

    /// Sets the purges in the store that this process has applied.
    pub(super) fn set_followed(&self, followed: Followed) {
        *self.lock_followed() = followed;
    }

    fn lock_marks(&self) -> MutexGuard<'_, Vec<PurgeMark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PurgeMark ===

impl PurgeMark {
    /// Returns whether the store may not know it.
    pub(super) fn may_be_missing(&self) -> bool {
        self.by != PurgedBy::AnotherProcess
    }
}
