//! The control surface, `/_simulator`: the handle over HTTP.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{StatusCode, header::AUTHORIZATION};
use jiff::civil::Date;
use serde_json::{Map, Value, json};

use super::{
    Simulation,
    faults::Faults,
    fleet::{NO_RELATIONSHIP_CUSTOMERS, WIDE_CUSTOMER},
    record::{RecordedRequest, SimulatedApi},
    reply::SimulatedReply,
};

/// Customers that the index names.
const LISTED_CUSTOMERS: usize = 10;

/// Every control endpoint.
pub(super) fn routes() -> Router<Arc<Simulation>> {
    Router::new()
        .route("/_simulator", get(index))
        .route(
            "/_simulator/faults",
            get(faults)
                .put(replace_faults)
                .patch(patch_faults)
                .delete(clear_faults),
        )
        .route("/_simulator/requests", get(requests).delete(clear_requests))
        .route("/_simulator/hold", post(hold))
        .route("/_simulator/release", post(release))
        .route("/_simulator/hold-tokens", post(hold_tokens))
        .route("/_simulator/release-tokens", post(release_tokens))
        .route("/_simulator/today", put(set_today))
}

type SimulationState = State<Arc<Simulation>>;

async fn index(State(simulation): SimulationState) -> Response {
    let customers = simulation.fleet.customers().iter();
    let first: Vec<_> = customers
        .take(LISTED_CUSTOMERS)
        .map(|c| c.id.to_string())
        .collect();
    let refused = NO_RELATIONSHIP_CUSTOMERS.map(|id| id.to_string());
    let wide = simulation.fleet.customer(WIDE_CUSTOMER);
    let body = json!({
        "today": simulation.today().to_string(),
        "newestProcessedDate": simulation.newest_date().to_string(),
        "customers": {
            "count": simulation.fleet.customers().len(),
            "first": first,
            "wide": wide.map(|customer| customer.id.to_string()),
            "noRelationship": refused,
        },
        "api": SimulatedApi::ALL.map(SimulatedApi::request_lines).concat(),
        "control": [
            "GET|PUT|PATCH|DELETE /_simulator/faults",
            "GET|DELETE /_simulator/requests",
            "POST /_simulator/hold",
            "POST /_simulator/release",
            "POST /_simulator/hold-tokens",
            "POST /_simulator/release-tokens",
            "PUT /_simulator/today?date=YYYY-MM-DD",
        ],
    });
    json_response(&body)
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

/// Lays the fields of `body` over what `base` makes of the faults as they stand.
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

async fn requests(State(simulation): SimulationState) -> Response {
    let requests = simulation.recorder.requests();
    json_response(&requests.iter().map(request_json).collect())
}

/// A request as JSON; what authorized it stays untold.
fn request_json(request: &RecordedRequest) -> Value {
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| match name == AUTHORIZATION.as_str() {
            true => json!([name, "(not shown)"]),
            false => json!([name, value]),
        })
        .collect();
    json!({
        "sequence": request.sequence,
        "api": request.api.name(),
        "method": request.method.as_str(),
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "status": request.status.map(|status| status.as_u16()),
    })
}

async fn clear_requests(State(simulation): SimulationState) -> Response {
    simulation.recorder.clear();
    no_content()
}

async fn hold(State(simulation): SimulationState) -> Response {
    simulation.call_gate.hold();
    no_content()
}

async fn release(State(simulation): SimulationState) -> Response {
    simulation.call_gate.release();
    no_content()
}

async fn hold_tokens(State(simulation): SimulationState) -> Response {
    simulation.token_gate.hold();
    no_content()
}

async fn release_tokens(State(simulation): SimulationState) -> Response {
    simulation.token_gate.release();
    no_content()
}

async fn set_today(
    State(simulation): SimulationState,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let date = query.get("date").map(|text| text.parse::<Date>());
    match date {
        Some(Ok(date)) => {
            *simulation.today() = date;
            no_content()
        }
        Some(Err(error)) => bad_request(&format!("date: {error}")),
        None => bad_request("date is missing: expected ?date=YYYY-MM-DD"),
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
