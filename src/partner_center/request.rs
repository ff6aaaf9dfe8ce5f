//! The HTTP request of one attempt.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION},
};
use uuid::Uuid;

use super::{
    call::LogicalCall, deps::UpstreamStartError, error::UpstreamError, paging::PageRequest,
    token::AccessToken, wire::MalformedResponse,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    http_client::{self, HttpClient},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("ms-requestid");
const CORRELATION_ID: HeaderName = HeaderName::from_static("ms-correlationid");
const CONTINUATION_TOKEN: HeaderName = HeaderName::from_static("ms-continuationtoken");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Builds the client for Partner Center and the token endpoint.
///
/// # Errors
///
/// If TLS cannot be set up, for example because there are no CA certificates.
pub(super) fn http_client(
    config: &UpstreamConfig,
    clock: SharedClock,
) -> Result<HttpClient, reqwest::Error> {
    let http = http_client::builder()
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(config.max_concurrency.get())
        .gzip(true);
    HttpClient::build(http, clock)
}

/// Returns the headers of every request.
///
/// # Errors
///
/// [`UpstreamStartError::Header`] if a header cannot hold a configured value.
pub(super) fn common_headers(config: &UpstreamConfig) -> Result<HeaderMap, UpstreamStartError> {
    let configured = |key: &'static str, value: &str| {
        HeaderValue::try_from(value).map_err(|_| UpstreamStartError::Header { key })
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert("x-locale", configured("upstream.locale", &config.locale)?);
    headers.insert("ms-contract-version", HeaderValue::from_static("v1"));
    headers.insert(
        "ms-partnercenter-client",
        HeaderValue::from_static(http_client::USER_AGENT),
    );
    headers.insert(
        "ms-partnercenter-application",
        configured("upstream.application", &config.application)?,
    );
    if config.validate_mfa {
        // Asks for `isMfaCompliant`, which warns before Partner Center refuses with 900421.
        headers.insert("validatemfa", HeaderValue::from_static("true"));
    }
    Ok(headers)
}

/// Builds the request for a page. `common` is from [`common_headers`].
///
/// # Errors
///
/// [`MalformedResponse`] if a header cannot hold the value in Partner Center's own link.
pub(super) fn build(
    common: &HeaderMap,
    call: &LogicalCall,
    page: &PageRequest,
    request_id: Uuid,
    token: &AccessToken,
) -> Result<reqwest::Request, UpstreamError> {
    let mut request = reqwest::Request::new(Method::GET, page.url.clone());
    let headers = request.headers_mut();
    headers.clone_from(common);
    headers.insert(AUTHORIZATION, token.authorization.clone());
    headers.insert(REQUEST_ID, guid(request_id));
    headers.insert(CORRELATION_ID, guid(call.ids.correlation_id));
    if let Some(traceparent) = &call.trace().traceparent {
        headers.insert(TRACEPARENT, traceparent.clone());
    }
    if let Some(continuation) = &page.continuation_token {
        let value = HeaderValue::try_from(continuation)
            .map_err(|_| MalformedResponse::new("links.next.headers: expected a header value"))?;
        headers.insert(CONTINUATION_TOKEN, value);
    }
    Ok(request)
}

#[expect(
    clippy::expect_used,
    reason = "a GUID is hexadecimal digits and hyphens"
)]
pub(super) fn guid(id: Uuid) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("a GUID can stand in a header")
}
