//! Answers that look like a fault of the upstream's, and when they are believed after all.

use std::time::{Duration, Instant};

use super::freshness::Lifetime;
use crate::{domain::ProcessedDate, render::Prepared};

/// A reason to doubt an answer, and to serve cached data in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// No rows, where there were some.
    Empty,
    /// Nine tenths of the rows or more are gone.
    Shrunken,
    /// The same products have 1.8 times the licenses or more.
    Grown,
    /// The newest date is older than the one cached. This is never believed: a caller that is
    /// served the newer one misses nothing.
    WentBackwards,
    /// Many customers are gone at once, or access to them.
    ManyAbsent,
}

/// The numbers of an answer that decide whether it is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerDigest {
    processed_date: Option<ProcessedDate>,
    rows: usize,
    rows_named: u64,
    products_named: u64,
    licenses_qualified: u64,
}

/// An answer that was not believed, for as long as nothing has settled it.
///
/// It stands with the entry that it did not replace, so it goes where that goes: a purge, or an
/// answer that is believed, ends it.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    suspicion: Suspicion,
    /// The doubted answer, to recognize when upstream repeats it.
    answer: AnswerDigest,
    /// When upstream sent it first.
    since: Instant,
    /// When upstream sent it last.
    pub(super) checked_at: Instant,
    /// The lifetime of the cached data until upstream is asked again; it counts, as every lifetime,
    /// from when that data arrived.
    pub(super) lifetime: Lifetime,
}

/// The decision about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is nothing to doubt.
    Believed,
    /// It was doubted, and upstream has repeated it for long enough.
    Conceded,
    /// The cached data is served in its place.
    Doubted {
        /// Why.
        suspicion: Suspicion,
        /// When upstream sent it first.
        since: Instant,
    },
}

// === impl Suspicion ===

impl Suspicion {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::Shrunken,
        Self::Grown,
        Self::WentBackwards,
        Self::ManyAbsent,
    ];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Shrunken => "shrunken",
            Self::Grown => "grown",
            Self::WentBackwards => "went-backwards",
            Self::ManyAbsent => "many-absent",
        }
    }

    /// The reason to doubt an answer, given the one that is cached.
    pub(super) fn of(answer: AnswerDigest, cached: AnswerDigest) -> Option<Self> {
        if answer.processed_date.is_some() && answer.processed_date < cached.processed_date {
            Some(Self::WentBackwards)
        } else if cached.rows == 0 {
            None
        } else if answer.rows == 0 {
            Some(Self::Empty)
        } else if answer.rows.saturating_mul(10) <= cached.rows {
            Some(Self::Shrunken)
        } else if answer.has_grown_from(cached) {
            Some(Self::Grown)
        } else {
            None
        }
    }
}

// === impl AnswerDigest ===

impl AnswerDigest {
    /// An answer that there is nothing.
    pub(super) const NOTHING: Self = Self {
        processed_date: None,
        rows: 0,
        rows_named: 0,
        products_named: 0,
        licenses_qualified: 0,
    };

    /// The smallest sum of licenses whose growth is doubted: a small customer doubles easily.
    const LEAST_TO_DOUBT: u64 = 50;

    pub(super) fn of(prepared: &Prepared) -> Self {
        Self {
            processed_date: prepared.processed_date(),
            rows: prepared.rows(),
            rows_named: prepared.rows_named(),
            products_named: prepared.products_named(),
            licenses_qualified: prepared.licenses_qualified(),
        }
    }

    fn has_grown_from(self, cached: Self) -> bool {
        cached.licenses_qualified >= Self::LEAST_TO_DOUBT
            && self.products_named == cached.products_named
            && self.is_much_more_than(cached)
    }

    /// 1.8 times as many licenses, or more.
    fn is_much_more_than(self, other: Self) -> bool {
        u128::from(self.licenses_qualified) * 10 >= u128::from(other.licenses_qualified) * 18
    }
}

// === impl Verdict ===

impl Verdict {
    /// Judges an answer that is suspect or not, given what was doubted before.
    ///
    /// A suspect answer is believed when a second one, `confirm_after` or more after the first,
    /// agrees with it. A `confirm_after` of zero believes it at once.
    pub(super) fn on(
        answer: AnswerDigest,
        suspicion: Option<Suspicion>,
        before: Option<&Doubt>,
        confirm_after: Duration,
        now: Instant,
    ) -> Self {
        let Some(suspicion) = suspicion else {
            return Self::Believed;
        };
        let since = before
            .filter(|doubt| doubt.suspicion == suspicion && doubt.agrees_with(answer))
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
    /// A doubt about an answer that came now.
    pub(super) fn new(
        suspicion: Suspicion,
        answer: AnswerDigest,
        since: Instant,
        lifetime: Lifetime,
        now: Instant,
    ) -> Self {
        Self {
            suspicion,
            answer,
            since,
            checked_at: now,
            lifetime,
        }
    }

    /// The reason for the doubt.
    pub(super) fn suspicion(&self) -> Suspicion {
        self.suspicion
    }

    /// Returns whether an answer that is suspect for the same reason agrees with the doubted one.
    ///
    /// Missing rows are the same when the rest are the same products in the same workloads, and
    /// growth when the sums are alike. Counts and dates may differ, since they change daily: a
    /// customer that is asked for once a day never gets the same bytes twice. Anything else starts
    /// the wait again.
    fn agrees_with(&self, answer: AnswerDigest) -> bool {
        match self.suspicion {
            Suspicion::Empty | Suspicion::WentBackwards | Suspicion::ManyAbsent => true,
            Suspicion::Shrunken => answer.rows_named == self.answer.rows_named,
            Suspicion::Grown => {
                !answer.is_much_more_than(self.answer) && !self.answer.is_much_more_than(answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_gone_is_suspect_and_less_is_not() {
        for (cached, answer, suspicion) in [
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
            let of = |rows| AnswerDigest {
                rows,
                ..AnswerDigest::NOTHING
            };

            assert_eq!(
                Suspicion::of(of(answer), of(cached)),
                suspicion,
                "{cached} → {answer}"
            );
        }
    }

    #[test]
    fn growth_by_eight_tenths_of_the_same_products_is_suspect_and_less_is_not() {
        let of = |licenses_qualified, products_named| AnswerDigest {
            rows: 1,
            products_named,
            licenses_qualified,
            ..AnswerDigest::NOTHING
        };
        for (cached, answer, is_suspect) in [
            (0, 1_000, false),
            (49, 1_000, false),
            (50, 89, false),
            (50, 90, true),
            (51, 91, false),
            (51, 92, true),
            (1_000, 1_799, false),
            (1_000, 1_800, true),
            (1_000, 1_000_000, true),
            (1_000, 200, false),
            (i64::MAX as u64 / 2, i64::MAX as u64, true),
        ] {
            let suspicion = Suspicion::of(of(answer, 1), of(cached, 1));
            let with_other_products = Suspicion::of(of(answer, 2), of(cached, 1));

            let expected = is_suspect.then_some(Suspicion::Grown);
            assert_eq!(suspicion, expected, "{cached} → {answer}");
            assert_eq!(with_other_products, None, "{cached} → {answer}");
        }
    }
}
