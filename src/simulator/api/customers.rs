use http::StatusCode;
use serde_json::{Value, json};

use super::{super::Simulation, BadRequestError, SimulatedCall};
use crate::simulator::{fleet::FleetCustomer, reply::SimulatedReply};

/// Largest page, and the size of a page when none is asked for.
const MAX_PAGE_SIZE: usize = 500;

const CONTINUATION_HEADER: &str = "MS-ContinuationToken";

/// What a continuation token begins with; the rest is where the next page starts.
const TOKEN_PREFIX: &str = "page-from-";

/// A page of the partner's customers.
pub(super) fn handle(simulation: &Simulation, call: &SimulatedCall) -> SimulatedReply {
    match render_page(simulation, call) {
        Ok(body) => SimulatedReply::json(StatusCode::OK, &body),
        Err(refusal) => refusal.into(),
    }
}

fn render_page(simulation: &Simulation, call: &SimulatedCall) -> Result<Value, BadRequestError> {
    let size = call.number("size", 1)?.unwrap_or(MAX_PAGE_SIZE);
    let size = size.min(MAX_PAGE_SIZE);
    let start = match call.header("ms-continuationtoken") {
        Some(token) => parse_token(token)?,
        None => 0,
    };
    let replaced = simulation.customer_list_override_mut().clone();
    let (total, items) = match &replaced {
        Some(listed) => (
            listed.len(),
            listed.iter().skip(start).take(size).cloned().collect(),
        ),
        None => {
            let customers = simulation.fleet.customers();
            let page = customers.iter().skip(start).take(size);
            (
                customers.len(),
                page.map(render_item).collect::<Vec<Value>>(),
            )
        }
    };
    let this = render_link(call, size, start);
    let end = start.saturating_add(size);
    let links = if end < total {
        json!({ "self": this, "next": render_link(call, size, end) })
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

fn parse_token(token: &str) -> Result<usize, BadRequestError> {
    token
        .strip_prefix(TOKEN_PREFIX)
        .and_then(|start| start.parse().ok())
        .ok_or_else(|| BadRequestError(format!("{CONTINUATION_HEADER} '{token}' is unknown.")))
}

fn render_link(call: &SimulatedCall, size: usize, start: usize) -> Value {
    let headers = match start {
        0 => json!([]),
        start => json!([{ "key": CONTINUATION_HEADER, "value": format!("{TOKEN_PREFIX}{start}") }]),
    };
    json!({
        "uri": format!("{}?size={size}", call.head.uri.path()),
        "method": "GET",
        "headers": headers,
    })
}

fn render_item(customer: &FleetCustomer) -> Value {
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
