use http::StatusCode;
use jiff::{Timestamp, civil::Date, civil::DateTime, tz::Offset};
use serde::Serialize;
use url::form_urlencoded;
use uuid::Uuid;

use super::{super::Simulation, BadRequestError, SimulatedCall};
use crate::simulator::{
    fleet::{FleetRow, RequestedDate},
    overrides::CustomerOverrides,
    reply::SimulatedReply,
};

/// A page of rows; they come under `Value`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommercialReply<'a> {
    total_count: usize,
    #[serde(rename = "Value")]
    value: Vec<CommercialItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<CommercialLinks>,
}

/// A row. The active count has a singular name, the date no offset, and GUIDs are in upper case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommercialItem<'a> {
    processed_date_time: String,
    workload_code: &'a str,
    workload_name: &'a str,
    service_code: &'a str,
    service_name: &'a str,
    channel: &'a str,
    customer_tenant_id: String,
    customer_name: &'a str,
    product_id: String,
    product_name: &'a str,
    license_active: u64,
    licenses_qualified: u64,
}

#[derive(Serialize)]
struct CommercialLinks {
    next: CommercialLink,
}

#[derive(Serialize)]
struct CommercialLink {
    uri: String,
    method: &'static str,
    headers: [(); 0],
}

/// The query of a call.
#[derive(Debug)]
struct CommercialQuery {
    top: usize,
    skip: usize,
    customer: Option<Uuid>,
    as_of: RequestedDate,
}

/// Usage of any customers and any processed date.
pub(super) fn handle(simulation: &Simulation, call: &SimulatedCall) -> SimulatedReply {
    match CommercialQuery::parse(simulation, call) {
        Ok(query) => query.reply(simulation, call),
        Err(rejection) => rejection.into(),
    }
}

// === impl CommercialQuery ===

impl CommercialQuery {
    fn parse(simulation: &Simulation, call: &SimulatedCall) -> Result<Self, BadRequestError> {
        if call.parameter("groupby").is_some() {
            return Err(BadRequestError("groupby is not simulated.".into()));
        }
        let filter = call.parameter("filter");
        let customer = filter.map(|text| parse_filter(&text)).transpose();
        let date = call.parameter("processedDateTime");
        Ok(Self {
            top: call
                .number("top", 1)?
                .map_or(simulation.page_size, |top| top.min(simulation.page_size)),
            skip: call.number("skip", 0)?.unwrap_or(0),
            customer: customer?,
            as_of: date.map_or(Ok(RequestedDate::Newest), |text| parse_as_of(&text))?,
        })
    }

    fn reply(&self, simulation: &Simulation, call: &SimulatedCall) -> SimulatedReply {
        let overrides = simulation.overrides();
        let whole_reply = self.customer.and_then(|id| overrides.get(&id)?.reply());
        if let Some(reply) = whole_reply {
            return reply;
        }
        let rows = match self.customer {
            Some(id) => rows_of(simulation, &overrides, id, self.as_of),
            None => all_rows(simulation, &overrides, self.as_of),
        };
        let page = CommercialReply {
            total_count: rows.len(),
            value: rows
                .iter()
                .skip(self.skip)
                .take(self.top)
                .map(render_item)
                .collect(),
            links: self
                .next_uri(rows.len(), call)
                .map(CommercialLinks::next_to),
        };
        SimulatedReply::json(StatusCode::OK, &page)
    }

    /// The address of the next page, which a fault can replace.
    fn next_uri(&self, total: usize, call: &SimulatedCall) -> Option<String> {
        if let Some(link) = &call.faults.next_link {
            return Some(link.clone());
        }
        let end = self.skip.saturating_add(self.top);
        if end >= total {
            return None;
        }
        let kept = call
            .parameters()
            .filter(|(name, _)| name != "top" && name != "skip");
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("top", &self.top.to_string())
            .append_pair("skip", &end.to_string())
            .finish();
        Some(format!("{}?{query}", call.head.uri.path()))
    }
}

/// Reads the one filter that usage-proxy sends: `customerTenantId eq 'ID'`.
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

/// Reads a date, or an instant, of which the UTC date counts.
fn parse_as_of(text: &str) -> Result<RequestedDate, BadRequestError> {
    let instant = text.parse::<Timestamp>();
    let date = match instant {
        Ok(instant) => Ok(Offset::UTC.to_datetime(instant).date()),
        Err(_) => text
            .parse::<DateTime>()
            .map(DateTime::date)
            .or_else(|_| text.parse::<Date>()),
    };
    date.map(RequestedDate::Date).map_err(|_| {
        BadRequestError(format!(
            "processedDateTime is '{text}': expected a date or a date and time"
        ))
    })
}

fn all_rows<'a>(
    simulation: &'a Simulation,
    overrides: &'a CustomerOverrides,
    as_of: RequestedDate,
) -> Vec<FleetRow<'a>> {
    let known = simulation
        .fleet
        .customers()
        .iter()
        .map(|customer| customer.id);
    let added = overrides
        .keys()
        .copied()
        .filter(|id| simulation.fleet.customer(*id).is_none());
    known
        .chain(added)
        .flat_map(|id| rows_of(simulation, overrides, id, as_of))
        .collect()
}

fn rows_of<'a>(
    simulation: &'a Simulation,
    overrides: &'a CustomerOverrides,
    id: Uuid,
    as_of: RequestedDate,
) -> Vec<FleetRow<'a>> {
    if let Some(rows) = overrides.get(&id).and_then(|data| data.rows(id, as_of)) {
        return rows;
    }
    match simulation.fleet.customer(id) {
        Some(customer) => customer.rows(as_of, simulation.newest_date()).collect(),
        None => Vec::new(),
    }
}

fn render_item<'a>(row: &FleetRow<'a>) -> CommercialItem<'a> {
    CommercialItem {
        processed_date_time: row.processed.to_string(),
        workload_code: row.workload_code,
        workload_name: row.workload_name,
        service_code: row.service_code,
        service_name: row.service_name,
        channel: row.channel,
        customer_tenant_id: upper_case(row.customer_id),
        customer_name: row.customer_name,
        product_id: upper_case(row.product_id),
        product_name: row.product_name,
        license_active: row.active,
        licenses_qualified: row.qualified,
    }
}

fn upper_case(id: Uuid) -> String {
    format!("{:X}", id.hyphenated())
}

// === impl CommercialLinks ===

impl CommercialLinks {
    fn next_to(uri: String) -> Self {
        Self {
            next: CommercialLink {
                uri,
                method: "GET",
                headers: [],
            },
        }
    }
}
