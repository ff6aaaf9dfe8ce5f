//! Totals of the fleet by date.

use std::collections::{BTreeMap, HashSet};

use ahash::AHashMap;
use rusqlite::Connection;

use super::{
    connection::prepare,
    dictionary::ProductTexts,
    error::SqliteResult,
    history::{date, days, seats},
    read::ReadConnection,
};
use crate::store::{FleetDateTotals, FleetHistoryQuery, ProductFilter, sql};

/// The seats of one product and customer on a day.
#[derive(Clone, Copy)]
struct ProductSeats {
    product: i64,
    qualified: u64,
    active: u64,
}

/// The sums of a day.
#[derive(Default)]
struct DaySums {
    customers: u64,
    qualified: u64,
    active: u64,
    unused: u64,
}

// === impl ReadConnection ===

impl ReadConnection {
    pub(super) fn fleet_history(
        &mut self,
        query: &FleetHistoryQuery,
        preferred: i64,
    ) -> SqliteResult<Vec<FleetDateTotals>> {
        let range = days(query.range);
        let mut customers = self.customer_numbers(query)?;
        if query.constant_cohort {
            customers = constant_cohort(&self.connection, &customers, range)?;
        }
        let counted = self.counted_products(&query.products)?;
        let mut sums: BTreeMap<i64, DaySums> = BTreeMap::new();
        for customer in customers {
            let mut statement = prepare(&self.connection, sql::HISTORY)?;
            let mut rows = statement.query([customer, range.0, range.1, preferred])?;
            let (mut day, mut products) = (i64::MIN, Vec::new());
            while let Some(row) = rows.next()? {
                let of_day: i64 = row.get(0)?;
                if of_day != day {
                    add_customer(&mut sums, day, &mut products);
                    day = of_day;
                }
                if let Some(product) = counted.get(&row.get(1)?) {
                    add_row(
                        &mut products,
                        *product,
                        seats(row.get(4)?)?,
                        seats(row.get(3)?)?,
                    );
                }
            }
            add_customer(&mut sums, day, &mut products);
        }
        let dates = sums.into_iter().map(|(day, sums)| {
            Ok(FleetDateTotals {
                date: date(day)?,
                customers: sums.customers,
                licenses_qualified: sums.qualified,
                licenses_active: sums.active,
                licenses_unused: sums.unused,
            })
        });
        dates.collect()
    }

    fn customer_numbers(&mut self, query: &FleetHistoryQuery) -> SqliteResult<Vec<i64>> {
        let customers = &mut self.dictionaries.customers;
        let Some(wanted) = &query.customers else {
            return Ok(customers.all(&self.connection)?.values().copied().collect());
        };
        let mut numbers = HashSet::with_capacity(wanted.len());
        for customer in wanted {
            numbers.extend(customers.find(&self.connection, customer)?);
        }
        Ok(numbers.into_iter().collect())
    }

    /// Returns the products that count. Those that differ in the letter case of their id are one
    /// product, and have one number here.
    fn counted_products(&mut self, filter: &ProductFilter) -> SqliteResult<AHashMap<i64, i64>> {
        let filter = filter.to_lowercase();
        let products = self.dictionaries.products.all(&self.connection)?;
        let mut numbers: AHashMap<ProductTexts, i64> = AHashMap::new();
        for (texts, number) in products {
            let first = numbers.entry(texts.folded()).or_insert(*number);
            *first = (*first).min(*number);
        }
        let counted = products.iter().filter(|(texts, _)| filter.counts(texts));
        let counted = counted.filter_map(|(texts, number)| {
            numbers.get(&texts.folded()).map(|first| (*number, *first))
        });
        Ok(counted.collect())
    }
}

// === impl ProductTexts ===

impl ProductTexts {
    /// Returns whether a lower-case text is its name or id.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        let texts = [Some(&*self.product_name), self.product_id.as_deref()];
        texts
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase() == wanted)
    }

    fn folded(&self) -> Self {
        let id = self.product_id.as_deref();
        Self {
            product_id: id.map(|id| id.to_ascii_lowercase().into()),
            ..self.clone()
        }
    }
}

// === impl ProductFilter ===

impl ProductFilter {
    fn to_lowercase(&self) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        Self {
            products: lower(&self.products),
            services: lower(&self.services),
            channels: lower(&self.channels),
            excluded: lower(&self.excluded),
        }
    }

    /// Returns whether a product counts; all texts of the filter are lower-case.
    fn counts(&self, product: &ProductTexts) -> bool {
        let id = product.product_id.as_deref();
        let code = product.service_code.as_deref();
        let channel = product.channel.as_deref();
        let is_wanted = |wanted: &[String], name: &str, other: Option<&str>| {
            wanted.is_empty() || is_one_of(wanted, name, other)
        };
        is_wanted(&self.products, &product.product_name, id)
            && is_wanted(&self.services, &product.service_name, code)
            && (self.channels.is_empty()
                || channel.is_some_and(|channel| is_one_of(&self.channels, channel, None)))
            && !is_one_of(&self.excluded, &product.product_name, id)
    }
}

fn is_one_of(wanted: &[String], name: &str, other: Option<&str>) -> bool {
    [Some(name), other]
        .into_iter()
        .flatten()
        .any(|text| wanted.contains(&text.to_lowercase()))
}

/// Adds a workload's row to its product: the seats of a product are the most of any of its workloads.
fn add_row(products: &mut Vec<ProductSeats>, product: i64, qualified: u64, active: u64) {
    match products
        .iter_mut()
        .rev()
        .find(|seats| seats.product == product)
    {
        Some(seats) => {
            seats.qualified = seats.qualified.max(qualified);
            seats.active = seats.active.max(active);
        }
        None => products.push(ProductSeats {
            product,
            qualified,
            active,
        }),
    }
}

/// Adds the products of a customer to the sums of a day, and clears them.
fn add_customer(sums: &mut BTreeMap<i64, DaySums>, day: i64, products: &mut Vec<ProductSeats>) {
    if products.is_empty() {
        return;
    }
    let sums = sums.entry(day).or_default();
    sums.customers += 1;
    for seats in products.drain(..) {
        sums.qualified = sums.qualified.saturating_add(seats.qualified);
        sums.active = sums.active.saturating_add(seats.active);
        sums.unused = sums
            .unused
            .saturating_add(seats.qualified.saturating_sub(seats.active));
    }
}

/// Returns those customers that have every day of the range that any of them has.
fn constant_cohort(
    connection: &Connection,
    customers: &[i64],
    (from, to): (i64, i64),
) -> SqliteResult<Vec<i64>> {
    let mut days = HashSet::new();
    let mut counts = Vec::with_capacity(customers.len());
    for customer in customers {
        let mut statement = prepare(connection, sql::DAYS_OF_CUSTOMER)?;
        let mut rows = statement.query([*customer, from, to])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            days.insert(row.get::<_, i64>(0)?);
            count += 1;
        }
        counts.push((*customer, count));
    }
    let complete = counts.into_iter().filter(|(_, count)| *count == days.len());
    Ok(complete.map(|(customer, _)| customer).collect())
}
