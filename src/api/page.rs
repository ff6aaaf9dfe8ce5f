//! The web page at `/`.
//!
//! It works without JavaScript. It shows the same answers as the API, with the same authorization,
//! metrics, log and cache. Browsers do not store it, since it shows the current age of the numbers.

mod customers;
mod freshness;
mod problem;
mod query;
mod usage;

use std::borrow::Cow;

use http::{HeaderValue, Response, StatusCode, header};

pub(super) use self::problem::problem_page;
use self::{
    customers::{CustomerChoiceOutcome, CustomerDirectory},
    query::PageQuery,
};
use super::{
    browser_headers,
    context::{AuthenticatedRequest, RequestContext},
    data,
    response::HandlerResult,
};
use crate::{
    domain::{CustomerId, ProcessedDate},
    offload,
    problem::{FullBody, Problem, ProblemKind},
};

/// The header and footer of every page.
struct PageFrame {
    /// Absent if the reader may not search.
    form: Option<SearchForm>,
    request_id: String,
}

/// The form that selects a customer and a date.
struct SearchForm {
    /// A name, a part of one, or an id.
    customer: String,
    /// `YYYY-MM-DD`, or empty for the newest.
    date: String,
    /// The last date that can be selected.
    today: Option<ProcessedDate>,
    /// Names of customers that complete the field.
    suggestions: Vec<String>,
}

/// `GET /`.
pub(super) async fn page(request: AuthenticatedRequest) -> HandlerResult {
    let today = ProcessedDate::from_timestamp(request.api.clock.wall_time());
    let query = PageQuery::parse(request.query(), today)?;
    match CustomerId::parse(&query.customer) {
        Ok(customer) => usage::show(&request, &query, customer).await,
        Err(_) => show_customers(&request, &query).await,
    }
}

/// Shows the list of customers, or the usage of the one whose name was entered.
async fn show_customers(request: &AuthenticatedRequest, query: &PageQuery) -> HandlerResult {
    let list = customers::list(request, request.cache_directive()).await;
    let list = list.map_err(|error| data::rejection(request, query.date, &error))?;
    let directory = CustomerDirectory::new(&list, request.caller());
    let (frame, asked) = (PageFrame::new(request, None), query.clone());
    let choosing = offload::run_cpu_bound(directory.search_bytes(), move || {
        directory.choose(frame, &asked)
    });
    match choosing.await {
        CustomerChoiceOutcome::Chosen(customer) => usage::show(request, query, customer).await,
        CustomerChoiceOutcome::NotFound => {
            let detail = format!(
                "no customer that you may see has {:?} in its name or domain",
                crate::text::excerpt(&query.customer)
            );
            Err(Problem::new(ProblemKind::UnknownCustomer, detail).into())
        }
        CustomerChoiceOutcome::List(rendered) => {
            let response = respond(StatusCode::OK, rendered);
            request.api.metrics.record_served_age(list.cached.age);
            Ok(data::with_upstream_ids(response, &list, query.date))
        }
    }
}

/// Returns a page, or a plain error if its template failed.
fn respond(status: StatusCode, rendered: askama::Result<String>) -> Response<FullBody> {
    let (status, html) = match rendered {
        Ok(html) => (status, Cow::Owned(html)),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            let sentence =
                Cow::Borrowed("<!DOCTYPE html><title>The page could not be rendered</title>");
            (StatusCode::INTERNAL_SERVER_ERROR, sentence)
        }
    };
    let mut response = Response::new(FullBody::from(html.into_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    browser_headers::add_page_headers(headers);
    response
}

// === impl PageFrame ===

impl PageFrame {
    fn new(context: &RequestContext, form: Option<SearchForm>) -> Self {
        Self {
            form,
            request_id: context.request_id_text().to_owned(),
        }
    }
}
