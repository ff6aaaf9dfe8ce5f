use std::{fmt, num::NonZeroU32};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::CustomerFilter;
use crate::domain::{CustomerId, ListPosition};

/// Where a page goes on: what a continuation token says.
///
/// It names the last customer that its caller was shown and nothing else, so it tells nobody of
/// another's customers; and since a place is found again whoever comes and goes, no customer is
/// skipped where the list changes between two pages. It gives no right: whose list goes on there is
/// for the request to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Customers of a page at most.
    pub size: NonZeroU32,
    /// Which customers: the SDK repeats the token alone.
    pub filter: Option<CustomerFilter>,
    /// The page begins behind this place.
    pub after: ListPosition,
}

/// The text is no continuation token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the token of the page before, as it was sent")]
pub struct InvalidContinuation;

// === impl Continuation ===

impl Continuation {
    /// The header that it is repeated in.
    pub const HEADER: &'static str = "MS-ContinuationToken";

    /// Bytes of the longest: that of a name in the longest letters, and of a filter.
    const MAX_BYTES: usize = 2_048;

    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`InvalidContinuation`] for anything that was not made by its `Display`.
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
