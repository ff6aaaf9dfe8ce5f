//! The commercial call: usage of any customers and any processed date.

use http::StatusCode;
use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::call::{BadRequestError, SimulatedCall};
use crate::simulator::{
    faults::BodyFault,
    fleet::{FleetPageRow, RequestedDate},
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

/// A page of rows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommercialPage<'a> {
    total_count: usize,
    #[serde(rename = "Value")]
    rows: Vec<CommercialRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Value>,
}

/// A row: the active count has a singular name, the date no offset, and GUIDs are in upper case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommercialRow<'a> {
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

/// Returns a page of rows, under the name `Value`.
pub(super) fn usage(
    simulation: &Simulation,
    call: &SimulatedCall,
) -> Result<SimulatedReply, BadRequestError> {
    let query = CommercialQuery::parse(simulation, call)?;
    let overrides = simulation.overrides().clone();
    let whole_reply = |id| overrides.customers.get(&id)?.reply();
    if let Some(reply) = query.customer.and_then(whole_reply) {
        return Ok(reply);
    }
    let dataset = simulation.dataset(&overrides);
    let skip = query.faulty_skip(call.faults.body);
    let (total, mut page) = match query.customer {
        Some(id) => {
            let rows = dataset.rows(id, query.date);
            let total = rows.len();
            let page = rows.into_iter().skip(skip).take(query.top);
            (total, page.collect())
        }
        None => dataset.page(query.date, skip, query.top),
    };
    let mut next = query.next_uri(total, call);
    let mut total_count = total;
    match call.faults.body {
        Some(BodyFault::CutShort) => {
            page.truncate(page.len() / 2);
            next = None;
        }
        Some(BodyFault::ShrunkTotal) => total_count = total.saturating_sub(1),
        _ => {}
    }
    let next = call.faults.next_link.clone().or(next);
    let body = CommercialPage {
        total_count,
        rows: page.iter().map(CommercialRow::new).collect(),
        links: next.map(|uri| json!({ "next": { "uri": uri, "method": "GET", "headers": [] } })),
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

    /// Returns the number of rows before the page, which some faults change.
    fn faulty_skip(&self, fault: Option<BodyFault>) -> usize {
        match fault {
            Some(BodyFault::RepeatedPage) => self.skip.saturating_sub(self.top),
            Some(BodyFault::ShiftedRows) => self.skip.saturating_sub(1),
            _ => self.skip,
        }
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

// === impl CommercialRow ===

impl<'a> CommercialRow<'a> {
    fn new(row: &FleetPageRow<'a>) -> Self {
        let upper_case = |id: Uuid| format!("{:X}", id.hyphenated());
        Self {
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
}
