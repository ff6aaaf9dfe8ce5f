//! A customer's history by product: the licenses in use on each date.

use std::collections::BTreeMap;

use super::{super::display_text::display_text, HistoryCounts, HistoryItem, HistoryName};
use crate::domain::{DateRange, ProcessedDate, ProductDetails, distinctions};

/// The licenses of each product over time, with its gaps.
#[derive(Clone, Debug)]
pub struct UsageTrend {
    range: DateRange,
    /// The dates with data, oldest first.
    dates: Vec<ProcessedDate>,
    products: BTreeMap<TrendProduct, Vec<TrendPoint>>,
    /// The product and date whose rows are being added.
    open: Option<OpenPoint>,
}

/// The licenses of a product on a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrendPoint {
    pub(super) date: ProcessedDate,
    /// The active licenses of the busiest workload.
    pub(super) active: u64,
    /// The maximum of the qualified licenses over the workloads.
    pub(super) qualified: u64,
}

/// The points of a product, of which there is at least one.
#[derive(Clone, Debug)]
pub(super) struct TrendLine {
    pub(super) name: String,
    pub(super) points: Vec<TrendPoint>,
}

/// A product as it has a line. Its id is no part of it: only one of the two calls for usage sends ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TrendProduct {
    shown_name: String,
    product_name: String,
    service: String,
    channel: Option<String>,
}

#[derive(Clone, Debug)]
struct OpenPoint {
    product: TrendProduct,
    product_id: Option<String>,
    point: TrendPoint,
}

// === impl UsageTrend ===

impl UsageTrend {
    /// Creates a trend without rows. `dates` are those of the range that the customer has data of, oldest
    /// first.
    pub fn new(range: DateRange, dates: Vec<ProcessedDate>) -> Self {
        Self {
            range,
            dates,
            products: BTreeMap::new(),
            open: None,
        }
    }

    /// Adds a row. The rows of a date come together, and in them those of a product.
    pub fn add(&mut self, item: &HistoryItem<'_>) {
        match &mut self.open {
            Some(open) if open.is_same(item) => open.point.add_workload(item.counts),
            _ => {
                self.close();
                self.open = Some(OpenPoint::new(item));
            }
        }
    }

    /// Adds the point whose rows are complete.
    fn close(&mut self) {
        let Some(OpenPoint { product, point, .. }) = self.open.take() else {
            return;
        };
        let points = self.products.entry(product).or_default();
        match points.last_mut() {
            // A product of the same names and another id.
            Some(last) if last.date == point.date => {
                last.active = last.active.saturating_add(point.active);
                last.qualified = last.qualified.saturating_add(point.qualified);
            }
            _ => points.push(point),
        }
    }

    /// The lines of all products, that with the most active licenses on any date first.
    pub(super) fn lines(mut self) -> (TrendDates, Vec<TrendLine>) {
        self.close();
        let (products, points): (Vec<_>, Vec<_>) = self.products.into_iter().unzip();
        let details: Vec<_> = products.iter().map(TrendProduct::details).collect();
        let names = details.iter().zip(distinctions(&details));
        let names = names.map(|(details, distinction)| match distinction {
            Some(distinction) => format!("{} ({})", details.name, display_text(&distinction)),
            None => details.name.clone(),
        });
        let mut lines: Vec<_> = names
            .zip(points)
            .map(|(name, points)| TrendLine { name, points })
            .collect();
        // They are sorted by name, which decides among equal ones.
        lines.sort_by_key(|line| std::cmp::Reverse(line.highest()));
        (TrendDates::new(self.range, self.dates), lines)
    }
}

/// The dates of a trend.
#[derive(Clone, Debug)]
pub(super) struct TrendDates {
    /// The requested dates, without those before the first one with data.
    pub(super) shown: DateRange,
    /// The dates with data, oldest first.
    with_data: Vec<ProcessedDate>,
    /// Data that are further apart, in days, have a gap between them.
    longest_step: i32,
}

// === impl TrendDates ===

impl TrendDates {
    fn new(range: DateRange, with_data: Vec<ProcessedDate>) -> Self {
        let mut steps: Vec<_> = with_data
            .array_windows()
            .map(|[a, b]| a.days_until(*b))
            .collect();
        steps.sort_unstable();
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(1);
        let from = with_data.first().copied().unwrap_or(range.from);
        Self {
            shown: DateRange { from, ..range },
            with_data,
            // Partner Center counts on most days, or on one of a week.
            longest_step: usual * 3 / 2,
        }
    }

    pub(super) fn with_data(&self) -> &[ProcessedDate] {
        &self.with_data
    }

    /// The dates between those with data that are further apart than usual.
    pub(super) fn gaps(&self) -> Vec<DateRange> {
        let pairs = self.with_data.array_windows();
        let apart = pairs.filter(|[a, b]| a.days_until(*b) > self.longest_step);
        apart
            .filter_map(|[a, b]| {
                let (from, to) = (a.next()?, b.previous()?);
                Some(DateRange { from, to })
            })
            .collect()
    }

    /// Splits the points of a line where there is a gap, or a date on which only other products have data.
    pub(super) fn segments<'p>(
        &self,
        points: &'p [TrendPoint],
    ) -> impl Iterator<Item = &'p [TrendPoint]> {
        points.chunk_by(|a, b| {
            let next = self.with_data.partition_point(|date| *date <= a.date);
            let is_next = self.with_data.get(next) == Some(&b.date);
            is_next && a.date.days_until(b.date) <= self.longest_step
        })
    }
}

// === impl TrendLine ===

impl TrendLine {
    /// The most active licenses on any date.
    pub(super) fn highest(&self) -> u64 {
        let active = self.points.iter().map(|point| point.active);
        active.max().unwrap_or_default()
    }

    /// The least active licenses on any date.
    pub(super) fn lowest(&self) -> u64 {
        let active = self.points.iter().map(|point| point.active);
        active.min().unwrap_or_default()
    }
}

// === impl TrendPoint ===

impl TrendPoint {
    fn add_workload(&mut self, counts: HistoryCounts) {
        self.active = self.active.max(counts.licenses_active);
        self.qualified = self.qualified.max(counts.licenses_qualified);
    }
}

// === impl OpenPoint ===

impl OpenPoint {
    fn new(item: &HistoryItem<'_>) -> Self {
        Self {
            product: TrendProduct::new(item.name),
            product_id: item.name.product_id.map(str::to_owned),
            point: TrendPoint {
                date: item.processed_date,
                active: item.counts.licenses_active,
                qualified: item.counts.licenses_qualified,
            },
        }
    }

    fn is_same(&self, item: &HistoryItem<'_>) -> bool {
        let (product, name) = (&self.product, item.name);
        self.point.date == item.processed_date
            && product.product_name == name.product_name
            && self.product_id.as_deref() == name.product_id
            && product.service == name.service_name
            && product.channel.as_deref() == name.channel
    }
}

// === impl TrendProduct ===

impl TrendProduct {
    fn new(name: HistoryName<'_>) -> Self {
        Self {
            shown_name: display_text(name.display_name.unwrap_or(name.product_name)),
            product_name: name.product_name.to_owned(),
            service: name.service_name.to_owned(),
            channel: name.channel.map(str::to_owned),
        }
    }

    fn details(&self) -> ProductDetails<'_> {
        ProductDetails {
            name: self.shown_name.clone(),
            channel: self.channel.as_deref(),
            service: &self.service,
            id: None,
            microsoft_name: &self.product_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{UsageRow, samples::usage_row as row};

    fn march(day: i32) -> ProcessedDate {
        let first = ProcessedDate::parse("2017-03-01").unwrap();
        first.plus_days(day - 1).unwrap()
    }

    fn trend(days: &[i32], rows: &[(i32, UsageRow)]) -> UsageTrend {
        let range = DateRange {
            from: march(1),
            to: march(31),
        };
        let mut trend = UsageTrend::new(range, days.iter().map(|day| march(*day)).collect());
        for (day, row) in rows {
            let name = HistoryName::of(row, None);
            trend.add(&HistoryItem::new(march(*day), name, HistoryCounts::of(row)));
        }
        trend
    }

    fn with_id(row: UsageRow, id: &str) -> UsageRow {
        UsageRow {
            product_id: Some(id.into()),
            ..row
        }
    }

    fn counts(line: &TrendLine) -> Vec<(u64, u64)> {
        let points = line.points.iter();
        points
            .map(|point| (point.active, point.qualified))
            .collect()
    }

    #[test]
    fn the_busiest_workload_of_each_date_counts() {
        let rows = [
            (9, row("E3", "Exchange", 3, 9)),
            (9, row("E3", "Teams", 5, 8)),
            (10, row("E3", "Exchange", 4, 9)),
        ];

        let (_, lines) = trend(&[9, 10], &rows).lines();

        assert_eq!(counts(&lines[0]), [(5, 9), (4, 9)]);
    }

    #[test]
    fn a_product_whose_id_is_missing_on_some_dates_is_one_line() {
        let rows = [
            (9, row("E3", "Teams", 5, 8)),
            (10, with_id(row("E3", "Teams", 6, 8), "a")),
            (10, with_id(row("E3", "Teams", 1, 2), "b")),
        ];

        let (_, lines) = trend(&[9, 10], &rows).lines();

        assert_eq!(lines.len(), 1);
        assert_eq!(counts(&lines[0]), [(5, 8), (7, 10)]);
    }

    #[test]
    fn lines_of_the_same_name_are_distinguished() {
        let sold = |channel: &str| UsageRow {
            channel: Some(channel.into()),
            ..row("E3", "Teams", 1, 1)
        };

        let (_, lines) = trend(&[9], &[(9, sold("direct")), (9, sold("reseller"))]).lines();

        let names: Vec<_> = lines.iter().map(|line| &*line.name).collect();
        assert_eq!(names, ["E3 (direct)", "E3 (reseller)"]);
    }

    /// The first and the last day of each segment.
    fn segments(days: &[i32], of_product: &[i32]) -> Vec<(i32, i32)> {
        let rows = of_product
            .iter()
            .map(|day| (*day, row("E3", "Teams", 1, 1)));
        let (dates, lines) = trend(days, &rows.collect::<Vec<_>>()).lines();
        let day = |point: &TrendPoint| march(1).days_until(point.date) + 1;
        let segments = dates.segments(&lines[0].points);
        segments
            .map(|segment| (day(&segment[0]), day(segment.last().unwrap())))
            .collect()
    }

    #[test]
    fn a_line_is_broken_where_a_date_is_missing() {
        assert_eq!(
            segments(&[1, 2, 3, 5, 6], &[1, 2, 3, 5, 6]),
            [(1, 3), (5, 6)]
        );
        // The product has no row of the third.
        assert_eq!(segments(&[1, 2, 3, 4], &[1, 2, 4]), [(1, 2), (4, 4)]);
    }

    #[test]
    fn weekly_data_have_no_gap_unless_a_week_is_missing() {
        assert_eq!(segments(&[1, 8, 15, 22], &[1, 8, 15, 22]), [(1, 22)]);
        assert_eq!(
            segments(&[1, 8, 15, 29], &[1, 8, 15, 29]),
            [(1, 15), (29, 29)]
        );
    }

    #[test]
    fn gaps_are_the_dates_without_data() {
        let (dates, _) = trend(&[9, 10, 11, 15, 16], &[]).lines();

        assert_eq!(dates.shown.from, march(9));
        let gaps = dates.gaps().into_iter().map(|gap| (gap.from, gap.to));
        assert_eq!(gaps.collect::<Vec<_>>(), [(march(12), march(14))]);
    }
}
