//! The parts that all pages share.

use std::borrow::Cow;

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    api::{browser_headers, context::RequestContext},
    domain::ProcessedDate,
    problem::FullBody,
};

/// The header and footer of every page.
pub(super) struct PageFrame {
    /// Absent if the reader may not search.
    pub(super) form: Option<SearchForm>,
    pub(super) request_id: String,
}

/// The form that selects a customer and a date.
pub(super) struct SearchForm {
    /// A name, a part of one, or an id.
    pub(super) customer: String,
    /// `YYYY-MM-DD`, or empty for the newest.
    pub(super) date: String,
    /// The last date that can be selected.
    pub(super) today: Option<ProcessedDate>,
    /// Names of customers that complete the field.
    pub(super) suggestions: Vec<String>,
    /// Other parameters that a search keeps.
    pub(super) kept: Vec<(&'static str, String)>,
}

/// Returns a page, or a plain error if its template failed.
pub(super) fn respond(status: StatusCode, rendered: askama::Result<String>) -> Response<FullBody> {
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
    pub(super) fn new(context: &RequestContext, form: Option<SearchForm>) -> Self {
        Self {
            form,
            request_id: context.request_id_text().to_owned(),
        }
    }
}
