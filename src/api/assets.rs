//! Files that are embedded in the program, with a validator and compressed forms.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
        REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{caching, negotiation};
use crate::{
    offload,
    problem::{FullBody, Problem},
    render::{self, ContentCoding},
};

/// A file, compressed at most once in each coding.
#[derive(Debug)]
pub(super) struct StaticAsset {
    pub(super) path: &'static str,
    content_type: &'static str,
    content_security_policy: &'static str,
    identity: EncodedAsset,
    compressed: [OnceLock<Option<EncodedAsset>>; ContentCoding::COMPRESSED.len()],
}

/// A body as it is sent.
#[derive(Clone, Debug)]
struct EncodedAsset {
    /// Strong, and different for each coding (RFC 9110 §8.8.3).
    etag: HeaderValue,
    body: Bytes,
}

/// The headers of every file.
///
/// A browser looks for a newer file after five minutes, which costs little with a validator, so a new
/// release is seen that soon.
const COMMON_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    ),
    (VARY, HeaderValue::from_static("accept-encoding")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

// === impl StaticAsset ===

impl StaticAsset {
    /// A file that may load nothing and that no page may frame.
    pub(super) fn new(
        path: &'static str,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let body = body.into();
        let etag = render::strong_etag(&body);
        Self {
            path,
            content_type,
            content_security_policy: "default-src 'none'; frame-ancestors 'none'",
            identity: EncodedAsset::new(&etag, body),
            compressed: Default::default(),
        }
    }

    pub(super) fn with_content_security_policy(
        self,
        content_security_policy: &'static str,
    ) -> Self {
        Self {
            content_security_policy,
            ..self
        }
    }

    /// Answers a request for the file, with any query.
    ///
    /// # Errors
    ///
    /// If the request accepts no coding of the file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop a compression; its result is kept.
    pub(super) async fn respond(
        &'static self,
        request: &HeaderMap,
    ) -> Result<Response<FullBody>, Problem> {
        let coding = negotiation::negotiate_coding(request)?;
        let (encoded, coding) = self.encoded(coding).await;
        let mut response = Response::new(FullBody::default());
        let headers = response.headers_mut();
        headers.insert(ETAG, encoded.etag.clone());
        headers.extend(COMMON_HEADERS);
        let policy = HeaderValue::from_static(self.content_security_policy);
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        if caching::matches_if_none_match(request, encoded.etag.as_bytes()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(token) = coding.token() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        *response.body_mut() = FullBody::new(encoded.body.clone());
        Ok(response)
    }

    /// Returns the body in a coding, or uncompressed if compression fails.
    async fn encoded(
        &'static self,
        coding: ContentCoding,
    ) -> (&'static EncodedAsset, ContentCoding) {
        let slot = coding.compressed_index();
        let Some(slot) = slot.and_then(|index| self.compressed.get(index)) else {
            return (&self.identity, ContentCoding::Identity);
        };
        let compressed = match slot.get() {
            Some(compressed) => compressed,
            None => {
                let size = self.identity.body.len() * coding.compression_cost();
                offload::run_cpu_bound(size, move || slot.get_or_init(|| self.compress(coding)))
                    .await
            }
        };
        match compressed {
            Some(encoded) => (encoded, coding),
            None => (&self.identity, ContentCoding::Identity),
        }
    }

    fn compress(&self, coding: ContentCoding) -> Option<EncodedAsset> {
        let identity = &self.identity;
        let body = render::compress(&identity.body, coding)
            .inspect_err(
                |error| tracing::error!(path = self.path, %error, "a file could not be compressed"),
            )
            .ok()?;
        let etag = render::etag_for_coding(identity.etag.as_bytes(), coding);
        Some(EncodedAsset::new(&etag, body.into()))
    }
}

// === impl EncodedAsset ===

impl EncodedAsset {
    fn new(etag: &str, body: Bytes) -> Self {
        // It consists of hexadecimal digits and the name of a coding.
        let etag = HeaderValue::from_str(etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { etag, body }
    }
}
