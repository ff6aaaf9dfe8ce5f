//! Pages of the list of customers, and the tokens that lead from one to the next.

use std::{fmt, num::NonZeroU32};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::filter::CustomerFilter;
use crate::domain::{CustomerId, ListPosition};

/// The requested part of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerPageRequest {
    /// The requested size of a page; all customers if absent. See [`Self::rounded_size`].
    pub size: Option<NonZeroU32>,
    /// The end of the page before; the first page if absent.
    pub after: Option<ListPosition>,
    /// All customers if absent.
    pub filter: Option<CustomerFilter>,
}

/// The content of a continuation token.
///
/// It names the last customer that its caller saw and nothing else, so it tells nobody about another
/// caller's customers. A position stays valid while customers are added or removed, so no customer is
/// skipped if the list changes between two pages. It grants no rights: those are the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The size of a page.
    pub size: NonZeroU32,
    /// The filter, since the SDK repeats the token only.
    pub filter: Option<CustomerFilter>,
    /// The end of the page before.
    pub after: ListPosition,
}

/// The text is not a continuation token of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the token of the page before, as it was sent")]
pub struct InvalidContinuation;

// === impl CustomerPageRequest ===

impl CustomerPageRequest {
    /// The largest page, as in Partner Center.
    pub const MAX_SIZE: NonZeroU32 = NonZeroU32::new(500).unwrap();

    const ROUNDED_SIZES: [NonZeroU32; 5] = [
        Self::MAX_SIZE,
        NonZeroU32::new(200).unwrap(),
        NonZeroU32::new(100).unwrap(),
        NonZeroU32::new(50).unwrap(),
        NonZeroU32::new(20).unwrap(),
    ];

    /// Returns the size of a page: the requested one, rounded down to 20, 50, 100, 200 or 500, or
    /// unchanged below 20. So callers that request similar sizes share a page. `None` for all customers.
    pub fn rounded_size(&self) -> Option<NonZeroU32> {
        let requested = self.size?;
        let mut sizes = Self::ROUNDED_SIZES.into_iter();
        Some(sizes.find(|size| *size <= requested).unwrap_or(requested))
    }
}

// === impl Continuation ===

impl Continuation {
    /// The header of a request for the next page.
    pub const HEADER: &'static str = "MS-ContinuationToken";

    /// Enough for the longest name and filter.
    const MAX_BYTES: usize = 2_048;

    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`InvalidContinuation`] for text that [`Continuation`] did not write.
    pub fn parse(token: &[u8]) -> Result<Self, InvalidContinuation> {
        if token.len() > Self::MAX_BYTES {
            return Err(InvalidContinuation);
        }
        let text = URL_SAFE_NO_PAD.decode(token).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        text.as_deref()
            .and_then(Self::parse_text)
            .ok_or(InvalidContinuation)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut fields = text.splitn(3, ' ');
        let (size, id, name) = (fields.next()?, fields.next()?, fields.next()?);
        let (size, filter) = match size.split_once('/') {
            Some((size, filter)) => {
                let filter = URL_SAFE_NO_PAD.decode(filter).ok()?;
                let filter = CustomerFilter::parse(std::str::from_utf8(&filter).ok()?);
                (size, Some(filter.ok()?))
            }
            None => (size, None),
        };
        Some(Self {
            size: size.parse().ok()?,
            filter,
            after: ListPosition::new(name, CustomerId::parse(id).ok()?),
        })
    }
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            size,
            filter,
            after,
        } = self;
        let filter = filter.as_ref().map_or_else(String::new, |filter| {
            format!("/{}", URL_SAFE_NO_PAD.encode(filter.to_string()))
        });
        let text = format!("{size}{filter} {} {}", after.id(), after.name());
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::samples;

    fn continuation(size: u32, name: &str) -> Continuation {
        Continuation {
            size: NonZeroU32::new(size).unwrap(),
            filter: None,
            after: ListPosition::new(name, samples::customer()),
        }
    }

    #[test]
    fn an_invalid_token_is_rejected() {
        let good = continuation(40, "Contoso").to_string();
        for token in [
            "",
            "page-from-40",
            "====",
            &good[1..],
            &format!("{good}="),
            &URL_SAFE_NO_PAD.encode("0 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04 Contoso"),
            &URL_SAFE_NO_PAD.encode("-1 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04 Contoso"),
            &URL_SAFE_NO_PAD.encode("40 x Contoso"),
            &URL_SAFE_NO_PAD.encode("40/e30 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04 Contoso"),
            &URL_SAFE_NO_PAD.encode("40 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04"),
            &"A".repeat(4_000),
        ] {
            let parsed = Continuation::parse(token.as_bytes());
            assert_eq!(parsed, Err(InvalidContinuation), "{token}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_printed_token_parses_back(
            size in 1_u32..,
            name in "\\PC{0,200}",
            begin in prop::option::of("\\PC{0,50}"),
        ) {
            let mut continuation = continuation(size, &name);
            continuation.filter = begin.map(|begin| {
                let filter = serde_json::json!({
                    "Field": "Domain", "Value": begin, "Operator": "starts_with",
                });
                CustomerFilter::parse(&filter.to_string()).unwrap()
            });

            let token = continuation.to_string();

            prop_assert_eq!(Continuation::parse(token.as_bytes()), Ok(continuation));
        }

        #[test]
        fn any_bytes_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(continuation) = Continuation::parse(&bytes) {
                prop_assert!(continuation.to_string().len() <= Continuation::MAX_BYTES);
            }
        }
    }
}
