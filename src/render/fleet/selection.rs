//! The customers and products that count in an answer.

use std::collections::HashSet;

use super::query::FleetProductFilter;
use crate::domain::{
    CustomerId, FleetEntry, FleetStatus, FleetUsage, LicenseUsage, Portfolio, ProcessedDate,
    ProductRule,
    aggregation::{self, ProductUsage},
};

/// The customers that count in an answer: those that the caller may read, cut to the requested ones.
#[derive(Clone, Debug)]
pub struct FleetScope {
    /// For each customer of the fleet, true if it counts.
    pub(super) counts: Vec<bool>,
    /// The requested customers that the fleet does not have.
    pub(super) unlisted: Vec<FleetEntry>,
}

/// The rows that count in an answer. Every number of the answer is computed from them.
#[derive(Clone, Debug)]
pub struct FleetSelection<'a> {
    /// The newest processed date of any customer, or the given date.
    pub processed_date: Option<ProcessedDate>,
    /// The customers, by name.
    pub customers: Vec<SelectedCustomer<'a>>,
    /// The number of rows of a customer and product that the portfolio excludes.
    pub excluded: u64,
    pub(super) portfolio: &'a Portfolio,
    /// True if every product counts that is not excluded.
    pub(super) has_all_products: bool,
}

/// A customer that counts.
#[derive(Clone, Debug)]
pub struct SelectedCustomer<'a> {
    /// The customer and its state.
    pub entry: &'a FleetEntry,
    /// Its products that count; `None` if its usage is unknown.
    pub products: Option<Vec<SelectedProduct<'a>>>,
}

/// A product of a customer that counts.
#[derive(Clone, Debug)]
pub struct SelectedProduct<'a> {
    /// The usage.
    pub usage: ProductUsage<'a>,
    /// The portfolio's rule for it.
    pub rule: Option<&'a ProductRule>,
}

// === impl FleetScope ===

impl FleetScope {
    /// Cuts the fleet to the customers that the caller may read, and of these to the requested ones and
    /// to a group, where these are given.
    ///
    /// A requested customer that the fleet does not have counts as failed, so that nobody takes its
    /// absence for "no licenses".
    pub fn new(
        fleet: &FleetUsage,
        may_read: impl Fn(CustomerId) -> bool,
        requested: Option<&HashSet<CustomerId>>,
        group: Option<&HashSet<CustomerId>>,
    ) -> Self {
        let counts = |customer: CustomerId| {
            let is_in = |set: Option<&HashSet<_>>| set.is_none_or(|set| set.contains(&customer));
            is_in(requested) && is_in(group) && may_read(customer)
        };
        let mut missing: Vec<_> = requested
            .into_iter()
            .flatten()
            .copied()
            .filter(|customer| counts(*customer))
            .collect();
        if !missing.is_empty() {
            let listed: HashSet<_> = fleet
                .entries
                .iter()
                .map(|entry| entry.customer_id)
                .collect();
            missing.retain(|customer| !listed.contains(customer));
            missing.sort_unstable();
        }
        let counts = fleet.entries.iter().map(|entry| counts(entry.customer_id));
        Self {
            counts: counts.collect(),
            unlisted: missing.into_iter().map(unlisted_entry).collect(),
        }
    }
}

/// The entry of a customer that is not in the list of customers.
fn unlisted_entry(customer_id: CustomerId) -> FleetEntry {
    FleetEntry {
        customer_id,
        customer_name: "".into(),
        status: FleetStatus::Failed,
        usage: None,
        fetched_at: None,
        failure: Some("unknown-customer"),
    }
}

// === impl FleetSelection ===

impl<'a> FleetSelection<'a> {
    /// Selects the rows of the customers in `scope`, of the products that match `filter` and that the
    /// portfolio does not exclude.
    pub fn new(
        fleet: &'a FleetUsage,
        scope: &'a FleetScope,
        portfolio: &'a Portfolio,
        filter: &FleetProductFilter,
    ) -> Self {
        let listed = fleet.entries.iter().zip(&scope.counts);
        let listed = listed.filter_map(|(entry, counts)| counts.then_some(&**entry));
        let mut excluded = 0;
        let customers = listed
            .chain(&scope.unlisted)
            .map(|entry| SelectedCustomer {
                entry,
                products: select_products(entry, portfolio, filter, &mut excluded),
            })
            .collect();
        Self {
            processed_date: fleet.processed_date,
            customers,
            excluded,
            portfolio,
            has_all_products: filter.matches_all(),
        }
    }

    /// The oldest date of the rows that count, if it is before [`Self::processed_date`].
    pub fn oldest_processed_date(&self) -> Option<ProcessedDate> {
        let products = self
            .customers
            .iter()
            .flat_map(|customer| &customer.products);
        let rows = products
            .flatten()
            .flat_map(|product| &product.usage.workloads);
        let oldest = rows.map(|row| row.processed_at).min()?.date();
        (Some(oldest) < self.processed_date).then_some(oldest)
    }
}

fn select_products<'a>(
    entry: &'a FleetEntry,
    portfolio: &'a Portfolio,
    filter: &FleetProductFilter,
    excluded: &mut u64,
) -> Option<Vec<SelectedProduct<'a>>> {
    let Some(usage) = entry.usage.as_deref() else {
        return (entry.status == FleetStatus::Empty).then(Vec::new);
    };
    let products = SelectedProduct::of_usage(usage, portfolio).filter(|product| {
        let row = product.usage.product;
        let display_name = product.rule.and_then(|rule| rule.display_name.as_deref());
        if !filter.matches(row, display_name) {
            return false;
        }
        let is_excluded = product.is_excluded();
        *excluded += u64::from(is_excluded);
        !is_excluded
    });
    Some(products.collect())
}

// === impl SelectedProduct ===

impl<'a> SelectedProduct<'a> {
    /// The products of a customer, also those that the portfolio excludes.
    pub fn of_usage(
        usage: &'a LicenseUsage,
        portfolio: &'a Portfolio,
    ) -> impl Iterator<Item = Self> {
        let products = aggregation::products(usage).into_iter();
        products.map(|usage| {
            let row = usage.product;
            let rule = portfolio.rule(row.product_id.as_deref(), &row.product_name);
            Self { usage, rule }
        })
    }

    /// Returns true if the portfolio excludes it from all answers over several customers.
    pub fn is_excluded(&self) -> bool {
        self.rule.is_some_and(|rule| rule.exclude)
    }

    /// Microsoft's name.
    pub fn product_name(&self) -> &'a str {
        &self.usage.product.product_name
    }

    /// The name that people know it by: that of the portfolio, else Microsoft's.
    pub fn display_name(&self) -> &'a str {
        let own = self.rule.and_then(|rule| rule.display_name.as_deref());
        own.unwrap_or(self.product_name())
    }

    /// The newest date of its rows.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        let rows = self.usage.workloads.iter();
        rows.map(|row| row.processed_at.date()).max()
    }
}
