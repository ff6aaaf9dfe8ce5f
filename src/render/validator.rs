use std::fmt::Write;

use jiff::{Timestamp, fmt::strtime, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::ContentCoding;

/// Bits of the digest that stand in a validator: two bodies never share it by accident.
const DIGEST_BYTES: usize = 16;

/// A strong validator (RFC 9110 §8.8.3): the same bytes have the same, after a restart too.
pub(crate) fn strong_etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let mut etag = String::with_capacity(2 * DIGEST_BYTES + 2);
    etag.push('"');
    for byte in digest.iter().take(DIGEST_BYTES) {
        write!(etag, "{byte:02x}").unwrap_or_default();
    }
    etag.push('"');
    etag
}

/// The validator of the same body in a coding.
pub(crate) fn etag_for_coding(identity: &[u8], coding: ContentCoding) -> String {
    let opaque = String::from_utf8_lossy(identity);
    let opaque = opaque.trim_matches('"');
    format!("\"{opaque}-{}\"", coding.token().unwrap_or("identity"))
}

/// Bytes of [`http_date`].
pub(super) const HTTP_DATE_LEN: usize = 29;

/// An instant as HTTP writes it (RFC 9110 §5.6.7), such as `Thu, 09 Mar 2017 00:00:00 GMT`.
pub(super) fn http_date(at: Timestamp) -> String {
    let utc = at.to_zoned(TimeZone::UTC);
    let text = strtime::format("%a, %d %b %Y %H:%M:%S GMT", &utc).unwrap_or_default();
    // Years of more than four digits are not HTTP's; nobody's clock tells them.
    if text.len() == HTTP_DATE_LEN {
        text
    } else {
        "Thu, 01 Jan 1970 00:00:00 GMT".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_formatted_as_an_http_date() {
        let at = "2017-03-09T00:00:00Z".parse().unwrap();

        assert_eq!(http_date(at), "Thu, 09 Mar 2017 00:00:00 GMT");
    }

    #[test]
    fn each_coding_has_its_own_strong_validator() {
        let identity = strong_etag(b"{}");

        let gzip = etag_for_coding(identity.as_bytes(), ContentCoding::Gzip);

        assert_ne!(identity, gzip);
        assert!(gzip.starts_with('"') && gzip.ends_with('"'));
    }
}
