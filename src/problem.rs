//! Problem documents: how every error looks to whoever called (RFC 9457).

mod kind;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

pub use self::kind::Kind;
use crate::printable::to_printable_line;

/// An error, as a caller is told of it.
///
/// The document has no top-level `code`, `description` or `data`: Microsoft's SDK would take them
/// for its own fault format and lose the `Retry-After`.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Boxed, since it is the rare side of results.
    parts: Box<ProblemDocument>,
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemDocument {
    #[serde(skip)]
    kind: Kind,
    #[serde(rename = "type")]
    uri: String,
    /// What the kind is called; the same for every occurrence.
    title: &'static str,
    /// The status of the answer.
    #[serde(serialize_with = "serialize_status")]
    status: StatusCode,
    /// What is wrong this time, and what was expected.
    detail: String,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The request's id, as in `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// What to trace it by: the upstream call's correlation id, the caller's, or the request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    /// How Partner Center refused, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamRefusal>,
    #[serde(skip)]
    headers: HeaderMap,
}

/// How the upstream refused, in its own words.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRefusal {
    /// HTTP status.
    pub status: u16,
    /// The upstream's own code.
    pub code: Option<String>,
    /// The upstream's own sentence.
    pub description: Option<String>,
    /// `MS-RequestId`.
    pub request_id: Option<String>,
    /// `MS-CorrelationId`.
    pub correlation_id: Option<String>,
}

/// A body that is whole.
pub type FullBody = http_body_util::Full<Bytes>;

// === impl Problem ===

impl Problem {
    /// The media type of problem documents.
    pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

    /// A problem of a kind; `detail` says what it is about this time.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let parts = ProblemDocument {
            kind,
            uri: kind.uri(),
            title: kind.title(),
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            request_id: None,
            correlation_id: None,
            upstream: None,
            headers: HeaderMap::new(),
        };
        Self {
            parts: Box::new(parts),
        }
    }

    /// No such resource here.
    pub fn not_found(path: &str) -> Self {
        Self::new(
            Kind::NotFound,
            format!("there is nothing at {}", excerpt(path)),
        )
    }

    /// The resource has no such method; `allow` lists those it has.
    pub fn method_not_allowed(method: &http::Method, allow: &'static str) -> Self {
        Self::new(
            Kind::MethodNotAllowed,
            format!(
                "{} is not allowed here; use {allow}",
                excerpt(method.as_str())
            ),
        )
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// A fault of ours.
    pub fn internal() -> Self {
        Self::new(
            Kind::InternalError,
            "the service failed at this request; its log names the place, and the request by its id",
        )
    }

    /// Sends a header along.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.insert(name, value);
        self
    }

    /// Sends a header along beside those of the same name.
    #[must_use]
    pub fn with_appended_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.append(name, value);
        self
    }

    /// Says when asking again may help: whole seconds, at least 1 (RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Says how the upstream refused.
    #[must_use]
    pub fn with_upstream(mut self, upstream: Option<UpstreamRefusal>) -> Self {
        self.parts.upstream = upstream;
        self
    }

    /// Says which request this was.
    #[must_use]
    pub fn for_request(
        mut self,
        instance: &str,
        request_id: &HeaderValue,
        correlation_id: Option<String>,
    ) -> Self {
        self.parts.instance = Some(excerpt(instance).into_owned());
        self.parts.request_id = request_id.to_str().ok().map(str::to_owned);
        self.parts.correlation_id = correlation_id;
        self
    }

    /// What kind of problem it is, such as `unknown-customer`.
    pub fn name(&self) -> &'static str {
        self.parts.kind.name()
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> Kind {
        self.parts.kind
    }

    /// What it is about this time: lower case, no full stop.
    pub fn detail(&self) -> &str {
        &self.parts.detail
    }

    /// What is sent along.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Seconds until asking again may help, where anybody knows.
    pub fn retry_after(&self) -> Option<u64> {
        let value = self.parts.headers.get(header::RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// The answer. It must not be stored: what it says may be over in a second.
    pub fn into_response(self) -> Response<FullBody> {
        let body = serde_json::to_vec(&self.parts).unwrap_or_default();
        let mut response = Response::new(FullBody::from(body));
        *response.status_mut() = self.parts.status;
        let headers = response.headers_mut();
        *headers = self.parts.headers;
        headers.insert(header::CONTENT_TYPE, Self::MEDIA_TYPE);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Text of a caller's, cut to what a person reads.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 200;

    if text.len() <= LONGEST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(to_printable_line(text, LONGEST))
}

fn serialize_status<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_do_not_use_the_field_names_of_partner_center_errors() {
        let upstream = UpstreamRefusal {
            status: 403,
            code: Some("2032".into()),
            description: Some("No relationship.".into()),
            request_id: Some("1".into()),
            correlation_id: Some("2".into()),
        };
        let id = HeaderValue::from_static("3");
        let full = Problem::new(Kind::NoRelationship, "d")
            .with_upstream(Some(upstream))
            .for_request("/v1/customers", &id, Some("4".into()));

        let body = serde_json::to_value(&full.parts).unwrap();

        // Of every problem that there can be: a field is one of these, and Microsoft's SDK looks for
        // `code`, `description` and `data`, whatever their case.
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            [
                "correlationId",
                "detail",
                "instance",
                "requestId",
                "status",
                "title",
                "type",
                "upstream"
            ]
        );
    }

    #[test]
    fn a_zero_retry_after_becomes_one_second() {
        let response = Problem::new(Kind::Throttled, "d")
            .with_retry_after(0)
            .into_response();

        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
