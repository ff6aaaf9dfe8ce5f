//! The answers as JSON, described in `api/openapi.json`.

use serde::Serialize;

use super::{
    cost::UnusedCost,
    fields::{FleetRow, JsonRows},
    page::RowPage,
    selection::FleetSelection,
    totals::{
        FleetStatusCounts, FleetTotals, LicenseSums, ProductTotal, ServiceTotal, WorkloadTotal,
    },
};
use crate::domain::FleetStatus;

/// The fields of every answer: it is complete, or says what is missing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FleetHeader<'s> {
    processed_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_processed_date: Option<String>,
    complete: bool,
    customers: FleetStatusCounts,
    failed: Vec<FailedCustomer<'s>>,
    excluded: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedCustomer<'s> {
    customer_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    customer_name: &'s str,
    reason: &'s str,
}

#[derive(Serialize)]
struct TotalsDocument<'s, 'a> {
    #[serde(flatten)]
    header: FleetHeader<'s>,
    totals: JsonSums<'s, 'a>,
    services: JsonRows<'s, ServiceTotal<'a>>,
    products: JsonRows<'s, ProductTotal<'a>>,
    workloads: JsonRows<'s, WorkloadTotal<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSums<'s, 'a> {
    licenses_qualified: u64,
    licenses_active: u64,
    licenses_unused: u64,
    #[serde(skip_serializing_if = "UnusedCost::is_empty")]
    unused_cost: &'s UnusedCost<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowsDocument<'s, T> {
    #[serde(flatten)]
    header: FleetHeader<'s>,
    items: T,
    next_cursor: Option<String>,
}

/// Renders the totals of a selection.
pub(super) fn render_totals(selection: &FleetSelection<'_>) -> serde_json::Result<Vec<u8>> {
    let totals = FleetTotals::of(selection);
    serde_json::to_vec(&TotalsDocument {
        header: FleetHeader::of(selection),
        totals: JsonSums::from(&totals.sums),
        services: JsonRows(&totals.services),
        products: JsonRows(&totals.products),
        workloads: JsonRows(&totals.workloads),
    })
}

/// Renders a page of rows of a selection.
pub(super) fn render_rows<'a, R: FleetRow<'a>>(
    selection: &FleetSelection<'a>,
    page: &RowPage<'_, R>,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RowsDocument {
        header: FleetHeader::of(selection),
        items: JsonRows(page.rows),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    })
}

// === impl FleetHeader ===

impl<'s> FleetHeader<'s> {
    fn of(selection: &'s FleetSelection<'_>) -> Self {
        let counts = FleetStatusCounts::of(selection);
        let customers = selection.customers.iter();
        let failed = customers
            .map(|customer| customer.entry)
            .filter(|entry| entry.status == FleetStatus::Failed)
            .map(|entry| FailedCustomer {
                customer_id: entry.customer_id.to_string(),
                customer_name: &entry.customer_name,
                reason: entry.failure.unwrap_or("unknown"),
            });
        Self {
            processed_date: selection.processed_date.map(|date| date.to_string()),
            oldest_processed_date: selection
                .oldest_processed_date()
                .map(|date| date.to_string()),
            complete: counts.is_complete(),
            customers: counts,
            failed: failed.collect(),
            excluded: selection.excluded,
        }
    }
}

// === impl JsonSums ===

impl<'s, 'a> From<&'s LicenseSums<'a>> for JsonSums<'s, 'a> {
    fn from(sums: &'s LicenseSums<'a>) -> Self {
        Self {
            licenses_qualified: sums.licenses_qualified,
            licenses_active: sums.licenses_active,
            licenses_unused: sums.licenses_unused,
            unused_cost: &sums.unused_cost,
        }
    }
}
