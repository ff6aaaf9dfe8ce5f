use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::{super::Simulation, BadRequest};
use crate::simulator::{
    fleet::{self, AsOf, DOCUMENTED_CUSTOMER, NO_RELATIONSHIP_CUSTOMERS, Row},
    reply::Reply,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Collection<'a> {
    total_count: usize,
    items: Vec<Item<'a>>,
    attributes: Attributes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
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
    attributes: Attributes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    object_type: &'static str,
}

/// The newest usage of one customer.
pub(super) fn answer(simulation: &Simulation, customer: &str) -> Reply {
    of_customer(simulation, customer, fleet::documented_body, collection)
}

/// An answer about one customer: the documented one's body, or the newest rows of any other.
pub(super) fn of_customer(
    simulation: &Simulation,
    customer: &str,
    documented: impl FnOnce() -> Vec<u8>,
    collection: impl FnOnce(Vec<Row<'_>>) -> Reply,
) -> Reply {
    let Ok(id) = Uuid::try_parse(customer) else {
        return BadRequest("The customer id is no GUID.".into()).into();
    };
    let overrides = simulation.overrides();
    if let Some(told) = overrides.get(&id) {
        let rows = || told.rows(id, AsOf::Newest).unwrap_or_default();
        return told.reply().unwrap_or_else(|| collection(rows()));
    }
    if id == DOCUMENTED_CUSTOMER {
        return Reply::raw_json(StatusCode::OK, documented());
    }
    if NO_RELATIONSHIP_CUSTOMERS.contains(&id) {
        let description = "The partner has no relationship with this customer.";
        return Reply::refusal(StatusCode::FORBIDDEN, "2032", description);
    }
    match simulation.fleet.customer(id) {
        Some(customer) => collection(
            customer
                .rows(AsOf::Newest, simulation.newest_date())
                .collect(),
        ),
        None => Reply::refusal(
            StatusCode::NOT_FOUND,
            "1000",
            &format!("Customer {id} was not found."),
        ),
    }
}

fn collection(rows: Vec<Row<'_>>) -> Reply {
    let body = Collection {
        total_count: rows.len(),
        items: rows.iter().map(item).collect(),
        attributes: Attributes {
            object_type: "Collection",
        },
    };
    Reply::json(StatusCode::OK, &body)
}

fn item<'a>(row: &Row<'a>) -> Item<'a> {
    Item {
        customer_id: row.customer_id.to_string(),
        customer_name: row.customer_name,
        product_name: row.product_name,
        licenses_active: row.active,
        licenses_qualified: row.qualified,
        usage_percent: percent(row.active, row.qualified),
        workload_code: row.workload_code,
        workload_name: row.workload_name,
        processed_date_time: format!("{}+00:00", row.processed),
        service_code: row.service_code,
        service_name: row.service_name,
        channel: row.channel,
        attributes: Attributes {
            object_type: "CustomerLicensesUsageInsights",
        },
    }
}

/// Microsoft's percentage is adjusted; here that means cut to one digit, and 0 for no seats.
pub(super) fn percent(active: u64, qualified: u64) -> f64 {
    let permille = u128::from(active) * 1_000 / u128::from(qualified.max(1));
    permille as f64 / 10.0
}
