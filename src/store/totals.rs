//! Sums over the rows of many customers, whatever engine has them.

use std::collections::BTreeMap;

use super::{FleetDateTotals, ProductFilter, customer_set::CustomerSet, schema::date_of_day};

/// The texts of a product that a filter can name.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductNames<'a> {
    pub(super) product_name: &'a str,
    pub(super) product_id: Option<&'a str>,
    pub(super) service_name: &'a str,
    pub(super) service_code: Option<&'a str>,
    pub(super) channel: Option<&'a str>,
}

/// The sums of products on one day.
#[derive(Debug, Default)]
pub(super) struct DayTotals(BTreeMap<i64, StoredProductTotal>);

/// The sums of one product on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredProductTotal {
    pub(super) licenses: StoredSums,
    pub(super) customers: CustomerSet,
}

/// Seats, summed over customers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredSums {
    pub(super) qualified: u64,
    pub(super) active: u64,
    pub(super) unused: u64,
}

/// The products of one customer on a day, before they are added to sums.
#[derive(Debug, Default)]
pub(super) struct CustomerSeats(Vec<ProductSeats>);

/// A product of one customer on a day.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductSeats {
    pub(super) product: i64,
    qualified: u64,
    active: u64,
}

/// The sums of all products that count, by day.
#[derive(Debug, Default)]
pub(super) struct StoredTotals(BTreeMap<i64, FleetDay>);

#[derive(Debug, Default)]
struct FleetDay {
    licenses: StoredSums,
    customers: u64,
}

// === impl CustomerSeats ===

impl CustomerSeats {
    /// Adds a workload's row to its product: the seats of a product are the most of any workload, and
    /// the active ones those of the busiest.
    pub(super) fn add_row(&mut self, product: i64, qualified: u64, active: u64) {
        // Rows of a product follow each other, but for products whose ids differ in letter case.
        let mut known = self.0.iter_mut().rev();
        match known.find(|seats| seats.product == product) {
            Some(seats) => {
                seats.qualified = seats.qualified.max(qualified);
                seats.active = seats.active.max(active);
            }
            None => self.0.push(ProductSeats {
                product,
                qualified,
                active,
            }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the products and forgets them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = ProductSeats> {
        self.0.drain(..)
    }
}

// === impl ProductSeats ===

impl ProductSeats {
    fn sums(self) -> StoredSums {
        StoredSums {
            qualified: self.qualified,
            active: self.active,
            unused: self.qualified.saturating_sub(self.active),
        }
    }
}

// === impl StoredSums ===

impl StoredSums {
    pub(super) fn add(&mut self, other: Self) {
        self.qualified = self.qualified.saturating_add(other.qualified);
        self.active = self.active.saturating_add(other.active);
        self.unused = self.unused.saturating_add(other.unused);
    }

    fn subtract(&mut self, other: Self) {
        self.qualified = self.qualified.saturating_sub(other.qualified);
        self.active = self.active.saturating_sub(other.active);
        self.unused = self.unused.saturating_sub(other.unused);
    }
}

// === impl DayTotals ===

impl DayTotals {
    /// Adds the products of a customer, and forgets them.
    pub(super) fn add_customer(&mut self, customer: i64, seats: &mut CustomerSeats) {
        for seats in seats.drain() {
            let total = self.0.entry(seats.product).or_default();
            total.licenses.add(seats.sums());
            total.customers.insert(customer);
        }
    }

    /// Returns the totals by the number of their product.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &StoredProductTotal)> {
        self.0.iter().map(|(product, total)| (*product, total))
    }
}

// === impl StoredTotals ===

impl StoredTotals {
    /// Adds the products of a customer on a day, and forgets them.
    pub(super) fn add_customer(&mut self, day: i64, seats: &mut CustomerSeats) {
        if seats.is_empty() {
            return;
        }
        let of_day = self.0.entry(day).or_default();
        of_day.customers += 1;
        for seats in seats.drain() {
            of_day.licenses.add(seats.sums());
        }
    }

    /// Adds sums of a day that are of so many customers.
    pub(super) fn add(&mut self, day: i64, licenses: StoredSums, customers: u64) {
        let of_day = self.0.entry(day).or_default();
        of_day.licenses.add(licenses);
        of_day.customers += customers;
    }

    /// Takes the sums of some customers out. Days without customers are removed.
    pub(super) fn subtract(&mut self, others: &Self) {
        for (day, other) in &others.0 {
            if let Some(of_day) = self.0.get_mut(day) {
                of_day.licenses.subtract(other.licenses);
                of_day.customers = of_day.customers.saturating_sub(other.customers);
            }
        }
        self.0.retain(|_, of_day| of_day.customers > 0);
    }

    pub(super) fn into_dates(self) -> Vec<FleetDateTotals> {
        let days = self.0.into_iter();
        days.filter_map(|(day, of_day)| {
            Some(FleetDateTotals {
                date: date_of_day(day)?,
                customers: of_day.customers,
                licenses_qualified: of_day.licenses.qualified,
                licenses_active: of_day.licenses.active,
                licenses_unused: of_day.licenses.unused,
            })
        })
        .collect()
    }
}

// === impl ProductFilter ===

impl ProductFilter {
    /// Returns the same filter with lower-case texts.
    pub(super) fn to_lowercase(&self) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        Self {
            products: lower(&self.products),
            services: lower(&self.services),
            channels: lower(&self.channels),
            excluded: lower(&self.excluded),
            kept_ids: lower(&self.kept_ids),
        }
    }

    /// Returns whether a product counts; the texts of the filter are lower-case.
    pub(super) fn counts(&self, product: ProductNames<'_>) -> bool {
        let includes = |wanted: &[String], names: &[Option<&str>]| {
            let mut names = names.iter().flatten();
            names.any(|name| wanted.contains(&name.to_lowercase()))
        };
        let is_wanted = |wanted: &[String], names: &[Option<&str>]| {
            wanted.is_empty() || includes(wanted, names)
        };
        let product_names = [Some(product.product_name), product.product_id];
        let service_names = [Some(product.service_name), product.service_code];
        is_wanted(&self.products, &product_names)
            && is_wanted(&self.services, &service_names)
            && is_wanted(&self.channels, &[product.channel])
            && (!includes(&self.excluded, &product_names)
                || includes(&self.kept_ids, &[product.product_id]))
    }
}
