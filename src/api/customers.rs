//! The list of customers: cut to what its caller may see, and page by page for who wants it so.

use super::{
    Arrived, Inner, Served,
    caching::{self, Audience},
    data::{check_method, not_rendered, refuse_unanswered, serve},
    extract, negotiation,
    problem::not_allowed,
    schema::{DataHeaders, ListProblems, NativeCustomers, Paging, USAGE},
};
use crate::{
    domain::Caller,
    problem::Problem,
    render::{
        Coding, Form,
        customers::{Page, Shown},
    },
    service::{Answer, Cause, Directive},
};

/// What is asked for.
struct Request {
    page: Option<Page>,
    coding: Coding,
    directive: Directive,
}

/// `GET /v1/customers`.
#[utoipa::path(
    get,
    path = "/v1/customers",
    operation_id = "getCustomers",
    tag = USAGE,
    summary = "Customers",
    description = "The customers that the caller may see, by name, in Partner Center's form: all of \
                   them, or page by page, gone through as Partner Center's own list is, by \
                   `links.next`.",
    params(Paging, DataHeaders),
    responses(
        (status = 200, description = "Customers.", body = NativeCustomers, content_type = "application/json",
            links(("usage" = (
                operation_id = "getCustomerUsage",
                description = "What the first of them uses.",
                parameters(("customer_id" = "$response.body#/items/0/id")),
            )))),
        (status = 304, description = "The client has this very content already."),
        ListProblems,
    ),
)]
pub(super) async fn list<B>(api: &Inner, arrived: &Arrived<'_, B>, caller: &Caller) -> Served {
    let request = match read(arrived) {
        Ok(request) => request,
        Err(problem) => return arrived.refuse(problem),
    };
    let trace = || arrived.call_trace();
    let answer = api
        .usage
        .list(request.directive, caller, trace, arrived.at)
        .await;
    match answer {
        Ok(answer) => show(api, arrived, caller, request, &answer).await,
        Err(unanswered) => match unanswered.cause {
            Cause::NotAllowed => {
                api.metrics.access.not_allowed.inc();
                arrived.refuse(not_allowed("this caller may not read any customer's usage"))
            }
            Cause::NotHeld | Cause::Source { .. } => {
                refuse_unanswered(api, arrived, None, &unanswered)
            }
        },
    }
}

fn read<B>(arrived: &Arrived<'_, B>) -> Result<Request, Problem> {
    let request = arrived.request;
    let headers = request.headers();
    check_method(request.method())?;
    negotiation::form(headers, negotiation::NATIVE_FORMS)?;
    Ok(Request {
        page: extract::page(request.uri().query(), headers)?,
        coding: negotiation::coding(headers)?,
        directive: extract::directive(headers),
    })
}

async fn show<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    Request { page, coding, .. }: Request,
    answer: &Answer,
) -> Served {
    let prepared = &answer.held.prepared;
    let part = match api
        .usage
        .show_customers(prepared, caller, page, coding)
        .await
    {
        Ok(Some(Shown::Part(part))) => Some(part),
        Ok(Some(Shown::Whole)) => {
            if prepared.ready(Form::Native, coding).is_none()
                && let Err(error) = api.usage.render(prepared, Form::Native, coding).await
            {
                tracing::error!(%error, "the list of customers could not be rendered");
            }
            None
        }
        Ok(None) => return arrived.refuse(not_rendered()),
        Err(error) => {
            tracing::error!(%error, "a part of the list of customers could not be rendered");
            return arrived.refuse(not_rendered());
        }
    };
    let ready = match &part {
        Some(part) => part.ready(coding).map(|encoded| (&**part, encoded)),
        None => prepared.ready(Form::Native, coding),
    };
    let Some(ready) = ready else {
        return arrived.refuse(not_rendered());
    };
    api.metrics.served(answer.held.age);
    let audience = if caller.is_anonymous() {
        Audience::EverybodyOfPage
    } else {
        Audience::ItsCaller
    };
    let headers = arrived.request.headers();
    let response = caching::respond(headers, &answer.held, audience, Form::Native, coding, ready);
    serve(response, answer, None)
}
