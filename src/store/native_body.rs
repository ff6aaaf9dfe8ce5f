//! Native bodies, compressed.
//!
//! Bodies are small and alike, so most of a body is in the dictionary: Microsoft's example of the call.

use std::{borrow::Cow, io};

use serde::Deserialize;
use zstd::bulk::{Compressor, Decompressor};

use crate::domain::CustomerId;

/// The number of this form of compression, stored beside each body. Another dictionary needs another
/// number, and this one must stay readable.
pub(super) const CODEC: i64 = 1;

const DICTIONARY: &[u8] = include_bytes!("native_body/dictionary_1.json");

const LEVEL: i32 = 3;

/// A damaged length must not reserve more memory; no answer of one customer comes near.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Compresses and restores bodies.
pub(super) struct BodyCodec {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

/// The owners of the rows of a body.
#[derive(Deserialize)]
struct BodyOwners<'a> {
    #[serde(borrow)]
    items: Vec<BodyRow<'a>>,
}

#[derive(Deserialize)]
struct BodyRow<'a> {
    #[serde(borrow, default, rename = "customerId")]
    customer: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "customerTenantId")]
    tenant: Option<Cow<'a, str>>,
}

// === impl BodyCodec ===

impl BodyCodec {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::with_dictionary(LEVEL, DICTIONARY)?,
            decompressor: Decompressor::with_dictionary(DICTIONARY)?,
        })
    }

    pub(super) fn compress(&mut self, body: &[u8]) -> io::Result<Vec<u8>> {
        self.compressor.compress(body)
    }

    /// Restores a body of this length.
    ///
    /// # Errors
    ///
    /// If the codec is unknown or the bytes are damaged.
    pub(super) fn decompress(
        &mut self,
        codec: i64,
        bytes: &[u8],
        length: i64,
    ) -> io::Result<Vec<u8>> {
        if codec != CODEC {
            let problem = format!("a body has the unknown codec {codec}");
            return Err(io::Error::other(problem));
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a body is too large"))?;
        let body = self.decompressor.decompress(bytes, length)?;
        if body.len() != length {
            return Err(io::Error::other("a body has another length"));
        }
        Ok(body)
    }
}

/// Returns true if a body has rows, and none of another customer. Every accepted answer does; otherwise the
/// database was changed.
pub(super) fn is_of_customer(body: &[u8], customer: CustomerId) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(BodyOwners { items }) = serde_json::from_slice(body) else {
        return false;
    };
    let mut owners = items.iter().flat_map(|row| [&row.customer, &row.tenant]);
    owners.all(|owner| {
        let owner = owner.as_deref().filter(|owner| !owner.is_empty());
        owner.is_none_or(|owner| CustomerId::parse(owner) == Ok(customer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::documented_body;

    #[test]
    fn a_body_comes_back_byte_for_byte() {
        let mut codec = BodyCodec::new().unwrap();
        for body in [
            documented_body(),
            b"\xef\xbb\xbf{\"items\": []}".to_vec(),
            Vec::new(),
        ] {
            let compressed = codec.compress(&body).unwrap();

            let restored = codec
                .decompress(CODEC, &compressed, body.len() as i64)
                .unwrap();

            assert_eq!(restored, body);
        }
    }

    #[test]
    fn a_body_that_is_not_of_the_customer_is_recognized() {
        let own = CustomerId::parse(&crate::simulator::DOCUMENTED_CUSTOMER.to_string()).unwrap();
        let other = CustomerId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        let body_of = |field: &str| {
            let id = own.to_string().to_uppercase();
            format!("\u{feff}{{\"items\": [{{\"{field}\": \"{id}\"}}]}}").into_bytes()
        };
        for (body, customer, expected) in [
            // Microsoft's example names none.
            (documented_body(), other, true),
            (body_of("customerId"), own, true),
            (body_of("customerId"), other, false),
            (body_of("customerTenantId"), other, false),
            (b"{}".to_vec(), own, false),
            (b"no JSON".to_vec(), own, false),
        ] {
            assert_eq!(is_of_customer(&body, customer), expected);
        }
    }

    /// The dictionary must never change: a stored body can be read only with the one that it was written
    /// with.
    #[test]
    fn a_body_of_the_first_release_is_readable() {
        const STORED: &[u8] = &[
            40, 181, 47, 253, 96, 109, 9, 93, 0, 0, 24, 239, 187, 191, 1, 0, 103, 130, 147, 15, 135,
        ];
        let length = documented_body().len() as i64;
        let mut codec = BodyCodec::new().unwrap();

        let restored = codec.decompress(1, STORED, length).unwrap();

        assert_eq!(restored, documented_body());
    }
}
