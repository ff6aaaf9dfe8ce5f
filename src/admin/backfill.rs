//! `/backfill`: starts, shows and stops the fetch of past dates.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;

use super::{
    access::AdminOperator,
    query::{AdminQuery, bad_request},
    state::AdminState,
};
use crate::{
    domain::ProcessedDate,
    problem::{Problem, ProblemKind},
    service::{BackfillProgress, BackfillRequest, FailedDate},
    store::DateRange,
};

/// Handles `POST /backfill?from=&to=&customer=`.
pub(super) async fn start(
    State(admin): State<AdminState>,
    Extension(operator): Extension<AdminOperator>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<BackfillResponse>), Extension<Problem>> {
    operator.reject_web_pages(&headers)?;
    let query = AdminQuery::parse(query.as_deref(), &["from", "to", "customer"])?;
    let today = ProcessedDate::from_timestamp(admin.clock.wall_time());
    let (Some(from), Some(to)) = (query.from, query.to) else {
        return Err(bad_request(
            "from or to is missing; expected two dates, such as from=2026-01-01&to=2026-11-25"
                .into(),
        ));
    };
    let range = DateRange { from, to };
    let request = BackfillRequest::new(range, query.customer_id, today)
        .map_err(|error| bad_request(error.to_string()))?;
    admin.usage.start_backfill(request).map_err(|error| {
        Extension(Problem::new(
            ProblemKind::BackfillRejected,
            error.to_string(),
        ))
    })?;
    tracing::info!(%from, %to, "a backfill was started");
    Ok((StatusCode::ACCEPTED, Json(BackfillResponse::of(&admin))))
}

/// Handles `GET /backfill`.
pub(super) async fn progress(
    State(admin): State<AdminState>,
    RawQuery(query): RawQuery,
) -> Result<Json<BackfillResponse>, Extension<Problem>> {
    AdminQuery::parse(query.as_deref(), &[])?;
    Ok(Json(BackfillResponse::of(&admin)))
}

/// Handles `DELETE /backfill`.
pub(super) async fn stop(
    State(admin): State<AdminState>,
    Extension(operator): Extension<AdminOperator>,
    headers: HeaderMap,
) -> Result<Json<BackfillResponse>, Extension<Problem>> {
    operator.reject_web_pages(&headers)?;
    admin.usage.stop_backfill();
    tracing::info!("the backfill was stopped");
    Ok(Json(BackfillResponse::of(&admin)))
}

/// The backfill that runs or ran last.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackfillResponse {
    /// `none` before the first one.
    state: &'static str,
    #[serde(flatten)]
    progress: Option<ProgressResponse>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressResponse {
    from: String,
    to: String,
    customer_id: Option<String>,
    dates: usize,
    skipped: usize,
    fetched: usize,
    without_data: usize,
    started_at: String,
    /// The date that failed and is tried again.
    retried: Option<FailedDateResponse>,
    /// The dates that failed for good.
    failed: Vec<FailedDateResponse>,
    /// The reason if it ended before the first date.
    error: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedDateResponse {
    processed_date: String,
    attempts: u32,
    error: Arc<str>,
}

// === impl BackfillResponse ===

impl BackfillResponse {
    fn of(admin: &AdminState) -> Self {
        let progress = admin.usage.backfill_progress();
        Self {
            state: progress
                .as_ref()
                .map_or("none", |progress| progress.state.into()),
            progress: progress.map(ProgressResponse::from),
        }
    }
}

// === impl ProgressResponse ===

impl From<BackfillProgress> for ProgressResponse {
    fn from(progress: BackfillProgress) -> Self {
        let BackfillRequest { range, customer } = progress.request;
        Self {
            from: range.from.to_string(),
            to: range.to.to_string(),
            customer_id: customer.map(|customer| customer.to_string()),
            dates: progress.dates,
            skipped: progress.skipped,
            fetched: progress.fetched,
            without_data: progress.without_data,
            started_at: progress.started_at.to_string(),
            retried: progress.retried.map(FailedDateResponse::from),
            failed: progress.failed.into_iter().map(Into::into).collect(),
            error: progress.error,
        }
    }
}

// === impl FailedDateResponse ===

impl From<FailedDate> for FailedDateResponse {
    fn from(failed: FailedDate) -> Self {
        Self {
            processed_date: failed.date.to_string(),
            attempts: failed.attempts,
            error: failed.error,
        }
    }
}
