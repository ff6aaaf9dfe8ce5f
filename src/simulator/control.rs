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
    reply::Reply,
};

/// Customers that the index names.
const FIRST_CUSTOMERS: usize = 10;

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
        .route(
            "/_simulator/requests",
            get(requests).delete(forget_requests),
        )
        .route("/_simulator/hold", post(hold))
        .route("/_simulator/release", post(release))
        .route("/_simulator/hold-tokens", post(hold_tokens))
        .route("/_simulator/release-tokens", post(release_tokens))
        .route("/_simulator/today", put(set_today))
}

type Shared = State<Arc<Simulation>>;

async fn index(State(simulation): Shared) -> Response {
    let customers = simulation.fleet.customers().iter();
    let first: Vec<_> = customers
        .take(FIRST_CUSTOMERS)
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
        "api": SimulatedApi::ALL.map(SimulatedApi::requests).concat(),
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
    answer(&body)
}

async fn faults(State(simulation): Shared) -> Response {
    tell(&simulation.faults())
}

async fn replace_faults(State(simulation): Shared, body: Bytes) -> Response {
    change_faults(&simulation, &body, |_| Faults::default())
}

async fn patch_faults(State(simulation): Shared, body: Bytes) -> Response {
    change_faults(&simulation, &body, Faults::clone)
}

async fn clear_faults(State(simulation): Shared) -> Response {
    *simulation.faults() = Faults::default();
    done()
}

/// Lays the fields of `body` over what `base` makes of the faults as they stand.
fn change_faults(simulation: &Simulation, body: &[u8], base: fn(&Faults) -> Faults) -> Response {
    let patch: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(patch) => patch,
        Err(error) => return refuse(&error.to_string()),
    };
    let mut faults = simulation.faults();
    match base(&faults).patched(patch) {
        Ok(changed) => {
            *faults = changed;
            tell(&faults)
        }
        Err(error) => refuse(&error),
    }
}

async fn requests(State(simulation): Shared) -> Response {
    let requests = simulation.recorder.requests();
    answer(&requests.iter().map(told).collect())
}

/// A request as JSON; what authorized it stays untold.
fn told(request: &RecordedRequest) -> Value {
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

async fn forget_requests(State(simulation): Shared) -> Response {
    simulation.recorder.clear();
    done()
}

async fn hold(State(simulation): Shared) -> Response {
    simulation.call_gate.hold();
    done()
}

async fn release(State(simulation): Shared) -> Response {
    simulation.call_gate.release();
    done()
}

async fn hold_tokens(State(simulation): Shared) -> Response {
    simulation.token_gate.hold();
    done()
}

async fn release_tokens(State(simulation): Shared) -> Response {
    simulation.token_gate.release();
    done()
}

async fn set_today(
    State(simulation): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let date = query.get("date").map(|text| text.parse::<Date>());
    match date {
        Some(Ok(date)) => {
            *simulation.today() = date;
            done()
        }
        Some(Err(error)) => refuse(&format!("date: {error}")),
        None => refuse("date is missing: expected ?date=YYYY-MM-DD"),
    }
}

fn tell(faults: &Faults) -> Response {
    Reply::json(StatusCode::OK, faults).into_response()
}

fn answer(body: &Value) -> Response {
    Reply::json(StatusCode::OK, body).into_response()
}

fn refuse(error: &str) -> Response {
    Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": error })).into_response()
}

fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
