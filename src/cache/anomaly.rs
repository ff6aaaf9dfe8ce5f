//! Suspect answers, which look like a fault of the upstream's, and when they are accepted after all.

use std::time::{Duration, Instant};

use super::freshness::FreshnessLifetime;
use crate::{domain::ProcessedDate, render::Rendered};

/// The reason why an answer is suspect, so that cached data is served in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AnomalyKind {
    /// No rows, where there were some.
    Empty,
    /// Nine tenths of the rows or more are gone.
    Shrunken,
    /// The same products have 1.8 times the licenses or more.
    Grown,
    /// The newest date is older than the one cached. This is never accepted: a caller that is
    /// served the newer one misses nothing.
    WentBackwards,
    /// Many customers are gone at once, or access to them.
    ManyAbsent,
}

/// The numbers of an answer that decide whether it is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerDigest {
    processed_date: Option<ProcessedDate>,
    rows: usize,
    row_names_hash: u64,
    product_names_hash: u64,
    licenses_qualified: u64,
}

/// A suspect answer, until another answer confirms it or takes its place.
///
/// It is attached to the entry that it did not replace. A purge or an accepted answer ends it.
#[derive(Clone, Debug)]
pub(super) struct Anomaly {
    kind: AnomalyKind,
    /// The suspect answer, to recognize when upstream repeats it.
    answer: AnswerDigest,
    /// The time when upstream sent it first.
    first_seen_at: Instant,
    /// The time when upstream sent it last.
    pub(super) checked_at: Instant,
    /// The lifetime of the cached data until upstream is asked again; it counts, as every lifetime,
    /// from when that data arrived.
    pub(super) lifetime: FreshnessLifetime,
}

/// The decision about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It is not suspect.
    Accepted,
    /// It was suspect, and upstream has repeated it for long enough.
    AcceptedAfterRepeat,
    /// The cached data is served in its place.
    Suspect {
        /// The reason.
        kind: AnomalyKind,
        /// The time when upstream sent it first.
        first_seen_at: Instant,
    },
}

// === impl AnomalyKind ===

impl AnomalyKind {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns why an answer is suspect, given the cached one.
    pub(super) fn detect(answer: AnswerDigest, cached: AnswerDigest) -> Option<Self> {
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
    /// An answer without data.
    pub(super) const EMPTY: Self = Self {
        processed_date: None,
        rows: 0,
        row_names_hash: 0,
        product_names_hash: 0,
        licenses_qualified: 0,
    };

    /// The smallest sum of licenses whose growth is suspect: a small customer doubles easily.
    const MIN_LICENSES_FOR_GROWTH_CHECK: u64 = 50;

    pub(super) fn of(rendered: &Rendered) -> Self {
        Self {
            processed_date: rendered.processed_date(),
            rows: rendered.rows(),
            row_names_hash: rendered.row_names_hash(),
            product_names_hash: rendered.product_names_hash(),
            licenses_qualified: rendered.licenses_qualified(),
        }
    }

    fn has_grown_from(self, cached: Self) -> bool {
        cached.licenses_qualified >= Self::MIN_LICENSES_FOR_GROWTH_CHECK
            && self.product_names_hash == cached.product_names_hash
            && self.is_much_more_than(cached)
    }

    /// Returns whether it has 1.8 times as many licenses, or more.
    fn is_much_more_than(self, other: Self) -> bool {
        u128::from(self.licenses_qualified) * 10 >= u128::from(other.licenses_qualified) * 18
    }
}

// === impl Check ===

impl Check {
    /// Decides about an answer, given its anomaly and the suspect answer before it.
    ///
    /// A suspect answer is accepted when a second one, `confirm_after` or more after the first, agrees
    /// with it. A `confirm_after` of zero accepts it at once.
    pub(super) fn evaluate(
        answer: AnswerDigest,
        kind: Option<AnomalyKind>,
        before: Option<&Anomaly>,
        confirm_after: Duration,
        now: Instant,
    ) -> Self {
        let Some(kind) = kind else {
            return Self::Accepted;
        };
        let since = before
            .filter(|before| before.kind == kind && before.agrees_with(answer))
            .map(|before| before.first_seen_at);
        if kind != AnomalyKind::WentBackwards {
            if confirm_after.is_zero() {
                return Self::Accepted;
            }
            if since.is_some_and(|since| now >= since + confirm_after) {
                return Self::AcceptedAfterRepeat;
            }
        }
        Self::Suspect {
            kind,
            first_seen_at: since.unwrap_or(now),
        }
    }
}

// === impl Anomaly ===

impl Anomaly {
    /// Records an answer that arrived now.
    pub(super) fn new(
        kind: AnomalyKind,
        answer: AnswerDigest,
        first_seen_at: Instant,
        lifetime: FreshnessLifetime,
        now: Instant,
    ) -> Self {
        Self {
            kind,
            answer,
            first_seen_at,
            checked_at: now,
            lifetime,
        }
    }

    /// The reason.
    pub(super) fn kind(&self) -> AnomalyKind {
        self.kind
    }

    /// Returns whether an answer that is suspect for the same reason agrees with this one.
    ///
    /// Missing rows are the same when the rest are the same products in the same workloads, and
    /// growth when the sums are alike. Counts and dates may differ, since they change daily: a
    /// customer that is asked for once a day never gets the same bytes twice. Anything else starts
    /// the wait again.
    fn agrees_with(&self, answer: AnswerDigest) -> bool {
        match self.kind {
            AnomalyKind::Empty | AnomalyKind::WentBackwards | AnomalyKind::ManyAbsent => true,
            AnomalyKind::Shrunken => answer.row_names_hash == self.answer.row_names_hash,
            AnomalyKind::Grown => {
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
        for (cached, answer, kind) in [
            (0, 0, None),
            (0, 5, None),
            (1, 0, Some(AnomalyKind::Empty)),
            (1, 1, None),
            (9, 1, None),
            (10, 1, Some(AnomalyKind::Shrunken)),
            (11, 1, Some(AnomalyKind::Shrunken)),
            (19, 2, None),
            (20, 2, Some(AnomalyKind::Shrunken)),
            (20, 3, None),
            (1_000, 100, Some(AnomalyKind::Shrunken)),
            (1_000, 101, None),
            (10, 0, Some(AnomalyKind::Empty)),
        ] {
            let of = |rows| AnswerDigest {
                rows,
                ..AnswerDigest::EMPTY
            };

            assert_eq!(
                AnomalyKind::detect(of(answer), of(cached)),
                kind,
                "{cached} → {answer}"
            );
        }
    }

    #[test]
    fn growth_by_eight_tenths_of_the_same_products_is_suspect_and_less_is_not() {
        let of = |licenses_qualified, products_named| AnswerDigest {
            rows: 1,
            product_names_hash: products_named,
            licenses_qualified,
            ..AnswerDigest::EMPTY
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
            let kind = AnomalyKind::detect(of(answer, 1), of(cached, 1));
            let with_other_products = AnomalyKind::detect(of(answer, 2), of(cached, 1));

            let expected = is_suspect.then_some(AnomalyKind::Grown);
            assert_eq!(kind, expected, "{cached} → {answer}");
            assert_eq!(with_other_products, None, "{cached} → {answer}");
        }
    }
}
