//! The headers of caching: what goes with an answer, and when 304 is enough.

use std::{fmt::Write, sync::LazyLock, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

use super::browser_headers;
use crate::{
    cache::{CacheStatus, CachedAnswer},
    problem::FullBody,
    render::{ContentCoding, EncodedBody, Format, RenderedDocument},
    request_id::X_REQUEST_ID,
    service::FleetAnswer,
};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The headers of an answer that is not compressed.
static IDENTITY_HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| header_template(None));

/// The headers of a compressed answer.
static CODED_HEADERS: LazyLock<HeaderMap> =
    LazyLock::new(|| header_template(Some(header::CONTENT_ENCODING)));

/// The callers that an answer is the same for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseAudience {
    /// Every client, since callers are not identified.
    Everyone,
    /// All callers that may read it. A browser that two callers share must not show the answer of one to
    /// the other.
    AuthorizedCallers,
    /// Every client. The answer has no `Last-Modified`, since it may become an earlier one again.
    EveryoneUndated,
    /// Every client that requests the same page.
    EveryonePerPage,
    /// One caller. The answer has no `Last-Modified`, since it also changes with the caller's rights.
    SingleCaller,
    /// One caller that requests the same page.
    SingleCallerPerPage,
}

/// The age of an answer, and the time for which clients may keep it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseFreshness<'a> {
    pub(super) age: Duration,
    pub(super) cache_control: &'a HeaderValue,
}

/// Returns the response for a cached answer: its body with its metadata, or 304 if the client has it.
pub(super) fn respond<'a>(
    request: &HeaderMap,
    freshness: impl Into<ResponseFreshness<'a>>,
    audience: ResponseAudience,
    format: Format,
    coding: ContentCoding,
    (document, encoded): (&RenderedDocument, &EncodedBody),
) -> Response<FullBody> {
    let freshness = freshness.into();
    let modified_at = audience.has_last_modified().then(|| document.modified_at());
    let mut headers = match coding {
        ContentCoding::Identity => IDENTITY_HEADERS.clone(),
        ContentCoding::Gzip | ContentCoding::Brotli | ContentCoding::Zstd => CODED_HEADERS.clone(),
    };
    for (name, value) in &mut headers {
        *value = match *name {
            header::CONTENT_TYPE => HeaderValue::from_static(format.content_type()),
            header::CONTENT_ENCODING => {
                HeaderValue::from_static(coding.token().unwrap_or_default())
            }
            header::ETAG => encoded.etag(),
            header::LAST_MODIFIED if modified_at.is_some() => encoded.last_modified(),
            header::CACHE_CONTROL => freshness.cache_control.clone(),
            header::AGE => HeaderValue::from(freshness.age.as_secs()),
            header::VARY => audience.vary(),
            _ => continue,
        };
    }
    if modified_at.is_none() {
        headers.remove(header::LAST_MODIFIED);
    }
    let mut response = if is_not_modified(request, encoded.etag_bytes(), modified_at) {
        // RFC 9110 §15.4.5: a 304 has the other headers as the 200 would.
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_ENCODING);
        let mut response = Response::new(FullBody::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(FullBody::new(encoded.to_body()))
    };
    *response.headers_mut() = headers;
    response
}

/// Returns the headers of an answer, without the values that differ from answer to answer. To clone the
/// map and to set values costs half of inserting each header.
fn header_template(content_encoding: Option<HeaderName>) -> HeaderMap {
    const EMPTY: HeaderValue = HeaderValue::from_static("");
    let names = [
        header::CONTENT_TYPE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::CACHE_CONTROL,
        header::AGE,
        header::VARY,
        CACHE_STATUS,
        X_REQUEST_ID,
    ];
    let names = names.into_iter().chain(content_encoding);
    let mut headers: HeaderMap = names.map(|name| (name, EMPTY)).collect();
    browser_headers::add_data_headers(&mut headers);
    headers
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
    /// Returns true if the answer changes only when its data is modified.
    const fn has_last_modified(self) -> bool {
        match self {
            Self::Everyone | Self::AuthorizedCallers | Self::EveryonePerPage => true,
            Self::EveryoneUndated | Self::SingleCaller | Self::SingleCallerPerPage => false,
        }
    }

    /// The request headers that the answer depends on.
    const fn vary(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Everyone | Self::EveryoneUndated => "Accept, Accept-Encoding",
            Self::AuthorizedCallers | Self::SingleCaller => {
                "Accept, Accept-Encoding, Authorization, X-Api-Key"
            }
            Self::EveryonePerPage => "Accept, Accept-Encoding, MS-ContinuationToken",
            Self::SingleCallerPerPage => {
                "Accept, Accept-Encoding, Authorization, X-Api-Key, MS-ContinuationToken"
            }
        })
    }
}

// === impl ResponseFreshness ===

impl<'a> From<&'a CachedAnswer> for ResponseFreshness<'a> {
    fn from(cached: &'a CachedAnswer) -> Self {
        Self {
            age: cached.age,
            cache_control: &cached.cache_control,
        }
    }
}

impl<'a> From<&'a FleetAnswer> for ResponseFreshness<'a> {
    fn from(answer: &'a FleetAnswer) -> Self {
        Self {
            age: answer.age,
            cache_control: &answer.cache_control,
        }
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
