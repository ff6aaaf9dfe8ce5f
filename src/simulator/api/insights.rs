//! The insights calls: usage and deployment, of one customer and of all together.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::civil::DateTime;
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::{BadRequestError, SimulatedCall};
use crate::simulator::{
    fleet::{
        DOCUMENTED_CUSTOMER, FleetPageRow, NO_RELATIONSHIP_CUSTOMER, RequestedDate,
        documented_body, documented_deployment_body,
    },
    reply::SimulatedReply,
    simulation::Simulation,
};

/// Seats of one product, or of several together.
#[derive(Clone, Copy, Debug, Default)]
struct SeatCounts {
    active: u64,
    qualified: u64,
}

/// Sums of seats by their key, each with the newest time of processing.
#[derive(Debug)]
struct SeatSums<K>(BTreeMap<K, (SeatCounts, DateTime)>);

/// Returns the newest usage of one customer.
pub(super) fn customer_usage(
    simulation: &Simulation,
    call: &SimulatedCall,
) -> Result<SimulatedReply, BadRequestError> {
    customer_reply(simulation, call, documented_body, |rows| {
        rows.iter().map(usage_item).collect()
    })
}

/// Returns the products of one customer, and how much of them is deployed.
pub(super) fn customer_deployment(
    simulation: &Simulation,
    call: &SimulatedCall,
) -> Result<SimulatedReply, BadRequestError> {
    customer_reply(simulation, call, documented_deployment_body, |rows| {
        let products = product_seats(rows);
        products
            .map(|(row, seats)| deployment_item(row, seats))
            .collect()
    })
}

/// Returns the usage of all customers by service, workload and channel.
pub(super) fn partner_usage(simulation: &Simulation) -> SimulatedReply {
    let mut sums = SeatSums(BTreeMap::new());
    let fleet = fleet_rows(simulation);
    for row in fleet.iter().flatten() {
        let key = [row.service_name, row.workload_name, row.channel];
        sums.add(key, SeatCounts::of(row), row);
    }
    let items = sums.0.into_iter();
    collection(
        items.map(|([service, workload, channel], (seats, processed))| {
            json!({
                "proratedLicensesUsagePercent": seats.percent(),
                "workloadName": workload,
                "processedDateTime": format!("{processed}+00:00"),
                "serviceName": service,
                "channel": channel,
                "attributes": { "objectType": "PartnerLicensesUsageInsights" },
            })
        }),
    )
}

/// Returns the deployment of all customers by service and channel.
pub(super) fn partner_deployment(simulation: &Simulation) -> SimulatedReply {
    let mut sums = SeatSums(BTreeMap::new());
    let fleet = fleet_rows(simulation);
    for (row, seats) in fleet.iter().flat_map(|rows| product_seats(rows)) {
        sums.add([row.service_name, row.channel], seats, row);
    }
    let items = sums.0.into_iter();
    collection(items.map(|([service, channel], (seats, processed))| {
        json!({
            "proratedDeploymentPercent": seats.percent(),
            "licensesSold": seats.qualified,
            "processedDateTime": format!("{processed}+00:00"),
            "serviceName": service,
            "channel": channel,
            "attributes": { "objectType": "PartnerLicensesDeploymentInsights" },
        })
    }))
}

/// Returns the documented body of the documented customer, and the newest rows of any other.
fn customer_reply(
    simulation: &Simulation,
    call: &SimulatedCall,
    documented: fn() -> Vec<u8>,
    items: impl FnOnce(&[FleetPageRow<'_>]) -> Vec<Value>,
) -> Result<SimulatedReply, BadRequestError> {
    let id = Uuid::try_parse(call.customer())
        .map_err(|_| BadRequestError("The customer id is no GUID.".into()))?;
    let overrides = simulation.overrides().clone();
    if let Some(data) = overrides.customers.get(&id) {
        return Ok(data.reply().unwrap_or_else(|| {
            let rows = simulation
                .dataset(&overrides)
                .rows(id, RequestedDate::Newest);
            collection(items(&rows))
        }));
    }
    if id == DOCUMENTED_CUSTOMER {
        return Ok(SimulatedReply::raw_json(StatusCode::OK, documented()));
    }
    if id == NO_RELATIONSHIP_CUSTOMER {
        let description = "The partner has no relationship with this customer.";
        let status = StatusCode::FORBIDDEN;
        return Ok(SimulatedReply::error(status, "2032", description));
    }
    if simulation.fleet.customer(id).is_none() {
        let description = format!("Customer {id} was not found.");
        let status = StatusCode::NOT_FOUND;
        return Ok(SimulatedReply::error(status, "1000", &description));
    }
    let rows = simulation
        .dataset(&overrides)
        .rows(id, RequestedDate::Newest);
    Ok(collection(items(&rows)))
}

fn collection(items: impl IntoIterator<Item = Value>) -> SimulatedReply {
    let items: Vec<_> = items.into_iter().collect();
    let body = json!({
        "totalCount": items.len(),
        "items": items,
        "attributes": { "objectType": "Collection" },
    });
    SimulatedReply::json(StatusCode::OK, &body)
}

fn usage_item(row: &FleetPageRow<'_>) -> Value {
    json!({
        "customerId": row.customer_id.to_string(),
        "customerName": row.customer_name,
        "productName": row.product_name,
        "licensesActive": row.active,
        "licensesQualified": row.qualified,
        "usagePercent": SeatCounts::of(row).percent(),
        "workloadCode": row.workload_code,
        "workloadName": row.workload_name,
        "processedDateTime": format!("{}+00:00", row.processed),
        "serviceCode": row.service_code,
        "serviceName": row.service_name,
        "channel": row.channel,
        "attributes": { "objectType": "CustomerLicensesUsageInsights" },
    })
}

fn deployment_item(row: &FleetPageRow<'_>, seats: SeatCounts) -> Value {
    json!({
        "licensesDeployed": seats.active,
        "licensesSold": seats.qualified,
        "deploymentPercent": seats.percent(),
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

/// Returns the seats of each product of a customer, with its first row. A seat is in the row of every
/// workload, so a product has as many as the largest of its rows.
fn product_seats<'a, 'r>(
    rows: &'r [FleetPageRow<'a>],
) -> impl Iterator<Item = (&'r FleetPageRow<'a>, SeatCounts)> {
    let mut products: BTreeMap<&str, (&FleetPageRow<'a>, SeatCounts)> = BTreeMap::new();
    for row in rows {
        let product = products.entry(row.product_name);
        let (_, seats) = product.or_insert((row, SeatCounts::default()));
        seats.active = seats.active.max(row.active);
        seats.qualified = seats.qualified.max(row.qualified);
    }
    products.into_values()
}

/// Returns the newest rows of each customer.
fn fleet_rows(simulation: &Simulation) -> Vec<Vec<FleetPageRow<'_>>> {
    let newest = simulation.newest_date();
    let customers = simulation.fleet.customers().iter();
    customers
        .map(|customer| customer.rows(RequestedDate::Newest, newest).collect())
        .collect()
}

// === impl SeatCounts ===

impl SeatCounts {
    fn of(row: &FleetPageRow<'_>) -> Self {
        Self {
            active: row.active,
            qualified: row.qualified,
        }
    }

    /// Microsoft adjusts its percentage. This one is cut to one digit, and 0 without seats.
    fn percent(self) -> f64 {
        let permille = u128::from(self.active) * 1_000 / u128::from(self.qualified.max(1));
        permille as f64 / 10.0
    }
}

// === impl SeatSums ===

impl<K: Ord> SeatSums<K> {
    fn add(&mut self, key: K, seats: SeatCounts, row: &FleetPageRow<'_>) {
        let (sum, processed) = self.0.entry(key).or_default();
        sum.active += seats.active;
        sum.qualified += seats.qualified;
        *processed = row.processed.max(*processed);
    }
}
