//! Security headers for browsers.

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

/// Protects data: browsers must not guess its type, and pages of other origins must not embed it, since
/// a browser sends a stored password by itself (RFC 7617). Pages of `server.cors_origins` can still fetch
/// it, since CORS requests skip this check (Fetch standard, "CORP check").
pub(super) fn add_data_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
}

/// Protects a page: it loads only its own files, cannot be framed, sends its address to no other site,
/// and is not stored, so the next user of the browser does not see it.
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

/// Protects a picture: it runs and loads nothing. Pages of other origins may show it but not read it.
pub(super) fn add_chart_headers(headers: &mut HeaderMap) {
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    );
    let anywhere = HeaderValue::from_static("cross-origin");
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, anywhere);
}
