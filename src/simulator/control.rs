//! `/_simulator`: an index, and the faults over HTTP.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Simulation,
    faults::Faults,
    fleet::{NO_RELATIONSHIP_CUSTOMERS, WIDE_CUSTOMER},
    record::SimulatedApi,
    reply::SimulatedReply,
};

/// The number of customers in the index.
const LISTED_CUSTOMERS: usize = 10;

pub(super) fn routes() -> Router<Arc<Simulation>> {
    Router::new().route("/_simulator", get(index)).route(
        "/_simulator/faults",
        get(faults)
            .put(replace_faults)
            .patch(patch_faults)
            .delete(clear_faults),
    )
}

type SimulationState = State<Arc<Simulation>>;

async fn index(State(simulation): SimulationState) -> Response {
    let customers = simulation.fleet.customers().iter();
    let first: Vec<_> = customers
        .take(LISTED_CUSTOMERS)
        .map(|c| c.id.to_string())
        .collect();
    let no_relationship = NO_RELATIONSHIP_CUSTOMERS.map(|id| id.to_string());
    let wide = simulation.fleet.customer(WIDE_CUSTOMER);
    json_response(&json!({
        "today": simulation.today().to_string(),
        "newestProcessedDate": simulation.newest_date().to_string(),
        "customers": {
            "count": simulation.fleet.customers().len(),
            "first": first,
            "wide": wide.map(|customer| customer.id.to_string()),
            "noRelationship": no_relationship,
        },
        "api": SimulatedApi::ALL.map(SimulatedApi::request_lines).concat(),
        "control": ["GET|PUT|PATCH|DELETE /_simulator/faults"],
    }))
}

async fn faults(State(simulation): SimulationState) -> Response {
    faults_response(&simulation.faults())
}

async fn replace_faults(State(simulation): SimulationState, body: Bytes) -> Response {
    change_faults(&simulation, &body, |_| Faults::default())
}

async fn patch_faults(State(simulation): SimulationState, body: Bytes) -> Response {
    change_faults(&simulation, &body, Faults::clone)
}

async fn clear_faults(State(simulation): SimulationState) -> Response {
    *simulation.faults() = Faults::default();
    no_content()
}

/// Applies the fields of `body` to the base that `base` makes of the current faults.
fn change_faults(simulation: &Simulation, body: &[u8], base: fn(&Faults) -> Faults) -> Response {
    let patch: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(patch) => patch,
        Err(error) => return bad_request(&error.to_string()),
    };
    let mut faults = simulation.faults();
    match base(&faults).patched(patch) {
        Ok(changed) => {
            *faults = changed;
            faults_response(&faults)
        }
        Err(error) => bad_request(&error),
    }
}

fn faults_response(faults: &Faults) -> Response {
    SimulatedReply::json(StatusCode::OK, faults).into_response()
}

fn json_response(body: &Value) -> Response {
    SimulatedReply::json(StatusCode::OK, body).into_response()
}

fn bad_request(error: &str) -> Response {
    SimulatedReply::json(StatusCode::BAD_REQUEST, &json!({ "error": error })).into_response()
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
