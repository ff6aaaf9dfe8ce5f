use http::StatusCode;
use jiff::{Timestamp, civil::Date, civil::DateTime, tz::Offset};
use serde::Serialize;
use url::form_urlencoded;
use uuid::Uuid;

use super::{super::Simulation, BadRequest, Call};
use crate::simulator::{
    filter::Filter,
    fleet::{AsOf, Row},
    overrides::Overrides,
    reply::Reply,
};

/// A page of rows; they come under `Value`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    total_count: usize,
    #[serde(rename = "Value")]
    value: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Links>,
}

/// A row: the active count is spelled in the singular, the date has no offset, GUIDs are shouted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
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
struct Links {
    next: Link,
}

#[derive(Serialize)]
struct Link {
    uri: String,
    method: &'static str,
    headers: [(); 0],
}

/// What is asked for.
#[derive(Debug)]
struct Question {
    top: usize,
    skip: usize,
    filter: Option<Filter>,
    as_of: AsOf,
}

/// Usage of any customers and any processed date.
pub(super) fn answer(simulation: &Simulation, call: &Call) -> Reply {
    match Question::parse(simulation, call) {
        Ok(question) => question.answer(simulation, call),
        Err(refusal) => refusal.into(),
    }
}

// === impl Question ===

impl Question {
    fn parse(simulation: &Simulation, call: &Call) -> Result<Self, BadRequest> {
        if call.parameter("groupby").is_some() {
            return Err(BadRequest("groupby is not simulated.".into()));
        }
        let filter = call.parameter("filter");
        let filter = filter.map(|text| Filter::parse(&text)).transpose();
        let date = call.parameter("processedDateTime");
        Ok(Self {
            top: call
                .number("top", 1)?
                .map_or(simulation.page_size, |top| top.min(simulation.page_size)),
            skip: call.number("skip", 0)?.unwrap_or(0),
            filter: filter.map_err(|error| BadRequest(error.to_string()))?,
            as_of: date.map_or(Ok(AsOf::Newest), |text| as_of(&text))?,
        })
    }

    fn answer(&self, simulation: &Simulation, call: &Call) -> Reply {
        let overrides = simulation.overrides();
        let only = self.filter.as_ref().and_then(Filter::customer);
        let told = only.and_then(|id| overrides.get(&id)?.reply());
        if let Some(reply) = told {
            return reply;
        }
        let mut rows = match only {
            Some(id) => rows_of(simulation, &overrides, id, self.as_of),
            None => all_rows(simulation, &overrides, self.as_of),
        };
        if let Some(filter) = &self.filter {
            rows.retain(|row| filter.matches(row));
        }
        let page = Page {
            total_count: rows.len(),
            value: rows
                .iter()
                .skip(self.skip)
                .take(self.top)
                .map(item)
                .collect(),
            links: self.next(rows.len(), call).map(Links::to),
        };
        Reply::json(StatusCode::OK, &page)
    }

    /// Where the next page is, or is said to be.
    fn next(&self, total: usize, call: &Call) -> Option<String> {
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

/// A date, or an instant whose UTC date is meant.
fn as_of(text: &str) -> Result<AsOf, BadRequest> {
    let instant = text.parse::<Timestamp>();
    let date = match instant {
        Ok(instant) => Ok(Offset::UTC.to_datetime(instant).date()),
        Err(_) => text
            .parse::<DateTime>()
            .map(DateTime::date)
            .or_else(|_| text.parse::<Date>()),
    };
    date.map(AsOf::Date).map_err(|_| {
        BadRequest(format!(
            "processedDateTime is '{text}': expected a date or a date and time"
        ))
    })
}

fn all_rows<'a>(simulation: &'a Simulation, overrides: &'a Overrides, as_of: AsOf) -> Vec<Row<'a>> {
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
    overrides: &'a Overrides,
    id: Uuid,
    as_of: AsOf,
) -> Vec<Row<'a>> {
    if let Some(rows) = overrides.get(&id).and_then(|told| told.rows(id, as_of)) {
        return rows;
    }
    match simulation.fleet.customer(id) {
        Some(customer) => customer.rows(as_of, simulation.newest_date()).collect(),
        None => Vec::new(),
    }
}

fn item<'a>(row: &Row<'a>) -> Item<'a> {
    Item {
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

// === impl Links ===

impl Links {
    fn to(uri: String) -> Self {
        Self {
            next: Link {
                uri,
                method: "GET",
                headers: [],
            },
        }
    }
}
