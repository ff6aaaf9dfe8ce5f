//! Error answers, in all the shapes that Microsoft's services send, read leniently.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;

use super::wire::without_byte_order_mark;
use crate::{http_client::HttpReply, service::source::UpstreamErrorBody, text::to_printable_line};

/// Characters of an upstream's sentence that are kept; enough to read, too few to flood a log.
const LONGEST_DESCRIPTION: usize = 300;
const LONGEST_CODE: usize = 64;

/// Reads an answer that is no success. Whatever cannot be read is left out, and so is `token`, the
/// access token that was shown, where the answer echoes it.
pub(super) fn parse_refusal(answer: &HttpReply, token: Option<&str>) -> UpstreamErrorBody {
    let body = serde_json::from_slice(without_byte_order_mark(&answer.body)).unwrap_or(Value::Null);
    // `{"error": {"code": …, "message": …}}` occurs beside the flat forms.
    let fault = match body.get("error") {
        Some(nested @ Value::Object(_)) => nested,
        _ => &body,
    };
    UpstreamErrorBody {
        status: answer.status.as_u16(),
        code: first_field(fault, &["code", "errorCode"])
            .and_then(|code| clean_text(&code, token, LONGEST_CODE)),
        description: first_field(fault, &["description", "errorMessage", "message"])
            .and_then(|sentence| clean_text(&sentence, token, LONGEST_DESCRIPTION)),
        request_id: header(&answer.headers, "ms-requestid"),
        correlation_id: header(&answer.headers, "ms-correlationid"),
    }
}

/// A header's text, fit for a log; `None` where it is missing or empty.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(to_printable_line(text, LONGEST_CODE)).filter(|text| !text.is_empty())
}

fn first_field<'a>(fault: &'a Value, names: &[&str]) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| match fault.get(name)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    })
}

/// What is told of an upstream's text. The token goes before the cut, which could leave half of it.
fn clean_text(text: &str, token: Option<&str>, longest: usize) -> Option<String> {
    let text = match token.filter(|token| text.contains(token)) {
        Some(token) => Cow::Owned(text.replace(token, "[redacted]")),
        None => Cow::Borrowed(text),
    };
    Some(to_printable_line(text.trim(), longest)).filter(|text| !text.is_empty())
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
    fn what_is_no_error_document_says_nothing() {
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
    fn a_token_that_is_echoed_is_not_told() {
        let refusal = refusal(r#"{"code":"the-token","description":"Bearer the-token is bad"}"#);

        assert_eq!(refusal.code.as_deref(), Some("[redacted]"));
        assert_eq!(
            refusal.description.as_deref(),
            Some("Bearer [redacted] is bad")
        );
    }
}
