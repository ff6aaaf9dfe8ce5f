//! The trend chart: the active licenses of each product over time, as an SVG picture.
//!
//! It is narrow, so that its text is legible on a phone too. A line is broken where data is missing.
//! The number at the end of a line is that of its name below, for readers who see no colours.

use std::fmt::Write;

use askama::Template;

use super::{
    super::{
        adoption::grouped,
        display_text::{display_text, truncate_with_ellipsis},
        format::ChartTheme,
    },
    trend::{TrendDates, TrendLine, TrendPoint, UsageTrend},
};
use crate::domain::{DateRange, ProcessedDate};

/// The most lines in a picture.
const MAX_LINES: usize = 8;

/// The most gaps that the text alternative names.
const MAX_NAMED_GAPS: usize = 6;

/// The characters that fit into a line of the picture.
const MAX_TITLE_CHARS: usize = 34;
const MAX_ENTRY_CHARS: usize = 38;

/// The place of the lines in the picture, in pixels.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 440.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 284.0;

/// The least distance of the numbers at the ends of lines.
const NUMBER_DISTANCE: f64 = 16.0;

/// Renders a trend as a picture without external references.
///
/// # Errors
///
/// None in practice: the template is checked when the program is built.
pub fn render_trend_chart(
    customer_name: &str,
    trend: UsageTrend,
    theme: ChartTheme,
) -> Result<Vec<u8>, std::io::Error> {
    let (dates, lines) = trend.lines();
    let svg = TrendTemplate::new(display_text(customer_name), &dates, &lines, theme).render();
    svg.map(String::into_bytes).map_err(std::io::Error::other)
}

#[derive(Template)]
#[template(path = "render/history/trend_chart.svg", config = "src/askama.toml")]
struct TrendTemplate<'a> {
    theme: ChartTheme,
    customer_name: String,
    shown_name: String,
    when: String,
    lines: Vec<DrawnLine<'a>>,
    levels: Vec<Level>,
    days: Vec<Day>,
    gaps: Vec<DateRange>,
    notes: Vec<Note>,
    height: u32,
}

/// A line with its entry in the list of names.
struct DrawnLine<'a> {
    line: &'a TrendLine,
    number: usize,
    shown_name: String,
    path: String,
    /// The qualified licenses, drawn only where it is the only line.
    qualified_path: Option<String>,
    /// The place of its number.
    number_at: (f64, f64),
    /// The baseline of its name.
    y: u32,
    /// The newest counts, or the date of these if others have newer data.
    newest_counts: String,
}

/// A horizontal line at a number of licenses.
struct Level {
    y: f64,
    text: String,
}

/// A vertical line at a date.
struct Day {
    x: f64,
    date: ProcessedDate,
    anchor: &'static str,
}

/// A sentence below the names.
struct Note {
    y: u32,
    text: String,
}

/// Places dates and numbers in the picture.
struct Scale {
    shown: DateRange,
    top: u64,
}

// === impl TrendTemplate ===

impl<'a> TrendTemplate<'a> {
    fn new(
        customer_name: String,
        dates: &TrendDates,
        lines: &'a [TrendLine],
        theme: ChartTheme,
    ) -> Self {
        let (drawn, left_out) = lines.split_at(lines.len().min(MAX_LINES));
        let scale = Scale::new(dates.shown, drawn);
        let mut y = 332;
        let mut lines = Vec::new();
        for (index, line) in drawn.iter().enumerate() {
            lines.push(DrawnLine::new(line, index + 1, dates, &scale, y));
            y += 28;
        }
        place_numbers(&mut lines);
        if let [only] = &mut *lines {
            let qualified = |point: &TrendPoint| point.qualified;
            only.qualified_path = Some(path_of(only.line, dates, &scale, qualified));
        }
        let mut notes = Vec::new();
        for text in notes_of(&lines, left_out.len()) {
            notes.push(Note { y, text });
            y += 24;
        }
        let shown = dates.shown;
        let newest = dates.with_data().last();
        Self {
            theme,
            shown_name: truncate_with_ellipsis(&customer_name, MAX_TITLE_CHARS),
            customer_name,
            when: match newest {
                Some(newest) if *newest == shown.from => newest.to_string(),
                Some(newest) => format!("{} to {newest}", shown.from),
                None => format!("{} to {}", shown.from, shown.to),
            },
            levels: if drawn.is_empty() {
                Vec::new()
            } else {
                scale.levels()
            },
            days: if drawn.is_empty() {
                Vec::new()
            } else {
                scale.days()
            },
            gaps: dates.gaps(),
            height: y - 8,
            lines,
            notes,
        }
    }

    fn named_gaps(&self) -> &[DateRange] {
        self.gaps.get(..MAX_NAMED_GAPS).unwrap_or(&self.gaps)
    }

    fn unnamed_gaps(&self) -> usize {
        self.gaps.len().saturating_sub(MAX_NAMED_GAPS)
    }
}

/// Returns the sentences below the names.
fn notes_of(lines: &[DrawnLine<'_>], left_out: usize) -> Vec<String> {
    let empty = lines
        .is_empty()
        .then(|| "Nothing is stored for these dates.".to_owned());
    let has_qualified = lines.iter().any(|line| line.qualified_path.is_some());
    let qualified =
        has_qualified.then(|| "The dashed line shows the qualified licences.".to_owned());
    let left_out = match left_out {
        0 => None,
        1 => Some("1 other product is not drawn; the CSV has it.".to_owned()),
        count => Some(format!(
            "{count} other products are not drawn; the CSV has all."
        )),
    };
    [empty, qualified, left_out].into_iter().flatten().collect()
}

// === impl DrawnLine ===

impl<'a> DrawnLine<'a> {
    fn new(line: &'a TrendLine, number: usize, dates: &TrendDates, scale: &Scale, y: u32) -> Self {
        let newest = line.points.last();
        let number_at = newest.map(|point| {
            let (x, y) = scale.place(point.date, point.active);
            (x + 8.0, y + 5.0)
        });
        let newest_counts = newest.map_or_else(String::new, |point| {
            if dates.with_data().last() == Some(&point.date) {
                counts_of(point)
            } else {
                format!("until {}", point.date)
            }
        });
        Self {
            line,
            number,
            shown_name: truncate_with_ellipsis(
                &line.name,
                MAX_ENTRY_CHARS.saturating_sub(newest_counts.len()),
            ),
            path: path_of(line, dates, scale, |point| point.active),
            qualified_path: None,
            number_at: number_at.unwrap_or_default(),
            y,
            newest_counts,
        }
    }

    /// The history of the product in a sentence.
    fn description(&self) -> String {
        let (Some(first), Some(last)) = (self.line.points.first(), self.line.points.last()) else {
            return String::new();
        };
        if first == last {
            return format!("{} active on {}", counts_of(first), first.date);
        }
        format!(
            "{} active on {}, {} on {}, lowest {}, highest {}",
            counts_of(first),
            first.date,
            counts_of(last),
            last.date,
            grouped(self.line.lowest()),
            grouped(self.line.highest())
        )
    }
}

fn counts_of(point: &TrendPoint) -> String {
    format!("{} of {}", grouped(point.active), grouped(point.qualified))
}

/// Returns the path of a line: a move for each segment. A single point is a line of no length, which
/// its round ends make a dot.
fn path_of(
    line: &TrendLine,
    dates: &TrendDates,
    scale: &Scale,
    value: impl Fn(&TrendPoint) -> u64,
) -> String {
    let mut path = String::new();
    for segment in dates.segments(&line.points) {
        let mut command = 'M';
        for (index, point) in segment.iter().enumerate() {
            let same = |other: Option<&TrendPoint>| {
                other.is_some_and(|other| value(other) == value(point))
            };
            let before = index.checked_sub(1).and_then(|index| segment.get(index));
            if same(before) && same(segment.get(index + 1)) {
                // Within a level part of the line.
                continue;
            }
            let (x, y) = scale.place(point.date, value(point));
            // Writing to a string does not fail.
            let _written = write!(path, "{command}{x:.1} {y:.1}").is_ok();
            command = 'L';
        }
        if segment.len() == 1 {
            path.push_str("h0");
        }
    }
    path
}

/// Moves the numbers at the right end apart.
fn place_numbers(lines: &mut [DrawnLine<'_>]) {
    let mut places: Vec<_> = lines
        .iter_mut()
        .map(|line| &mut line.number_at)
        .filter(|(x, _)| *x > RIGHT - NUMBER_DISTANCE)
        .collect();
    places.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let lowest = BOTTOM + 5.0;
    let mut last = f64::NEG_INFINITY;
    for place in &mut places {
        place.0 = RIGHT + 8.0;
        place.1 = place.1.max(last + NUMBER_DISTANCE);
        last = place.1;
    }
    let mut next = lowest + NUMBER_DISTANCE;
    for place in places.iter_mut().rev() {
        place.1 = place.1.min(next - NUMBER_DISTANCE);
        next = place.1;
    }
}

// === impl Scale ===

impl Scale {
    fn new(shown: DateRange, lines: &[TrendLine]) -> Self {
        let highest = match lines {
            [only] => only
                .points
                .iter()
                .map(|point| point.active.max(point.qualified))
                .max(),
            lines => lines.iter().map(TrendLine::highest).max(),
        };
        Self {
            shown,
            top: round_up(highest.unwrap_or_default()),
        }
    }

    fn place(&self, date: ProcessedDate, count: u64) -> (f64, f64) {
        let DateRange { from, to } = self.shown;
        let (days, all_days) = (from.days_until(date), from.days_until(to).max(1));
        let across = f64::from(days) / f64::from(all_days);
        let up = ratio(count, self.top);
        (LEFT + (RIGHT - LEFT) * across, BOTTOM - (BOTTOM - TOP) * up)
    }

    /// Zero, the top, and the middle where that is a whole number.
    fn levels(&self) -> Vec<Level> {
        let middle = self.top.is_multiple_of(2).then_some(self.top / 2);
        let counts = [Some(0), middle, Some(self.top)].into_iter().flatten();
        counts
            .map(|count| Level {
                y: self.place(self.shown.from, count).1,
                text: grouped(count),
            })
            .collect()
    }

    /// The first date, the last one, and one in the middle.
    fn days(&self) -> Vec<Day> {
        let DateRange { from, to } = self.shown;
        let day = |date, anchor| Day {
            x: self.place(date, 0).0,
            date,
            anchor,
        };
        let days = from.days_until(to);
        let middle = from.plus_days(days / 2).filter(|_| days > 1);
        let ends = (from != to).then(|| day(to, "end"));
        [
            Some(day(from, "start")),
            middle.map(|date| day(date, "middle")),
            ends,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Returns the next even number of few digits, so that its half is a label too.
fn round_up(number: u64) -> u64 {
    const TENTHS: [u64; 11] = [10, 12, 14, 16, 20, 24, 30, 40, 50, 60, 80];

    let powers = std::iter::successors(Some(1_u64), |power| power.checked_mul(10));
    let numbers = powers.flat_map(|power| TENTHS.map(|tenths| (power, tenths)));
    let mut numbers = numbers
        .filter(|(power, tenths)| (power % 10 * tenths).is_multiple_of(10))
        .map(|(power, tenths)| u128::from(power) * u128::from(tenths) / 10)
        .filter(|round| round.is_multiple_of(2));
    let round = numbers.find(|round| *round >= u128::from(number.max(1)));
    round
        .and_then(|round| u64::try_from(round).ok())
        .unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "pixels need no more than a few digits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests;
