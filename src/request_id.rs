//! `X-Request-Id`: the caller's own if it is sane, else a new one.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header's name.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most characters of a caller's id that are taken over.
const MAX_LENGTH: usize = 128;

/// The caller's id if it is 1 to 128 visible ASCII characters, else a new UUID.
pub fn accept_or_generate(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(X_REQUEST_ID)
        .filter(|id| is_valid(id.as_bytes()))
        .cloned()
        .unwrap_or_else(generate)
}

fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn generate() -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(id: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        accept_or_generate(&headers)
    }

    #[test]
    fn a_valid_id_is_kept() {
        assert_eq!(accepted(b"build-7/step:3"), "build-7/step:3");
        assert_eq!(accepted(&[b'x'; 128]), "x".repeat(128));
    }

    #[test]
    fn an_invalid_id_is_replaced() {
        for id in [&b""[..], b"two words", &[b'x'; 129], b"\xc5\xbc"] {
            let minted = accepted(id);
            assert!(Uuid::try_parse(minted.to_str().unwrap()).is_ok(), "{id:?}");
        }
        assert_ne!(
            accept_or_generate(&HeaderMap::new()),
            accept_or_generate(&HeaderMap::new())
        );
    }
}
