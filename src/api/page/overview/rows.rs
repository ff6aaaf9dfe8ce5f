use crate::{
    api::page::{
        customers::CustomerDirectory,
        figures::{CostFigure, cost_figures},
        query::{self, PageQuery},
    },
    domain::{FleetStatus, ProcessedDate, UsagePercent},
    render::{
        adoption::grouped,
        display_text,
        fleet::{CustomerUsageRow, FleetSort, FleetSortKey, LicenseSums},
    },
};

/// A row of the list of customers.
pub(super) struct OverviewRow {
    pub(super) link: String,
    /// The name, or else the id.
    pub(super) name: String,
    pub(super) domain: Option<String>,
    /// The state of the data, if it is not that of the newest date.
    pub(super) state: Option<String>,
    /// `None` if the usage is unknown.
    pub(super) figures: Option<RowFigures>,
}

/// The numbers of a customer.
pub(super) struct RowFigures {
    pub(super) percent: Option<UsagePercent>,
    /// The share of qualified licenses that are not unused, 0 to 100.
    pub(super) used_share: Option<f64>,
    pub(super) active: String,
    pub(super) qualified: String,
    pub(super) unused: String,
    pub(super) costs: Vec<CostFigure>,
}

/// The columns that the list can be sorted by.
pub(super) struct SortColumns {
    pub(super) name: SortColumn,
    pub(super) percent: SortColumn,
    pub(super) unused: SortColumn,
    /// `None` if no price is known.
    pub(super) cost: Option<SortColumn>,
}

/// A column that the list can be sorted by.
pub(super) struct SortColumn {
    /// The link to the list in this order, or in the opposite one if this is the current order.
    pub(super) href: String,
    /// `aria-sort` of the current order.
    pub(super) direction: Option<&'static str>,
}

// === impl OverviewRow ===

impl OverviewRow {
    pub(super) fn new(
        row: &CustomerUsageRow<'_>,
        page_query: &PageQuery,
        directory: &CustomerDirectory,
        newest: Option<ProcessedDate>,
    ) -> Self {
        let id = row.entry.customer_id;
        let name = display_text(&row.entry.customer_name);
        Self {
            link: query::customer_link(id, page_query.date),
            name: if name.is_empty() {
                id.to_string()
            } else {
                name
            },
            domain: directory.domain(id),
            state: state(row, newest),
            figures: row.usage.as_ref().map(|(_, sums)| RowFigures::new(sums)),
        }
    }
}

/// Returns the state of a customer's data in words, unless its data is current.
fn state(row: &CustomerUsageRow<'_>, newest: Option<ProcessedDate>) -> Option<String> {
    let date = row.processed_date.filter(|date| Some(*date) != newest);
    let dated = |date: ProcessedDate| format!("counts of {date}");
    match row.entry.status {
        FleetStatus::Current => date.map(dated),
        FleetStatus::Stale => Some(date.map_or("older counts".to_owned(), dated)),
        FleetStatus::Empty => Some("no licences".to_owned()),
        FleetStatus::Failed => Some(failure_words(row.entry.failure)),
        FleetStatus::NotFetched => Some("no data yet".to_owned()),
    }
}

/// Returns the stable name of a failure in words.
pub(super) fn failure_words(failure: Option<&str>) -> String {
    failure.unwrap_or("failed").replace('-', " ")
}

// === impl RowFigures ===

impl RowFigures {
    fn new(sums: &LicenseSums<'_>) -> Self {
        let (qualified, unused) = (sums.licenses_qualified, sums.licenses_unused);
        let used = UsagePercent::new(qualified.saturating_sub(unused), qualified);
        Self {
            percent: sums.usage_percent(),
            used_share: used.map(UsagePercent::as_f64),
            active: grouped(sums.licenses_active),
            qualified: grouped(qualified),
            unused: grouped(unused),
            costs: cost_figures(&sums.unused_cost),
        }
    }
}

// === impl SortColumns ===

impl SortColumns {
    pub(super) fn new(query: &PageQuery, has_costs: bool) -> Self {
        Self {
            name: SortColumn::new(query, FleetSortKey::Name),
            percent: SortColumn::new(query, FleetSortKey::Percent),
            unused: SortColumn::new(query, FleetSortKey::Unused),
            cost: has_costs.then(|| SortColumn::new(query, FleetSortKey::Cost)),
        }
    }
}

// === impl SortColumn ===

impl SortColumn {
    fn new(query: &PageQuery, key: FleetSortKey) -> Self {
        let is_current = query.sort.key == key;
        let reversed = is_current && query.sort.reversed;
        let is_ascending = matches!(key, FleetSortKey::Name | FleetSortKey::Percent) != reversed;
        Self {
            href: query.sorted_link(FleetSort {
                key,
                reversed: is_current && !reversed,
            }),
            direction: is_current.then_some(if is_ascending {
                "ascending"
            } else {
                "descending"
            }),
        }
    }
}
