//! The commercial call: usage of any customers and any processed date.

use http::StatusCode;
use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::call::{BadRequestError, SimulatedCall};
use crate::simulator::{
    fleet::{FleetRow, RequestedDate},
    overrides::CustomerOverrides,
    reply::SimulatedReply,
    simulation::Simulation,
};

/// The query of a call.
#[derive(Debug)]
struct CommercialQuery {
    top: usize,
    skip: usize,
    customer: Option<Uuid>,
    date: RequestedDate,
}

/// Returns a page of rows, under the name `Value`.
pub(super) fn fleet_usage(
    simulation: &Simulation,
    call: &SimulatedCall,
) -> Result<SimulatedReply, BadRequestError> {
    let query = CommercialQuery::parse(simulation, call)?;
    let overrides = simulation.overrides().clone();
    let whole_reply = query.customer.and_then(|id| overrides.get(&id)?.reply());
    if let Some(reply) = whole_reply {
        return Ok(reply);
    }
    let rows = match query.customer {
        Some(id) => rows_of(simulation, &overrides, id, query.date),
        None => all_rows(simulation, &overrides, query.date),
    };
    let page = rows.iter().skip(query.skip).take(query.top);
    let (total, page) = (rows.len(), page.map(render_row).collect::<Value>());
    let next_page = || query.next_uri(rows.len(), call);
    let body = match call.faults.next_link.clone().or_else(next_page) {
        Some(uri) => {
            let next = json!({ "uri": uri, "method": "GET", "headers": [] });
            json!({ "totalCount": total, "Value": page, "links": { "next": next } })
        }
        None => json!({ "totalCount": total, "Value": page }),
    };
    Ok(SimulatedReply::json(StatusCode::OK, &body))
}

// === impl CommercialQuery ===

impl CommercialQuery {
    fn parse(simulation: &Simulation, call: &SimulatedCall) -> Result<Self, BadRequestError> {
        if call.parameter("groupby").is_some() {
            return Err(BadRequestError("groupby is not simulated.".into()));
        }
        let filter = call.parameter("filter");
        let date = call.parameter("processedDateTime");
        let top = call.number("top", 1)?.unwrap_or(usize::MAX);
        Ok(Self {
            top: top.min(simulation.page_size),
            skip: call.number("skip", 0)?.unwrap_or(0),
            customer: filter.map(|text| parse_filter(&text)).transpose()?,
            date: date.map_or(Ok(RequestedDate::Newest), |text| parse_date(&text))?,
        })
    }

    /// Returns the address of the next page.
    fn next_uri(&self, total: usize, call: &SimulatedCall) -> Option<String> {
        let end = self.skip.saturating_add(self.top);
        if end >= total {
            return None;
        }
        let others = call.parameters();
        let others = others.filter(|(name, _)| name != "top" && name != "skip");
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(others)
            .append_pair("top", &self.top.to_string())
            .append_pair("skip", &end.to_string())
            .finish();
        Some(format!("{}?{query}", call.head.uri.path()))
    }
}

/// Parses the one filter that usage-proxy sends: `customerTenantId eq 'ID'`.
fn parse_filter(text: &str) -> Result<Uuid, BadRequestError> {
    text.strip_prefix("customerTenantId eq '")
        .and_then(|rest| rest.strip_suffix('\''))
        .and_then(|id| Uuid::try_parse(id).ok())
        .ok_or_else(|| {
            BadRequestError(format!(
                "filter is \"{text}\": only customerTenantId eq 'ID' is simulated"
            ))
        })
}

/// Parses a date, or an instant, of which the UTC date counts.
fn parse_date(text: &str) -> Result<RequestedDate, BadRequestError> {
    let instant = text.parse::<Timestamp>();
    instant
        .map(|instant| Offset::UTC.to_datetime(instant).date())
        .or_else(|_| text.parse::<DateTime>().map(DateTime::date))
        .or_else(|_| text.parse::<Date>())
        .map(RequestedDate::Date)
        .map_err(|_| {
            BadRequestError(format!(
                "processedDateTime is '{text}': expected a date or a date and time"
            ))
        })
}

fn all_rows<'a>(
    simulation: &'a Simulation,
    overrides: &'a CustomerOverrides,
    date: RequestedDate,
) -> Vec<FleetRow<'a>> {
    let fleet = &simulation.fleet;
    let known = fleet.customers().iter().map(|customer| customer.id);
    let added = overrides.keys().copied();
    let added = added.filter(|id| fleet.customer(*id).is_none());
    known
        .chain(added)
        .flat_map(|id| rows_of(simulation, overrides, id, date))
        .collect()
}

fn rows_of<'a>(
    simulation: &'a Simulation,
    overrides: &'a CustomerOverrides,
    id: Uuid,
    date: RequestedDate,
) -> Vec<FleetRow<'a>> {
    if let Some(rows) = overrides.get(&id).and_then(|data| data.rows(id, date)) {
        return rows;
    }
    let customer = simulation.fleet.customer(id).into_iter();
    customer
        .flat_map(|customer| customer.rows(date, simulation.newest_date()))
        .collect()
}

/// The active count has a singular name, the date no offset, and GUIDs are in upper case.
fn render_row(row: &FleetRow<'_>) -> Value {
    let upper_case = |id: Uuid| format!("{:X}", id.hyphenated());
    json!({
        "processedDateTime": row.processed.to_string(),
        "workloadCode": row.workload_code,
        "workloadName": row.workload_name,
        "serviceCode": row.service_code,
        "serviceName": row.service_name,
        "channel": row.channel,
        "customerTenantId": upper_case(row.customer_id),
        "customerName": row.customer_name,
        "productId": upper_case(row.product_id),
        "productName": row.product_name,
        "licenseActive": row.active,
        "licensesQualified": row.qualified,
    })
}
