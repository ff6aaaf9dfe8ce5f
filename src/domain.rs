//! The nouns of the service: customers, processed dates, usage rows, and what may be summed.
//!
//! Microsoft's words win here, since they are the words in every ticket. Nothing in this module
//! knows HTTP, JSON or the clock.

pub mod aggregation;
mod caller;
mod customer;
mod customer_list;
mod date_range;
mod document_summary;
mod fleet;
mod license_usage;
mod portfolio;
mod processed_date;
mod product_details;
mod resource;
#[cfg(test)]
pub(crate) mod samples;
mod shared_texts;
mod usage_changes;
mod usage_percent;

pub use caller::{Caller, CallerScope, CustomerAccess, ScopeSet};
pub use customer::{CustomerId, InvalidCustomerId};
pub use customer_list::{CustomerEntry, CustomerList, ListPosition, ListedCustomer};
pub use date_range::DateRange;
pub use document_summary::{DocumentSummary, RowName};
pub use fleet::{FleetEntry, FleetStatus, FleetUsage};
pub use license_usage::{LicenseUsage, LicenseUsageError, UsageRow};
pub use portfolio::{LicensePrice, Portfolio, ProductRule, ProductSelector};
pub use processed_date::{InvalidProcessedDate, ProcessedAt, ProcessedDate};
pub use product_details::{ProductDetails, distinctions};
pub use resource::{Resource, UpstreamApi};
pub use shared_texts::SharedTexts;
pub use usage_changes::{UsageChange, usage_changes};
pub use usage_percent::UsagePercent;
