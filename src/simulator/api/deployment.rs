use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::Simulation,
    insights::{customer_reply, usage_percent},
};
use crate::simulator::{
    fleet::{self, FleetRow},
    reply::SimulatedReply,
};

/// What one customer bought, and how much of it is deployed.
pub(super) fn handle(simulation: &Simulation, customer: &str) -> SimulatedReply {
    customer_reply(
        simulation,
        customer,
        fleet::documented_deployment_body,
        render_collection,
    )
}

fn render_collection(rows: Vec<FleetRow<'_>>) -> SimulatedReply {
    let items: Vec<Value> = product_seats(&rows)
        .map(|(row, seats)| render_item(row, seats))
        .collect();
    let body = json!({
        "totalCount": items.len(),
        "items": items,
        "attributes": { "objectType": "Collection" },
    });
    SimulatedReply::json(StatusCode::OK, &body)
}

/// Seats of one product.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProductSeats {
    pub(super) deployed: u64,
    pub(super) sold: u64,
}

/// The seats of each product of a customer, beside its first row. A seat stands in the row of every
/// workload, so that a product has as many as the largest of its rows.
pub(super) fn product_seats<'a, 'r>(
    rows: &'r [FleetRow<'a>],
) -> impl Iterator<Item = (&'r FleetRow<'a>, ProductSeats)> {
    let mut products: BTreeMap<&str, (&FleetRow<'a>, ProductSeats)> = BTreeMap::new();
    for row in rows {
        let (_, seats) = products
            .entry(row.product_name)
            .or_insert((row, ProductSeats::default()));
        seats.deployed = seats.deployed.max(row.active);
        seats.sold = seats.sold.max(row.qualified);
    }
    products.into_values()
}

fn render_item(row: &FleetRow<'_>, seats: ProductSeats) -> Value {
    json!({
        "licensesDeployed": seats.deployed,
        "licensesSold": seats.sold,
        "deploymentPercent": usage_percent(seats.deployed, seats.sold),
        "customerId": row.customer_id.to_string(),
        "customerName": row.customer_name,
        "productName": row.product_name,
        "serviceCode": row.service_code,
        "processedDateTime": format!("{}+00:00", row.processed),
        "serviceName": row.service_name,
        "channel": row.channel,
        "attributes": { "objectType": "CustomerLicensesDeploymentInsights" },
    })
}
