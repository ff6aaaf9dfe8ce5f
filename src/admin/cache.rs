//! `/cache`: shows and purges the cache.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{access::AdminOperator, query::AdminQuery, state::AdminState};
use crate::{
    cache::{EntryInfo, Freshness, PurgeMode, PurgeScope},
    problem::Problem,
    request_id,
    service::PurgeOutcome,
};

/// Handles `GET /cache`, and `GET /cache?customer=` for one customer.
pub(super) async fn get_cache(
    State(admin): State<AdminState>,
    RawQuery(query): RawQuery,
) -> Result<Response, Extension<Problem>> {
    let query = AdminQuery::parse(query.as_deref(), &["customer"])?;
    let Some(customer_id) = query.customer_id else {
        return Ok(Json(CacheOverviewResponse::from_state(&admin)).into_response());
    };
    let now = admin.clock.now();
    let entries = admin.usage.cache().entries(customer_id.into(), now);
    let response = CustomerEntriesResponse {
        customer_id: customer_id.to_string(),
        holdings: entries.iter().map(CacheEntryResponse::from).collect(),
    };
    Ok(Json(response).into_response())
}

/// Handles `POST /cache/purge`, for a customer, a date, or everything.
pub(super) async fn purge_cache(
    State(admin): State<AdminState>,
    Extension(operator): Extension<AdminOperator>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<PurgeResponse>, Extension<Problem>> {
    operator.reject_web_pages(&headers)?;
    let query = AdminQuery::parse(query.as_deref(), &["customer", "processedDate", "hard"])?;
    let scope = PurgeScope {
        customer_id: query.customer_id,
        processed_date: query.processed_date,
    };
    let PurgeOutcome {
        purged,
        replicas,
        confirmed,
    } = admin.usage.purge_everywhere(scope, query.mode).await;
    let mode = match query.mode {
        PurgeMode::Soft => "soft",
        PurgeMode::Hard => "hard",
    };
    tracing::info!(
        mode,
        purged,
        replicas,
        confirmed,
        customer.id = scope.customer_id.map(tracing::field::display),
        processed_date = scope.processed_date.map(tracing::field::display),
        peer = operator.peer.map(tracing::field::display),
        credential = operator.credential.as_deref(),
        request_id = request_id::accept_or_generate(&headers).to_str().ok(),
        "the cache was purged"
    );
    Ok(Json(PurgeResponse {
        purged,
        mode,
        replicas,
        confirmed,
    }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheOverviewResponse {
    entries: u64,
    customers: u64,
    bytes: u64,
    capacity_bytes: u64,
    /// Fresh and stale hits per usage request; null before the first request.
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
    /// The time until a request causes an upstream call: 0 if the next one does, null if none does.
    refresh_in_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct PurgeResponse {
    purged: usize,
    mode: &'static str,
    replicas: usize,
    confirmed: usize,
}

// === impl CacheOverviewResponse ===

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

// === impl CacheEntryResponse ===

impl From<&EntryInfo> for CacheEntryResponse {
    fn from(entry: &EntryInfo) -> Self {
        Self {
            processed_date: entry.processed_date.map(|date| date.to_string()),
            source: entry.api.as_str(),
            newest: entry.is_newest,
            rows: entry.cached.rendered.rows(),
            bytes: entry.weight_bytes,
            age_seconds: entry.cached.age.as_secs(),
            freshness: match entry.cached.freshness {
                Freshness::Fresh => "fresh",
                Freshness::StaleWhileRevalidate => "stale-while-revalidate",
                Freshness::StaleIfError => "stale-if-error",
                Freshness::Expired => "expired",
            },
            refresh_in_seconds: entry.refresh_in.map(|duration| duration.as_secs()),
        }
    }
}
