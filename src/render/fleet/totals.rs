//! Sums over customers.

use std::collections::BTreeMap;

use super::{
    cost::UnusedCost,
    fields::{FieldValue, FleetRow},
    selection::{FleetSelection, SelectedProduct},
};
use crate::domain::{FleetStatus, UsagePercent};

/// Sums over products of customers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LicenseSums<'a> {
    /// Licenses: the sum of the seats of each product.
    pub licenses_qualified: u64,
    /// The sum of the active seats in the busiest workload of each product.
    pub licenses_active: u64,
    /// The sum of the seats of each product that no workload uses.
    pub licenses_unused: u64,
    /// The cost of the unused licenses.
    pub unused_cost: UnusedCost<'a>,
}

/// The numbers of customers by the state of their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatusCounts {
    /// All customers that count.
    pub total: u64,
    /// Those with rows of the newest date.
    pub current: u64,
    /// Those with older rows.
    pub stale: u64,
    /// Those without rows.
    pub empty: u64,
    /// Those that Partner Center refuses to answer for.
    pub failed: u64,
    /// Those that were not fetched yet.
    pub not_fetched: u64,
}

/// The totals of an answer, each list by name.
#[derive(Clone, Debug, Default)]
pub struct FleetTotals<'a> {
    /// Over all products.
    pub sums: LicenseSums<'a>,
    /// By service.
    pub services: Vec<ServiceTotal<'a>>,
    /// By product.
    pub products: Vec<ProductTotal<'a>>,
    /// By workload.
    pub workloads: Vec<WorkloadTotal<'a>>,
}

/// A service, summed over customers and products.
#[derive(Clone, Debug)]
pub struct ServiceTotal<'a> {
    /// The service, such as `o365`.
    pub service_name: &'a str,
    /// The customers that have it.
    pub customers: u64,
    /// The sums.
    pub sums: LicenseSums<'a>,
}

/// A product, summed over customers.
#[derive(Clone, Debug)]
pub struct ProductTotal<'a> {
    /// Microsoft's name.
    pub product_name: &'a str,
    /// The name that people know it by.
    pub display_name: &'a str,
    /// The customers that have it.
    pub customers: u64,
    /// The sums.
    pub sums: LicenseSums<'a>,
}

/// A workload, summed over customers and products.
#[derive(Clone, Debug)]
pub struct WorkloadTotal<'a> {
    /// The workload, such as `HttpExchange`.
    pub workload_name: &'a str,
    /// The customers that have it.
    pub customers: u64,
    /// Seats that could be used in it.
    pub licenses_qualified: u64,
    /// Seats that were used in it.
    pub licenses_active: u64,
}

/// A sum, and the customers that it counts.
#[derive(Debug, Default)]
struct CountedSum<T> {
    customers: u64,
    /// The index of the last customer that was counted.
    last_customer: Option<usize>,
    sum: T,
}

// === impl FleetTotals ===

impl<'a> FleetTotals<'a> {
    /// Sums up a selection.
    pub fn of(selection: &FleetSelection<'a>) -> Self {
        let mut total = LicenseSums::default();
        let mut services = BTreeMap::<&str, CountedSum<LicenseSums<'a>>>::new();
        let mut products = BTreeMap::<(&str, &str), CountedSum<LicenseSums<'a>>>::new();
        let mut workloads = BTreeMap::<&str, CountedSum<(u64, u64)>>::new();
        for (index, customer) in selection.customers.iter().enumerate() {
            for product in customer.products.iter().flatten() {
                let names = (product.product_name(), product.display_name());
                total.add(product);
                let service = services.entry(&product.usage.product.service_name);
                service.or_default().of_customer(index).add(product);
                let product_sum = products.entry(names).or_default();
                product_sum.of_customer(index).add(product);
                for row in &product.usage.workloads {
                    let workload = workloads.entry(&row.workload_name).or_default();
                    let (qualified, active) = workload.of_customer(index);
                    *qualified = qualified.saturating_add(row.licenses_qualified);
                    *active = active.saturating_add(row.licenses_active);
                }
            }
        }
        Self {
            sums: total,
            services: services
                .into_iter()
                .map(|(service_name, counted)| ServiceTotal {
                    service_name,
                    customers: counted.customers,
                    sums: counted.sum,
                })
                .collect(),
            products: products
                .into_iter()
                .map(|((product_name, display_name), counted)| ProductTotal {
                    product_name,
                    display_name,
                    customers: counted.customers,
                    sums: counted.sum,
                })
                .collect(),
            workloads: workloads
                .into_iter()
                .map(|(workload_name, counted)| WorkloadTotal {
                    workload_name,
                    customers: counted.customers,
                    licenses_qualified: counted.sum.0,
                    licenses_active: counted.sum.1,
                })
                .collect(),
        }
    }
}

// === impl LicenseSums ===

impl<'a> LicenseSums<'a> {
    /// Sums up products.
    pub fn of<'s>(products: impl IntoIterator<Item = &'s SelectedProduct<'a>>) -> Self
    where
        'a: 's,
    {
        let mut sums = Self::default();
        for product in products {
            sums.add(product);
        }
        sums
    }

    /// The percentage of active licenses.
    pub fn usage_percent(&self) -> Option<UsagePercent> {
        UsagePercent::new(self.licenses_active, self.licenses_qualified)
    }

    fn add(&mut self, product: &SelectedProduct<'a>) {
        let usage = &product.usage;
        let unused = usage.licenses_unused();
        self.licenses_qualified = self
            .licenses_qualified
            .saturating_add(usage.licenses_qualified);
        self.licenses_active = self.licenses_active.saturating_add(usage.licenses_active);
        self.licenses_unused = self.licenses_unused.saturating_add(unused);
        if let Some(price) = product.rule.and_then(|rule| rule.price.as_ref()) {
            self.unused_cost.add(price, unused);
        }
    }

    /// The fields of the sums, in the order of their columns.
    pub(super) fn fields(&self) -> [FieldValue<'a>; 4] {
        [
            FieldValue::Count(Some(self.licenses_qualified)),
            FieldValue::Count(Some(self.licenses_active)),
            FieldValue::Count(Some(self.licenses_unused)),
            FieldValue::Percent(self.usage_percent()),
        ]
    }
}

// === impl FleetStatusCounts ===

impl FleetStatusCounts {
    /// Counts the customers of a selection.
    pub fn of(selection: &FleetSelection<'_>) -> Self {
        let mut counts = Self::default();
        for customer in &selection.customers {
            let count = match customer.entry.status {
                FleetStatus::Current => &mut counts.current,
                FleetStatus::Stale => &mut counts.stale,
                FleetStatus::Empty => &mut counts.empty,
                FleetStatus::Failed => &mut counts.failed,
                FleetStatus::NotFetched => &mut counts.not_fetched,
            };
            *count += 1;
            counts.total += 1;
        }
        counts
    }

    /// Returns true if nothing is missing: every customer has the newest date, or has no rows.
    pub fn is_complete(&self) -> bool {
        self.current + self.empty == self.total
    }
}

// === impl CountedSum ===

impl<T> CountedSum<T> {
    /// Returns the sum for one more item of a customer. The items of a customer come together.
    fn of_customer(&mut self, index: usize) -> &mut T {
        if self.last_customer.replace(index) != Some(index) {
            self.customers += 1;
        }
        &mut self.sum
    }
}

// === impl FleetRow ===

impl<'a> FleetRow<'a> for ServiceTotal<'a> {
    const NAMES: &'static [&'static str] = &[
        "serviceName",
        "customers",
        "licensesQualified",
        "licensesActive",
        "licensesUnused",
        "usagePercent",
    ];

    fn values(&self) -> Vec<FieldValue<'a>> {
        let names = [
            FieldValue::Text(Some(self.service_name.into())),
            FieldValue::Count(Some(self.customers)),
        ];
        names.into_iter().chain(self.sums.fields()).collect()
    }

    fn unused_cost(&self) -> Option<&UnusedCost<'a>> {
        Some(&self.sums.unused_cost)
    }
}

impl<'a> FleetRow<'a> for ProductTotal<'a> {
    const NAMES: &'static [&'static str] = &[
        "productName",
        "displayName",
        "customers",
        "licensesQualified",
        "licensesActive",
        "licensesUnused",
        "usagePercent",
    ];

    fn values(&self) -> Vec<FieldValue<'a>> {
        let names = [
            FieldValue::Text(Some(self.product_name.into())),
            FieldValue::Text(Some(self.display_name.into())),
            FieldValue::Count(Some(self.customers)),
        ];
        names.into_iter().chain(self.sums.fields()).collect()
    }

    fn unused_cost(&self) -> Option<&UnusedCost<'a>> {
        Some(&self.sums.unused_cost)
    }
}

impl<'a> FleetRow<'a> for WorkloadTotal<'a> {
    const NAMES: &'static [&'static str] = &[
        "workloadName",
        "customers",
        "licensesQualified",
        "licensesActive",
        "usagePercent",
    ];

    fn values(&self) -> Vec<FieldValue<'a>> {
        let percent = UsagePercent::new(self.licenses_active, self.licenses_qualified);
        vec![
            FieldValue::Text(Some(self.workload_name.into())),
            FieldValue::Count(Some(self.customers)),
            FieldValue::Count(Some(self.licenses_qualified)),
            FieldValue::Count(Some(self.licenses_active)),
            FieldValue::Percent(percent),
        ]
    }

    fn unused_cost(&self) -> Option<&UnusedCost<'a>> {
        None
    }
}
