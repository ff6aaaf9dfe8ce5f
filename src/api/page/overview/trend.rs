use std::collections::BTreeSet;

use super::content::ShownCustomer;
use crate::{api::page::figures::signed_change, domain::ProcessedDate, service::TrendAnswer};

/// The trends of the customers on a page.
pub(super) struct TrendColumn {
    /// The heading of the column; `None` if there is no column.
    pub(super) title: Option<String>,
    /// A line for each row, where there is one.
    lines: Vec<Option<SparkLine>>,
    /// The reason that there is no column.
    pub(super) note: Option<&'static str>,
}

/// A small line of a customer's unused licenses over time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SparkLine {
    /// The path of an SVG of [`SparkLine::WIDTH`] by [`SparkLine::HEIGHT`] units.
    pub(super) path: String,
    /// The change from the first date to the last, such as `+12`.
    pub(super) change: String,
    /// The first date.
    pub(super) since: ProcessedDate,
}

/// The unused licenses of a customer on a date.
pub(super) type TrendPoint = (ProcessedDate, u64);

// === impl TrendColumn ===

impl TrendColumn {
    /// The most dates of a line.
    const DATES: usize = 12;

    /// No column, for rows without any date.
    pub(super) fn without_dates() -> Self {
        Self {
            title: None,
            lines: Vec::new(),
            note: None,
        }
    }

    /// The column without a store.
    pub(super) fn without_store() -> Self {
        Self::absent(
            "No trends and no history are shown: set store.url, so that this service keeps earlier dates.",
        )
    }

    /// The column for these rows.
    pub(super) fn new(shown: &[ShownCustomer], stored: &TrendAnswer) -> Self {
        let points: Vec<_> = shown
            .iter()
            .map(|customer| trend_points(customer, stored))
            .collect();
        // The date of a single point is not one of any line.
        let lines = points.iter().filter(|points| points.len() > 1);
        let dates = lines.flatten().map(|(date, _)| *date);
        let dates: BTreeSet<_> = dates.collect();
        let mut axis: Vec<_> = dates.into_iter().rev().take(Self::DATES).collect();
        axis.reverse();
        let lines: Vec<_> = points
            .iter()
            .map(|points| SparkLine::new(points, &axis))
            .collect();
        if !stored.is_complete {
            // Rows of other pages may be known already; a part of the lines would look like all.
            return Self::absent("The trends are being read: load this page again in a moment.");
        }
        if lines.iter().all(Option::is_none) {
            return Self::absent(
                "A trend needs a second date. usage-proxy backfill fetches earlier dates.",
            );
        }
        Self {
            title: Some(format!("Unused, last {} dates", axis.len())),
            lines,
            note: None,
        }
    }

    /// Returns the line of a row.
    pub(super) fn line(&self, row: &usize) -> Option<&SparkLine> {
        self.lines.get(*row)?.as_ref()
    }

    fn absent(note: &'static str) -> Self {
        Self {
            note: Some(note),
            ..Self::without_dates()
        }
    }
}

/// Returns the stored points of a customer, with its newest one, which may not be stored yet.
fn trend_points(customer: &ShownCustomer, stored: &TrendAnswer) -> Vec<TrendPoint> {
    let stored = stored.trends.get(&customer.id);
    let mut points: Vec<_> = stored
        .into_iter()
        .flat_map(|points| points.iter().copied())
        .collect();
    if let Some((date, unused)) = customer.newest {
        points.retain(|(stored, _)| *stored < date);
        points.push((date, unused));
    }
    points
}

// === impl SparkLine ===

impl SparkLine {
    const WIDTH: usize = 720;
    const HEIGHT: u128 = 180;
    /// Room for half of the width of the stroke.
    const MARGIN: usize = 20;

    /// Draws the points of a customer on the dates of `axis`, both oldest first. Earlier points are left
    /// out. A date without a point is a gap. `None` for fewer than two points.
    fn new(points: &[TrendPoint], axis: &[ProcessedDate]) -> Option<Self> {
        let first = axis.first()?;
        let before = points.partition_point(|(date, _)| date < first);
        let points = points.get(before..)?;
        let [(since, first), .., (_, last)] = points else {
            return None;
        };
        let unused = |(_, unused): &TrendPoint| *unused;
        let (lowest, highest) = (
            points.iter().map(unused).min()?,
            points.iter().map(unused).max()?,
        );
        let steps = axis.len().saturating_sub(1).max(1);
        let mut path = String::new();
        let mut is_joined = false;
        for (index, date) in axis.iter().enumerate() {
            let Ok(found) = points.binary_search_by_key(date, |(date, _)| *date) else {
                is_joined = false;
                continue;
            };
            let (_, unused) = points.get(found)?;
            let x = Self::MARGIN + index * (Self::WIDTH - 2 * Self::MARGIN) / steps;
            let y = Self::height(*unused, lowest, highest);
            // A point between gaps is a line of no length, which round ends make a dot.
            path += &if is_joined {
                format!("L{x} {y}")
            } else {
                format!("M{x} {y}h0")
            };
            is_joined = true;
        }
        Some(Self {
            path,
            change: signed_change(*first, *last),
            since: *since,
        })
    }

    /// Returns the height of a point from above. The scale is that of the points, but small changes of a
    /// large number stay small.
    fn height(unused: u64, lowest: u64, highest: u64) -> u128 {
        let margin = 20;
        let inner = Self::HEIGHT - 2 * margin;
        let span = highest - lowest;
        let scale = span.max(highest / 10).max(1);
        // In the middle of a scale that is larger than the span.
        let top = u128::from(scale - span) / 2 + u128::from(highest - unused);
        margin + top * inner / u128::from(scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(day: u32) -> ProcessedDate {
        ProcessedDate::parse(&format!("2026-11-{day:02}")).unwrap()
    }

    fn line(points: &[(u32, u64)], axis: &[u32]) -> Option<SparkLine> {
        let points: Vec<_> = points
            .iter()
            .map(|(day, unused)| (date(*day), *unused))
            .collect();
        let axis: Vec<_> = axis.iter().map(|day| date(*day)).collect();
        SparkLine::new(&points, &axis)
    }

    #[test]
    fn a_line_goes_from_the_first_date_to_the_last() {
        let line = line(&[(1, 10), (2, 20), (3, 0)], &[1, 2, 3]).unwrap();

        assert_eq!(line.path, "M20 90h0L360 20L700 160");
        assert_eq!((&*line.change, line.since), ("−10", date(1)));
    }

    #[test]
    fn a_date_without_data_is_a_gap() {
        let line = line(&[(1, 0), (3, 10), (5, 10)], &[1, 2, 3, 4, 5]).unwrap();

        assert_eq!(line.path, "M20 160h0M360 20h0M700 20h0");
    }

    #[test]
    fn a_line_needs_two_points() {
        assert_eq!(line(&[], &[1, 2]), None);
        assert_eq!(line(&[(2, 10)], &[1, 2]), None);
    }

    #[test]
    fn a_small_change_of_a_large_number_is_drawn_small() {
        let flat = line(&[(1, 1_000), (2, 1_000)], &[1, 2]).unwrap();
        let small = line(&[(1, 1_000), (2, 999)], &[1, 2]).unwrap();

        assert_eq!(flat.path, "M20 90h0L700 90");
        assert_eq!(flat.change, "±0");
        assert_eq!(small.path, "M20 88h0L700 90");
    }
}
