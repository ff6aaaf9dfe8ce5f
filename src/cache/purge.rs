//! The data that a purge includes, and its effect.

use crate::domain::{CustomerId, ProcessedDate};

/// The data that a purge includes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeScope {
    /// Only this customer's; all data, the partner's own too, where absent.
    pub customer_id: Option<CustomerId>,
    /// Only this date.
    pub processed_date: Option<ProcessedDate>,
}

/// The effect of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// Marks data stale: the next request asks upstream, and falls back on the cached data.
    Soft,
    /// Removes data.
    Hard,
}

// === impl PurgeScope ===

impl PurgeScope {
    /// Returns whether data of this customer (`None` for the partner) and date is included. A purge
    /// of one date does not include data without a date.
    pub fn covers(&self, customer: Option<CustomerId>, date: Option<ProcessedDate>) -> bool {
        let is_included = |wanted| Some(wanted) == date;
        self.covers_customer(customer) && self.processed_date.is_none_or(is_included)
    }

    /// Returns whether data of this customer (`None` for the partner) may be included.
    pub fn covers_customer(&self, customer: Option<CustomerId>) -> bool {
        self.customer_id
            .is_none_or(|wanted| Some(wanted) == customer)
    }
}
