//! The results of handlers.

use axum::response::IntoResponse;
use http::{HeaderMap, Response, StatusCode};
use uuid::Uuid;

use super::unsent_budget::ApiBody;
use crate::{
    cache::{CacheResult, CacheStatus},
    domain::ProcessedDate,
    problem::{FullBody, Problem},
};

/// An answer and what `Cache-Status`, metrics and the log say of it.
#[derive(Clone, Debug)]
pub(super) struct ApiResponse {
    pub(super) http: Response<ApiBody>,
    pub(super) cache_status: CacheStatus,
    pub(super) log_fields: LogFields,
}

/// A problem in place of an answer.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    pub(super) problem: Problem,
    pub(super) cache_status: CacheStatus,
    pub(super) log_fields: LogFields,
    /// The correlation id of the upstream call that failed.
    pub(super) correlation_id: Option<Uuid>,
}

/// The result of a handler.
pub(super) type HandlerResult = Result<ApiResponse, Rejection>;

/// The fields of the log and the metrics beside the status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogFields {
    /// `None` if the cache was not used.
    pub(super) cache_result: Option<CacheResult>,
    /// The date that was requested.
    pub(super) processed_date: Option<ProcessedDate>,
    /// The kind of problem that was returned.
    pub(super) problem: Option<&'static str>,
    /// The id of the upstream call that this request made.
    pub(super) upstream_request_id: Option<Uuid>,
}

/// Carries the result of a handler through axum, whose responses have no place for it.
#[derive(Clone, Debug)]
struct CarriedResult(HandlerResult);

/// The status of requests whose client disconnected, in metrics and the log only.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

// === impl ApiResponse ===

impl ApiResponse {
    /// An answer for which the cache was not consulted.
    pub(super) fn uncached(http: Response<FullBody>) -> Self {
        Self {
            http: http.map(ApiBody::from),
            cache_status: CacheStatus::NOT_CONSULTED,
            log_fields: LogFields::default(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.http.status()
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.http.headers_mut()
    }
}

// === impl Rejection ===

impl Rejection {
    /// A problem that was found after the cache was consulted.
    pub(super) fn new(problem: Problem, cache_status: CacheStatus, log_fields: LogFields) -> Self {
        let log_fields = LogFields {
            problem: Some(problem.name()),
            ..log_fields
        };
        Self {
            problem,
            cache_status,
            log_fields,
            correlation_id: None,
        }
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self::new(problem, CacheStatus::NOT_CONSULTED, LogFields::default())
    }
}

// === impl IntoResponse ===

impl IntoResponse for ApiResponse {
    fn into_response(self) -> axum::response::Response {
        carry(Ok(self))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> axum::response::Response {
        carry(Err(self))
    }
}

fn carry(result: HandlerResult) -> axum::response::Response {
    let mut response = axum::response::Response::default();
    response.extensions_mut().insert(CarriedResult(result));
    response
}

/// Takes the result of a handler out of the response that carries it.
pub(super) fn uncarry(mut response: axum::response::Response) -> HandlerResult {
    let carried = response.extensions_mut().remove::<CarriedResult>();
    match carried {
        Some(CarriedResult(result)) => result,
        None => Err(Problem::internal().into()),
    }
}
