//! The list of customers that a caller may see, whole or page by page.

use super::{
    caching::{self, ResponseAudience},
    context::AuthenticatedRequest,
    data::{rejection, render_problem, with_upstream_ids},
    extract, negotiation,
    problem::not_allowed,
    response::HandlerResult,
};
use crate::{
    render::{
        ContentCoding, Format,
        customers::{CustomerPageRequest, VisibleCustomers},
    },
    service::{ErrorKind, UsageAnswer},
};

/// `GET /v1/customers`.
pub(super) async fn list(request: AuthenticatedRequest) -> HandlerResult {
    let headers = request.headers();
    negotiation::negotiate_format(headers, negotiation::NATIVE_FORMATS)?;
    let page = extract::list_page(request.query(), headers)?;
    let coding = negotiation::negotiate_coding(headers)?;
    let directive = request.cache_directive();
    let trace = || request.call_trace();
    let usage = &request.api.usage;
    let answer = usage
        .customer_list(directive, request.caller(), trace, request.received_at)
        .await;
    match answer {
        Ok(answer) => respond(&request, page, coding, &answer).await,
        Err(error) => match error.kind {
            ErrorKind::NotAllowed => {
                request.api.metrics.access.not_allowed.inc();
                Err(not_allowed("this caller may not read any customer's usage").into())
            }
            ErrorKind::NotCached | ErrorKind::Source { .. } => {
                Err(rejection(&request, None, &error))
            }
        },
    }
}

async fn respond(
    request: &AuthenticatedRequest,
    page: Option<CustomerPageRequest>,
    coding: ContentCoding,
    answer: &UsageAnswer,
) -> HandlerResult {
    let (usage, rendered) = (&request.api.usage, &answer.cached.rendered);
    let visible = usage
        .visible_customers(rendered, request.caller(), page, coding)
        .await
        .map_err(|error| {
            tracing::error!(%error, "a part of the list of customers could not be rendered");
            render_problem()
        })?;
    let part = match visible.ok_or_else(render_problem)? {
        VisibleCustomers::Part(part) => Some(part),
        VisibleCustomers::Whole => {
            if rendered.ready(Format::Native, coding).is_none()
                && let Err(error) = usage.render(rendered, Format::Native, coding).await
            {
                tracing::error!(%error, "the list of customers could not be rendered");
            }
            None
        }
    };
    let ready = match &part {
        Some(part) => part.ready(coding).map(|encoded| (&**part, encoded)),
        None => rendered.ready(Format::Native, coding),
    };
    let ready = ready.ok_or_else(render_problem)?;
    request.api.metrics.record_served_age(answer.cached.age);
    let audience = if request.caller().is_anonymous() {
        ResponseAudience::EveryonePerPage
    } else {
        ResponseAudience::SingleCallerPerPage
    };
    let (headers, cached) = (request.headers(), &answer.cached);
    let response = caching::respond(headers, cached, audience, Format::Native, coding, ready);
    Ok(with_upstream_ids(response, answer, None))
}
