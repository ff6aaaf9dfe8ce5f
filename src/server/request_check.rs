//! The requests that hyper accepts and we do not.
//!
//! hyper itself rejects what is no HTTP: its answer is bare, without our headers and problem document.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};

use crate::{
    problem::{FullBody, Problem, ProblemKind},
    request_id::{self, X_REQUEST_ID},
};

/// `Cache-Status` of a response for which the cache was not consulted (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const NOT_CONSULTED: HeaderValue = HeaderValue::from_static("usage-proxy; detail=not-consulted");

/// Longest path and query, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Most header fields.
const MAX_FIELDS: usize = 64;

/// Most bytes of their names and values.
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// The requests that a listener passes to its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestValidation {
    /// Those that every HTTP implementation reads alike, without a body where it has no meaning.
    Strict,
    /// All that hyper accepts.
    Lenient,
}

/// The reason for which a request is rejected and its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidRequest {
    UriTooLong,
    TooManyFields,
    FieldsTooLarge,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    MissingHost,
    /// `Host` twice (RFC 9112 §3.2).
    RepeatedHost,
    /// A `Host` that is none (RFC 9112 §3.2).
    InvalidHost,
    /// A target in absolute form with another host than `Host`.
    ForeignTarget,
    /// A body where it has no meaning (RFC 9110 §9.3.1).
    Body,
    /// As many connections are open as allowed.
    TooManyConnections,
}

/// Checks a request that hyper has accepted.
pub(super) fn check<B: http_body::Body>(request: &Request<B>) -> Result<(), InvalidRequest> {
    check_host(request)?;
    check_size(request)?;
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if safe && !request.body().is_end_stream() {
        return Err(InvalidRequest::Body);
    }
    Ok(())
}

/// Returns true where a request has a body, or says how long one is. Nothing that follows it on its
/// connection is read: other readers may see its end elsewhere (RFC 9112 §11.2).
pub(super) fn frames_body<B: http_body::Body>(request: &Request<B>) -> bool {
    !request.body().is_end_stream()
        || request.headers().contains_key(header::CONTENT_LENGTH)
        || request.headers().contains_key(header::TRANSFER_ENCODING)
}

/// Any host is accepted here, since we do not know our names; but there must be exactly one.
fn check_host<B>(request: &Request<B>) -> Result<(), InvalidRequest> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(InvalidRequest::RepeatedHost);
    }
    let Some(host) = host else {
        // In HTTP/2 the target has it.
        return match request.version() {
            Version::HTTP_11 => Err(InvalidRequest::MissingHost),
            _ => Ok(()),
        };
    };
    if !host.iter().copied().all(is_host_byte) {
        return Err(InvalidRequest::InvalidHost);
    }
    match request.uri().authority() {
        Some(target) if !target.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(InvalidRequest::ForeignTarget)
        }
        _ => Ok(()),
    }
}

fn check_size<B>(request: &Request<B>) -> Result<(), InvalidRequest> {
    let target = request.uri().path_and_query();
    if target.map_or(0, |target| target.as_str().len()) > MAX_TARGET {
        return Err(InvalidRequest::UriTooLong);
    }
    let fields = request.headers();
    if fields.len() > MAX_FIELDS {
        return Err(InvalidRequest::TooManyFields);
    }
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > MAX_FIELD_BYTES {
        return Err(InvalidRequest::FieldsTooLarge);
    }
    Ok(())
}

/// The bytes of a host and its port (RFC 3986 §3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)
}

// === impl InvalidRequest ===

impl InvalidRequest {
    /// The problem document, after which the connection is closed.
    pub(super) fn response(self, path: &str, headers: &HeaderMap) -> Response<FullBody> {
        let request_id = request_id::accept_or_generate(headers);
        let (kind, detail) = self.kind_and_detail();
        let correlation_id = request_id.to_str().ok().map(str::to_owned);
        let mut problem = Problem::new(kind, detail).for_request(path, &request_id, correlation_id);
        if self == Self::TooManyConnections {
            problem = problem.with_retry_after(1);
        }
        let mut response = problem.into_response();
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, request_id);
        headers.insert(CACHE_STATUS, NOT_CONSULTED);
        response
    }

    fn kind_and_detail(self) -> (ProblemKind, String) {
        let (kind, detail) = match self {
            Self::UriTooLong => {
                let detail = format!("path and query may have {MAX_TARGET} bytes");
                return (ProblemKind::UriTooLong, detail);
            }
            Self::TooManyFields => {
                let detail = format!("a request may have {MAX_FIELDS} header fields");
                return (ProblemKind::TooManyHeaders, detail);
            }
            Self::FieldsTooLarge => {
                let detail = format!("header names and values may have {MAX_FIELD_BYTES} bytes");
                return (ProblemKind::HeadersTooLarge, detail);
            }
            Self::MissingHost => (
                ProblemKind::MissingHost,
                "the request has no Host header; expected one",
            ),
            Self::RepeatedHost => (
                ProblemKind::RepeatedHost,
                "the request has more than one Host header; expected one",
            ),
            Self::InvalidHost => (
                ProblemKind::InvalidHost,
                "the Host header is not a host, with or without a port",
            ),
            Self::ForeignTarget => (
                ProblemKind::ForeignTarget,
                "the target has another host than the Host header",
            ),
            Self::Body => (
                ProblemKind::RequestBody,
                "GET and HEAD take no body here; expected none",
            ),
            Self::TooManyConnections => (
                ProblemKind::TooManyConnections,
                "as many connections are open as allowed; try again shortly",
            ),
        };
        (kind, detail.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request<Empty<bytes::Bytes>> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(Empty::new()).unwrap()
    }

    #[test]
    fn a_request_needs_one_host_that_its_target_does_not_contradict() {
        for (target, hosts, verdict) in [
            ("/", &["x"][..], Ok(())),
            ("/", &["[::1]:8080"], Ok(())),
            ("/", &[""], Ok(())),
            ("http://Usage.example:80/", &["usage.example:80"], Ok(())),
            ("/", &[], Err(InvalidRequest::MissingHost)),
            ("/", &["x", "x"], Err(InvalidRequest::RepeatedHost)),
            ("/", &["a, b"], Err(InvalidRequest::InvalidHost)),
            ("/", &["a/b"], Err(InvalidRequest::InvalidHost)),
            ("/", &["user@x"], Err(InvalidRequest::InvalidHost)),
            (
                "http://elsewhere.example/",
                &["x"],
                Err(InvalidRequest::ForeignTarget),
            ),
            ("http://user@x/", &["x"], Err(InvalidRequest::ForeignTarget)),
        ] {
            let checked = check(&request(target, hosts));

            assert_eq!(checked, verdict, "{target} {hosts:?}");
        }
    }

    #[test]
    fn other_versions_than_http_1_1_need_no_host() {
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut request = request("/", &[]);
            *request.version_mut() = version;

            assert_eq!(check(&request), Ok(()), "{version:?}");
        }
    }

    #[test]
    fn a_body_is_rejected_where_it_has_no_meaning() {
        for (method, verdict) in [
            (Method::GET, Err(InvalidRequest::Body)),
            (Method::HEAD, Err(InvalidRequest::Body)),
            (Method::POST, Ok(())),
        ] {
            let request = Request::builder()
                .method(&method)
                .header("host", "x")
                .body(Full::new(bytes::Bytes::from_static(b"body")))
                .unwrap();

            assert_eq!(check(&request), verdict, "{method}");
        }
    }
}
