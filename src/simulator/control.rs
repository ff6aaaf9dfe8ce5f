//! `/_simulator`: an index, and the faults over HTTP.

use std::sync::Arc;

use axum::{body::Bytes, extract::State};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    faults::Faults, fleet::NO_RELATIONSHIP_CUSTOMER, reply::SimulatedReply, simulation::Simulation,
};

/// The number of customers in the index.
const LISTED_CUSTOMERS: usize = 10;

/// The calls in the index.
const CALLS: [&str; 10] = [
    "POST /{tenant}/oauth2/token",
    "POST /{tenant}/oauth2/v2.0/token",
    "GET /{tenant}/oauth2/authorize",
    "GET /{tenant}/oauth2/v2.0/authorize",
    "GET /v1/customers/{id}/analytics/licenses/usage",
    "GET /v1/analytics/commercial/usage/license/?top=&skip=&filter=&processedDateTime=",
    "GET /v1/customers?size=N",
    "GET /v1/customers/{id}/analytics/licenses/deployment",
    "GET /v1/analytics/licenses/usage",
    "GET /v1/analytics/licenses/deployment",
];

type SimulationState = State<Arc<Simulation>>;

pub(super) async fn index(State(simulation): SimulationState) -> SimulatedReply {
    let customers = simulation.fleet.customers();
    let first = customers.iter().take(LISTED_CUSTOMERS);
    let body = json!({
        "today": simulation.today().to_string(),
        "newestProcessedDate": simulation.newest_date().to_string(),
        "customers": {
            "count": customers.len(),
            "first": first.map(|customer| customer.id.to_string()).collect::<Value>(),
            "noRelationship": [NO_RELATIONSHIP_CUSTOMER.to_string()],
        },
        "api": CALLS,
        "control": ["GET|PUT|PATCH|DELETE /_simulator/faults"],
    });
    SimulatedReply::json(StatusCode::OK, &body)
}

pub(super) async fn faults(State(simulation): SimulationState) -> SimulatedReply {
    SimulatedReply::json(StatusCode::OK, &*simulation.faults())
}

pub(super) async fn replace_faults(
    State(simulation): SimulationState,
    body: Bytes,
) -> SimulatedReply {
    change_faults(&simulation, &body, |_| Faults::default())
}

pub(super) async fn patch_faults(
    State(simulation): SimulationState,
    body: Bytes,
) -> SimulatedReply {
    change_faults(&simulation, &body, Faults::clone)
}

pub(super) async fn clear_faults(State(simulation): SimulationState) -> StatusCode {
    *simulation.faults() = Faults::default();
    StatusCode::NO_CONTENT
}

/// Applies the fields of `body` to the faults that `base` returns for the current ones.
fn change_faults(
    simulation: &Simulation,
    body: &[u8],
    base: fn(&Faults) -> Faults,
) -> SimulatedReply {
    let mut faults = simulation.faults();
    let patch = serde_json::from_slice::<Map<String, Value>>(body);
    let changed = patch
        .map_err(|error| error.to_string())
        .and_then(|patch| base(&faults).patched(patch));
    match changed {
        Ok(changed) => {
            *faults = changed;
            SimulatedReply::json(StatusCode::OK, &*faults)
        }
        Err(error) => SimulatedReply::json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    }
}
