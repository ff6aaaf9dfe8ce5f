//! What may be summed over usage rows, what takes a maximum, and when a percentage is null.
//!
//! A licence qualifies once **per workload**, so one seat of a suite stands in a row for each:
//!
//! - per workload, over products, a sum is right;
//! - per product, over workloads, a sum would count seats several times: the maximum is the best
//!   estimate of seats there is;
//! - a percentage of a group is Σactive ÷ Σqualified of rows that may be summed, never a mean of
//!   percentages, and null where nothing qualified.

use std::collections::BTreeMap;

use super::{Snapshot, UsageRow};

/// One product's rows, with the seats they stand for.
#[derive(Clone, Debug)]
pub struct ProductUsage<'a> {
    /// The row that tells the product, its service and channel; all of `workloads` agree on them.
    pub product: &'a UsageRow,
    /// The product's seats: the maximum of `licenses_qualified` over its workloads.
    pub licenses_qualified: u64,
    /// The product's rows, one per workload, never empty.
    pub workloads: Vec<&'a UsageRow>,
}

/// One workload's seats, summed over products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadUsage<'a> {
    /// The workload, such as `Exchange`.
    pub workload_name: &'a str,
    /// Seats in use, of all products.
    pub licenses_active: u64,
    /// Seats that could be in use, of all products.
    pub licenses_qualified: u64,
}

impl WorkloadUsage<'_> {
    /// Active seats in percent of qualified ones; `None` when nothing qualified.
    pub fn usage_percent(&self) -> Option<f64> {
        percent(self.licenses_active, self.licenses_qualified)
    }
}

impl UsageRow {
    /// The upstream's own percentage as it was sent, else ours; `None` where it sent none and nothing
    /// qualified.
    pub fn usage_percent_or_ratio(&self) -> Option<f64> {
        self.usage_percent
            .or_else(|| percent(self.licenses_active, self.licenses_qualified))
    }
}

/// The products of a snapshot, by service and product.
pub fn products(snapshot: &Snapshot) -> Vec<ProductUsage<'_>> {
    let mut products: Vec<ProductUsage<'_>> = Vec::new();
    for row in current_rows(snapshot) {
        match products.last_mut() {
            Some(last) if same_product(last.product, row) => {
                last.licenses_qualified = last.licenses_qualified.max(row.licenses_qualified);
                last.workloads.push(row);
            }
            _ => products.push(ProductUsage {
                product: row,
                licenses_qualified: row.licenses_qualified,
                workloads: vec![row],
            }),
        }
    }
    products
}

/// The workloads of a snapshot, by name, each summed over products.
pub fn workloads(snapshot: &Snapshot) -> Vec<WorkloadUsage<'_>> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in current_rows(snapshot) {
        // A snapshot is built only of rows whose totals fit.
        let (active, qualified) = sums.entry(&row.workload_name).or_default();
        *active += row.licenses_active;
        *qualified += row.licenses_qualified;
    }
    sums.into_iter()
        .map(
            |(workload_name, (licenses_active, licenses_qualified))| WorkloadUsage {
                workload_name,
                licenses_active,
                licenses_qualified,
            },
        )
        .collect()
}

/// `active` in percent of `qualified`, rounded to two decimals; `None` when nothing qualified.
#[expect(
    clippy::cast_precision_loss,
    reason = "seats beyond 2^53 do not change a percentage of two decimals"
)]
pub fn percent(active: u64, qualified: u64) -> Option<f64> {
    (qualified > 0).then(|| (active as f64 / qualified as f64 * 10_000.0).round() / 100.0)
}

/// The rows that count: of rows alike in all but their processed date, the newest date only.
///
/// Rows of one answer need not share a date. Where the same product and workload stands under two,
/// the older is history, and adding both would count its seats twice.
fn current_rows(snapshot: &Snapshot) -> impl Iterator<Item = &UsageRow> {
    snapshot
        .rows()
        .chunk_by(|a, b| same_product(a, b) && same_workload(a, b))
        .flat_map(|dated| {
            // A snapshot orders by date within the same product and workload.
            let newest = dated.last().map(|row| row.processed_at.date());
            dated
                .iter()
                .filter(move |row| Some(row.processed_at.date()) == newest)
        })
}

fn same_product(a: &UsageRow, b: &UsageRow) -> bool {
    (
        &a.service_name,
        &a.service_code,
        &a.product_name,
        &a.product_id,
        &a.channel,
    ) == (
        &b.service_name,
        &b.service_code,
        &b.product_name,
        &b.product_id,
        &b.channel,
    )
}

fn same_workload(a: &UsageRow, b: &UsageRow) -> bool {
    (&a.workload_name, &a.workload_code) == (&b.workload_name, &b.workload_code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{ProcessedAt, samples};

    fn row(product: &str, workload: &str, active: u64, qualified: u64) -> UsageRow {
        UsageRow {
            product_name: product.into(),
            workload_name: workload.into(),
            licenses_active: active,
            licenses_qualified: qualified,
            ..samples::row()
        }
    }

    fn snapshot(rows: Vec<UsageRow>) -> Snapshot {
        let customer = samples::customer();
        Snapshot::new(customer, None, rows).unwrap()
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
    fn a_workload_sums_over_products() {
        let two = snapshot(vec![row("A", "Exchange", 1, 3), row("B", "Exchange", 2, 5)]);

        let workloads = workloads(&two);

        assert_eq!(workloads.len(), 1);
        assert_eq!(workloads[0].licenses_qualified, 8);
        assert_eq!(workloads[0].usage_percent(), Some(37.5));
    }

    #[test]
    fn the_same_row_under_an_older_date_is_not_counted_again() {
        let mut older = row("A", "Exchange", 9, 9);
        older.processed_at = ProcessedAt("2017-03-08T00:00:00Z".parse().unwrap());
        let both = snapshot(vec![row("A", "Exchange", 1, 3), older]);

        assert_eq!(workloads(&both)[0].licenses_qualified, 3);
        assert_eq!(products(&both)[0].workloads.len(), 1);
    }

    #[test]
    fn a_percentage_of_nothing_is_null() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(5, 0), None);
        assert_eq!(percent(1, 3), Some(33.33));
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
        #![proptest_config(crate::properties::kept())]

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
            let qualified: u64 = rows.iter().map(|row| row.licenses_qualified).sum();
            let snapshot = snapshot(rows);

            let summed: u64 = workloads(&snapshot).iter().map(|workload| workload.licenses_qualified).sum();

            prop_assert_eq!(summed, qualified);
        }

        #[test]
        fn a_percentage_is_a_number_or_null(active: u64, qualified: u64) {
            match percent(active, qualified) {
                Some(percent) => prop_assert!(percent.is_finite() && qualified > 0),
                None => prop_assert_eq!(qualified, 0),
            }
        }
    }
}
