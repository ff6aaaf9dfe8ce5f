//! What is told of all customers together.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::civil::DateTime;
use serde_json::{Value, json};

use super::{
    super::Simulation,
    deployment::{ProductSeats, product_seats},
    insights::usage_percent,
};
use crate::simulator::{
    fleet::{FleetRow, RequestedDate},
    reply::SimulatedReply,
};

/// Seats that are told together, and when the last of them was processed.
#[derive(Debug, Default)]
struct DeploymentTotal {
    seats: ProductSeats,
    processed: DateTime,
}

/// Usage by service, workload and channel.
pub(super) fn usage(simulation: &Simulation) -> SimulatedReply {
    let mut sums: BTreeMap<[&str; 3], DeploymentTotal> = BTreeMap::new();
    let fleet = fleet_rows(simulation);
    for row in fleet.iter().flatten() {
        let key = [row.service_name, row.workload_name, row.channel];
        let seats = ProductSeats {
            deployed: row.active,
            sold: row.qualified,
        };
        sums.entry(key).or_default().add(seats, row);
    }
    let items = sums.into_iter().map(|([service, workload, channel], sum)| {
        json!({
            "proratedLicensesUsagePercent": sum.percent(),
            "workloadName": workload,
            "processedDateTime": format!("{}+00:00", sum.processed),
            "serviceName": service,
            "channel": channel,
            "attributes": { "objectType": "PartnerLicensesUsageInsights" },
        })
    });
    render_collection(items.collect())
}

/// Deployment by service and channel.
pub(super) fn deployment(simulation: &Simulation) -> SimulatedReply {
    let mut sums: BTreeMap<[&str; 2], DeploymentTotal> = BTreeMap::new();
    let fleet = fleet_rows(simulation);
    for (row, seats) in fleet.iter().flat_map(|rows| product_seats(rows)) {
        let key = [row.service_name, row.channel];
        sums.entry(key).or_default().add(seats, row);
    }
    let items = sums.into_iter().map(|([service, channel], sum)| {
        json!({
            "proratedDeploymentPercent": sum.percent(),
            "licensesSold": sum.seats.sold,
            "processedDateTime": format!("{}+00:00", sum.processed),
            "serviceName": service,
            "channel": channel,
            "attributes": { "objectType": "PartnerLicensesDeploymentInsights" },
        })
    });
    render_collection(items.collect())
}

/// The newest rows of each customer.
fn fleet_rows(simulation: &Simulation) -> Vec<Vec<FleetRow<'_>>> {
    let newest = simulation.newest_date();
    let customers = simulation.fleet.customers().iter();
    customers
        .map(|customer| customer.rows(RequestedDate::Newest, newest).collect())
        .collect()
}

fn render_collection(items: Vec<Value>) -> SimulatedReply {
    let body = json!({
        "totalCount": items.len(),
        "items": items,
        "attributes": { "objectType": "Collection" },
    });
    SimulatedReply::json(StatusCode::OK, &body)
}

// === impl Sum ===

impl DeploymentTotal {
    fn add(&mut self, seats: ProductSeats, row: &FleetRow<'_>) {
        self.seats.deployed += seats.deployed;
        self.seats.sold += seats.sold;
        self.processed = self.processed.max(row.processed);
    }

    fn percent(&self) -> f64 {
        usage_percent(self.seats.deployed, self.seats.sold)
    }
}
