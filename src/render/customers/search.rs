use super::{super::adoption::display_text, CustomerIndex};
use crate::{
    domain::{CustomerEntry, CustomerId},
    text_folding::fold_case_and_accents,
};

/// What somebody looks for among customers: compared with names and domains as they are shown.
/// Letter case and accents make no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerSearch(String);

/// Stands between what a customer is found by; nothing that is shown holds it.
pub(super) const SEPARATOR: char = '\n';

/// What a customer is found by: its name and its domain.
pub(super) fn search_text(entry: &CustomerEntry) -> Box<str> {
    let mut terms = fold_case_and_accents(&display_text(&entry.name));
    terms.push(SEPARATOR);
    terms.push_str(&fold_case_and_accents(&display_text(
        entry.domain.as_deref().unwrap_or_default(),
    )));
    terms.into_boxed_str()
}

// === impl Sought ===

impl CustomerSearch {
    /// What this text looks for; everybody where it is empty.
    pub fn new(text: &str) -> Self {
        Self(fold_case_and_accents(&display_text(text)))
    }

    /// Whether it finds everybody.
    pub fn matches_all(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl CustomerIndex ===

impl CustomerIndex {
    /// The customer of this id.
    pub fn find(&self, id: CustomerId) -> Option<&CustomerEntry> {
        let found = self.by_id.binary_search_by_key(&Some(id), |at| {
            self.customers.get(*at).map(|one| one.entry.id)
        });
        let at = self.by_id.get(found.ok()?)?;
        self.customers.get(*at).map(|listed| &listed.entry)
    }

    /// Customers that have this in their name or domain, by name.
    pub fn search(&self, sought: &CustomerSearch) -> impl Iterator<Item = &CustomerEntry> {
        let found = self
            .customers
            .iter()
            .filter(|listed| listed.search_text.contains(&sought.0));
        found.map(|listed| &listed.entry)
    }

    /// Customers whose whole name this is; none where it finds everybody.
    pub fn with_exact_name(&self, sought: &CustomerSearch) -> impl Iterator<Item = &CustomerEntry> {
        let is_name = |terms: &str| {
            let rest = terms.strip_prefix(&sought.0);
            rest.is_some_and(|rest| rest.starts_with(SEPARATOR))
        };
        let listed = self.customers.iter().filter(|_| !sought.matches_all());
        let found = listed.filter(move |listed| is_name(&listed.search_text));
        found.map(|listed| &listed.entry)
    }

    /// Bytes that a search goes through.
    pub fn search_bytes(&self) -> usize {
        self.customers.len() * size_of::<super::IndexedCustomer>() + self.search_text_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CustomerList, ListedCustomer};

    fn numbered_id(number: u32) -> CustomerId {
        CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
    }

    /// Customers by number.
    fn index_of(customers: &[(u32, &str, Option<&str>)]) -> CustomerIndex {
        let listed = customers
            .iter()
            .map(|(number, name, domain)| ListedCustomer {
                entry: CustomerEntry {
                    id: numbered_id(*number),
                    name: (*name).into(),
                    domain: domain.map(Into::into),
                },
                raw: "{}".into(),
            });
        let list = CustomerList::new(listed.collect());
        super::super::render(list).unwrap().1
    }

    fn found_ids<'a>(found: impl Iterator<Item = &'a CustomerEntry>) -> Vec<CustomerId> {
        found.map(|entry| entry.id).collect()
    }

    #[test]
    fn every_customer_is_found_by_id_whatever_the_order_of_names() {
        let index = index_of(&[(3, "A", None), (1, "B", None), (2, "C", None)]);

        for number in 1..=3 {
            assert_eq!(
                index.find(numbered_id(number)).unwrap().id,
                numbered_id(number)
            );
        }
        assert_eq!(index.find(numbered_id(4)), None);
    }

    #[test]
    fn names_and_domains_are_searched_as_displayed() {
        let index = index_of(&[
            (1, "Con\u{202e}toso", Some("one.example")),
            (2, "MÜLLER\tCo", Some("two.example")),
        ]);

        for (text, expected) in [
            ("", &[1, 2][..]),
            ("contoso", &[1]),
            (" müller co ", &[2]),
            ("muller CO", &[2]),
            ("EXAMPLE", &[1, 2]),
            ("con\u{202c}toso", &[1]),
            ("co\none", &[]),
            ("contoso\none", &[]),
        ] {
            let expected: Vec<_> = expected.iter().copied().map(numbered_id).collect();

            assert_eq!(
                found_ids(index.search(&CustomerSearch::new(text))),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn an_exact_name_search_matches_only_whole_names_and_never_an_empty_one() {
        let index = index_of(&[
            (1, "", None),
            (2, "Contoso", None),
            (3, "Contoso Ltd", None),
        ]);

        assert_eq!(
            found_ids(index.with_exact_name(&CustomerSearch::new("CONTOSO"))),
            [numbered_id(2)]
        );
        assert_eq!(
            found_ids(index.with_exact_name(&CustomerSearch::new("Conto"))),
            []
        );
        assert_eq!(
            found_ids(index.with_exact_name(&CustomerSearch::new("\u{2068}"))),
            []
        );
    }
}
