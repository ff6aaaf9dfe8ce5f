use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::{super::Simulation, BadRequestError};
use crate::simulator::{
    fleet::{self, DOCUMENTED_CUSTOMER, FleetRow, NO_RELATIONSHIP_CUSTOMERS, RequestedDate},
    reply::SimulatedReply,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InsightsReply<'a> {
    total_count: usize,
    items: Vec<InsightsItem<'a>>,
    attributes: InsightsAttributes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InsightsItem<'a> {
    customer_id: String,
    customer_name: &'a str,
    product_name: &'a str,
    licenses_active: u64,
    licenses_qualified: u64,
    usage_percent: f64,
    workload_code: &'a str,
    workload_name: &'a str,
    processed_date_time: String,
    service_code: &'a str,
    service_name: &'a str,
    channel: &'a str,
    attributes: InsightsAttributes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InsightsAttributes {
    object_type: &'static str,
}

/// The newest usage of one customer.
pub(super) fn handle(simulation: &Simulation, customer: &str) -> SimulatedReply {
    customer_reply(
        simulation,
        customer,
        fleet::documented_body,
        render_collection,
    )
}

/// An answer about one customer: the documented one's body, or the newest rows of any other.
pub(super) fn customer_reply(
    simulation: &Simulation,
    customer: &str,
    documented: impl FnOnce() -> Vec<u8>,
    collection: impl FnOnce(Vec<FleetRow<'_>>) -> SimulatedReply,
) -> SimulatedReply {
    let Ok(id) = Uuid::try_parse(customer) else {
        return BadRequestError("The customer id is no GUID.".into()).into();
    };
    let overrides = simulation.overrides();
    if let Some(told) = overrides.get(&id) {
        let rows = || told.rows(id, RequestedDate::Newest).unwrap_or_default();
        return told.reply().unwrap_or_else(|| collection(rows()));
    }
    if id == DOCUMENTED_CUSTOMER {
        return SimulatedReply::raw_json(StatusCode::OK, documented());
    }
    if NO_RELATIONSHIP_CUSTOMERS.contains(&id) {
        let description = "The partner has no relationship with this customer.";
        return SimulatedReply::error(StatusCode::FORBIDDEN, "2032", description);
    }
    match simulation.fleet.customer(id) {
        Some(customer) => collection(
            customer
                .rows(RequestedDate::Newest, simulation.newest_date())
                .collect(),
        ),
        None => SimulatedReply::error(
            StatusCode::NOT_FOUND,
            "1000",
            &format!("Customer {id} was not found."),
        ),
    }
}

fn render_collection(rows: Vec<FleetRow<'_>>) -> SimulatedReply {
    let body = InsightsReply {
        total_count: rows.len(),
        items: rows.iter().map(render_item).collect(),
        attributes: InsightsAttributes {
            object_type: "Collection",
        },
    };
    SimulatedReply::json(StatusCode::OK, &body)
}

fn render_item<'a>(row: &FleetRow<'a>) -> InsightsItem<'a> {
    InsightsItem {
        customer_id: row.customer_id.to_string(),
        customer_name: row.customer_name,
        product_name: row.product_name,
        licenses_active: row.active,
        licenses_qualified: row.qualified,
        usage_percent: usage_percent(row.active, row.qualified),
        workload_code: row.workload_code,
        workload_name: row.workload_name,
        processed_date_time: format!("{}+00:00", row.processed),
        service_code: row.service_code,
        service_name: row.service_name,
        channel: row.channel,
        attributes: InsightsAttributes {
            object_type: "CustomerLicensesUsageInsights",
        },
    }
}

/// Microsoft's percentage is adjusted; here that means cut to one digit, and 0 for no seats.
pub(super) fn usage_percent(active: u64, qualified: u64) -> f64 {
    let permille = u128::from(active) * 1_000 / u128::from(qualified.max(1));
    permille as f64 / 10.0
}
