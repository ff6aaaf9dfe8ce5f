//! Problem documents, the form of every error (RFC 9457).

mod kind;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

pub use self::kind::ProblemKind;
use crate::text::excerpt;

/// An error that is answered with a problem document.
///
/// The document has no top-level `code`, `description` or `data`: Microsoft's SDK would take them
/// for its own error format and ignore `Retry-After`.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Boxed to keep results small.
    parts: Box<ProblemDocument>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemDocument {
    #[serde(skip)]
    kind: ProblemKind,
    #[serde(rename = "type")]
    uri: String,
    title: &'static str,
    #[serde(serialize_with = "serialize_status")]
    status: StatusCode,
    detail: String,
    /// The requested path.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The same as `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The correlation id of the upstream call or of the caller, or else the id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamRefusal>,
    #[serde(skip)]
    headers: HeaderMap,
}

/// The error that Partner Center returned.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The error code of Partner Center.
    pub code: Option<String>,
    /// The description by Partner Center.
    pub description: Option<String>,
    /// `MS-RequestId`.
    pub request_id: Option<String>,
    /// `MS-CorrelationId`.
    pub correlation_id: Option<String>,
}

/// A body that is complete in memory.
pub type FullBody = http_body_util::Full<Bytes>;

// === impl Problem ===

impl Problem {
    /// The media type of problem documents.
    pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

    /// A problem of a kind; `detail` has the cause: lower case, no full stop.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
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

    /// The answer where no resource has this path.
    pub fn not_found(path: &str) -> Self {
        Self::new(
            ProblemKind::NotFound,
            format!("no resource has the path {}", excerpt(path)),
        )
    }

    /// The answer to a method other than those in `allow`.
    pub fn method_not_allowed(method: &http::Method, allow: &'static str) -> Self {
        Self::new(
            ProblemKind::MethodNotAllowed,
            format!(
                "method {} is not allowed here; use {allow}",
                excerpt(method.as_str())
            ),
        )
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// The answer to a fault of the service.
    pub fn internal() -> Self {
        Self::new(
            ProblemKind::InternalError,
            "the service failed; its log has the details under the id of the request",
        )
    }

    /// Sets a header of the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.insert(name, value);
        self
    }

    /// Adds a header to those of the same name.
    #[must_use]
    pub fn with_appended_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.append(name, value);
        self
    }

    /// Sets `Retry-After`: whole seconds, at least 1 (RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Sets the error that Partner Center returned.
    #[must_use]
    pub fn with_upstream(mut self, upstream: Option<UpstreamRefusal>) -> Self {
        self.parts.upstream = upstream;
        self
    }

    /// Sets the request that is answered.
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

    /// Returns the name of the kind, such as `unknown-customer`.
    pub fn name(&self) -> &'static str {
        self.parts.kind.name()
    }

    /// Returns the kind.
    pub fn kind(&self) -> ProblemKind {
        self.parts.kind
    }

    /// Returns the cause: lower case, no full stop.
    pub fn detail(&self) -> &str {
        &self.parts.detail
    }

    /// Returns the headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Returns the seconds of `Retry-After`, if it is set.
    pub fn retry_after(&self) -> Option<u64> {
        let value = self.parts.headers.get(header::RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// Returns the answer. It must not be stored, since the problem may be over in a second.
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
        let full = Problem::new(ProblemKind::NoRelationship, "d")
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
}
