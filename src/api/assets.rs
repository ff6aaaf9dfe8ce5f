//! Files that are the same for everybody: embedded in the program, and answered without a credential.
//!
//! Nothing in them depends on who asks or on data, so there is nothing to protect. Only these very paths are open: everything else is authenticated before anything is
//! looked at, a path beside them too.

use std::{borrow::Cow, sync::OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{caching, negotiation};
use crate::{
    offload,
    problem::{FullBody, Problem},
    render::{self, ContentCoding},
};

/// A file, as it is built into the program.
#[derive(Clone, Debug)]
pub(super) struct StaticFile {
    /// The path that it is asked for by, and no other.
    pub(super) path: &'static str,
    /// Its media type.
    pub(super) content_type: &'static str,
    /// `AnswerContent-Security-Policy`: what a browser may do with it.
    pub(super) content_security_policy: &'static str,
    /// What it holds.
    pub(super) body: Cow<'static, [u8]>,
}

/// A file ready to be sent, compressed once at most in each coding.
#[derive(Debug)]
pub(super) struct StaticAsset {
    path: &'static str,
    content_type: HeaderValue,
    content_security_policy: HeaderValue,
    identity: EncodedAsset,
    compressed: [OnceLock<Option<EncodedAsset>>; ContentCoding::COMPRESSED.len()],
}

/// All of them.
#[derive(Debug)]
pub(super) struct StaticAssets(Vec<StaticAsset>);

/// A body as it goes over the wire.
#[derive(Clone, Debug)]
struct EncodedAsset {
    /// Strong, and its own for each coding (RFC 9110 §8.8.3).
    etag: HeaderValue,
    body: Bytes,
}

/// A policy for what no browser shows as a page: nothing may be loaded, and nothing frame it.
pub(super) const NO_CONTENT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A browser looks for a newer file after five minutes, which a validator makes cheap; a new release
/// is seen by everybody that soon.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Answers a request for a file. A query means nothing to it: the file is the same with any.
///
/// # Cancel safety
///
/// Dropping the future abandons nothing: a coding under way is finished, and kept.
pub(super) async fn respond(
    asset: &'static StaticAsset,
    headers: &HeaderMap,
) -> Result<Response<FullBody>, Problem> {
    let coding = negotiation::negotiate_coding(headers)?;
    Ok(asset.respond(headers, coding).await)
}

// === impl StaticAssets ===

impl StaticAssets {
    /// These files, ready to be sent.
    pub(super) fn new(files: impl IntoIterator<Item = StaticFile>) -> Self {
        Self(files.into_iter().map(StaticAsset::new).collect())
    }

    /// The file of this very path.
    pub(super) fn find(&self, path: &str) -> Option<&StaticAsset> {
        self.0.iter().find(|asset| asset.path == path)
    }
}

// === impl Asset ===

impl StaticAsset {
    /// The file, ready to be sent.
    pub(super) fn new(file: StaticFile) -> Self {
        let etag = render::strong_etag(&file.body);
        Self {
            path: file.path,
            content_type: HeaderValue::from_static(file.content_type),
            content_security_policy: HeaderValue::from_static(file.content_security_policy),
            identity: EncodedAsset::new(&etag, file.body),
            compressed: Default::default(),
        }
    }

    async fn respond(
        &'static self,
        request: &HeaderMap,
        coding: ContentCoding,
    ) -> Response<FullBody> {
        let (encoded, coding) = self.encoded(coding).await;
        let mut response = Response::new(FullBody::default());
        let headers = response.headers_mut();
        headers.insert(header::ETAG, encoded.etag.clone());
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        headers.insert(
            header::VARY,
            HeaderValue::from_name(header::ACCEPT_ENCODING),
        );
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            self.content_security_policy.clone(),
        );
        headers.extend(COMMON_HEADERS);
        if caching::matches_if_none_match(request, encoded.etag.as_bytes()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        if let Some(token) = coding.token() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        *response.body_mut() = FullBody::new(encoded.body.clone());
        response
    }

    /// The body in a coding, or as it is where that cannot be made.
    async fn encoded(
        &'static self,
        coding: ContentCoding,
    ) -> (&'static EncodedAsset, ContentCoding) {
        let Some(slot) = coding
            .compressed_index()
            .and_then(|slot| self.compressed.get(slot))
        else {
            return (&self.identity, ContentCoding::Identity);
        };
        let made = match slot.get() {
            Some(made) => made,
            // Whoever comes meanwhile waits for this one.
            None => {
                let size = self.identity.body.len() * coding.compression_cost();
                offload::run_cpu_bound(size, move || slot.get_or_init(|| self.compress(coding)))
                    .await
            }
        };
        match made {
            Some(encoded) => (encoded, coding),
            None => (&self.identity, ContentCoding::Identity),
        }
    }

    fn compress(&self, coding: ContentCoding) -> Option<EncodedAsset> {
        let identity = &self.identity;
        match render::compress(&identity.body, coding) {
            Ok(body) => {
                let etag = render::etag_for_coding(identity.etag.as_bytes(), coding);
                Some(EncodedAsset::new(&etag, Cow::Owned(body)))
            }
            Err(error) => {
                tracing::error!(path = self.path, %error, "a file could not be compressed");
                None
            }
        }
    }
}

/// What browsers are told of every file.
const COMMON_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

// === impl Encoded ===

impl EncodedAsset {
    fn new(etag: &str, body: Cow<'static, [u8]>) -> Self {
        Self {
            // It is of hexadecimal digits and a coding's name.
            etag: HeaderValue::from_str(etag).unwrap_or(HeaderValue::from_static("\"\"")),
            body: match body {
                Cow::Borrowed(body) => Bytes::from_static(body),
                Cow::Owned(body) => Bytes::from(body),
            },
        }
    }
}
