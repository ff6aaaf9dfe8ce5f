//! Usage as a table with bars.

use console::Style;
use serde::Deserialize;

use super::{
    super::terminal::{TerminalStyle, align_left, align_right, display_width, sanitize},
    freshness::{ReplyFreshness, ReplyState},
};
use crate::domain::{ProductDetails, UsagePercent, distinctions};

/// The length of bars, if there is room for any.
const BAR_WIDTHS: std::ops::RangeInclusive<usize> = 10..=30;

/// Names are not cut below this; the bar is left out instead.
const MIN_NAME_WIDTH: usize = 16;

const GAP: &str = "  ";

/// The fields of the simplified form that the table shows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageReply {
    customer_id: String,
    customer_name: Option<String>,
    processed_date: Option<String>,
    /// Absent if all rows have one date.
    oldest_processed_date: Option<String>,
    products: Vec<ProductReply>,
    workloads: Vec<WorkloadReply>,
    /// True if the request had a date.
    #[serde(skip)]
    is_dated: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProductReply {
    product_name: String,
    /// The name of the portfolio.
    display_name: Option<String>,
    product_id: Option<String>,
    service_name: String,
    channel: Option<String>,
    licenses_qualified: u64,
    workloads: Vec<WorkloadReply>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadReply {
    workload_name: String,
    licenses_active: u64,
    licenses_qualified: u64,
    /// Only of a product's workload.
    processed_date: Option<String>,
    /// Only of a total, if it is not the date of the answer.
    oldest_processed_date: Option<String>,
}

/// A line of the table.
#[derive(Debug)]
struct TableRow {
    name: String,
    active: String,
    qualified: String,
    used: String,
    /// 0 to 1; `None`: no bar.
    share: Option<f64>,
    style: Option<Style>,
}

/// Columns of each part of a line; 0 for no bar.
#[derive(Clone, Copy, Debug)]
struct ColumnWidths {
    name: usize,
    active: usize,
    qualified: usize,
    used: usize,
    bar: usize,
}

/// Formats the whole output.
pub(super) fn render(
    usage: &UsageReply,
    freshness: &ReplyFreshness,
    look: TerminalStyle,
) -> String {
    let mut lines = heading(usage, freshness, look);
    if usage.products.is_empty() {
        lines.push(String::new());
        lines.push("No licences are counted for this customer, which can be right.".to_owned());
    } else {
        let products = product_rows(usage);
        let totals = total_rows(usage);
        let widths = ColumnWidths::for_rows(products.iter().chain(&totals), look.columns);
        for rows in [products, totals] {
            lines.push(String::new());
            lines.extend(rows.iter().map(|row| row.line(widths, look)));
        }
    }
    lines.join("\n") + "\n"
}

fn heading(usage: &UsageReply, freshness: &ReplyFreshness, look: TerminalStyle) -> Vec<String> {
    let id = sanitize(&usage.customer_id);
    let mut lines = match &usage.customer_name {
        Some(name) => {
            let name = look.truncate(&sanitize(name), look.columns);
            vec![
                look.styled(&Style::new().bold(), &name),
                look.styled(&Style::new().dim(), &id),
            ]
        }
        None => vec![look.styled(&Style::new().bold(), &id)],
    };
    if let Some(date) = &usage.processed_date {
        let oldest = usage.oldest_processed_date.as_ref();
        let oldest = oldest.map(|oldest| format!("{oldest} to "));
        let dates = oldest.unwrap_or_default() + date;
        lines.push(format!("Counts of {}.", sanitize(&dates)));
    }
    let date = usage.processed_date.as_deref().map(sanitize);
    let newest = date.as_deref().filter(|_| !usage.is_dated);
    let sentence = TerminalStyle::wrap(&freshness.sentence(newest), look.columns);
    lines.extend(sentence.iter().map(|line| match freshness.state {
        ReplyState::Fresh | ReplyState::Unknown => line.clone(),
        ReplyState::StaleWhileRevalidate | ReplyState::StaleIfError | ReplyState::Suspect => {
            look.styled(&Style::new().yellow(), line)
        }
    }));
    lines
}

/// Returns the header, then each product with its workloads below it.
fn product_rows(usage: &UsageReply) -> Vec<TableRow> {
    let header = TableRow {
        active: "Active".to_owned(),
        qualified: "Qualified".to_owned(),
        used: "Used".to_owned(),
        ..TableRow::title("Product", Style::new().dim())
    };
    let distinctions = product_distinctions(&usage.products);
    let products = usage.products.iter().zip(distinctions);
    let products = products.flat_map(|(product, distinction)| {
        let title = TableRow {
            qualified: product.licenses_qualified.to_string(),
            ..TableRow::title(&sanitize(product.shown_name()), Style::new().bold())
        };
        // On a line of its own, so that no bar shortens it.
        let distinction =
            distinction.map(|text| TableRow::title(&sanitize(&text), Style::new().dim()));
        let of_product =
            |workload| TableRow::from_workload(workload, usage.processed_date.as_deref());
        let workloads = product.workloads.iter().map(of_product);
        std::iter::once(title).chain(distinction).chain(workloads)
    });
    std::iter::once(header).chain(products).collect()
}

/// Distinguishes products whose names look the same.
fn product_distinctions(products: &[ProductReply]) -> Vec<Option<String>> {
    let details = products.iter().map(|product| ProductDetails {
        name: sanitize(product.shown_name()),
        microsoft_name: &product.product_name,
        channel: product.channel.as_deref(),
        service: &product.service_name,
        id: product.product_id.as_deref(),
    });
    distinctions(&details.collect::<Vec<_>>())
}

fn total_rows(usage: &UsageReply) -> Vec<TableRow> {
    let totals = usage
        .workloads
        .iter()
        .map(|workload| TableRow::from_workload(workload, None));
    std::iter::once(TableRow::title("All products", Style::new().bold()))
        .chain(totals)
        .collect()
}

// === impl UsageReply ===

impl UsageReply {
    /// Sets the customer's name if the answer has none.
    pub(super) fn set_customer_name(&mut self, name: Option<String>) {
        self.customer_name = self.customer_name.take().or(name);
    }

    /// Marks it as the answer to a request with a date.
    pub(super) fn set_dated(&mut self) {
        self.is_dated = true;
    }
}

// === impl ProductReply ===

impl ProductReply {
    fn shown_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.product_name)
    }
}

// === impl WorkloadReply ===

impl WorkloadReply {
    fn percent(&self) -> Option<UsagePercent> {
        UsagePercent::new(self.licenses_active, self.licenses_qualified)
    }
}

// === impl TableRow ===

impl TableRow {
    fn title(name: &str, style: Style) -> Self {
        Self {
            name: name.to_owned(),
            active: String::new(),
            qualified: String::new(),
            used: String::new(),
            share: None,
            style: Some(style),
        }
    }

    /// `date` is the date of rows that have none of their own.
    fn from_workload(workload: &WorkloadReply, date: Option<&str>) -> Self {
        let own = workload
            .processed_date
            .as_deref()
            .filter(|own| Some(*own) != date)
            .map(str::to_owned);
        let oldest = workload.oldest_processed_date.as_ref();
        let own = own.or_else(|| oldest.map(|oldest| format!("oldest {oldest}")));
        let date = own
            .map(|own| format!(" ({})", sanitize(&own)))
            .unwrap_or_default();
        let percent = workload.percent();
        Self {
            name: format!("{GAP}{}{date}", sanitize(&workload.workload_name)),
            active: workload.licenses_active.to_string(),
            qualified: workload.licenses_qualified.to_string(),
            used: match percent {
                Some(percent) => format!("{percent}%"),
                None => "-".to_owned(),
            },
            share: percent.map(|percent| percent.as_f64() / 100.0),
            style: None,
        }
    }

    fn line(&self, widths: ColumnWidths, look: TerminalStyle) -> String {
        let name = align_left(&look.truncate(&self.name, widths.name), widths.name);
        let numbers = [
            align_right(&self.active, widths.active),
            align_right(&self.qualified, widths.qualified),
            align_right(&self.used, widths.used),
        ];
        let text = format!("{name}{GAP}{}", numbers.join(GAP));
        match (&self.style, self.share) {
            (Some(style), _) => look.styled(style, text.trim_end()),
            (None, Some(share)) if widths.bar > 0 => {
                format!("{text}{GAP}{}", bar(share, widths.bar, look))
            }
            (None, _) => text,
        }
    }
}

/// Draws a bar on a track of full length, so that short bars can be read too.
fn bar(share: f64, columns: usize, look: TerminalStyle) -> String {
    let (full, track, parts) = if look.has_unicode {
        ("█", "·", ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].as_slice())
    } else {
        ("#", ".", [""].as_slice())
    };
    let steps = columns * parts.len();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few hundred steps, between nothing and all of them"
    )]
    let filled = (share.clamp(0.0, 1.0) * steps as f64).round() as usize;
    let part = parts.get(filled % parts.len()).copied().unwrap_or_default();
    let drawn = format!("{}{part}", full.repeat(filled / parts.len()));
    let rest = track.repeat(columns.saturating_sub(display_width(&drawn)));
    format!(
        "{}{}",
        look.styled(&Style::new().green(), &drawn),
        look.styled(&Style::new().dim(), &rest)
    )
}

// === impl ColumnWidths ===

impl ColumnWidths {
    /// Fits the widths to the longest texts. Names are cut for bars, and bars left out for names that
    /// could not be distinguished any more.
    fn for_rows<'a>(rows: impl Iterator<Item = &'a TableRow>, columns: usize) -> Self {
        let mut longest = Self {
            name: 0,
            active: 0,
            qualified: 0,
            used: 0,
            bar: 0,
        };
        for row in rows {
            longest.name = longest.name.max(display_width(&row.name));
            longest.active = longest.active.max(display_width(&row.active));
            longest.qualified = longest.qualified.max(display_width(&row.qualified));
            longest.used = longest.used.max(display_width(&row.used));
        }
        let numbers = longest.active + longest.qualified + longest.used + 3 * GAP.len();
        let left = columns.saturating_sub(numbers);
        let beside_bar = left.saturating_sub(GAP.len() + BAR_WIDTHS.start());
        if beside_bar >= MIN_NAME_WIDTH.min(longest.name) {
            longest.name = longest.name.min(beside_bar);
            let bar = left.saturating_sub(longest.name + GAP.len());
            longest.bar = bar.min(*BAR_WIDTHS.end());
        } else {
            longest.name = longest.name.min(left.max(MIN_NAME_WIDTH / 2));
        }
        longest
    }
}

#[cfg(test)]
mod tests;
