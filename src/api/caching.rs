//! The headers of caching: what goes with an answer, and when 304 is enough.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

use super::browser_headers;
use crate::{
    cache::{CacheStatus, CachedAnswer},
    problem::FullBody,
    render::{ContentCoding, EncodedBody, Format, RenderedDocument},
};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The most headers of an answer, so that their map is allocated once.
const MAX_HEADERS: usize = 14;

/// The callers that an answer is the same for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseAudience {
    /// Every client, since callers are not identified.
    Everyone,
    /// All callers that may read it. A browser that two callers share must not show the answer of one to
    /// the other.
    AuthorizedCallers,
    /// Every client that requests the same page.
    EveryonePerPage,
    /// One caller. The answer has no `Last-Modified`, since it also changes with the caller's rights.
    SingleCaller,
}

/// Dresses an answer: the body with its metadata, or 304 where the caller has it already.
pub(super) fn respond(
    request: &HeaderMap,
    held: &CachedAnswer,
    audience: ResponseAudience,
    form: Format,
    coding: ContentCoding,
    (document, encoded): (&RenderedDocument, &EncodedBody),
) -> Response<FullBody> {
    let modified_at = (audience != ResponseAudience::SingleCaller).then(|| document.modified_at());
    let not_modified = is_not_modified(request, encoded.etag_bytes(), modified_at);
    let mut headers = HeaderMap::with_capacity(MAX_HEADERS);
    let mut response = if not_modified {
        let mut response = Response::new(FullBody::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let content_type = HeaderValue::from_static(form.content_type());
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(token) = coding.token() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        Response::new(FullBody::new(encoded.to_body()))
    };
    // RFC 9110 §15.4.5: a 304 has these as the 200 would.
    headers.insert(header::ETAG, encoded.etag());
    if modified_at.is_some() {
        headers.insert(header::LAST_MODIFIED, encoded.last_modified());
    }
    headers.insert(header::CACHE_CONTROL, held.cache_control.clone());
    headers.insert(header::AGE, HeaderValue::from(held.age.as_secs()));
    headers.insert(header::VARY, audience.vary());
    browser_headers::add_data_headers(&mut headers);
    *response.headers_mut() = headers;
    response
}

/// Returns true if `If-None-Match` has this validator (RFC 9110 §13.1.2).
pub(super) fn matches_if_none_match(request: &HeaderMap, etag: &[u8]) -> bool {
    let mut lists = request.get_all(header::IF_NONE_MATCH).iter();
    lists.any(|list| any_tag_matches(list.as_bytes(), etag))
}

/// Returns true if the caller already has this content (RFC 9110 §13.1).
///
/// `If-Modified-Since` counts only where there is no `If-None-Match`, and only where it is a date.
fn is_not_modified(request: &HeaderMap, etag: &[u8], modified_at: Option<Timestamp>) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        return matches_if_none_match(request, etag);
    }
    let Some(modified_at) = modified_at else {
        return false;
    };
    request
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|since| since.to_str().ok())
        .and_then(|since| httpdate::parse_http_date(since).ok())
        .and_then(|since| Timestamp::try_from(since).ok())
        .is_some_and(|since| modified_at <= since)
}

/// Weak comparison (RFC 9110 §8.8.3.2) with each tag of a list, or with any by `*`.
fn any_tag_matches(list: &[u8], etag: &[u8]) -> bool {
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
    let mut text = CacheStatusText::default();
    write_parameters(&mut text, status).unwrap_or_default();
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static("usage-proxy"))
}

fn write_parameters(text: &mut CacheStatusText, status: &CacheStatus) -> std::fmt::Result {
    text.write_str("usage-proxy")?;
    if status.hit {
        text.write_str("; hit")?;
    }
    if let Some(forward) = status.forward {
        write!(text, "; fwd={}", forward.as_str())?;
    }
    if let Some(code) = status.forward_status {
        write!(text, "; fwd-status={code}")?;
    }
    if status.stored {
        text.write_str("; stored")?;
    }
    if status.collapsed {
        text.write_str("; collapsed")?;
    }
    if let Some(ttl) = status.ttl {
        text.write_str("; ttl=")?;
        text.write_str(itoa::Buffer::new().format(ttl))?;
    }
    if let Some(detail) = status.detail {
        write!(text, "; detail={detail}")?;
    }
    Ok(())
}

/// Text on the stack, so that a header value is allocated once and at its size. What does not fit
/// is an error, and no status is longer.
struct CacheStatusText {
    bytes: [u8; 160],
    len: usize,
}

// === impl ResponseAudience ===

impl ResponseAudience {
    /// The request headers that the answer depends on.
    const fn vary(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Everyone => "Accept, Accept-Encoding",
            Self::AuthorizedCallers => "Accept, Accept-Encoding, Authorization, X-Api-Key",
            Self::EveryonePerPage => "Accept, Accept-Encoding, MS-ContinuationToken",
            Self::SingleCaller => {
                "Accept, Accept-Encoding, Authorization, X-Api-Key, MS-ContinuationToken"
            }
        })
    }
}

// === impl StatusText ===

impl CacheStatusText {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Default for CacheStatusText {
    fn default() -> Self {
        Self {
            bytes: [0; 160],
            len: 0,
        }
    }
}

impl Write for CacheStatusText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::ForwardReason;

    fn not_modified(conditions: &[(HeaderName, &str)]) -> bool {
        let request = conditions
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let at = "2017-03-09T00:00:00Z".parse().unwrap();
        is_not_modified(&request, b"\"abc\"", Some(at))
    }

    #[test]
    fn one_matching_tag_in_the_list_gives_304() {
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
    fn if_modified_since_is_ignored_when_if_none_match_is_present() {
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
    fn cache_status_parameters_are_in_the_order_of_rfc_9211() {
        let hit = CacheStatus {
            hit: true,
            ttl: Some(-12),
            ..CacheStatus::default()
        };
        let forwarded = CacheStatus {
            forward: Some(ForwardReason::UriMiss),
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
