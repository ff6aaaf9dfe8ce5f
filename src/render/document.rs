//! A rendered body in every coding, with its validators.

use std::{
    fmt,
    ops::Range,
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{compression::compress, format::ContentCoding};

/// One format of a snapshot, in every coding that was requested so far.
#[derive(Clone, Debug)]
pub struct RenderedDocument {
    pub(super) identity: EncodedBody,
    compressed: OnceLock<Box<CompressedBodies>>,
    modified_at: Timestamp,
}

/// The compressed bodies, by [`ContentCoding::compressed_index`].
#[derive(Debug, Default)]
struct CompressedBodies {
    bodies: [OnceLock<EncodedBody>; ContentCoding::COMPRESSED.len()],
    /// Held during compression, so that it is done once.
    lock: Mutex<()>,
}

/// A body as it is sent, with its header values.
///
/// All of it is one allocation (`ETag`, `Last-Modified`, body, in this order), which the returned
/// values share: an entry costs little memory beside its bodies, and a hit copies none of it.
#[derive(Clone)]
pub struct EncodedBody {
    bytes: Bytes,
    etag_len: usize,
}

/// The length of `Last-Modified`, such as `Thu, 09 Mar 2017 00:00:00 GMT`.
const HTTP_DATE_LEN: usize = 29;

/// Returns a strong validator (RFC 9110 §8.8.3): equal for equal bytes, also after a restart.
fn strong_etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    // Half of it is enough: no two bodies share 128 bits by accident.
    let half = digest.first_chunk().copied().unwrap_or_default();
    format!("\"{:032x}\"", u128::from_be_bytes(half))
}

/// Returns the validator of the same body in a coding.
fn etag_for_coding(identity: &[u8], coding: ContentCoding) -> String {
    let opaque = String::from_utf8_lossy(identity);
    let opaque = opaque.trim_matches('"');
    format!("\"{opaque}-{}\"", coding.token().unwrap_or("identity"))
}

/// Returns a bound for the size of a body together with its compressed ones, each smaller than the body.
pub(super) fn with_compressed(bytes: usize) -> usize {
    2 * bytes
}

// === impl RenderedDocument ===

impl RenderedDocument {
    /// A body that was first seen at this time.
    pub(crate) fn new(body: &[u8], seen_at: Timestamp) -> Self {
        // HTTP dates have whole seconds, and none before 1970.
        let seconds = seen_at.as_second().max(0);
        let modified_at = Timestamp::from_second(seconds).unwrap_or(seen_at);
        Self {
            identity: EncodedBody::new(&strong_etag(body), modified_at, body),
            compressed: OnceLock::new(),
            modified_at,
        }
    }

    /// The time at which this content was first seen, in whole seconds.
    pub fn modified_at(&self) -> Timestamp {
        self.modified_at
    }

    /// Returns the body in a coding, if it is ready.
    pub fn ready(&self, coding: ContentCoding) -> Option<&EncodedBody> {
        match coding.compressed_index() {
            None => Some(&self.identity),
            Some(index) => self.compressed.get()?.bodies.get(index)?.get(),
        }
    }

    /// Encodes the body, once.
    pub(crate) fn render(&self, coding: ContentCoding) -> std::io::Result<&EncodedBody> {
        if let Some(ready) = self.ready(coding) {
            return Ok(ready);
        }
        let compressed = self.compressed.get_or_init(Box::default);
        let index = coding.compressed_index();
        let Some(slot) = index.and_then(|index| compressed.bodies.get(index)) else {
            return Ok(&self.identity);
        };
        // It protects no data.
        let _compressing = compressed
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = slot.get() {
            return Ok(ready);
        }
        let body = compress(self.identity.body(), coding)?;
        let etag = etag_for_coding(self.identity.etag_bytes(), coding);
        Ok(slot.get_or_init(|| EncodedBody::new(&etag, self.modified_at, &body)))
    }

    pub(super) fn has_same_content(&self, other: &Self) -> bool {
        self.identity.body() == other.identity.body()
    }

    /// The memory in bytes that it refers to, without itself.
    pub(super) fn weight(&self) -> usize {
        let compressed = self.compressed.get().map_or(0, |compressed| {
            let bodies = compressed.bodies.iter().filter_map(OnceLock::get);
            size_of_val(&**compressed) + bodies.map(EncodedBody::weight).sum::<usize>()
        });
        self.identity.weight() + compressed
    }
}

// === impl CompressedBodies ===

impl Clone for CompressedBodies {
    fn clone(&self) -> Self {
        Self {
            bodies: self.bodies.clone(),
            lock: Mutex::default(),
        }
    }
}

// === impl EncodedBody ===

impl EncodedBody {
    fn new(etag: &str, modified_at: Timestamp, body: &[u8]) -> Self {
        let modified = httpdate::fmt_http_date(modified_at.into());
        Self {
            bytes: [etag.as_bytes(), modified.as_bytes(), body].concat().into(),
            etag_len: etag.len(),
        }
    }

    /// Returns the body to send.
    pub fn to_body(&self) -> Bytes {
        self.bytes.slice(self.body_start()..)
    }

    /// Returns the body to read.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body_start()..).unwrap_or_default()
    }

    /// Returns `ETag`: strong, and different for each format and coding (RFC 9110 §8.8.3).
    pub fn etag(&self) -> HeaderValue {
        self.header(0..self.etag_len)
    }

    /// Returns `ETag` to compare.
    pub fn etag_bytes(&self) -> &[u8] {
        self.bytes.get(..self.etag_len).unwrap_or_default()
    }

    /// Returns `Last-Modified`.
    pub fn last_modified(&self) -> HeaderValue {
        self.header(self.etag_len..self.body_start())
    }

    fn body_start(&self) -> usize {
        self.etag_len + HTTP_DATE_LEN
    }

    /// Shares the bytes, which were written as ASCII.
    fn header(&self, range: Range<usize>) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.bytes.slice(range))
            .unwrap_or(HeaderValue::from_static(""))
    }

    fn weight(&self) -> usize {
        /// The allocation of `Bytes` for a shared buffer.
        const SHARED: usize = 32;
        self.bytes.len() + SHARED
    }
}

impl fmt::Debug for EncodedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedBody")
            .field("etag", &self.etag())
            .field("bytes", &self.body().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_has_its_own_strong_validator() {
        let identity = strong_etag(b"{}");

        let gzip = etag_for_coding(identity.as_bytes(), ContentCoding::Gzip);

        assert_eq!(identity, "\"44136fa355b3678a1146ad16f7e8649e\"");
        assert_eq!(gzip, "\"44136fa355b3678a1146ad16f7e8649e-gzip\"");
    }
}
