//! The rows of customers, and of customers and products, in the requested order.

use std::{borrow::Cow, cmp::Ordering};

use jiff::Timestamp;

use super::{
    cost::{CurrencyCost, UnusedCost},
    fields::{FieldValue, FleetRow},
    query::{FleetQuery, FleetSortKey},
    selection::{FleetSelection, SelectedCustomer, SelectedProduct},
    totals::LicenseSums,
};
use crate::domain::{FleetEntry, LicenseUsage, Portfolio, ProcessedDate};

/// A customer.
#[derive(Clone, Debug)]
pub struct CustomerUsageRow<'a> {
    /// The customer and its state.
    pub entry: &'a FleetEntry,
    /// Its newest date.
    pub processed_date: Option<ProcessedDate>,
    /// The number of its products, and their sums; `None` if its usage is unknown.
    pub usage: Option<(u64, LicenseSums<'a>)>,
    portfolio: &'a Portfolio,
    position: RowPosition,
}

/// A customer and product.
#[derive(Clone, Debug)]
pub struct UnusedLicensesRow<'a> {
    /// The customer and its state.
    pub entry: &'a FleetEntry,
    /// The product.
    pub product: SelectedProduct<'a>,
    /// Its numbers.
    pub sums: LicenseSums<'a>,
    position: RowPosition,
}

/// The order of rows that are equal otherwise: that of the customers, by name and id, and of the
/// products of a customer.
type RowPosition = (usize, usize);

/// A row that can be filtered and sorted.
trait SortableRow<'a> {
    /// Its numbers; `None` if its usage is unknown.
    fn sums(&self) -> Option<&LicenseSums<'a>>;

    fn date(&self) -> Option<ProcessedDate>;

    fn position(&self) -> RowPosition;
}

// === impl CustomerUsageRow ===

impl<'a> CustomerUsageRow<'a> {
    /// Returns the rows of a selection that a query requests, in its order.
    ///
    /// Where only some products count, so do only customers that have one of them.
    pub fn select(selection: &FleetSelection<'a>, query: &FleetQuery) -> Vec<Self> {
        let counts = |customer: &&SelectedCustomer<'a>| {
            let products = customer.products.as_deref();
            selection.has_all_products || products.is_some_and(|products| !products.is_empty())
        };
        let customers = selection.customers.iter().enumerate();
        let rows = customers
            .filter(|(_, customer)| counts(customer))
            .map(|(index, customer)| Self::new(customer, (index, 0), selection));
        select_and_sort(rows, query)
    }

    fn new(
        customer: &SelectedCustomer<'a>,
        position: RowPosition,
        selection: &FleetSelection<'a>,
    ) -> Self {
        let entry = customer.entry;
        let usage = customer.products.as_ref();
        Self {
            entry,
            processed_date: entry
                .usage
                .as_deref()
                .and_then(LicenseUsage::processed_date),
            usage: usage.map(|products| (products.len() as u64, LicenseSums::of(products))),
            portfolio: selection.portfolio,
            position,
        }
    }

    /// The names of its groups, in alphabetical order.
    pub fn groups(&self) -> impl Iterator<Item = &'a str> {
        self.portfolio.groups_of(self.entry.customer_id)
    }
}

impl<'a> UnusedLicensesRow<'a> {
    /// Returns the rows of a selection that a query requests, in its order.
    pub fn select(selection: &FleetSelection<'a>, query: &FleetQuery) -> Vec<Self> {
        let customers = selection.customers.iter().enumerate();
        let rows = customers.flat_map(|(customer_index, customer)| {
            let products = customer.products.iter().flatten().enumerate();
            products.map(move |(product_index, product)| Self {
                entry: customer.entry,
                sums: LicenseSums::of([product]),
                product: product.clone(),
                position: (customer_index, product_index),
            })
        });
        select_and_sort(rows, query)
    }
}

fn select_and_sort<'a, R: SortableRow<'a>>(
    rows: impl Iterator<Item = R>,
    query: &FleetQuery,
) -> Vec<R> {
    let is_requested = |row: &R| {
        let sums = row.sums();
        let unused = sums.map(|sums| sums.licenses_unused);
        let is_below = |sums: &LicenseSums<'_>| {
            let below = query.below;
            below.is_none_or(|below| below.exceeds(sums.licenses_active, sums.licenses_qualified))
        };
        (query.min_unused == 0 || unused.is_some_and(|unused| unused >= query.min_unused))
            && sums.map_or(query.below.is_none(), is_below)
    };
    let mut rows: Vec<R> = rows.filter(is_requested).collect();
    rows.sort_unstable_by(|a, b| compare_rows(a, b, query));
    rows
}

/// Compares rows by the field of a query, then by their positions. Rows without the field come last in
/// both directions.
fn compare_rows<'a, R: SortableRow<'a>>(a: &R, b: &R, query: &FleetQuery) -> Ordering {
    let sort = query.sort;
    let ascending = |order: Ordering| {
        if sort.reversed {
            order.reverse()
        } else {
            order
        }
    };
    let descending = |order: Ordering| ascending(order.reverse());
    let unused = |row: &R| row.sums().map(|sums| sums.licenses_unused);
    let order = match sort.key {
        FleetSortKey::Name => ascending(a.position().0.cmp(&b.position().0)),
        FleetSortKey::Unused => compare_known(unused(a), unused(b), |a, b| descending(a.cmp(b))),
        FleetSortKey::Cost => {
            compare_known(cost(a, query), cost(b, query), |a, b| descending(a.cmp(b)))
        }
        FleetSortKey::Percent => {
            compare_known(share(a), share(b), |a, b| ascending(compare_shares(*a, *b)))
        }
        FleetSortKey::Date => compare_known(a.date(), b.date(), |a, b| descending(a.cmp(b))),
    };
    order.then_with(|| a.position().cmp(&b.position()))
}

/// Compares values of which absent ones come last.
fn compare_known<T>(
    a: Option<T>,
    b: Option<T>,
    compare: impl FnOnce(&T, &T) -> Ordering,
) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(&a, &b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Returns the cost in the currency of a query, or else in the first currency of the row.
fn cost<'a>(row: &impl SortableRow<'a>, query: &FleetQuery) -> Option<u128> {
    let cost = &row.sums()?.unused_cost;
    let cost: Option<CurrencyCost> = match &query.currency {
        Some(currency) => cost.of(currency),
        None => cost.first(),
    };
    Some(cost?.ten_thousandths)
}

/// Returns active and qualified licenses; `None` where nothing qualified.
fn share<'a>(row: &impl SortableRow<'a>) -> Option<(u64, u64)> {
    let sums = row.sums()?;
    let share = (sums.licenses_active, sums.licenses_qualified);
    (sums.licenses_qualified > 0).then_some(share)
}

/// Compares a₁ ÷ q₁ with a₂ ÷ q₂ exactly.
fn compare_shares(
    (active, qualified): (u64, u64),
    (other_active, other_qualified): (u64, u64),
) -> Ordering {
    let this = u128::from(active) * u128::from(other_qualified);
    this.cmp(&(u128::from(other_active) * u128::from(qualified)))
}

/// Formats a time in whole seconds (RFC 3339).
fn format_time(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

fn customer_name(entry: &FleetEntry) -> Option<Cow<'_, str>> {
    let name = &*entry.customer_name;
    (!name.is_empty()).then_some(Cow::Borrowed(name))
}

fn date_field<'a>(date: Option<ProcessedDate>) -> FieldValue<'a> {
    FieldValue::Text(date.map(|date| date.to_string().into()))
}

// === impl CustomerUsageRow ===

impl<'a> SortableRow<'a> for CustomerUsageRow<'a> {
    fn sums(&self) -> Option<&LicenseSums<'a>> {
        self.usage.as_ref().map(|(_, sums)| sums)
    }

    fn date(&self) -> Option<ProcessedDate> {
        self.processed_date
    }

    fn position(&self) -> RowPosition {
        self.position
    }
}

impl<'a> FleetRow<'a> for CustomerUsageRow<'a> {
    const NAMES: &'static [&'static str] = &[
        "customerId",
        "customerName",
        "groups",
        "processedDate",
        "status",
        "fetchedAt",
        "products",
        "licensesQualified",
        "licensesActive",
        "licensesUnused",
        "usagePercent",
    ];

    fn values(&self) -> Vec<FieldValue<'a>> {
        let entry = self.entry;
        let fetched_at = entry.fetched_at.map(|time| format_time(time).into());
        let usage = self.usage.as_ref();
        let sums = usage.map_or(
            [
                FieldValue::Count(None),
                FieldValue::Count(None),
                FieldValue::Count(None),
                FieldValue::Percent(None),
            ],
            |(_, sums)| sums.fields(),
        );
        let names = [
            FieldValue::Text(Some(entry.customer_id.to_string().into())),
            FieldValue::Text(customer_name(entry)),
            FieldValue::Names(self.groups().collect()),
            date_field(self.processed_date),
            FieldValue::Text(Some(entry.status.as_str().into())),
            FieldValue::Text(fetched_at),
            FieldValue::Count(usage.map(|(products, _)| *products)),
        ];
        names.into_iter().chain(sums).collect()
    }

    fn unused_cost(&self) -> Option<&UnusedCost<'a>> {
        self.sums().map(|sums| &sums.unused_cost)
    }
}

// === impl UnusedLicensesRow ===

impl<'a> SortableRow<'a> for UnusedLicensesRow<'a> {
    fn sums(&self) -> Option<&LicenseSums<'a>> {
        Some(&self.sums)
    }

    fn date(&self) -> Option<ProcessedDate> {
        self.product.processed_date()
    }

    fn position(&self) -> RowPosition {
        self.position
    }
}

impl<'a> FleetRow<'a> for UnusedLicensesRow<'a> {
    const NAMES: &'static [&'static str] = &[
        "customerId",
        "customerName",
        "productName",
        "displayName",
        "busiestWorkload",
        "licensesQualified",
        "licensesActive",
        "licensesUnused",
        "usagePercent",
        "processedDate",
    ];

    fn values(&self) -> Vec<FieldValue<'a>> {
        let names = [
            FieldValue::Text(Some(self.entry.customer_id.to_string().into())),
            FieldValue::Text(customer_name(self.entry)),
            FieldValue::Text(Some(self.product.product_name().into())),
            FieldValue::Text(Some(self.product.display_name().into())),
            FieldValue::Text(Some(self.product.usage.busiest_workload.into())),
        ];
        let date = date_field(self.product.processed_date());
        names
            .into_iter()
            .chain(self.sums.fields())
            .chain([date])
            .collect()
    }

    fn unused_cost(&self) -> Option<&UnusedCost<'a>> {
        Some(&self.sums.unused_cost)
    }
}
