//! Values for tests, plausible in every field.

use super::{CustomerId, ProcessedAt, UsageRow};

/// The customer of Microsoft's own example.
pub(crate) fn customer() -> CustomerId {
    CustomerId::parse("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04").unwrap()
}

/// A row without what is optional: one seat of one product, not in use.
pub(crate) fn row() -> UsageRow {
    UsageRow {
        service_code: None,
        service_name: "o365".into(),
        product_id: None,
        product_name: "EXCHANGE ONLINE (PLAN 1)".into(),
        channel: None,
        workload_code: None,
        workload_name: "Exchange".into(),
        licenses_active: 0,
        licenses_qualified: 1,
        reported_usage_percent: None,
        processed_at: ProcessedAt("2017-03-09T00:00:00Z".parse().unwrap()),
    }
}

/// A row of so many seats, of which so many are in use.
pub(crate) fn usage_row(product: &str, workload: &str, active: u64, qualified: u64) -> UsageRow {
    UsageRow {
        product_name: product.into(),
        workload_name: workload.into(),
        licenses_active: active,
        licenses_qualified: qualified,
        ..row()
    }
}
