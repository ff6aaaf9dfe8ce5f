use super::{CustomerId, ProcessedAt, ProcessedDate};

/// The usage of one product's licenses in one workload, as Partner Center counted it.
///
/// A licence qualifies once per workload: one seat of a suite stands in several rows. What may be
/// summed over rows is the business of [`aggregate`](super::aggregate).
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRow {
    /// Short code of the service, where the upstream sent one.
    pub service_code: Option<String>,
    /// The service, such as `o365` or `crm`.
    pub service_name: String,
    /// GUID of the product, where the upstream sent one; spelled as it was sent.
    pub product_id: Option<String>,
    /// The product, such as `OFFICE 365 BUSINESS ESSENTIALS`.
    pub product_name: String,
    /// The sales channel, such as `reseller`.
    pub channel: Option<String>,
    /// Short code of the workload, such as `SFB`, where the upstream sent one.
    pub workload_code: Option<String>,
    /// The workload, such as `Exchange`.
    pub workload_name: String,
    /// Seats that were used; at most `i64::MAX`.
    pub licenses_active: u64,
    /// Seats that could have been used; at most `i64::MAX`.
    pub licenses_qualified: u64,
    /// The upstream's own, *adjusted* percentage (0 to 100): not promised to be active ÷ qualified.
    pub usage_percent: Option<f64>,
    /// When this row was processed; rows of one answer may differ.
    pub processed_at: ProcessedAt,
}

/// Everything that is known of one customer's usage as of its newest processed date.
///
/// Rows are held in one order, by service, product and workload, whatever order they came in, so
/// that the same data always renders to the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    customer_id: CustomerId,
    customer_name: Option<String>,
    rows: Vec<UsageRow>,
}

/// The rows cannot be one customer's usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Sums over the rows would not fit in 63 bits, so no total of them could be told.
    #[error("the seats of all rows add up to more than 9223372036854775807")]
    TooManySeats,
}

impl Snapshot {
    /// Puts the rows of one answer in order. No rows at all is an answer too, without a date.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::TooManySeats`] when a total over the rows would overflow.
    pub fn new(
        customer_id: CustomerId,
        customer_name: Option<String>,
        mut rows: Vec<UsageRow>,
    ) -> Result<Self, SnapshotError> {
        check_total(rows.iter().map(|row| row.licenses_active))?;
        check_total(rows.iter().map(|row| row.licenses_qualified))?;
        rows.sort_by(|a, b| canonical_order(a).cmp(&canonical_order(b)));
        Ok(Self {
            customer_id,
            customer_name,
            rows,
        })
    }

    /// Whose usage this is.
    pub fn customer_id(&self) -> CustomerId {
        self.customer_id
    }

    /// The customer's name, where any row told it.
    pub fn customer_name(&self) -> Option<&str> {
        self.customer_name.as_deref()
    }

    /// The rows, by service, product and workload.
    pub fn rows(&self) -> &[UsageRow] {
        &self.rows
    }

    /// The newest date of the rows; `None` when there are none.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.rows.iter().map(|row| row.processed_at.date()).max()
    }
}

fn check_total(seats: impl Iterator<Item = u64>) -> Result<(), SnapshotError> {
    const MOST: u128 = i64::MAX as u128;
    if seats.map(u128::from).sum::<u128>() > MOST {
        return Err(SnapshotError::TooManySeats);
    }
    Ok(())
}

/// Every field takes part, so that no two different rows are left in the order they came in.
fn canonical_order(row: &UsageRow) -> impl Ord + '_ {
    (
        (&row.service_name, &row.service_code),
        (&row.product_name, &row.product_id, &row.channel),
        (&row.workload_name, &row.workload_code),
        row.processed_at,
        (row.licenses_active, row.licenses_qualified),
        // As bits, which have an order among all numbers: 0 and -0 are equal, and print differently.
        row.usage_percent.map(f64::to_bits),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples;

    fn row(product: &str, workload: &str) -> UsageRow {
        UsageRow {
            product_name: product.into(),
            channel: Some("reseller".into()),
            workload_name: workload.into(),
            ..samples::row()
        }
    }

    fn customer() -> CustomerId {
        samples::customer()
    }

    #[test]
    fn the_order_the_rows_came_in_makes_no_difference() {
        let one_way = vec![
            row("B", "Exchange"),
            row("A", "Teams"),
            row("A", "Exchange"),
        ];
        let other_way: Vec<_> = one_way.iter().rev().cloned().collect();

        assert_eq!(
            Snapshot::new(customer(), None, one_way),
            Snapshot::new(customer(), None, other_way)
        );
    }

    #[test]
    fn rows_that_are_equal_and_print_differently_have_one_order() {
        let percent = |percent| UsageRow {
            usage_percent: Some(percent),
            ..row("A", "Exchange")
        };
        let signs = |rows| {
            let snapshot = Snapshot::new(customer(), None, rows).unwrap();
            let percents = snapshot.rows().iter().map(|row| row.usage_percent.unwrap());
            percents.map(f64::is_sign_negative).collect::<Vec<_>>()
        };

        let one_way = signs(vec![percent(0.0), percent(-0.0)]);
        let other_way = signs(vec![percent(-0.0), percent(0.0)]);

        assert_eq!(one_way, other_way);
    }

    #[test]
    fn the_processed_date_is_the_newest_of_the_rows() {
        let mut newer = row("CRM", "Sales");
        newer.processed_at = ProcessedAt("2017-03-10T03:25:16.36Z".parse().unwrap());

        let snapshot = Snapshot::new(customer(), None, vec![newer, row("A", "Exchange")]).unwrap();

        assert_eq!(snapshot.processed_date().unwrap().to_string(), "2017-03-10");
    }

    #[test]
    fn no_rows_are_an_answer_without_a_date() {
        let snapshot = Snapshot::new(customer(), None, Vec::new()).unwrap();

        assert_eq!(snapshot.processed_date(), None);
    }

    #[test]
    fn totals_that_no_number_can_hold_are_refused() {
        let mut huge = row("A", "Exchange");
        huge.licenses_qualified = i64::MAX as u64;

        assert_eq!(
            Snapshot::new(customer(), None, vec![huge, row("B", "Exchange")]),
            Err(SnapshotError::TooManySeats)
        );
    }
}
