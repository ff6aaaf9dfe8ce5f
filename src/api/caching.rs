//! The headers of caching: what goes with an answer, and when 304 is enough.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

use crate::{
    cache::{CacheStatus, Held},
    problem::Body,
    representation::{Coding, Document, Encoded, Form},
};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Dresses an answer: the body with its metadata, or 304 where the caller has it already.
pub(super) fn respond(
    request: &HeaderMap,
    held: &Held,
    form: Form,
    coding: Coding,
    document: &Document,
    encoded: &Encoded,
) -> Response<Body> {
    let mut response = if is_not_modified(request, encoded.etag_bytes(), document.modified_at()) {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::new(encoded.to_body()));
        let headers = response.headers_mut();
        headers.reserve(12);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(form.content_type()),
        );
        if let Some(token) = coding.token() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        response
    };
    // RFC 9110 §15.4.5: a 304 has these as the 200 would.
    let headers = response.headers_mut();
    headers.insert(header::ETAG, encoded.etag());
    headers.insert(header::LAST_MODIFIED, encoded.last_modified());
    headers.insert(header::CACHE_CONTROL, held.cache_control.clone());
    headers.insert(header::AGE, HeaderValue::from(held.age.as_secs()));
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Accept, Accept-Encoding"),
    );
    response
}

/// Whether the caller has this very content (RFC 9110 §13.1).
///
/// `If-Modified-Since` counts only where there is no `If-None-Match`, and only where it is a date.
fn is_not_modified(request: &HeaderMap, etag: &[u8], modified_at: Timestamp) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        return request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|list| matches(list.as_bytes(), etag));
    }
    request
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|since| since.to_str().ok())
        .and_then(|since| httpdate::parse_http_date(since).ok())
        .and_then(|since| Timestamp::try_from(since).ok())
        .is_some_and(|since| modified_at <= since)
}

/// Weak comparison (RFC 9110 §8.8.3.2) with each tag of a list, or with any by `*`.
fn matches(list: &[u8], etag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    // A quoted tag may contain commas; ours do not, so a part of such a tag never equals ours.
    list.split(|byte| *byte == b',').any(|tag| {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag) == etag
    })
}

/// `Cache-Status` (RFC 9211 §2).
pub(super) fn cache_status(status: &CacheStatus) -> HeaderValue {
    let mut text = String::with_capacity(96);
    text.push_str("usage-proxy");
    write_parameters(&mut text, status).unwrap_or_default();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or(HeaderValue::from_static("usage-proxy"))
}

fn write_parameters(text: &mut String, status: &CacheStatus) -> std::fmt::Result {
    if status.hit {
        text.push_str("; hit");
    }
    if let Some(forward) = status.forward {
        write!(text, "; fwd={}", forward.as_str())?;
    }
    if let Some(code) = status.forward_status {
        write!(text, "; fwd-status={code}")?;
    }
    if status.stored {
        text.push_str("; stored");
    }
    if status.collapsed {
        text.push_str("; collapsed");
    }
    if let Some(ttl) = status.ttl {
        text.push_str("; ttl=");
        text.push_str(itoa::Buffer::new().format(ttl));
    }
    if let Some(detail) = status.detail {
        write!(text, "; detail={detail}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Forward;

    fn not_modified(conditions: &[(HeaderName, &str)]) -> bool {
        let request = conditions
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let at = "2017-03-09T00:00:00Z".parse().unwrap();
        is_not_modified(&request, b"\"abc\"", at)
    }

    #[test]
    fn a_tag_in_the_list_is_enough() {
        for list in [
            "\"abc\"",
            "W/\"abc\"",
            "\"x\", \"abc\"",
            "*",
            " * ",
            "\"x\",W/\"abc\" ",
        ] {
            assert!(not_modified(&[(header::IF_NONE_MATCH, list)]), "{list}");
        }
        for list in ["\"x\"", "abc", "", "\"a,bc\"", "W/abc", "w/\"abc\""] {
            assert!(!not_modified(&[(header::IF_NONE_MATCH, list)]), "{list}");
        }
        assert!(not_modified(&[
            (header::IF_NONE_MATCH, "\"x\""),
            (header::IF_NONE_MATCH, "\"abc\"")
        ]));
    }

    #[test]
    fn a_date_counts_only_without_a_tag() {
        const SAME: &str = "Thu, 09 Mar 2017 00:00:00 GMT";
        const BEFORE: &str = "Wed, 08 Mar 2017 23:59:59 GMT";

        assert!(not_modified(&[(header::IF_MODIFIED_SINCE, SAME)]));
        assert!(not_modified(&[(
            header::IF_MODIFIED_SINCE,
            "Thursday, 09-Mar-17 00:00:00 GMT"
        )]));
        assert!(!not_modified(&[(header::IF_MODIFIED_SINCE, BEFORE)]));
        assert!(!not_modified(&[(header::IF_MODIFIED_SINCE, "yesterday")]));
        assert!(!not_modified(&[
            (header::IF_NONE_MATCH, "\"x\""),
            (header::IF_MODIFIED_SINCE, SAME)
        ]));
    }

    #[test]
    fn a_status_says_what_happened_in_the_order_of_the_rfc() {
        let hit = CacheStatus {
            hit: true,
            ttl: Some(-12),
            ..CacheStatus::default()
        };
        let forwarded = CacheStatus {
            forward: Some(Forward::UriMiss),
            forward_status: Some(200),
            stored: true,
            collapsed: true,
            ttl: Some(900),
            detail: Some("x"),
            ..CacheStatus::default()
        };

        assert_eq!(cache_status(&hit), "usage-proxy; hit; ttl=-12");
        assert_eq!(
            cache_status(&forwarded),
            "usage-proxy; fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=900; detail=x"
        );
        assert_eq!(cache_status(&CacheStatus::default()), "usage-proxy");
    }
}
