//! Requests that are refused before anybody answers them, and in what words.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};

use super::head::HeadScanner;
use crate::{
    problem::{FullBody, Kind, Problem},
    request_id::{self, X_REQUEST_ID},
};

/// What RFC 9211 has an answer say that no cache was looked at for.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const NOT_CONSULTED: HeaderValue = HeaderValue::from_static("usage-proxy; detail=not-consulted");

/// Why a request is refused and its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The first line is no request line of HTTP/1.1 or 1.0.
    NotHttp,
    /// A line ends in LF alone (RFC 9112 §2.2).
    BareLineFeed,
    /// A field goes on in the next line (RFC 9112 §5.2).
    FoldedField,
    /// `AnswerContent-Length` twice.
    RepeatedLength,
    /// `AnswerContent-Length` and `Transfer-Encoding` (RFC 9112 §6.1).
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which has none (RFC 9112 §6.1).
    CodedHttp10,
    /// A path and query longer than are read.
    UriTooLong,
    /// More fields than are read.
    TooManyFields,
    /// Fields of more bytes than are read.
    FieldsTooLarge,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    MissingHost,
    /// `Host` twice (RFC 9112 §3.2).
    RepeatedHost,
    /// A `Host` that is none (RFC 9112 §3.2).
    InvalidHost,
    /// A target in absolute form that names another host than `Host` does.
    ForeignTarget,
    /// A body where none has a meaning (RFC 9110 §9.3.1).
    Body,
    /// The head did not come to its end in time.
    Overdue,
    /// As many connections are open as may be.
    Full,
}

/// Whether a request that hyper has accepted may be answered.
pub(super) fn check<B: http_body::Body>(request: &Request<B>) -> Result<(), Refusal> {
    check_host(request)?;
    check_size(request)?;
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if safe && !request.body().is_end_stream() {
        return Err(Refusal::Body);
    }
    Ok(())
}

/// We do not know our names, so any host will do; but there is one, and only one.
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::RepeatedHost);
    }
    let Some(host) = host else {
        // HTTP/2 names it in the target.
        return match request.version() {
            Version::HTTP_11 => Err(Refusal::MissingHost),
            _ => Ok(()),
        };
    };
    if !host.iter().copied().all(is_of_host) {
        return Err(Refusal::InvalidHost);
    }
    match request.uri().authority() {
        Some(target) if !target.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(Refusal::ForeignTarget)
        }
        _ => Ok(()),
    }
}

/// That the head is no larger than any of ours need be.
fn check_size<B>(request: &Request<B>) -> Result<(), Refusal> {
    let target = request.uri().path_and_query();
    if target.map_or(0, |target| target.as_str().len()) > HeadScanner::MAX_TARGET {
        return Err(Refusal::UriTooLong);
    }
    let fields = request.headers();
    if fields.len() > HeadScanner::MAX_FIELDS {
        return Err(Refusal::TooManyFields);
    }
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > HeadScanner::MAX_FIELD_BYTES {
        return Err(Refusal::FieldsTooLarge);
    }
    Ok(())
}

/// What a host and its port are written in (RFC 3986 §3.2.2).
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)
}

// === impl Refusal ===

impl Refusal {
    /// The head that hyper is given in the place of the refused one: the same method, so that a
    /// HEAD is answered without a body, and the path and id that the answer names.
    pub(super) fn stand_in(head: &[u8]) -> Vec<u8> {
        let method = if head.trim_ascii_start().starts_with(b"HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        let path = path_of(head).unwrap_or_else(|| "/".to_owned());
        let mut stand_in = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
        if let Some(id) = request_id_of(head) {
            stand_in.extend_from_slice(b"x-request-id: ");
            stand_in.extend_from_slice(&id);
            stand_in.extend_from_slice(b"\r\n");
        }
        stand_in.extend_from_slice(b"\r\n");
        stand_in
    }

    /// The answer: a problem document, after which the connection is closed.
    pub(super) fn answer(self, path: &str, headers: &HeaderMap) -> Response<FullBody> {
        let request_id = request_id::accept_or_generate(headers);
        let (kind, detail) = self.words();
        let detail = match self {
            Self::UriTooLong => of_at_most(detail, HeadScanner::MAX_TARGET, "bytes"),
            Self::TooManyFields => of_at_most(detail, HeadScanner::MAX_FIELDS, "header fields"),
            Self::FieldsTooLarge => of_at_most(detail, HeadScanner::MAX_FIELD_BYTES, "bytes"),
            _ => Cow::Borrowed(detail),
        };
        let correlation_id = request_id.to_str().ok().map(str::to_owned);
        let mut problem = Problem::new(kind, detail).for_request(path, &request_id, correlation_id);
        if self == Self::Full {
            problem = problem.with_retry_after(1);
        }
        let mut response = problem.into_response();
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, request_id);
        headers.insert(CACHE_STATUS, NOT_CONSULTED);
        response
    }

    fn words(self) -> (Kind, &'static str) {
        match self {
            Self::NotHttp => (
                Kind::NotHttp,
                "the first line is no request line of HTTP, version 1.1 or 1.0",
            ),
            Self::BareLineFeed => (
                Kind::BareLineFeed,
                "a line of the head ends in LF; expected CR LF",
            ),
            Self::FoldedField => (
                Kind::FoldedHeader,
                "a header field goes on in another line; expected one line for each",
            ),
            Self::RepeatedLength => (
                Kind::RepeatedContentLength,
                "the head has Content-Length more than once; expected it once or never",
            ),
            Self::LengthAndCoding => (
                Kind::AmbiguousLength,
                "the head has both Content-Length and Transfer-Encoding; expected one or neither",
            ),
            Self::CodedHttp10 => (
                Kind::TransferEncoding,
                "version 1.0 of HTTP has no Transfer-Encoding; expected none",
            ),
            Self::UriTooLong => (Kind::UriTooLong, "path and query may have"),
            Self::TooManyFields => (Kind::TooManyHeaders, "a request may have"),
            Self::FieldsTooLarge => (Kind::HeadersTooLarge, "header names and values may have"),
            Self::MissingHost => (
                Kind::MissingHost,
                "the request has no Host header; expected one",
            ),
            Self::RepeatedHost => (
                Kind::RepeatedHost,
                "the request has more than one Host header; expected one",
            ),
            Self::InvalidHost => (
                Kind::InvalidHost,
                "the Host header is no host, with or without a port",
            ),
            Self::ForeignTarget => (
                Kind::ForeignTarget,
                "the target names another host than the Host header does",
            ),
            Self::Body => (
                Kind::RequestBody,
                "GET and HEAD take no body here; expected none",
            ),
            Self::Overdue => (
                Kind::RequestTimeout,
                "the head of the request did not come to its end in time",
            ),
            Self::Full => (
                Kind::TooManyConnections,
                "as many connections are open as may be; try again shortly",
            ),
        }
    }
}

/// Ends a sentence with how much there may be.
fn of_at_most(may_have: &str, most: usize, of: &str) -> Cow<'static, str> {
    format!("{may_have} {most} {of}").into()
}

/// The path of a request line, where that much of it can be read.
fn path_of(head: &[u8]) -> Option<String> {
    let line = head
        .trim_ascii_start()
        .split(|byte| *byte == b'\n')
        .next()?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    let uri = http::Uri::try_from(target.trim_ascii()).ok()?;
    let path = uri.path();
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| path.to_owned())
}

/// The caller's request id, where the head has one that is sane.
fn request_id_of(head: &[u8]) -> Option<Vec<u8>> {
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let (name, value) = line.split_at_checked(X_REQUEST_ID.as_str().len())?;
        let named = name.eq_ignore_ascii_case(X_REQUEST_ID.as_str().as_bytes());
        let value = value.strip_prefix(b":")?.trim_ascii();
        (named && value.iter().all(u8::is_ascii_graphic)).then(|| value.to_vec())
    })
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
    fn one_host_that_the_target_does_not_contradict_will_do() {
        for (target, hosts, verdict) in [
            ("/", &["x"][..], Ok(())),
            ("/", &["[::1]:8080"], Ok(())),
            ("/", &[""], Ok(())),
            ("http://Usage.example:80/", &["usage.example:80"], Ok(())),
            ("/", &[], Err(Refusal::MissingHost)),
            ("/", &["x", "x"], Err(Refusal::RepeatedHost)),
            ("/", &["a, b"], Err(Refusal::InvalidHost)),
            ("/", &["a/b"], Err(Refusal::InvalidHost)),
            ("/", &["user@x"], Err(Refusal::InvalidHost)),
            (
                "http://elsewhere.example/",
                &["x"],
                Err(Refusal::ForeignTarget),
            ),
            ("http://user@x/", &["x"], Err(Refusal::ForeignTarget)),
        ] {
            assert_eq!(
                check(&request(target, hosts)),
                verdict,
                "{target} {hosts:?}"
            );
        }
    }

    #[test]
    fn older_and_newer_versions_may_do_without_a_host() {
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut request = request("/", &[]);
            *request.version_mut() = version;

            assert_eq!(check(&request), Ok(()), "{version:?}");
        }
    }

    #[test]
    fn a_body_is_refused_where_it_has_no_meaning() {
        for (method, verdict) in [
            (Method::GET, Err(Refusal::Body)),
            (Method::HEAD, Err(Refusal::Body)),
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

    #[test]
    fn a_stand_in_keeps_what_the_answer_names_and_nothing_else() {
        for (head, stand_in) in [
            (
                &b"HEAD /a?b HTTP/1.1\nX-Request-ID:  id-7 \nCookie: c\n\n"[..],
                &b"HEAD /a HTTP/1.1\r\nx-request-id: id-7\r\n\r\n"[..],
            ),
            (
                b"GET http://evil/a HTTP/1.1\r\nX-Request-Id: two words\r\n",
                b"GET /a HTTP/1.1\r\n\r\n",
            ),
            (b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"),
            (b"GET /\xff\0 HTTP/1.1\n", b"GET / HTTP/1.1\r\n\r\n"),
            (b"PRI * HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        ] {
            assert_eq!(Refusal::stand_in(head), stand_in);
        }
    }
}
