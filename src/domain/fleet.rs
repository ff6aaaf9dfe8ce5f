use std::sync::Arc;

use jiff::Timestamp;

use super::{CustomerId, LicenseUsage, ProcessedDate};

/// The usage of every customer of the partner.
///
/// A customer counts with its own newest date, or all count with one given date.
#[derive(Clone, Debug, Default)]
pub struct FleetUsage {
    /// The newest processed date of any customer, or the given date; `None` before any usage is known.
    pub processed_date: Option<ProcessedDate>,
    /// Every customer, in the order of the list of customers.
    pub entries: Vec<Arc<FleetEntry>>,
}

/// One customer of the fleet.
#[derive(Clone, Debug)]
pub struct FleetEntry {
    /// The customer.
    pub customer_id: CustomerId,
    /// Its name; empty where none is known.
    pub customer_name: Arc<str>,
    /// The state of its data.
    pub status: FleetStatus,
    /// Its rows, where any are known. A failed customer may have older ones.
    pub usage: Option<Arc<LicenseUsage>>,
    /// The arrival of its data; `None` if nothing was ever fetched.
    pub fetched_at: Option<Timestamp>,
    /// The stable name of the failure, such as `no-relationship`; only with [`FleetStatus::Failed`].
    pub failure: Option<&'static str>,
}

/// The state of a customer's data. Every customer has exactly one, so their counts add up.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "camelCase")]
pub enum FleetStatus {
    /// It has rows of the fleet's newest date.
    Current,
    /// It has rows, but none of the newest date.
    Stale,
    /// It was asked for, and has no rows.
    Empty,
    /// Partner Center refuses to answer for it.
    Failed,
    /// Nothing was fetched yet.
    NotFetched,
}

// === impl FleetStatus ===

impl FleetStatus {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
