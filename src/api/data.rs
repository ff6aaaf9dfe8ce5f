//! What the resources share that answer from [`usage`](crate::service): how an answer is handed out, and
//! how one is refused.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{
    Arrived, Inner, Served, Told,
    caching::{self, Audience},
    problem,
    schema::Anonymous,
};
use crate::{
    cache::CacheResult,
    domain::ProcessedDate,
    problem::{Body, Kind, Problem},
    render::{Coding, Form},
    service::{Answer, Cause, Unanswered, source::CallIds},
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
pub(super) async fn finish<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    answered: Result<Answer, Unanswered>,
    (form, coding): (Form, Coding),
    date: Option<ProcessedDate>,
) -> Served {
    let answer = match answered {
        Ok(answer) => answer,
        Err(unanswered) => return refuse_unanswered(api, arrived, date, &unanswered),
    };
    let prepared = &answer.held.prepared;
    if prepared.ready(form, coding).is_none()
        && let Err(error) = Box::pin(api.usage.render(prepared, form, coding)).await
    {
        let customer = prepared.subject().customer();
        let customer = customer.map(tracing::field::display);
        tracing::error!(customer.id = customer, %error, "a stored answer could not be rendered");
    }
    let Some(ready) = prepared.ready(form, coding) else {
        return arrived.refuse(not_rendered());
    };
    api.metrics.served(answer.held.age);
    let audience = match api.authentication.anonymous() {
        Anonymous::Allowed => Audience::Everybody,
        Anonymous::Refused => Audience::AllowedCallers,
    };
    let headers = arrived.request.headers();
    let mut response = caching::respond(headers, &answer.held, audience, form, coding, ready);
    if response.status() == StatusCode::OK
        && let Some(disposition) = prepared.disposition(form)
    {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, disposition.clone());
    }
    serve(response, &answer, date)
}

/// An answer, with what goes with it besides.
pub(super) fn serve(
    mut response: Response<Body>,
    answer: &Answer,
    date: Option<ProcessedDate>,
) -> Served {
    if let Some(ids) = answer.ids {
        name_upstream_call(response.headers_mut(), ids);
    }
    Served {
        response,
        status: answer.status,
        told: told(date, Some(answer.result), answer.ids),
    }
}

fn told(
    processed_date: Option<ProcessedDate>,
    result: Option<CacheResult>,
    ids: Option<CallIds>,
) -> Told {
    Told {
        result,
        processed_date,
        problem: None,
        upstream_request_id: ids.map(|ids| ids.request_id),
    }
}

/// The problem that stands in the way of an answer, told and counted.
pub(super) fn refuse_unanswered<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    date: Option<ProcessedDate>,
    unanswered: &Unanswered,
) -> Served {
    if let Cause::NotAllowed = unanswered.cause {
        api.metrics.access.not_allowed.inc();
    }
    let correlation_id = unanswered.ids.map(|ids| ids.correlation_id);
    let call = match unanswered.ids {
        Some(_) => problem::Call::Own,
        None => problem::Call::Shared,
    };
    let mut served = arrived.answer_problem(
        problem::of(&unanswered.cause, call),
        unanswered.status,
        told(date, unanswered.result, unanswered.ids),
        correlation_id,
    );
    if let Some(ids) = unanswered.ids {
        name_upstream_call(served.response.headers_mut(), ids);
    }
    served
}

/// The upstream call's ids, for whoever asks Microsoft's support about it.
fn name_upstream_call(headers: &mut http::HeaderMap, ids: CallIds) {
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
pub(super) fn not_rendered() -> Problem {
    Problem::new(
        Kind::NotRendered,
        "the answer is held, but this form of it could not be made; the log says why",
    )
}
