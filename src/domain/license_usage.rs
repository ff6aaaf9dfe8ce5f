use std::{cmp::Ordering, sync::Arc};

use super::{CustomerId, ProcessedAt, ProcessedDate};

/// The usage of one product's licenses in one workload, as Partner Center counted it.
///
/// A licence qualifies once per workload: one seat of a suite is in several rows. See
/// [`aggregation`](super::aggregation) for sums over rows.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRow {
    /// Short code of the service, where the upstream sent one.
    pub service_code: Option<Arc<str>>,
    /// The service, such as `o365` or `crm`.
    pub service_name: Arc<str>,
    /// GUID of the product, where the upstream sent one; spelled as it was sent.
    pub product_id: Option<Arc<str>>,
    /// The product, such as `OFFICE 365 BUSINESS ESSENTIALS`.
    pub product_name: Arc<str>,
    /// The sales channel, such as `reseller`.
    pub channel: Option<Arc<str>>,
    /// Short code of the workload, such as `SFB`, where the upstream sent one.
    pub workload_code: Option<Arc<str>>,
    /// The workload, such as `HttpExchange`.
    pub workload_name: Arc<str>,
    /// Seats that were used; at most `i64::MAX`.
    pub licenses_active: u64,
    /// Seats that could have been used; at most `i64::MAX`.
    pub licenses_qualified: u64,
    /// The upstream's own percentage, cut off and *adjusted*: not promised to be active ÷ qualified.
    pub reported_usage_percent: Option<f64>,
    /// The time when this row was processed; rows of one answer may differ.
    pub processed_at: ProcessedAt,
}

/// One customer's usage as of its newest processed date.
///
/// Rows that agree in service, product, channel and workload are one row: the newest instant wins,
/// and of different counts at that instant the larger. Rows are in one order, by service, product
/// and workload, so that the same data always renders to the same bytes, whatever order it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct LicenseUsage {
    customer_id: CustomerId,
    customer_name: Option<String>,
    rows: Vec<UsageRow>,
    contradictions: usize,
}

/// A text whose letter case does not count, such as a GUID.
#[derive(Clone, Copy)]
struct CaseInsensitive<'a>(&'a str);

/// The rows cannot be one customer's usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LicenseUsageError {
    /// Sums over the rows would not fit in 63 bits, so there is no total of them.
    #[error("the seats of all rows add up to more than 9223372036854775807")]
    TooManySeats,
}

impl LicenseUsage {
    /// Puts the rows of one answer in order, each once. No rows at all is an answer too, without a
    /// date.
    ///
    /// # Errors
    ///
    /// [`LicenseUsageError::TooManySeats`] when a total over the rows would overflow.
    pub fn new(
        customer_id: CustomerId,
        customer_name: Option<String>,
        mut rows: Vec<UsageRow>,
    ) -> Result<Self, LicenseUsageError> {
        rows.sort_by(|a, b| a.key().cmp(&b.key()).then_with(|| b.rank().cmp(&a.rank())));
        let mut contradictions = 0;
        rows.dedup_by(|row, best| {
            let same = row.key() == best.key();
            if same && row.processed_at == best.processed_at && row.counts() != best.counts() {
                contradictions += 1;
            }
            same
        });
        check_total(rows.iter().map(|row| row.licenses_active))?;
        check_total(rows.iter().map(|row| row.licenses_qualified))?;
        Ok(Self {
            customer_id,
            customer_name,
            rows,
            contradictions,
        })
    }

    /// The answer for a customer of which upstream has no rows.
    pub fn without_rows(customer_id: CustomerId) -> Self {
        Self {
            customer_id,
            customer_name: None,
            rows: Vec::new(),
            contradictions: 0,
        }
    }

    /// The customer.
    pub fn customer_id(&self) -> CustomerId {
        self.customer_id
    }

    /// The customer's name, where it is known.
    pub fn customer_name(&self) -> Option<&str> {
        self.customer_name.as_deref()
    }

    /// The rows, by service, product and workload.
    pub fn rows(&self) -> &[UsageRow] {
        &self.rows
    }

    /// The newest date of the rows; `None` when there are none.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.dates().max()
    }

    /// The newest date of the rows of several customers; `None` when there are none.
    pub fn newest_date(usages: &[Self]) -> Option<ProcessedDate> {
        usages.iter().filter_map(Self::processed_date).max()
    }

    /// The oldest date of the rows; `None` when there are none.
    pub fn oldest_processed_date(&self) -> Option<ProcessedDate> {
        self.dates().min()
    }

    /// The number of rows that were left out because another had the same names and instant, and larger
    /// counts.
    pub fn contradictions(&self) -> usize {
        self.contradictions
    }

    fn dates(&self) -> impl Iterator<Item = ProcessedDate> {
        self.rows.iter().map(|row| row.processed_at.date())
    }
}

// === impl UsageRow ===

impl UsageRow {
    /// Returns whether both rows are of the same product, in the same service and channel.
    pub fn is_same_product(&self, other: &Self) -> bool {
        self.product_key() == other.product_key()
    }

    /// Rows of the same key are the same row, sent again.
    fn key(&self) -> impl Ord + '_ {
        let workload = (&self.workload_name, &self.workload_code);
        (self.product_key(), workload)
    }

    fn product_key(&self) -> impl Ord + '_ {
        (
            (&self.service_name, &self.service_code),
            &self.product_name,
            self.product_id.as_deref().map(CaseInsensitive),
            &self.channel,
        )
    }

    /// Of rows with the same key, the one of the highest rank counts. Every other field takes part,
    /// so that no two different rows have the same rank.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.processed_at,
            self.counts(),
            // As bits, which have an order among all numbers: 0 and -0 are equal, and print
            // differently.
            self.reported_usage_percent.map(f64::to_bits),
            &self.product_id,
        )
    }

    fn counts(&self) -> (u64, u64) {
        (self.licenses_qualified, self.licenses_active)
    }
}

// === impl CaseInsensitive ===

impl CaseInsensitive<'_> {
    fn folded(self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl Ord for CaseInsensitive<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl PartialOrd for CaseInsensitive<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for CaseInsensitive<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for CaseInsensitive<'_> {}

fn check_total(seats: impl Iterator<Item = u64>) -> Result<(), LicenseUsageError> {
    const MAX_TOTAL: u128 = i64::MAX as u128;
    if seats.map(u128::from).sum::<u128>() > MAX_TOTAL {
        return Err(LicenseUsageError::TooManySeats);
    }
    Ok(())
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
    fn the_row_order_makes_no_difference() {
        let one_way = vec![
            row("B", "Exchange"),
            row("A", "Teams"),
            row("A", "Exchange"),
        ];
        let other_way: Vec<_> = one_way.iter().rev().cloned().collect();

        assert_eq!(
            LicenseUsage::new(customer(), None, one_way),
            LicenseUsage::new(customer(), None, other_way)
        );
    }

    /// The seats of the one row that these come to.
    fn merged(rows: Vec<UsageRow>) -> (u64, u64, usize) {
        let snapshot = LicenseUsage::new(customer(), None, rows).unwrap();
        let [row] = snapshot.rows() else {
            panic!("{snapshot:?}");
        };
        let contradictions = snapshot.contradictions();
        (row.licenses_active, row.licenses_qualified, contradictions)
    }

    fn counted(active: u64, qualified: u64, at: &str) -> UsageRow {
        UsageRow {
            licenses_active: active,
            licenses_qualified: qualified,
            processed_at: ProcessedAt(at.parse().unwrap()),
            ..row("A", "Exchange")
        }
    }

    const MORNING: &str = "2017-03-09T03:00:00Z";
    const EVENING: &str = "2017-03-09T21:00:00Z";

    #[test]
    fn of_duplicate_rows_the_newest_instant_wins() {
        let (early, late) = (counted(9, 9, MORNING), counted(1, 5, EVENING));

        assert_eq!(merged(vec![early.clone(), late.clone()]), (1, 5, 0));
        assert_eq!(merged(vec![late, early]), (1, 5, 0));
    }

    #[test]
    fn equal_rows_count_once() {
        assert_eq!(merged(vec![counted(1, 5, MORNING); 3]), (1, 5, 0));
    }

    #[test]
    fn of_contradicting_rows_the_larger_counts_win() {
        let rows = vec![
            counted(4, 5, EVENING),
            counted(1, 6, EVENING),
            counted(2, 6, EVENING),
            counted(9, 9, MORNING),
        ];

        assert_eq!(merged(rows), (2, 6, 2));
    }

    #[test]
    fn the_letter_case_of_a_product_id_does_not_split_a_product() {
        let with_id = |id: &str| UsageRow {
            product_id: Some(id.into()),
            ..counted(1, 5, MORNING)
        };

        let rows = vec![with_id("4B9405B0-7788"), with_id("4b9405b0-7788")];

        assert_eq!(merged(rows), (1, 5, 0));
    }

    #[test]
    fn the_processed_date_is_the_newest_of_the_rows() {
        let mut newer = row("CRM", "Sales");
        newer.processed_at = ProcessedAt("2017-03-10T03:25:16.36Z".parse().unwrap());

        let snapshot =
            LicenseUsage::new(customer(), None, vec![newer, row("A", "Exchange")]).unwrap();

        assert_eq!(snapshot.processed_date().unwrap().to_string(), "2017-03-10");
    }

    #[test]
    fn without_rows_there_is_no_date() {
        let snapshot = LicenseUsage::new(customer(), None, Vec::new()).unwrap();

        assert_eq!(snapshot.processed_date(), None);
    }

    #[test]
    fn overflowing_totals_are_rejected() {
        let mut huge = row("A", "Exchange");
        huge.licenses_qualified = i64::MAX as u64;

        assert_eq!(
            LicenseUsage::new(customer(), None, vec![huge, row("B", "Exchange")]),
            Err(LicenseUsageError::TooManySeats)
        );
    }
}
