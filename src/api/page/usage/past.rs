use std::{cmp::Reverse, sync::Arc};

use crate::{
    api::page::figures::signed_change,
    domain::{
        CustomerId, DateRange, LicenseUsage, Portfolio, ProcessedDate, ProductDetails, UsageChange,
        UsageRow, distinctions, usage_changes,
    },
    render::{adoption::grouped, display_text},
    service::{EarlierUsage, HistoryError, StoredPast, UsageService},
};

/// The most changes of the table.
const MAX_CHANGES: usize = 20;

/// The past of a customer, as far as the store has it.
pub(super) enum Past {
    /// The service has no store.
    NotStored,
    /// The store did not answer in time.
    Reading,
    /// The store cannot be read.
    Unavailable,
    Stored(Arc<StoredPast>),
}

/// The parts of the page that show the past. All are absent without a store.
#[derive(Default)]
pub(super) struct PastParts {
    pub(super) trend: Option<TrendPicture>,
    pub(super) changes: Option<ChangeTable>,
    /// The reason that a part is absent.
    pub(super) note: Option<String>,
    /// True if the page reloads until it has these parts.
    pub(super) is_being_read: bool,
}

/// The trend chart of the API.
pub(super) struct TrendPicture {
    pub(super) dates: DateRange,
    pub(super) chart: String,
    /// The same as CSV.
    pub(super) table: String,
}

/// The changes since an earlier date, the largest first. Its text is safe to display: see
/// [`display_text`].
pub(super) struct ChangeTable {
    pub(super) from: ProcessedDate,
    pub(super) to: ProcessedDate,
    pub(super) rows: Vec<ChangeRow>,
    /// The number of changes that are not shown.
    pub(super) left_out: usize,
    /// All changes as CSV.
    pub(super) table: String,
}

/// A change of a product in a workload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChangeRow {
    pub(super) product: String,
    /// The workload, and the difference from other products of the same name.
    pub(super) details: String,
    /// The counts of the two dates; `None` for a date without the row.
    pub(super) counts: [Option<String>; 2],
    pub(super) change: String,
}

// === impl Past ===

impl From<Result<Option<Arc<StoredPast>>, HistoryError>> for Past {
    fn from(past: Result<Option<Arc<StoredPast>>, HistoryError>) -> Self {
        match past {
            Ok(Some(past)) => Self::Stored(past),
            Ok(None) => Self::Reading,
            Err(HistoryError::NoStore) => Self::NotStored,
            Err(_) => Self::Unavailable,
        }
    }
}

impl Past {
    /// The number of rows to compare.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Stored(past) => past.earlier.as_ref().map_or(0, |usage| usage.rows.len()),
            Self::NotStored | Self::Reading | Self::Unavailable => 0,
        }
    }
}

// === impl PastParts ===

impl PastParts {
    /// The past beside the usage of `shown`. Without counts, `shown` is `None` and the past ends `today`.
    pub(super) fn new(
        past: &Past,
        usage: &LicenseUsage,
        shown: Option<ProcessedDate>,
        today: ProcessedDate,
        portfolio: &Portfolio,
    ) -> Self {
        let past = match past {
            Past::NotStored => return Self::default(),
            Past::Reading => {
                let note = "The history is being read. This page reloads by itself.";
                return Self {
                    is_being_read: true,
                    ..Self::absent(note.to_owned())
                };
            }
            Past::Unavailable => {
                return Self::absent("The history is not available now.".to_owned());
            }
            Past::Stored(past) => past,
        };
        let (customer, until) = (usage.customer_id(), shown.unwrap_or(today));
        let Some(trend) = TrendPicture::new(customer, past, until) else {
            return Self::absent(
                "No earlier date is stored, so there is no trend. usage-proxy backfill fetches \
                 earlier dates."
                    .to_owned(),
            );
        };
        let changes = match (&past.earlier, shown) {
            (Some(earlier), Some(shown)) => {
                Some(ChangeTable::new(earlier, usage, shown, portfolio))
            }
            _ => None,
        };
        let note = past.earlier.is_none().then(|| {
            format!(
                "No date at least {} days before {until} is stored, so the changes since last month \
                 are not shown.",
                UsageService::COMPARED_DAYS
            )
        });
        Self {
            trend: Some(trend),
            changes,
            note,
            is_being_read: false,
        }
    }

    fn absent(note: String) -> Self {
        Self {
            note: Some(note),
            ..Self::default()
        }
    }
}

// === impl TrendPicture ===

impl TrendPicture {
    /// The chart of the months up to a date; `None` if no earlier one of these is stored.
    fn new(customer: CustomerId, past: &StoredPast, until: ProcessedDate) -> Option<Self> {
        let oldest = until.months_before(ProcessedDate::RETENTION_MONTHS);
        let is_drawn = |date: &&ProcessedDate| (oldest..until).contains(*date);
        let from = *past.dates.iter().find(is_drawn)?;
        let history = format!("/v1/customers/{customer}/usage/history");
        let query = format!("?from={from}&to={until}");
        Some(Self {
            dates: DateRange { from, to: until },
            chart: format!("{history}/chart.svg{query}"),
            table: format!("{history}/table.csv{query}"),
        })
    }
}

// === impl ChangeTable ===

impl ChangeTable {
    fn new(
        earlier: &EarlierUsage,
        usage: &LicenseUsage,
        to: ProcessedDate,
        portfolio: &Portfolio,
    ) -> Self {
        let from = earlier.date;
        let mut changes = usage_changes(&earlier.rows, usage.rows());
        changes.sort_by_key(|change| Reverse(change_size(change)));
        let details: Vec<_> = changes
            .iter()
            .map(|change| details(change.row(), portfolio))
            .collect();
        let named = changes.iter().zip(distinctions(&details));
        let rows = named
            .take(MAX_CHANGES)
            .map(|(change, distinction)| ChangeRow::new(change, distinction, portfolio));
        Self {
            from,
            to,
            rows: rows.collect(),
            left_out: changes.len().saturating_sub(MAX_CHANGES),
            table: format!(
                "/v1/customers/{}/usage/changes/table.csv?from={from}&to={to}",
                usage.customer_id()
            ),
        }
    }
}

/// The difference of the active and of the qualified licenses.
fn change_size(change: &UsageChange<'_>) -> (u64, u64) {
    let difference = |count: fn(&UsageRow) -> u64| {
        let [from, to] = [change.from(), change.to()].map(|row| row.map_or(0, count));
        from.abs_diff(to)
    };
    (
        difference(|row| row.licenses_active),
        difference(|row| row.licenses_qualified),
    )
}

/// The details of a product in a workload, which rows of other products in that workload may share.
fn details<'a>(row: &'a UsageRow, portfolio: &'a Portfolio) -> ProductDetails<'a> {
    ProductDetails {
        name: format!("{}\n{}", shown_name(row, portfolio), row.workload_name),
        microsoft_name: &row.product_name,
        channel: row.channel.as_deref(),
        service: &row.service_name,
        id: row.product_id.as_deref(),
    }
}

fn shown_name(row: &UsageRow, portfolio: &Portfolio) -> String {
    let name = portfolio.display_name(row.product_id.as_deref(), &row.product_name);
    display_text(name.unwrap_or(&row.product_name))
}

// === impl ChangeRow ===

impl ChangeRow {
    fn new(change: &UsageChange<'_>, distinction: Option<String>, portfolio: &Portfolio) -> Self {
        let row = change.row();
        let details = [Some(&*row.workload_name), distinction.as_deref()].into_iter();
        let details: Vec<_> = details.flatten().map(display_text).collect();
        let counts = |row: &UsageRow| {
            let (active, qualified) = (row.licenses_active, row.licenses_qualified);
            format!("{} of {}", grouped(active), grouped(qualified))
        };
        Self {
            product: shown_name(row, portfolio),
            details: details.join(", "),
            counts: [change.from(), change.to()].map(|row| row.map(counts)),
            change: change_words(change),
        }
    }
}

/// Returns a change in words: of the active licenses, or of the qualified ones where only they changed.
fn change_words(change: &UsageChange<'_>) -> String {
    match change {
        UsageChange::Added(_) => "new".to_owned(),
        UsageChange::Removed(_) => "gone".to_owned(),
        UsageChange::Grown { from, to } | UsageChange::Shrunk { from, to } => {
            if from.licenses_active == to.licenses_active {
                let change = signed_change(from.licenses_qualified, to.licenses_qualified);
                return format!("{change} qualified");
            }
            signed_change(from.licenses_active, to.licenses_active)
        }
    }
}
