use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::Simulation,
    insights::{of_customer, percent},
};
use crate::simulator::{
    fleet::{self, Row},
    reply::Reply,
};

/// What one customer bought, and how much of it is deployed.
pub(super) fn answer(simulation: &Simulation, customer: &str) -> Reply {
    of_customer(
        simulation,
        customer,
        fleet::documented_deployment_body,
        collection,
    )
}

fn collection(rows: Vec<Row<'_>>) -> Reply {
    let items: Vec<Value> = products(&rows)
        .map(|(row, seats)| item(row, seats))
        .collect();
    let body = json!({
        "totalCount": items.len(),
        "items": items,
        "attributes": { "objectType": "Collection" },
    });
    Reply::json(StatusCode::OK, &body)
}

/// Seats of one product.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seats {
    pub(super) deployed: u64,
    pub(super) sold: u64,
}

/// The seats of each product of a customer, beside its first row. A seat stands in the row of every
/// workload, so that a product has as many as the largest of its rows.
pub(super) fn products<'a, 'r>(rows: &'r [Row<'a>]) -> impl Iterator<Item = (&'r Row<'a>, Seats)> {
    let mut products: BTreeMap<&str, (&Row<'a>, Seats)> = BTreeMap::new();
    for row in rows {
        let (_, seats) = products
            .entry(row.product_name)
            .or_insert((row, Seats::default()));
        seats.deployed = seats.deployed.max(row.active);
        seats.sold = seats.sold.max(row.qualified);
    }
    products.into_values()
}

fn item(row: &Row<'_>, seats: Seats) -> Value {
    json!({
        "licensesDeployed": seats.deployed,
        "licensesSold": seats.sold,
        "deploymentPercent": percent(seats.deployed, seats.sold),
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
