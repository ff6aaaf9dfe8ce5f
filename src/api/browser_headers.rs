//! What a browser is told to keep to, with what people open in one.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// Data is what it says it is, and no page of another origin embeds it: a browser that was told a
/// password once sends it along by itself (RFC 7617). Pages of `server.cors_origins` fetch it all
/// the same: this is not asked of what CORS lets through (Fetch standard, "CORP check").
pub(super) fn add_data_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
}

/// A page loads its own files alone, is in nobody's frame, tells no other site its address, and is
/// not kept: whoever has the browser next sees nothing of it.
pub(super) fn add_page_headers(headers: &mut HeaderMap) {
    headers.extend([
        (X_CONTENT_TYPE_OPTIONS, NOSNIFF),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
        ),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN),
        (CROSS_ORIGIN_OPENER_POLICY, SAME_ORIGIN),
    ]);
}

/// A picture runs and fetches nothing, and pages of other origins may show it, though not read it.
pub(super) fn add_chart_headers(headers: &mut HeaderMap) {
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    );
    let anywhere = HeaderValue::from_static("cross-origin");
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, anywhere);
}
