//! Refusals: replies of Partner Center other than 200. Their bodies come in several shapes, and only
//! the status together with the code says what they mean.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;

use super::{metrics::ErrorClass, wire::without_byte_order_mark};
use crate::{
    http_client::HttpReply,
    service::source::{SourceErrorKind, UpstreamErrorBody},
    text::to_printable_line,
};

/// The most characters of an upstream's sentence that are kept.
const MAX_DESCRIPTION: usize = 300;
const MAX_CODE: usize = 64;

/// The meaning of a status and the code that came with it: a row of the table in
/// [`RefusalMeaning::of`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusalMeaning {
    pub(super) class: ErrorClass,
    pub(super) kind: SourceErrorKind,
    /// Says what happened, and what a person must do if one must act.
    pub(super) advice: &'static str,
    /// The same request may succeed a moment later.
    pub(super) is_transient: bool,
}

// === impl RefusalMeaning ===

impl RefusalMeaning {
    /// The only list of what Partner Center's statuses and codes mean.
    pub(super) fn of(refusal: &UpstreamErrorBody) -> Self {
        use ErrorClass as Class;
        use SourceErrorKind as Kind;

        let fault = "Partner Center has a fault of its own";
        let denied = (Class::AccessDenied, Kind::CredentialsRejected);
        let is_transient = matches!(refusal.status, 408 | 500 | 502 | 503 | 504);
        let ((class, kind), advice) = match (refusal.status, refusal.code.as_deref()) {
            (401 | 403, Some("900421")) => (
                (Class::ProofMissing, Kind::CredentialsRejected),
                "Partner Center wants multi-factor proof (900421): a person must sign in with \
                 multi-factor authentication, consent again, and replace the refresh token",
            ),
            (401 | 403, Some("900420")) => (
                (Class::WrongAudience, Kind::CredentialsRejected),
                "the access token is for another audience than Partner Center (900420): a person \
                 must set upstream.auth.resource (or upstream.auth.scope) to Partner Center's, such \
                 as https://api.partnercenter.microsoft.com; graph.windows.net is retired",
            ),
            (408 | 500..=599, _) => ((Class::ServerFault, Kind::Unavailable), fault),
            (401, _) => (
                (Class::Unauthorized, Kind::CredentialsRejected),
                "Partner Center refuses a fresh access token: a person must check that the \
                 application of upstream.auth is allowed this call, with the right audience (the \
                 insights call wants App+User credentials)",
            ),
            (403, Some("2032" | "20002")) => (
                (Class::NoRelationship, Kind::NoRelationship),
                "the partner has no relationship with this customer",
            ),
            (404, Some("1000" | "60003")) => (
                (Class::UnknownCustomer, Kind::UnknownCustomer),
                "Partner Center knows no such customer",
            ),
            (403, Some("900329")) => (
                denied,
                "Partner Center refuses this call to an application alone (900329): a person must \
                 configure App+User credentials (upstream.auth.kind = \"refresh_token\")",
            ),
            (403, Some("900308")) => (
                denied,
                "Partner Center says that our credentials lack a role (900308): a person must give \
                 the user who consented a role that may read usage, such as Admin agent",
            ),
            (403, Some("900309")) => (
                denied,
                "a Conditional Access policy blocks our credentials (900309): a person must let the \
                 application or this machine through, or consent again as the policy demands",
            ),
            (403, Some("90000")) => (
                denied,
                "Partner Center reports an error of Microsoft Entra ID about our credentials \
                 (90000): a person must look at the sign-in log of the user who consented",
            ),
            (403, Some("900416")) => (
                denied,
                "the account of the user who consented is locked (900416): a person must unlock it, \
                 or let another user consent",
            ),
            (403 | 404, _) => (
                (Class::Unrecognized, Kind::Rejected),
                "the refusal has no code that says anything about this customer: Partner Center has \
                 a fault, or something before it refused, or has no such path: check \
                 upstream.base_url and upstream.commercial_path",
            ),
            (300..=399, _) => (
                (Class::Redirect, Kind::Rejected),
                "Partner Center answered with a redirect, which is never followed: check \
                 upstream.base_url",
            ),
            _ => (
                (Class::Rejected, Kind::Rejected),
                "Partner Center rejected the request as wrong",
            ),
        };
        Self {
            class,
            kind,
            advice,
            is_transient,
        }
    }

    /// Returns whether it is about our credentials: every call ends so until a person has acted.
    pub(super) fn is_about_credentials(self) -> bool {
        self.kind == SourceErrorKind::CredentialsRejected
    }

    /// Returns whether it is about the customer: Partner Center accepted our credentials to find that
    /// out.
    pub(super) fn is_about_customer(self) -> bool {
        self.kind.is_authoritative()
    }
}

/// Parses a reply that is no success. What cannot be read is left out. So is `token`, the access token
/// that was sent, where the reply repeats it.
pub(super) fn parse_refusal(reply: &HttpReply, token: Option<&str>) -> UpstreamErrorBody {
    let body = serde_json::from_slice(without_byte_order_mark(&reply.body)).unwrap_or(Value::Null);
    // `{"error": {"code": …, "message": …}}` occurs beside the flat forms.
    let error = match body.get("error") {
        Some(nested @ Value::Object(_)) => nested,
        _ => &body,
    };
    let field = |names: &[&str], max_chars| {
        first_field(error, names).and_then(|text| clean_text(&text, token, max_chars))
    };
    UpstreamErrorBody {
        status: reply.status.as_u16(),
        code: field(&["code", "errorCode"], MAX_CODE),
        description: field(&["description", "errorMessage", "message"], MAX_DESCRIPTION),
        request_id: header(&reply.headers, "ms-requestid"),
        correlation_id: header(&reply.headers, "ms-correlationid"),
    }
}

/// Returns the text of a header, fit for a log; `None` where it is missing or empty.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(to_printable_line(text, MAX_CODE)).filter(|text| !text.is_empty())
}

fn first_field<'a>(error: &'a Value, names: &[&str]) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| match error.get(name)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    })
}

/// Redacts the token before the cut, which could leave half of it.
fn clean_text(text: &str, token: Option<&str>, max_chars: usize) -> Option<String> {
    let text = match token.filter(|token| text.contains(token)) {
        Some(token) => Cow::Owned(text.replace(token, "[redacted]")),
        None => Cow::Borrowed(text),
    };
    Some(to_printable_line(text.trim(), max_chars)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    fn refusal(body: &'static str) -> UpstreamErrorBody {
        let answer = HttpReply {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            unread: None,
        };
        parse_refusal(&answer, Some("the-token"))
    }

    #[test]
    fn every_known_shape_of_an_error_is_read() {
        for body in [
            r#"{"code":"2032","description":"No relationship","data":[],"source":"x"}"#,
            r#"{"code":2032,"description":"No relationship"}"#,
            "\u{feff}{\"errorCode\":\"2032\",\"errorMessage\":\"No relationship\"}",
            r#"{"error":{"code":"2032","message":"No relationship"}}"#,
        ] {
            let refusal = refusal(body);

            assert_eq!(refusal.code.as_deref(), Some("2032"), "{body}");
            assert_eq!(
                refusal.description.as_deref(),
                Some("No relationship"),
                "{body}"
            );
        }
    }

    #[test]
    fn a_body_that_is_no_error_document_gives_no_details() {
        for body in [
            "",
            "<html>Forbidden</html>",
            "[]",
            "{}",
            r#"{"code":{}}"#,
            "{",
        ] {
            let refusal = refusal(body);

            assert_eq!((refusal.code, refusal.description), (None, None), "{body}");
        }
    }

    #[test]
    fn an_echoed_token_is_redacted() {
        let refusal = refusal(r#"{"code":"the-token","description":"Bearer the-token is bad"}"#);

        assert_eq!(refusal.code.as_deref(), Some("[redacted]"));
        assert_eq!(
            refusal.description.as_deref(),
            Some("Bearer [redacted] is bad")
        );
    }
}
