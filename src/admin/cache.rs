//! `/cache`: what is held, and dropping it.

use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{AdminState, access::AdminOperator, problem_response};
use crate::{
    cache::{EntryInfo, Freshness, PurgeMode, PurgeScope},
    domain::{CustomerId, ProcessedDate},
    problem::{Kind, Problem, excerpt},
    request_id,
};

/// `GET /cache`, and `GET /cache?customer=` for one customer.
pub(super) async fn get_cache(
    State(admin): State<AdminState>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    match AdminCacheQuery::parse(query.as_deref(), &["customer"]) {
        Err(problem) => reject(problem, &request),
        Ok(AdminCacheQuery {
            customer_id: None, ..
        }) => Json(CacheOverviewResponse::from_state(&admin)).into_response(),
        Ok(AdminCacheQuery {
            customer_id: Some(customer_id),
            ..
        }) => {
            let now = admin.clock.now();
            let holdings = admin.usage.cache().entries(customer_id.into(), now);
            Json(CustomerEntriesResponse {
                customer_id: customer_id.to_string(),
                holdings: holdings.iter().map(CacheEntryResponse::from).collect(),
            })
            .into_response()
        }
    }
}

/// `POST /cache/purge_cache`, of a customer, of a date, or of everything.
pub(super) async fn purge_cache(
    State(admin): State<AdminState>,
    Extension(operator): Extension<AdminOperator>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    if operator.credential.is_none() && request.headers().contains_key(header::ORIGIN) {
        return reject(web_page_purge_problem(), &request);
    }
    let selection =
        match AdminCacheQuery::parse(query.as_deref(), &["customer", "processedDate", "hard"]) {
            Ok(selection) => selection,
            Err(problem) => return reject(problem, &request),
        };
    let scope = PurgeScope {
        customer_id: selection.customer_id,
        processed_date: selection.processed_date,
    };
    let purged = admin.usage.purge(scope, selection.mode);
    let mode = match selection.mode {
        PurgeMode::Soft => "soft",
        PurgeMode::Hard => "hard",
    };
    tracing::info!(
        mode,
        purged,
        customer_id = scope.customer_id.map(tracing::field::display),
        processed_date = scope.processed_date.map(tracing::field::display),
        peer = operator.peer.map(tracing::field::display),
        credential = operator.credential.as_deref(),
        request_id = request_id::accept_or_generate(request.headers())
            .to_str()
            .ok(),
        "the cache was purged"
    );
    Json(PurgeResponse { purged, mode }).into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheOverviewResponse {
    entries: u64,
    customers: u64,
    bytes: u64,
    capacity_bytes: u64,
    /// Hits and stale hits, of all usage requests so far; null before the first.
    hit_ratio: Option<f64>,
    newest_processed_date: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CustomerEntriesResponse {
    customer_id: String,
    holdings: Vec<CacheEntryResponse>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheEntryResponse {
    processed_date: Option<String>,
    source: &'static str,
    newest: bool,
    rows: usize,
    bytes: usize,
    age_seconds: u64,
    freshness: &'static str,
    /// Until a request for it asks upstream: 0 when the next one will, null when none does.
    refresh_in_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PurgeResponse {
    purged: usize,
    mode: &'static str,
}

/// What a query picks.
#[derive(Debug)]
struct AdminCacheQuery {
    customer_id: Option<CustomerId>,
    processed_date: Option<ProcessedDate>,
    mode: PurgeMode,
}

// === impl Overview ===

impl CacheOverviewResponse {
    fn from_state(admin: &AdminState) -> Self {
        let cache = admin.usage.cache();
        let overview = cache.overview();
        Self {
            entries: overview.entries,
            customers: overview.customers,
            bytes: overview.weight_bytes,
            capacity_bytes: overview.capacity_bytes,
            hit_ratio: cache.metrics().hit_ratio(),
            newest_processed_date: overview.newest_processed_date.map(|date| date.to_string()),
        }
    }
}

// === impl Held ===

impl From<&EntryInfo> for CacheEntryResponse {
    fn from(holding: &EntryInfo) -> Self {
        Self {
            processed_date: holding.processed_date.map(|date| date.to_string()),
            source: holding.api.as_str(),
            newest: holding.is_newest,
            rows: holding.cached.rendered.rows(),
            bytes: holding.weight_bytes,
            age_seconds: holding.cached.age.as_secs(),
            freshness: match holding.cached.freshness {
                Freshness::Fresh => "fresh",
                Freshness::StaleWhileRevalidate => "stale-while-revalidate",
                Freshness::StaleIfError => "stale-if-error",
                Freshness::Expired => "expired",
            },
            refresh_in_seconds: holding.refresh_in.map(|duration| duration.as_secs()),
        }
    }
}

// === impl Selection ===

impl AdminCacheQuery {
    fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut selection = Self {
            customer_id: None,
            processed_date: None,
            mode: PurgeMode::Soft,
        };
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !allowed.contains(&name.as_ref()) {
                let expected = allowed.join(", ");
                return Err(bad_request(format!(
                    "the query has {:?}; expected {expected} or none",
                    excerpt(&name)
                )));
            }
            if seen.iter().any(|seen| *seen == name) {
                return Err(bad_request(format!("the query has {name} more than once")));
            }
            selection.set(&name, &value)?;
            seen.push(name.into_owned());
        }
        Ok(selection)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let wrong =
            |expected: String| bad_request(format!("{name} is {:?}; {expected}", excerpt(value)));
        match name {
            "customer" => {
                let customer_id =
                    CustomerId::parse(value).map_err(|invalid| wrong(invalid.to_string()))?;
                self.customer_id = Some(customer_id);
            }
            "processedDate" => {
                let date =
                    ProcessedDate::parse(value).map_err(|invalid| wrong(invalid.to_string()))?;
                self.processed_date = Some(date);
            }
            _ => {
                self.mode = match value {
                    "true" => PurgeMode::Hard,
                    "false" => PurgeMode::Soft,
                    _ => return Err(wrong("expected true or false".to_owned())),
                };
            }
        }
        Ok(())
    }
}

/// Any page that a browser on this machine shows can have it send a purge, unasked, and needs no
/// answer to do its harm. A key it cannot send so.
fn web_page_purge_problem() -> Problem {
    Problem::new(
        Kind::NotForPages,
        "without a key of the admin listener (admin.key_sha256), no web page may purge",
    )
}

fn bad_request(detail: String) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

fn reject(problem: Problem, request: &Request) -> Response {
    let request_id = request_id::accept_or_generate(request.headers());
    problem_response(problem, request.uri().path(), &request_id)
}
