//! Answers that look like a fault of the upstream's, and when they are believed after all.

use std::time::{Duration, Instant};

use super::freshness::Lifetime;
use crate::representation::Prepared;

/// Why an answer is doubted, and what is held served in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// No rows, where there were some.
    Empty,
    /// Nine tenths of the rows or more are gone.
    Shrunken,
    /// The newest date is older than the one held. This is never believed: whoever is served the
    /// newer one misses nothing.
    WentBackwards,
}

/// An answer that was not believed, for as long as nothing has settled it.
///
/// It stands with the entry that it did not replace, so it goes where that goes: a purge, or an
/// answer that is believed, ends it.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    suspicion: Suspicion,
    /// Which rows the doubted answer has, so that it is known when it is told again.
    rows_named: u64,
    /// When it was first told.
    since: Instant,
    /// When it was last told.
    pub(super) checked_at: Instant,
    /// How long what is held is served before upstream is asked again; counted, as every lifetime,
    /// from when that arrived.
    pub(super) lifetime: Lifetime,
}

/// What is made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is nothing to doubt.
    Believed,
    /// It was doubted, and has been told again for long enough.
    Conceded,
    /// What is held is served in its place.
    Doubted {
        /// Why.
        suspicion: Suspicion,
        /// When this was first told.
        since: Instant,
    },
}

// === impl Suspicion ===

impl Suspicion {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Empty, Self::Shrunken, Self::WentBackwards];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Shrunken => "shrunken",
            Self::WentBackwards => "went-backwards",
        }
    }

    /// What an answer arouses beside the one that is held.
    pub(super) fn of(told: &Prepared, held: &Prepared) -> Option<Self> {
        if told.processed_date().is_some() && told.processed_date() < held.processed_date() {
            Some(Self::WentBackwards)
        } else {
            Self::of_count(told.rows(), held.rows())
        }
    }

    /// What a number of rows arouses beside the number that is held.
    const fn of_count(told: usize, held: usize) -> Option<Self> {
        if held == 0 {
            None
        } else if told == 0 {
            Some(Self::Empty)
        } else if told.saturating_mul(10) <= held {
            Some(Self::Shrunken)
        } else {
            None
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Judges an answer by the one that is held, and by what was doubted before.
    ///
    /// Missing rows are believed when a second answer, `confirm_after` or more after the first, has
    /// the same rows: the same products in the same workloads. Their counts and dates may differ,
    /// since they change daily and are not what is doubted; asked for once a day, a customer would
    /// never be told the same bytes twice. Other rows are another story, and the wait begins anew.
    /// A `confirm_after` of zero believes them at once.
    pub(super) fn on(
        told: &Prepared,
        held: &Prepared,
        before: Option<&Doubt>,
        confirm_after: Duration,
        now: Instant,
    ) -> Self {
        let Some(suspicion) = Suspicion::of(told, held) else {
            return Self::Believed;
        };
        let since = before
            .filter(|doubt| doubt.suspicion == suspicion && doubt.rows_named == told.rows_named())
            .map(|doubt| doubt.since);
        if suspicion != Suspicion::WentBackwards {
            if confirm_after.is_zero() {
                return Self::Believed;
            }
            if since.is_some_and(|since| now >= since + confirm_after) {
                return Self::Conceded;
            }
        }
        Self::Doubted {
            suspicion,
            since: since.unwrap_or(now),
        }
    }
}

// === impl Doubt ===

impl Doubt {
    /// A doubt about what was told now.
    pub(super) fn new(
        suspicion: Suspicion,
        told: &Prepared,
        since: Instant,
        lifetime: Lifetime,
        now: Instant,
    ) -> Self {
        Self {
            suspicion,
            rows_named: told.rows_named(),
            since,
            checked_at: now,
            lifetime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_gone_is_suspect_and_less_is_not() {
        for (held, told, suspicion) in [
            (0, 0, None),
            (0, 5, None),
            (1, 0, Some(Suspicion::Empty)),
            (1, 1, None),
            (9, 1, None),
            (10, 1, Some(Suspicion::Shrunken)),
            (11, 1, Some(Suspicion::Shrunken)),
            (19, 2, None),
            (20, 2, Some(Suspicion::Shrunken)),
            (20, 3, None),
            (1_000, 100, Some(Suspicion::Shrunken)),
            (1_000, 101, None),
            (10, 0, Some(Suspicion::Empty)),
        ] {
            assert_eq!(
                Suspicion::of_count(told, held),
                suspicion,
                "{held} → {told}"
            );
        }
    }
}
