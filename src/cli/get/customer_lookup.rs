//! The search of a customer by its name.

use http::StatusCode;
use std::fmt;

use serde::Deserialize;

use super::{
    super::{CliError, terminal::sanitize},
    proxy_client::ProxyClient,
};
use crate::{domain::CustomerId, text::fold_case_and_accents};

/// The limit of customers that are listed if a name matches several.
const MAX_LISTED: usize = 20;

/// The fields of Partner Center's list that are needed here.
#[derive(Debug, Deserialize)]
struct CustomersReply {
    items: Vec<CustomersReplyItem>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomersReplyItem {
    id: String,
    company_profile: Option<CustomersReplyProfile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CustomersReplyProfile {
    company_name: Option<String>,
    domain: Option<String>,
}

/// A customer that was found by its name.
#[derive(Debug)]
pub(super) struct CustomerMatch {
    pub(super) id: CustomerId,
    /// Its name in Partner Center.
    pub(super) name: String,
}

// === impl CustomerMatch ===

impl fmt::Display for CustomerMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// Finds the only customer with this name, or else the only one with this in its name or domain.
pub(super) async fn find_by_name(
    proxy: &ProxyClient,
    name: &str,
) -> Result<CustomerMatch, CliError> {
    let reply = proxy
        .get(&["v1", "customers"], &[], "application/json")
        .await?;
    if reply.status == StatusCode::NOT_FOUND {
        return Err(CliError::usage(format!(
            "{name:?} is not a GUID, and this proxy has no list of customers to search; \
             expected a GUID such as 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04"
        )));
    }
    let body = reply.successful()?.body;
    let CustomersReply { items } = serde_json::from_slice(strip_byte_order_mark(&body))
        .map_err(|error| CliError::other(format!("the list of customers is invalid: {error}")))?;
    let found = single_match(items, name)?;
    let id = CustomerId::parse(&found.id)
        .map_err(|error| CliError::other(format!("{}: {error}", sanitize(&found.id))))?;
    let [company_name, domain] = found.name_and_domain();
    let name = if company_name.is_empty() {
        domain
    } else {
        company_name
    };
    Ok(CustomerMatch {
        id,
        name: name.to_owned(),
    })
}

/// Removes the byte-order mark that Microsoft's bodies may begin with.
fn strip_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn single_match(
    customers: Vec<CustomersReplyItem>,
    name: &str,
) -> Result<CustomersReplyItem, CliError> {
    let wanted = fold_case_and_accents(name);
    let mut fitting: Vec<_> = customers
        .into_iter()
        .filter(|customer| customer.folded().iter().any(|text| text.contains(&wanted)))
        .collect();
    let exact = |customer: &CustomersReplyItem| customer.folded().contains(&wanted);
    if fitting.iter().filter(|customer| exact(customer)).count() == 1 {
        fitting.retain(exact);
    }
    match fitting.len() {
        1 => fitting.pop().ok_or_else(|| no_match_error(name)),
        0 => Err(no_match_error(name)),
        _ => Err(multiple_matches_error(fitting, name)),
    }
}

fn no_match_error(name: &str) -> CliError {
    CliError::other(format!(
        "no customer that this caller may see has {name:?} in its name or domain"
    ))
}

fn multiple_matches_error(mut fitting: Vec<CustomersReplyItem>, name: &str) -> CliError {
    fitting.sort_by_key(CustomersReplyItem::folded);
    let count = fitting.len();
    let mut lines = vec![format!(
        "{name:?} matches {count} customers; use more of the name, or the id:"
    )];
    lines.extend(fitting.iter().take(MAX_LISTED).map(|customer| {
        let [name, domain] = customer.name_and_domain();
        sanitize(&format!("{}  {name} ({domain})", customer.id))
    }));
    if count > MAX_LISTED {
        lines.push(format!("and {} more", count - MAX_LISTED));
    }
    CliError::usage(lines.join("\n  "))
}

// === impl CustomersReplyItem ===

impl CustomersReplyItem {
    /// Returns name and domain, empty if Partner Center has none.
    fn name_and_domain(&self) -> [&str; 2] {
        let text = |of: fn(&CustomersReplyProfile) -> Option<&str>| {
            let profile = self.company_profile.as_ref();
            profile.and_then(of).unwrap_or_default()
        };
        [
            text(|profile| profile.company_name.as_deref()),
            text(|profile| profile.domain.as_deref()),
        ]
    }

    fn folded(&self) -> [String; 2] {
        self.name_and_domain().map(fold_case_and_accents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customers(names: &[&str]) -> Vec<CustomersReplyItem> {
        let customer = |name: &&str| CustomersReplyItem {
            id: format!("id-of-{name}"),
            company_profile: Some(CustomersReplyProfile {
                company_name: Some((*name).to_owned()),
                domain: Some(format!("{}.example", name.to_lowercase())),
            }),
        };
        names.iter().map(customer).collect()
    }

    fn error_text(failure: &CliError) -> String {
        let (CliError::Usage(error) | CliError::Other(error)) = failure else {
            return String::new();
        };
        error.to_string()
    }

    #[test]
    fn a_part_of_a_name_is_enough_if_only_one_customer_matches() {
        for (name, found) in [
            ("fabri", "id-of-Fabrikam"),
            ("FABRIKAM.EXAMPLE", "id-of-Fabrikam"),
            // The whole name of one, though others have it in theirs.
            ("contoso", "id-of-Contoso"),
            ("lodz", "id-of-Contoso Łódź"),
        ] {
            let all = customers(&["Contoso", "Contoso Łódź", "Fabrikam"]);

            assert_eq!(single_match(all, name).unwrap().id, found, "{name}");
        }
    }

    #[test]
    fn multiple_matches_are_listed_and_none_is_chosen() {
        let all = customers(&["Contoso West", "Contoso\u{1b}[2J East", "Fabrikam"]);

        let failure = single_match(all, "contoso").unwrap_err();

        assert!(matches!(failure, CliError::Usage(_)));
        let message = error_text(&failure);
        assert!(
            message.starts_with("\"contoso\" matches 2 customers"),
            "{message}"
        );
        assert!(
            message.contains("id-of-Contoso West  Contoso West"),
            "{message}"
        );
        assert!(
            !message.contains("Fabrikam") && !message.contains('\u{1b}'),
            "{message}"
        );
    }

    #[test]
    fn a_name_without_a_match_is_reported() {
        let failure = single_match(customers(&["Contoso"]), "tailspin").unwrap_err();

        assert!(error_text(&failure).contains("\"tailspin\""), "{failure:?}");
    }
}
