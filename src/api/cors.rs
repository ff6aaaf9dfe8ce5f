//! Lets web pages of other origins read answers (Fetch standard, "CORS protocol").
//!
//! `Access-Control-Allow-Credentials` is never sent: a page identifies its caller by `Authorization` or
//! `X-Api-Key`, which its script sets. A credential that the browser adds by itself, such as a client
//! certificate, would let a page act for its visitor.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
    request::Parts,
};

use crate::{
    config::CorsOrigin,
    problem::{FullBody, Problem, ProblemKind},
};

/// The origins whose pages may read answers; always at least one.
#[derive(Debug)]
pub(super) struct CorsPolicy {
    origins: Vec<CorsOrigin>,
}

/// The requests that a page may send. Chromium caches this for at most two hours.
const PREFLIGHT_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD"),
    ),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Accept, Authorization, Cache-Control, Content-Type, If-Modified-Since, If-None-Match, \
             MS-ContinuationToken, MS-CorrelationId, Traceparent, X-Api-Key, X-Correlation-Id, X-Request-Id",
        ),
    ),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// The headers that scripts may read, beside those that the Fetch standard allows.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Age, Cache-Status, ETag, MS-CorrelationId, MS-RequestId, RateLimit, RateLimit-Policy, \
     Retry-After, WWW-Authenticate, X-Request-Id",
);

// === impl CorsPolicy ===

impl CorsPolicy {
    /// Returns `None` without any origin.
    pub(super) fn new(origins: &[CorsOrigin]) -> Option<Self> {
        (!origins.is_empty()).then(|| Self {
            origins: origins.to_vec(),
        })
    }

    /// Answers a preflight request; `None` for other requests. [`CorsPolicy::add_headers`] adds to the
    /// answer.
    ///
    /// A preflight has no credentials, so it is answered before authentication, and the answer is the
    /// same for every path: scripts only see the status of the actual request.
    pub(super) fn preflight(&self, request: &Parts) -> Option<Result<Response<FullBody>, Problem>> {
        let headers = &request.headers;
        let is_preflight = request.method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        is_preflight.then(|| match self.allowed_origin(headers) {
            Some(_) => Ok(preflight_response()),
            None => Err(Problem::new(
                ProblemKind::OriginNotAllowed,
                "pages of this origin may not read answers; server.cors_origins lists those that may",
            )),
        })
    }

    /// Lets the requesting page read the answer, also if it is an error.
    pub(super) fn add_headers(&self, request: &HeaderMap, response: &mut HeaderMap) {
        // Also without an origin: a stored answer may be reused for a request with one.
        let vary = vary_with_origin(response);
        response.insert(VARY, vary);
        if let Some(origin) = self.allowed_origin(request) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }

    /// Returns the origin of the request, if it is configured.
    fn allowed_origin(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        let sent = request.get(ORIGIN)?;
        let mut origins = self.origins.iter().map(CorsOrigin::header_value);
        origins.find(|origin| *origin == sent)
    }
}

/// Adds the origin to `Vary`.
fn vary_with_origin(response: &HeaderMap) -> HeaderValue {
    const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
    /// Never reused for another request (RFC 9110 §12.5.5).
    const VARY_ANY: HeaderValue = HeaderValue::from_static("*");

    let names = response.get_all(VARY).iter().map(HeaderValue::as_bytes);
    let names: Vec<_> = names.chain([&b"Origin"[..]]).collect();
    if names.len() == 1 {
        return VARY_ORIGIN;
    }
    HeaderValue::from_bytes(&names.join(&b", "[..])).unwrap_or(VARY_ANY)
}

fn preflight_response() -> Response<FullBody> {
    let mut response = Response::new(FullBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().extend(PREFLIGHT_HEADERS);
    response
}
