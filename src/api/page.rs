//! The page at `/`, for people who would rather look than read.
//!
//! It is rendered here and works without a script. It shows what the API answers to the same
//! caller, by the same way: authorized, counted, logged and cached alike. No browser keeps it,
//! since it says how old the numbers are at this moment.

mod customers;
mod freshness;
mod problem;
mod query;
mod usage;

use std::borrow::Cow;

use http::{HeaderValue, Method, Response, StatusCode, header};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

pub(super) use self::problem::present;
use self::{
    customers::{CustomerChoiceOutcome, CustomerDirectory},
    query::PageQuery,
};
use super::{
    ApiResponse, ApiState, RequestContext,
    assets::{NO_CONTENT_POLICY, StaticFile},
    browser_headers, data, extract,
    schema::{
        ABOUT, FileHeaders, FolderProblems, OfPage, PageHeaders, PageProblems, SHOWN, file_beneath,
    },
};
use crate::{
    domain::{Caller, CustomerId, ProcessedDate},
    offload,
    problem::{FullBody, Kind, Problem},
};

/// What stands around every page.
struct PageFrame {
    /// What chooses; absent where nothing may be chosen.
    form: Option<SearchForm>,
    request_id: String,
}

/// What chooses a customer and a date.
struct SearchForm {
    /// What stands in the field: a name, a part of one, or an id.
    customer: String,
    /// `YYYY-MM-DD`, or empty for the newest.
    date: String,
    /// The last date there can be, where that was looked up.
    today: Option<ProcessedDate>,
    /// Names to choose from.
    suggestions: Vec<String>,
}

/// A file that pages refer to, in the path.
struct AssetParams;

/// `GET /`.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getPage",
    tag = SHOWN,
    summary = "A page to look at usage",
    description = "Choose a customer and a date; adoption as bars, counts beside them, how old the \
                   data is and why.",
    params(OfPage, PageHeaders),
    responses(
        (status = 200, description = "A page.", body = String, content_type = "text/html"),
        PageProblems,
    ),
)]
pub(super) async fn page<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
) -> ApiResponse {
    let request = arrived.request;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return arrived.reject(Problem::method_not_allowed(request.method(), "GET, HEAD"));
    }
    let today = ProcessedDate::from_timestamp(api.clock.wall_time());
    let ask = match PageQuery::parse(request.uri().query(), today) {
        Ok(ask) => ask,
        Err(problem) => return arrived.reject(problem),
    };
    match CustomerId::parse(&ask.customer) {
        Ok(customer) => usage::show(api, arrived, caller, &ask, customer).await,
        Err(_) => show_customers(api, arrived, caller, &ask).await,
    }
}

/// Lets its reader choose a customer, unless what was typed is the name of one.
async fn show_customers<B>(
    api: &ApiState,
    arrived: &RequestContext<'_, B>,
    caller: &Caller,
    ask: &PageQuery,
) -> ApiResponse {
    let list = match customers::list(api, arrived, caller, arrived.cache_directive()).await {
        Ok(list) => list,
        Err(unanswered) => {
            return data::error_response(api, arrived, ask.date, &unanswered);
        }
    };
    let directory = CustomerDirectory::new(&list, caller);
    let (frame, asked) = (arrived.page_frame(None), ask.clone());
    let choosing = offload::run_cpu_bound(directory.search_bytes(), move || {
        directory.choose(frame, &asked)
    });
    match choosing.await {
        CustomerChoiceOutcome::Chosen(customer) => {
            usage::show(api, arrived, caller, ask, customer).await
        }
        CustomerChoiceOutcome::NotFound => {
            let detail = format!(
                "none of the customers that you may see has {:?} in its name or domain",
                crate::problem::excerpt(&ask.customer)
            );
            arrived.reject(Problem::new(Kind::UnknownCustomer, detail))
        }
        CustomerChoiceOutcome::List(rendered) => {
            api.metrics.record_served_age(list.cached.age);
            data::with_upstream_ids(respond(StatusCode::OK, rendered), &list, ask.date)
        }
    }
}

/// A page, or the bare truth where its template failed.
fn respond(status: StatusCode, rendered: askama::Result<String>) -> Response<FullBody> {
    let (status, html) = match rendered {
        Ok(html) => (status, Cow::Owned(html)),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            let sentence =
                Cow::Borrowed("<!DOCTYPE html><title>The page could not be made</title>");
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

/// `GET /assets/{file}`: what pages refer to; everybody may have it.
#[utoipa::path(
    get,
    path = "/assets/{file}",
    operation_id = "getPageFile",
    tag = ABOUT,
    summary = "What that page is made of",
    params(AssetParams, FileHeaders),
    responses(
        (status = 200, description = "A script, a stylesheet or a picture.", content(
            (String = "text/javascript"),
            (String = "text/css"),
            (String = "image/svg+xml"),
        )),
        (status = 304, description = "The client has it already."),
        FolderProblems,
    ),
    security(()),
)]
pub(super) fn files() -> [StaticFile; 3] {
    let file = |path, content_type, body: &'static str| StaticFile {
        path,
        content_type,
        content_security_policy: NO_CONTENT_POLICY,
        body: Cow::Borrowed(body.as_bytes()),
    };
    [
        file(
            "/assets/page.css",
            "text/css; charset=utf-8",
            include_str!("page/page.css"),
        ),
        file(
            "/assets/page.js",
            "text/javascript; charset=utf-8",
            include_str!("page/page.js"),
        ),
        file(
            "/assets/icon.svg",
            "image/svg+xml",
            include_str!("page/icon.svg"),
        ),
    ]
}

// === impl OfAsset ===

impl IntoParams for AssetParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let paths = files().map(|file| file.path);
        vec![file_beneath("/assets/", &paths)]
    }
}

// === impl Arrived ===

impl<B> RequestContext<'_, B> {
    fn page_frame(&self, form: Option<SearchForm>) -> PageFrame {
        PageFrame {
            form,
            request_id: self.request_id.to_str().unwrap_or_default().to_owned(),
        }
    }

    /// Where its sender found us, as it says itself; empty where that is no plain host.
    fn request_origin(&self) -> String {
        let authority = self
            .request
            .uri()
            .authority()
            .map(http::uri::Authority::as_str);
        let host = self.request.headers().get(header::HOST);
        let host = authority
            .or_else(|| host?.to_str().ok())
            .unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return String::new();
        }
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{host}")
    }

    /// Whether its sender wants upstream asked, or not.
    fn cache_directive(&self) -> crate::service::CacheDirective {
        extract::cache_directive(self.request.headers())
    }
}
