//! Web pages of other origins: which may read answers (Fetch standard, "CORS protocol").
//!
//! `Access-Control-Allow-Credentials` is never sent. A page proves who asks by `Authorization` or
//! `X-Api-Key`, which its script sets; what a browser would add by itself, a client certificate,
//! would let a page act for its visitor.

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

/// What a page may ask for. Chromium remembers it for no longer than two hours.
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

/// What scripts may read of an answer, beside what the Fetch standard lets them.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Age, Cache-Status, ETag, MS-CorrelationId, MS-RequestId, RateLimit, RateLimit-Policy, \
     Retry-After, WWW-Authenticate, X-Request-Id",
);

// === impl Cors ===

impl CorsPolicy {
    /// `None` where no page of another origin is meant to read anything.
    pub(super) fn new(origins: &[CorsOrigin]) -> Option<Self> {
        (!origins.is_empty()).then(|| Self {
            origins: origins.to_vec(),
        })
    }

    /// Answers what a browser asks ahead of a request that no form or link could make; `None` where
    /// the request is no such question. [`CorsPolicy::add_headers`] has the last word on it too.
    ///
    /// It comes without credentials, so it is answered before they are looked at. The answer is of
    /// no path in particular: scripts learn the status of the request itself and no other.
    pub(super) fn preflight(&self, request: &Parts) -> Option<Result<Response<FullBody>, Problem>> {
        let headers = &request.headers;
        let is_preflight = request.method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        is_preflight.then(|| match self.allowed_origin(headers) {
            Some(_) => Ok(preflight_response()),
            None => Err(Problem::new(
                ProblemKind::OriginNotAllowed,
                "pages of this origin may not read answers; server.cors_origins names whose may",
            )),
        })
    }

    /// Lets the page that asks read the answer, whatever it is: a browser would hide an error too.
    pub(super) fn add_headers(&self, request: &HeaderMap, response: &mut HeaderMap) {
        // Also where nothing asked: what is stored may be reused for who does.
        let vary = vary_with_origin(response);
        response.insert(VARY, vary);
        if let Some(origin) = self.allowed_origin(request) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }

    /// The configured origin that a request comes from.
    fn allowed_origin(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        let sent = request.get(ORIGIN)?;
        let mut origins = self.origins.iter().map(CorsOrigin::header_value);
        origins.find(|origin| *origin == sent)
    }
}

/// What an answer was chosen by, and the origin besides.
fn vary_with_origin(response: &HeaderMap) -> HeaderValue {
    const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
    /// Never to be reused for another request (RFC 9110 §12.5.5).
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
