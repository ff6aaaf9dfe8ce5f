//! Answers over all customers: totals, a row for each customer, a row for each customer and product.
//!
//! [`FleetScope`] decides which customers count, by the rights of the caller and by the query.
//! [`FleetSelection`] has their rows and no others, so no sum can contain what the caller may not read.
//! The answers are made of [`FleetRow`]s, of which JSON and CSV have the same fields.

mod content_hash;
mod cost;
mod documents;
mod fields;
mod json;
mod page;
mod query;
mod recent_values;
mod rows;
mod selection;
mod table;
mod totals;

pub use self::{
    content_hash::{ContentHash, FleetVersion},
    cost::{CurrencyCost, UnusedCost},
    documents::{FleetDocumentRequest, FleetDocuments, FleetFormat, FleetRenderError},
    fields::{FieldValue, FleetRow},
    page::{CursorExpired, FleetCursor},
    query::{
        FleetProductFilter, FleetQuery, FleetSort, FleetSortKey, FleetView, InvalidPercentBound,
        PercentBound,
    },
    rows::{CustomerUsageRow, UnusedLicensesRow},
    selection::{FleetScope, FleetSelection, SelectedCustomer, SelectedProduct},
    totals::{
        FleetStatusCounts, FleetTotals, LicenseSums, ProductTotal, ServiceTotal, WorkloadTotal,
    },
};

#[cfg(test)]
mod tests;
