//! What the resources share that answer from [`usage`](crate::service): how an answer is handed out, and
//! how one is refused.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{
    ApiResponse, ApiState, LogFields, RequestContext,
    caching::{self, ResponseAudience},
    problem,
    schema::Anonymous,
};
use crate::{
    cache::CacheResult,
    domain::ProcessedDate,
    problem::{FullBody, Kind, Problem},
    render::{ContentCoding, Format},
    service::{ErrorKind, UsageAnswer, UsageError, source::CallIds},
};

const MS_REQUEST_ID: HeaderName = HeaderName::from_static("ms-requestid");
const MS_CORRELATION_ID: HeaderName = HeaderName::from_static("ms-correlationid");

/// That nothing but reading is asked for.
pub(super) fn check_method(method: &Method) -> Result<(), Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method_not_allowed(method, "GET, HEAD")),
    }
}

/// Hands out an answer in this form and coding, or says why there is none.
pub(super) async fn respond<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    answered: Result<UsageAnswer, UsageError>,
    (form, coding): (Format, ContentCoding),
    date: Option<ProcessedDate>,
) -> ApiResponse {
    let answer = match answered {
        Ok(answer) => answer,
        Err(unanswered) => return error_response(api, arrived, date, &unanswered),
    };
    let prepared = &answer.cached.rendered;
    if prepared.ready(form, coding).is_none()
        && let Err(error) = Box::pin(api.usage.render(prepared, form, coding)).await
    {
        let customer = prepared.subject().customer();
        let customer = customer.map(tracing::field::display);
        tracing::error!(customer.id = customer, %error, "a stored answer could not be rendered");
    }
    let Some(ready) = prepared.ready(form, coding) else {
        return arrived.reject(render_problem());
    };
    api.metrics.record_served_age(answer.cached.age);
    let audience = match api.authentication.anonymous() {
        Anonymous::Allowed => ResponseAudience::Everyone,
        Anonymous::Refused => ResponseAudience::AuthorizedCallers,
    };
    let headers = arrived.request.headers();
    let mut response = caching::respond(headers, &answer.cached, audience, form, coding, ready);
    if response.status() == StatusCode::OK
        && let Some(disposition) = prepared.disposition(form)
    {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, disposition.clone());
    }
    with_upstream_ids(response, &answer, date)
}

/// An answer, with what goes with it besides.
pub(super) fn with_upstream_ids(
    mut response: Response<FullBody>,
    answer: &UsageAnswer,
    date: Option<ProcessedDate>,
) -> ApiResponse {
    if let Some(ids) = answer.call_ids {
        insert_upstream_ids(response.headers_mut(), ids);
    }
    ApiResponse {
        response,
        cache_status: answer.status,
        log_fields: log_fields(date, Some(answer.result), answer.call_ids),
    }
}

fn log_fields(
    processed_date: Option<ProcessedDate>,
    result: Option<CacheResult>,
    ids: Option<CallIds>,
) -> LogFields {
    LogFields {
        cache_result: result,
        processed_date,
        problem: None,
        upstream_request_id: ids.map(|ids| ids.request_id),
    }
}

/// The problem that stands in the way of an answer, told and counted.
pub(super) fn error_response<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    date: Option<ProcessedDate>,
    unanswered: &UsageError,
) -> ApiResponse {
    if let ErrorKind::NotAllowed = unanswered.kind {
        api.metrics.access.not_allowed.inc();
    }
    let correlation_id = unanswered.call_ids.map(|ids| ids.correlation_id);
    let call = match unanswered.call_ids {
        Some(_) => problem::CallOwnership::Own,
        None => problem::CallOwnership::Shared,
    };
    let mut served = arrived.problem_response(
        problem::from_cause(&unanswered.kind, call),
        unanswered.status,
        log_fields(date, unanswered.result, unanswered.call_ids),
        correlation_id,
    );
    if let Some(ids) = unanswered.call_ids {
        insert_upstream_ids(served.response.headers_mut(), ids);
    }
    served
}

/// The upstream call's ids, for whoever asks Microsoft's support about it.
fn insert_upstream_ids(headers: &mut http::HeaderMap, ids: CallIds) {
    for (name, id) in [
        (MS_REQUEST_ID, ids.request_id),
        (MS_CORRELATION_ID, ids.correlation_id),
    ] {
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            headers.insert(name, value);
        }
    }
}

/// What is held could not be rendered.
pub(super) fn render_problem() -> Problem {
    Problem::new(
        Kind::NotRendered,
        "the answer is held, but this form of it could not be made; the log says why",
    )
}
