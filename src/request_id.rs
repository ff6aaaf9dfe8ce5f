//! `X-Request-Id`: the caller's own if it is sane, else a new one.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header's name.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most characters of a caller's id that are taken over.
const LONGEST: usize = 128;

/// The caller's id if it is 1 to 128 visible ASCII characters, else a new UUID.
pub fn accept_or_mint(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(X_REQUEST_ID)
        .filter(|id| is_sane(id.as_bytes()))
        .cloned()
        .unwrap_or_else(mint)
}

fn is_sane(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn mint() -> HeaderValue {
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
        accept_or_mint(&headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(accepted(b"build-7/step:3"), "build-7/step:3");
        assert_eq!(accepted(&[b'x'; 128]), "x".repeat(128));
    }

    #[test]
    fn anything_else_is_replaced_by_a_new_one() {
        for id in [&b""[..], b"two words", &[b'x'; 129], b"\xc5\xbc"] {
            let minted = accepted(id);
            assert!(Uuid::try_parse(minted.to_str().unwrap()).is_ok(), "{id:?}");
        }
        assert_ne!(
            accept_or_mint(&HeaderMap::new()),
            accept_or_mint(&HeaderMap::new())
        );
    }
}
