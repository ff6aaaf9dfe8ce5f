use http::StatusCode;
use serde_json::{Value, json};

use super::{super::Simulation, BadRequest, Call};
use crate::simulator::{fleet::Customer, reply::Reply};

/// Largest page, and the size of a page when none is asked for.
const LARGEST_PAGE: usize = 500;

const CONTINUATION: &str = "MS-ContinuationToken";

/// What a continuation token begins with; the rest is where the next page starts.
const TOKEN_PREFIX: &str = "page-from-";

/// A page of the partner's customers.
pub(super) fn answer(simulation: &Simulation, call: &Call) -> Reply {
    match page(simulation, call) {
        Ok(body) => Reply::json(StatusCode::OK, &body),
        Err(refusal) => refusal.into(),
    }
}

fn page(simulation: &Simulation, call: &Call) -> Result<Value, BadRequest> {
    let size = call.number("size", 1)?.unwrap_or(LARGEST_PAGE);
    let size = size.min(LARGEST_PAGE);
    let start = match call.header("ms-continuationtoken") {
        Some(token) => position(token)?,
        None => 0,
    };
    let replaced = simulation.listed_mut().clone();
    let (total, items) = match &replaced {
        Some(listed) => (
            listed.len(),
            listed.iter().skip(start).take(size).cloned().collect(),
        ),
        None => {
            let customers = simulation.fleet.customers();
            let page = customers.iter().skip(start).take(size);
            (customers.len(), page.map(item).collect::<Vec<Value>>())
        }
    };
    let this = link(call, size, start);
    let end = start.saturating_add(size);
    let links = if end < total {
        json!({ "self": this, "next": link(call, size, end) })
    } else {
        json!({ "self": this })
    };
    Ok(json!({
        "totalCount": total,
        "items": items,
        "links": links,
        "attributes": { "objectType": "Collection" },
    }))
}

fn position(token: &str) -> Result<usize, BadRequest> {
    token
        .strip_prefix(TOKEN_PREFIX)
        .and_then(|start| start.parse().ok())
        .ok_or_else(|| BadRequest(format!("{CONTINUATION} '{token}' is unknown.")))
}

fn link(call: &Call, size: usize, start: usize) -> Value {
    let headers = match start {
        0 => json!([]),
        start => json!([{ "key": CONTINUATION, "value": format!("{TOKEN_PREFIX}{start}") }]),
    };
    json!({
        "uri": format!("{}?size={size}", call.head.uri.path()),
        "method": "GET",
        "headers": headers,
    })
}

fn item(customer: &Customer) -> Value {
    json!({
        "id": customer.id.to_string(),
        "companyProfile": {
            "tenantId": customer.id.to_string(),
            "domain": customer.domain(),
            "companyName": customer.name,
            "attributes": { "objectType": "CustomerCompanyProfile" },
        },
        "relationshipToPartner": "reseller",
        "attributes": { "objectType": "Customer" },
    })
}
