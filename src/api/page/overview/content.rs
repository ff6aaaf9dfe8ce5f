use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;

use super::{
    PAGE_LENGTH,
    missing::{MissingData, missing_data},
    rows::{OverviewRow, SortColumns},
    trend::TrendPoint,
};
use crate::{
    api::page::{
        customers::CustomerDirectory,
        figures::{CostFigure, cost_figures},
        query::PageQuery,
    },
    domain::{CustomerId, FleetUsage, Portfolio, ProcessedDate, UsagePercent},
    render::{
        adoption::grouped,
        fleet::{
            CustomerUsageRow, FleetProductFilter, FleetQuery, FleetScope, FleetSelection,
            FleetStatusCounts, FleetTotals, FleetView, LicenseSums,
        },
    },
};

/// All that the numbers of the page depend on.
pub(super) struct OverviewInput {
    pub(super) fleet: Arc<FleetUsage>,
    pub(super) portfolio: Arc<Portfolio>,
    pub(super) directory: CustomerDirectory,
    /// The customers that match the search; `None` without a search.
    pub(super) found: Option<HashSet<CustomerId>>,
    pub(super) query: PageQuery,
    /// True if all customers are refreshed together.
    pub(super) is_refreshed: bool,
}

/// The numbers of the page, of no customer that the caller may not read. Its text is safe to display:
/// see [`display_text`](crate::render::display_text).
pub(super) struct OverviewContent {
    pub(super) count: String,
    /// The part of the list on this page.
    pub(super) pages: ListPages,
    /// True if the page has every customer, so that a script can search them.
    pub(super) has_every_customer: bool,
    pub(super) totals: TotalFigures,
    pub(super) counts: FleetStatusCounts,
    pub(super) missing: MissingData,
    pub(super) columns: SortColumns,
    pub(super) rows: Vec<OverviewRow>,
    /// The customers of `rows`.
    pub(super) shown: Vec<ShownCustomer>,
    /// The groups of customers that the caller may read.
    pub(super) groups: Vec<String>,
    pub(super) processed_date: Option<ProcessedDate>,
}

/// A customer whose row is on the page.
pub(super) struct ShownCustomer {
    pub(super) id: CustomerId,
    pub(super) fetched_at: Option<Timestamp>,
    /// The unused licenses of its newest date; the store may not have them yet.
    pub(super) newest: Option<TrendPoint>,
}

/// The number of a page of the list, and of all of them.
pub(super) struct ListPages {
    /// 1 for the first.
    pub(super) number: usize,
    pub(super) count: usize,
}

/// Sums over all customers of the list.
pub(super) struct TotalFigures {
    pub(super) qualified: u64,
    pub(super) active: u64,
    pub(super) unused: u64,
    pub(super) percent: Option<UsagePercent>,
    /// The qualified licenses that are not unused.
    pub(super) used: u64,
    /// The share of `used`, 0 to 100; `None` if no license qualified.
    pub(super) used_share: Option<f64>,
    pub(super) costs: Vec<CostFigure>,
}

// === impl OverviewInput ===

impl OverviewInput {
    /// Computes the numbers. This takes milliseconds of CPU for thousands of customers.
    pub(super) fn content(self) -> OverviewContent {
        let Self {
            fleet,
            portfolio,
            directory,
            found,
            query,
            ..
        } = &self;
        let may_read = |customer| directory.caller().may_read(customer);
        let group = query
            .group
            .as_deref()
            .and_then(|name| portfolio.group(name));
        let scope = FleetScope::new(fleet, may_read, found.as_ref(), group);
        let every_product = FleetProductFilter::default();
        let selection = FleetSelection::new(fleet, &scope, portfolio, &every_product);
        let totals = FleetTotals::of(&selection);
        let counts = FleetStatusCounts::of(&selection);
        let fleet_query = FleetQuery {
            sort: query.sort,
            ..FleetQuery::all(FleetView::Customers)
        };
        let rows = CustomerUsageRow::select(&selection, &fleet_query);
        let pages = ListPages::new(rows.len(), query);
        let before = (pages.number - 1) * PAGE_LENGTH;
        let shown = rows.get(before..).unwrap_or_default();
        let shown = shown.get(..PAGE_LENGTH).unwrap_or(shown);
        let total = directory.len();
        let has_costs = !totals.sums.unused_cost.is_empty();
        OverviewContent {
            count: count(query, rows.len(), total, before, shown.len()),
            has_every_customer: shown.len() == total && pages.count == 1,
            counts,
            missing: missing_data(&selection, counts, query, self.is_refreshed),
            columns: SortColumns::new(query, has_costs),
            rows: shown
                .iter()
                .map(|row| OverviewRow::new(row, query, directory, fleet.processed_date))
                .collect(),
            shown: shown.iter().map(ShownCustomer::new).collect(),
            groups: visible_groups(fleet, portfolio, may_read),
            processed_date: fleet.processed_date,
            totals: TotalFigures::new(&totals.sums),
            pages,
        }
    }
}

fn visible_groups(
    fleet: &FleetUsage,
    portfolio: &Portfolio,
    may_read: impl Fn(CustomerId) -> bool,
) -> Vec<String> {
    let listed = fleet.entries.iter().map(|entry| entry.customer_id);
    let visible: HashSet<_> = listed.filter(|customer| may_read(*customer)).collect();
    let has_visible = |name: &&str| {
        let group = portfolio.group(name);
        group.is_some_and(|customers| !customers.is_disjoint(&visible))
    };
    let names = portfolio.group_names().filter(has_visible);
    names.map(str::to_owned).collect()
}

fn count(query: &PageQuery, listed: usize, total: usize, before: usize, shown: usize) -> String {
    let is_whole = query.customer.is_empty() && query.group.is_none();
    let count = match (is_whole, listed) {
        (true, 1) => "1 customer".to_owned(),
        (true, listed) => format!("{} customers", number(listed)),
        (false, listed) => format!("{} of {} customers", number(listed), number(total)),
    };
    if listed <= PAGE_LENGTH {
        return count;
    }
    let (first, last) = (number(before + 1), number(before + shown));
    format!("{count}, {first} to {last} shown")
}

fn number(count: usize) -> String {
    grouped(u64::try_from(count).unwrap_or(u64::MAX))
}

// === impl ShownCustomer ===

impl ShownCustomer {
    fn new(row: &CustomerUsageRow<'_>) -> Self {
        let unused = row.usage.as_ref().map(|(_, sums)| sums.licenses_unused);
        Self {
            id: row.entry.customer_id,
            fetched_at: row.entry.fetched_at,
            newest: row.processed_date.zip(unused),
        }
    }
}

// === impl ListPages ===

impl ListPages {
    /// The page of a query, or the last one if there are fewer.
    fn new(rows: usize, query: &PageQuery) -> Self {
        let count = rows.div_ceil(PAGE_LENGTH).max(1);
        let number = usize::try_from(query.page.get()).map_or(count, |page| page.min(count));
        Self { number, count }
    }
}

// === impl TotalFigures ===

impl TotalFigures {
    fn new(sums: &LicenseSums<'_>) -> Self {
        let used = sums.licenses_qualified.saturating_sub(sums.licenses_unused);
        let share = UsagePercent::new(used, sums.licenses_qualified);
        Self {
            qualified: sums.licenses_qualified,
            active: sums.licenses_active,
            unused: sums.licenses_unused,
            percent: sums.usage_percent(),
            used,
            used_share: share.map(UsagePercent::as_f64),
            costs: cost_figures(&sums.unused_cost),
        }
    }
}
