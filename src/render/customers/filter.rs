use std::fmt;

use serde_json::{Map, Value, json};

use super::{super::adoption::display_text, search::SEPARATOR};
use crate::text_folding::fold_case_and_accents;

/// Microsoft's simple filter: customers whose name or domain begins with a text, whatever its
/// letter case and accents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    field: FilterField,
    value: String,
}

/// What of a customer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FilterField {
    CompanyName,
    Domain,
}

/// The text is no filter that is supported.
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
    /// Bytes of the longest text that customers are compared with.
    const MAX_BYTES: usize = 256;

    /// Reads a filter as Microsoft's SDKs write it: the names of its members differ in letter case,
    /// the operator is `starts_with` or `StartsWith`, and Java's has a member more.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`] says what is supported.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let members: Map<String, Value> = serde_json::from_str(text).map_err(|_| InvalidFilter)?;
        let member = |name: &str| {
            let mut members = members.iter();
            let (_, value) = members.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            value.as_str()
        };
        let is_operator = |operator: &str| {
            ["starts_with", "StartsWith"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(operator))
        };
        let field = member("Field").and_then(FilterField::from_name);
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

    /// Bytes that it refers to.
    pub(super) fn weight(&self) -> usize {
        self.value.len()
    }

    /// Compares customers, by the terms that they are found by.
    pub(super) fn matcher(&self) -> impl Fn(&str) -> bool {
        let (field, begin) = (
            self.field,
            fold_case_and_accents(&display_text(&self.value)),
        );
        move |terms: &str| {
            let (name, domain) = terms.split_once(SEPARATOR).unwrap_or((terms, ""));
            let compared = match field {
                FilterField::CompanyName => name,
                FilterField::Domain => domain,
            };
            compared.starts_with(&begin)
        }
    }
}

impl fmt::Display for CustomerFilter {
    /// As [`CustomerFilter::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = json!({
            "Field": self.field.as_str(), "Value": self.value, "Operator": "starts_with",
        });
        filter.fmt(f)
    }
}

// === impl Field ===

impl FilterField {
    const ALL: [Self; 2] = [Self::CompanyName, Self::Domain];

    fn from_name(name: &str) -> Option<Self> {
        let mut fields = Self::ALL.into_iter();
        fields.find(|field| field.as_str().eq_ignore_ascii_case(name))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::CompanyName => "CompanyName",
            Self::Domain => "Domain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            filter.matcher()("muller co\nmueller.example")
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
