use std::fmt;

use uuid::Uuid;

/// A customer of the partner: the GUID of its Microsoft 365 tenant.
///
/// Parsed once, at the edge. Letter case and the written form (plain, hyphenated, in braces) make
/// no difference; it prints as Partner Center's reference writes it, hyphenated and lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerId(Uuid);

/// The text is no GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a GUID such as 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04")]
pub struct InvalidCustomerId;

impl CustomerId {
    /// Bytes of the longest accepted spelling, the one in braces.
    const MAX_LEN: usize = 38;

    /// Reads a GUID in any of its usual spellings, without allocating.
    ///
    /// # Errors
    ///
    /// [`InvalidCustomerId`] for anything else, digits of other scripts included.
    pub fn parse(text: &str) -> Result<Self, InvalidCustomerId> {
        if text.len() > Self::MAX_LEN {
            return Err(InvalidCustomerId);
        }
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidCustomerId)
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENTED: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

    #[test]
    fn every_spelling_of_a_guid_is_the_same_customer() {
        let customer = CustomerId::parse(DOCUMENTED).unwrap();

        for spelling in [
            "4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04",
            "{4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04}",
            "4d3cf48770f44e1e9ff1b2bfce8d9f04",
        ] {
            assert_eq!(CustomerId::parse(spelling), Ok(customer), "{spelling}");
        }
        assert_eq!(customer.to_string(), DOCUMENTED);
    }

    #[test]
    fn text_that_is_no_guid_is_rejected() {
        for text in [
            "",
            "x",
            "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f0",
            "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04/",
            "４d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
            "urn:uuid:4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
            "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04\0",
        ] {
            assert_eq!(CustomerId::parse(text), Err(InvalidCustomerId), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_printed_id_parses_back(bits: u128) {
            let customer = CustomerId(Uuid::from_u128(bits));

            prop_assert_eq!(CustomerId::parse(&customer.to_string()), Ok(customer));
        }

        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,48}") {
            if let Ok(customer) = CustomerId::parse(&text) {
                prop_assert_eq!(CustomerId::parse(&customer.to_string()), Ok(customer));
            }
        }
    }
}
