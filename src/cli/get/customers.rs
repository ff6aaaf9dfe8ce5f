//! A customer by its name.

use http::StatusCode;
use serde::Deserialize;

use super::{
    super::{Failure, terminal::harmless},
    problem::Told,
    proxy::Proxy,
};
use crate::{domain::CustomerId, folding::folded};

/// Customers that are named where a name fits several.
const MOST_NAMED: usize = 20;

/// Partner Center's list, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Customers {
    items: Vec<Customer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Customer {
    id: String,
    company_profile: Option<Profile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    company_name: Option<String>,
    domain: Option<String>,
}

/// A customer that was looked for by its name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: CustomerId,
    /// What Partner Center calls it.
    pub(super) name: String,
}

/// Finds the one customer that has this name, or else has this in its name or domain.
pub(super) async fn find(proxy: &Proxy, name: &str) -> Result<Found, Failure> {
    let reply = proxy
        .get(&["v1", "customers"], &[], "application/json")
        .await?;
    if reply.status == StatusCode::NOT_FOUND {
        return Err(Failure::usage(format!(
            "{name:?} is no GUID, and this proxy has no list of customers to find a name in; \
             expected a GUID such as 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04"
        )));
    }
    if reply.status != StatusCode::OK {
        return Err(Told::by(&reply).into_failure());
    }
    let Customers { items } = serde_json::from_slice(without_byte_order_mark(&reply.body))
        .map_err(|error| Failure::other(format!("the list of customers is none: {error}")))?;
    let found = the_one(items, name)?;
    let id = CustomerId::parse(&found.id)
        .map_err(|error| Failure::other(format!("{}: {error}", harmless(&found.id))))?;
    let [company_name, domain] = found.texts();
    let name = if company_name.is_empty() {
        domain
    } else {
        company_name
    };
    Ok(Found {
        id,
        name: name.to_owned(),
    })
}

/// Microsoft's bodies may begin with one.
fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn the_one(customers: Vec<Customer>, name: &str) -> Result<Customer, Failure> {
    let wanted = folded(name);
    let mut fitting: Vec<_> = customers
        .into_iter()
        .filter(|customer| customer.folded().iter().any(|text| text.contains(&wanted)))
        .collect();
    let exact = |customer: &Customer| customer.folded().contains(&wanted);
    if fitting.iter().filter(|customer| exact(customer)).count() == 1 {
        fitting.retain(exact);
    }
    match fitting.len() {
        1 => fitting.pop().ok_or_else(|| nobody(name)),
        0 => Err(nobody(name)),
        _ => Err(several(fitting, name)),
    }
}

fn nobody(name: &str) -> Failure {
    Failure::other(format!(
        "no customer that this caller may see has {name:?} in its name or domain"
    ))
}

fn several(mut fitting: Vec<Customer>, name: &str) -> Failure {
    fitting.sort_by_key(Customer::folded);
    let count = fitting.len();
    let mut lines = vec![format!(
        "{name:?} fits {count} customers; name one by more of its name, or its id:"
    )];
    lines.extend(fitting.iter().take(MOST_NAMED).map(|customer| {
        let [name, domain] = customer.texts();
        harmless(&format!("{}  {name} ({domain})", customer.id))
    }));
    if count > MOST_NAMED {
        lines.push(format!("and {} more", count - MOST_NAMED));
    }
    Failure::usage(lines.join("\n  "))
}

// === impl Customer ===

impl Customer {
    /// What it may be called by: name and domain, empty where Partner Center has none.
    fn texts(&self) -> [&str; 2] {
        let text = |of: fn(&Profile) -> Option<&str>| {
            let profile = self.company_profile.as_ref();
            profile.and_then(of).unwrap_or_default()
        };
        [
            text(|profile| profile.company_name.as_deref()),
            text(|profile| profile.domain.as_deref()),
        ]
    }

    fn folded(&self) -> [String; 2] {
        self.texts().map(folded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customers(names: &[&str]) -> Vec<Customer> {
        let customer = |name: &&str| Customer {
            id: format!("id-of-{name}"),
            company_profile: Some(Profile {
                company_name: Some((*name).to_owned()),
                domain: Some(format!("{}.example", name.to_lowercase())),
            }),
        };
        names.iter().map(customer).collect()
    }

    fn told(failure: &Failure) -> String {
        let (Failure::Usage(error) | Failure::Other(error)) = failure else {
            return String::new();
        };
        error.to_string()
    }

    #[test]
    fn a_part_of_a_name_is_enough_where_only_one_has_it() {
        for (name, found) in [
            ("fabri", "id-of-Fabrikam"),
            ("FABRIKAM.EXAMPLE", "id-of-Fabrikam"),
            // The whole name of one, though others have it in theirs.
            ("contoso", "id-of-Contoso"),
            ("lodz", "id-of-Contoso Łódź"),
        ] {
            let all = customers(&["Contoso", "Contoso Łódź", "Fabrikam"]);

            assert_eq!(the_one(all, name).unwrap().id, found, "{name}");
        }
    }

    #[test]
    fn several_that_fit_are_named_and_none_is_chosen() {
        let all = customers(&["Contoso West", "Contoso\u{1b}[2J East", "Fabrikam"]);

        let failure = the_one(all, "contoso").unwrap_err();

        assert!(matches!(failure, Failure::Usage(_)));
        let told = told(&failure);
        assert!(told.starts_with("\"contoso\" fits 2 customers"), "{told}");
        assert!(told.contains("id-of-Contoso West  Contoso West"), "{told}");
        assert!(
            !told.contains("Fabrikam") && !told.contains('\u{1b}'),
            "{told}"
        );
    }

    #[test]
    fn a_name_that_nobody_has_is_said_to_be_nobodys() {
        let failure = the_one(customers(&["Contoso"]), "tailspin").unwrap_err();

        assert!(told(&failure).contains("\"tailspin\""), "{failure:?}");
    }
}
