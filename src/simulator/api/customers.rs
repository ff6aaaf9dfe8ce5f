//! The list of customers.

use http::StatusCode;
use serde_json::{Value, json};

use super::call::{BadRequestError, SimulatedCall};
use crate::simulator::{fleet::FleetCustomer, reply::SimulatedReply, simulation::Simulation};

/// The largest page, and the default size of a page.
const MAX_PAGE_SIZE: usize = 500;

const CONTINUATION_HEADER: &str = "MS-ContinuationToken";

/// The prefix of a continuation token; the rest is the start of the next page.
const TOKEN_PREFIX: &str = "page-from-";

/// Returns a page of the partner's customers.
pub(super) fn list(
    simulation: &Simulation,
    call: &SimulatedCall,
) -> Result<SimulatedReply, BadRequestError> {
    let size = call.number("size", 1)?.unwrap_or(MAX_PAGE_SIZE);
    let size = size.min(MAX_PAGE_SIZE);
    let token = call.header("ms-continuationtoken");
    let start = token.map(parse_token).transpose()?.unwrap_or(0);
    let end = start.saturating_add(size);
    let page = |len: usize| start.min(len)..end.min(len);
    let (total, items): (usize, Vec<Value>) = match &*simulation.customer_list_override() {
        Some(listed) => {
            let items = listed.get(page(listed.len())).unwrap_or_default();
            (listed.len(), items.to_vec())
        }
        None => {
            let customers = simulation.fleet.customers();
            let items = customers.get(page(customers.len())).unwrap_or_default();
            (customers.len(), items.iter().map(render_item).collect())
        }
    };
    let this = render_link(call, size, start);
    let links = if end < total {
        json!({ "self": this, "next": render_link(call, size, end) })
    } else {
        json!({ "self": this })
    };
    let body = json!({
        "totalCount": total,
        "items": items,
        "links": links,
        "attributes": { "objectType": "Collection" },
    });
    Ok(SimulatedReply::json(StatusCode::OK, &body))
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
