//! The filter of the list of customers.

use std::fmt;

use serde_json::{Map, Value, json};
use strum::{EnumString, IntoStaticStr};

use super::search::{SearchText, fold_for_search};

/// Microsoft's simple filter: customers whose name or domain starts with a text. Letter case and
/// accents make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    field: FilterField,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(ascii_case_insensitive)]
enum FilterField {
    CompanyName,
    Domain,
}

/// The text is not a supported filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected JSON such as {{\"Field\":\"CompanyName\",\"Value\":\"Contoso\",\
     \"Operator\":\"starts_with\"}}, with the Field CompanyName or Domain, no other Operator, and \
     a Value of up to {longest} bytes",
    longest = CustomerFilter::MAX_BYTES
)]
pub struct InvalidFilter;

// === impl CustomerFilter ===

impl CustomerFilter {
    /// The longest value, in bytes.
    const MAX_BYTES: usize = 256;

    /// Reads a filter as Microsoft's SDKs write it: the names of its members differ in letter case,
    /// the operator is `starts_with` or `StartsWith`, and Java's SDK sends one more member.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let members: Map<String, Value> = serde_json::from_str(text).map_err(|_| InvalidFilter)?;
        let member = |name: &str| {
            let mut members = members.iter();
            let (_, value) = members.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            value.as_str()
        };
        let is_operator = |operator: &str| {
            operator.eq_ignore_ascii_case("starts_with")
                || operator.eq_ignore_ascii_case("StartsWith")
        };
        let field = member("Field").and_then(|name| name.parse().ok());
        let fits =
            |value: &&str| value.len() <= Self::MAX_BYTES && !value.contains(char::is_control);
        let value = member("Value").filter(fits);
        match (field, value) {
            (Some(field), Some(value)) if member("Operator").is_some_and(is_operator) => Ok(Self {
                field,
                value: value.to_owned(),
            }),
            _ => Err(InvalidFilter),
        }
    }

    /// The memory in bytes that it refers to.
    pub(super) fn weight(&self) -> usize {
        self.value.len()
    }

    /// Returns a function that compares customers with the filter.
    pub(super) fn matcher(&self) -> impl Fn(&SearchText) -> bool {
        let (field, start) = (self.field, fold_for_search(&self.value));
        move |text| match field {
            FilterField::CompanyName => text.name().starts_with(&start),
            FilterField::Domain => text.domain().starts_with(&start),
        }
    }
}

impl fmt::Display for CustomerFilter {
    /// Writes the filter as [`CustomerFilter::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field: &str = self.field.into();
        json!({ "Field": field, "Value": self.value, "Operator": "starts_with" }).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CustomerEntry, samples};

    #[test]
    fn a_filter_of_every_sdk_is_parsed_and_round_trips() {
        for text in [
            r#"{"Field":"CompanyName","Value":"Con","Operator":"starts_with"}"#,
            r#"{"fieldType":"STRING","operator":"StartsWith","field":"CompanyName","value":"Con"}"#,
        ] {
            let filter = CustomerFilter::parse(text).unwrap();

            assert_eq!(filter.field, FilterField::CompanyName);
            assert_eq!(filter.value, "Con");
            assert_eq!(CustomerFilter::parse(&filter.to_string()), Ok(filter));
        }
    }

    #[test]
    fn an_unsupported_filter_is_rejected() {
        let filter = |field: &str, operator: &str, value: Value| {
            json!({ "Field": field, "Operator": operator, "Value": value }).to_string()
        };
        for text in [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            "Contoso".to_owned(),
            filter("IndirectReseller", "starts_with", json!("a")),
            filter("CompanyName", "equals", json!("a")),
            filter("CompanyName", "not_starts_with", json!("a")),
            filter("CompanyName", "starts_with", json!(7)),
            filter("CompanyName", "starts_with", json!("a\u{0}")),
            filter("Domain", "starts_with", json!("a".repeat(257))),
        ] {
            assert_eq!(CustomerFilter::parse(&text), Err(InvalidFilter), "{text}");
        }
    }

    #[test]
    fn the_named_field_is_compared_without_case_or_accents() {
        let begins = |field: &str, value: &str| {
            let text = json!({ "Field": field, "Operator": "starts_with", "Value": value });
            let filter = CustomerFilter::parse(&text.to_string()).unwrap();
            filter.matcher()(&SearchText::new(&CustomerEntry {
                id: samples::customer(),
                name: "Müller Co".into(),
                domain: Some("mueller.example".into()),
            }))
        };

        for (field, value, expected) in [
            ("CompanyName", "MÜLLER C", true),
            ("CompanyName", "", true),
            ("CompanyName", "co", false),
            ("CompanyName", "mueller", false),
            ("CompanyName", "mull", true),
            ("Domain", "Mueller.", true),
            ("Domain", "müller", false),
        ] {
            assert_eq!(begins(field, value), expected, "{field} {value}");
        }
    }
}
