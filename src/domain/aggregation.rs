//! Sums over usage rows.
//!
//! A licence qualifies once **per workload**, so one seat of a suite is in a row for each:
//!
//! - per workload, over products, a sum is right;
//! - per product, over workloads, a sum would count seats several times: the maximum is the best
//!   estimate of seats there is. Of the seats of a product, the busiest workload uses the most, so
//!   the rest is unused in every workload, or more is;
//! - a percentage of a group is Σactive ÷ Σqualified of rows that may be summed, never a mean of
//!   percentages, and null where nothing qualified ([`UsagePercent`](super::UsagePercent)).

use std::collections::BTreeMap;

use super::{LicenseUsage, ProcessedDate, UsageRow};

/// One product's rows, with the seats they stand for.
#[derive(Clone, Debug)]
pub struct ProductUsage<'a> {
    /// A row with the product, its service and channel; all of `workloads` agree on them.
    pub product: &'a UsageRow,
    /// The product's seats: the maximum of `licenses_qualified` over its workloads.
    pub licenses_qualified: u64,
    /// Seats in use in the busiest workload: the maximum of `licenses_active` over the workloads.
    pub licenses_active: u64,
    /// The workload with the most active seats; of several, the first by name.
    pub busiest_workload: &'a str,
    /// The product's rows, one per workload, never empty.
    pub workloads: Vec<&'a UsageRow>,
}

/// One workload's seats, summed over products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadUsage<'a> {
    /// The workload, such as `HttpExchange`.
    pub workload_name: &'a str,
    /// Seats in use, of all products.
    pub licenses_active: u64,
    /// Seats that could be in use, of all products.
    pub licenses_qualified: u64,
    /// The oldest date of the rows that were added up.
    pub oldest_processed_date: ProcessedDate,
}

/// The products of a snapshot, by service and product.
pub fn products(snapshot: &LicenseUsage) -> Vec<ProductUsage<'_>> {
    let mut products: Vec<ProductUsage<'_>> = Vec::new();
    for row in snapshot.rows() {
        match products.last_mut() {
            Some(last) if last.product.is_same_product(row) => {
                last.add(row);
            }
            _ => products.push(ProductUsage {
                product: row,
                licenses_qualified: row.licenses_qualified,
                licenses_active: row.licenses_active,
                busiest_workload: &row.workload_name,
                workloads: vec![row],
            }),
        }
    }
    products
}

/// The workloads of a snapshot, by name, each summed over products.
pub fn workloads(snapshot: &LicenseUsage) -> Vec<WorkloadUsage<'_>> {
    let mut sums: BTreeMap<&str, WorkloadUsage<'_>> = BTreeMap::new();
    for row in snapshot.rows() {
        let date = row.processed_at.date();
        let sum = sums.entry(&row.workload_name).or_insert(WorkloadUsage {
            workload_name: &row.workload_name,
            licenses_active: 0,
            licenses_qualified: 0,
            oldest_processed_date: date,
        });
        // A snapshot is built only of rows whose totals fit.
        sum.licenses_active += row.licenses_active;
        sum.licenses_qualified += row.licenses_qualified;
        sum.oldest_processed_date = sum.oldest_processed_date.min(date);
    }
    sums.into_values().collect()
}

// === impl ProductUsage ===

impl<'a> ProductUsage<'a> {
    /// The seats that the busiest workload does not use; 0 if more are active than qualify. At most
    /// that many are used in no workload at all.
    pub fn licenses_unused(&self) -> u64 {
        self.licenses_qualified.saturating_sub(self.licenses_active)
    }

    /// Adds a workload, which comes after the others by name.
    fn add(&mut self, row: &'a UsageRow) {
        self.licenses_qualified = self.licenses_qualified.max(row.licenses_qualified);
        if row.licenses_active > self.licenses_active {
            self.licenses_active = row.licenses_active;
            self.busiest_workload = &row.workload_name;
        }
        self.workloads.push(row);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        ProcessedAt,
        samples::{self, usage_row as row},
    };

    fn snapshot(rows: Vec<UsageRow>) -> LicenseUsage {
        let customer = samples::customer();
        LicenseUsage::new(customer, None, rows).unwrap()
    }

    #[test]
    fn one_seat_of_a_suite_is_one_seat_of_the_product() {
        let suite = snapshot(vec![
            row("ESSENTIALS", "Exchange", 0, 1),
            row("ESSENTIALS", "SharePoint", 0, 1),
            row("ESSENTIALS", "Skype", 0, 1),
        ]);

        let products = products(&suite);

        assert_eq!(products.len(), 1);
        assert_eq!(products[0].licenses_qualified, 1);
        assert_eq!(products[0].workloads.len(), 3);
    }

    #[test]
    fn the_busiest_workload_decides_how_many_licenses_are_unused() {
        let suite = snapshot(vec![
            row("E3", "Exchange", 3, 9),
            row("E3", "SharePoint", 7, 8),
            row("E3", "Teams", 7, 10),
        ]);

        let products = products(&suite);

        assert_eq!(products[0].licenses_active, 7);
        assert_eq!(products[0].busiest_workload, "SharePoint");
        assert_eq!(products[0].licenses_unused(), 3);
    }

    #[test]
    fn no_license_is_unused_where_more_are_active_than_qualify() {
        let overused = snapshot(vec![row("E3", "Exchange", 7, 5)]);

        assert_eq!(products(&overused)[0].licenses_unused(), 0);
    }

    #[test]
    fn a_total_says_how_old_its_oldest_count_is() {
        let older = UsageRow {
            processed_at: ProcessedAt("2017-03-08T00:00:00Z".parse().unwrap()),
            ..row("B", "Exchange", 1, 1)
        };
        let mixed = snapshot(vec![
            row("A", "Exchange", 1, 3),
            older,
            row("A", "Teams", 1, 3),
        ]);

        let oldest = workloads(&mixed).into_iter();
        let oldest: Vec<_> = oldest
            .map(|workload| workload.oldest_processed_date.to_string())
            .collect();

        assert_eq!(oldest, ["2017-03-08", "2017-03-09"]);
    }

    #[test]
    fn a_workload_sums_over_products() {
        let two = snapshot(vec![row("A", "Exchange", 1, 3), row("B", "Exchange", 2, 5)]);

        let workloads = workloads(&two);

        assert_eq!(workloads.len(), 1);
        assert_eq!(workloads[0].licenses_qualified, 8);
        assert_eq!(workloads[0].licenses_active, 3);
    }

    fn rows() -> impl Strategy<Value = Vec<UsageRow>> {
        prop::collection::vec(
            ("[ABC]", "[XYZ]", 0..1_000_u64, 0..1_000_u64).prop_map(
                |(product, workload, active, qualified)| {
                    row(&product, &workload, active, qualified)
                },
            ),
            0..20,
        )
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn no_seat_is_counted_twice_within_a_product(rows in rows()) {
            let snapshot = snapshot(rows);

            for product in products(&snapshot) {
                let largest = product.workloads.iter().map(|row| row.licenses_qualified).max();
                prop_assert_eq!(Some(product.licenses_qualified), largest);
            }
        }

        #[test]
        fn no_seat_is_lost_over_products(rows in rows()) {
            let snapshot = snapshot(rows);
            let qualified: u64 = snapshot.rows().iter().map(|row| row.licenses_qualified).sum();

            let summed: u64 = workloads(&snapshot).iter().map(|workload| workload.licenses_qualified).sum();

            prop_assert_eq!(summed, qualified);
        }
    }
}
