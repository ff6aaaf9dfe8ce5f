use super::{super::adoption::displayable, CustomerIndex};
use crate::{
    domain::{CustomerEntry, CustomerId},
    folding::folded,
};

/// What somebody looks for among customers: compared with names and domains as they are shown.
/// Letter case and accents make no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought(String);

/// Stands between what a customer is found by; nothing that is shown holds it.
pub(super) const BETWEEN: char = '\n';

/// What a customer is found by: its name and its domain.
pub(super) fn terms(entry: &CustomerEntry) -> Box<str> {
    let mut terms = folded(&displayable(&entry.name));
    terms.push(BETWEEN);
    terms.push_str(&folded(&displayable(
        entry.domain.as_deref().unwrap_or_default(),
    )));
    terms.into_boxed_str()
}

// === impl Sought ===

impl Sought {
    /// What this text looks for; everybody where it is empty.
    pub fn new(text: &str) -> Self {
        Self(folded(&displayable(text)))
    }

    /// Whether it finds everybody.
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl CustomerIndex ===

impl CustomerIndex {
    /// The customer of this id.
    pub fn find(&self, id: CustomerId) -> Option<&CustomerEntry> {
        let found = self
            .by_id
            .binary_search_by_key(&Some(id), |at| self.listed.get(*at).map(|one| one.entry.id));
        let at = self.by_id.get(found.ok()?)?;
        self.listed.get(*at).map(|listed| &listed.entry)
    }

    /// Customers that have this in their name or domain, by name.
    pub fn search(&self, sought: &Sought) -> impl Iterator<Item = &CustomerEntry> {
        let found = self
            .listed
            .iter()
            .filter(|listed| listed.terms.contains(&sought.0));
        found.map(|listed| &listed.entry)
    }

    /// Customers whose whole name this is; none where it finds everybody.
    pub fn named(&self, sought: &Sought) -> impl Iterator<Item = &CustomerEntry> {
        let is_name = |terms: &str| {
            let rest = terms.strip_prefix(&sought.0);
            rest.is_some_and(|rest| rest.starts_with(BETWEEN))
        };
        let listed = self.listed.iter().filter(|_| !sought.is_everybody());
        let found = listed.filter(move |listed| is_name(&listed.terms));
        found.map(|listed| &listed.entry)
    }

    /// Bytes that a search goes through.
    pub fn search_bytes(&self) -> usize {
        self.listed.len() * size_of::<super::Listed>() + self.terms_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CustomerList, ListedCustomer};

    fn id(number: u32) -> CustomerId {
        CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
    }

    /// Customers by number.
    fn index(customers: &[(u32, &str, Option<&str>)]) -> CustomerIndex {
        let listed = customers
            .iter()
            .map(|(number, name, domain)| ListedCustomer {
                entry: CustomerEntry {
                    id: id(*number),
                    name: (*name).into(),
                    domain: domain.map(Into::into),
                },
                raw: "{}".into(),
            });
        let list = CustomerList::new(listed.collect());
        super::super::render(list).unwrap().1
    }

    fn ids<'a>(found: impl Iterator<Item = &'a CustomerEntry>) -> Vec<CustomerId> {
        found.map(|entry| entry.id).collect()
    }

    #[test]
    fn everybody_is_found_by_id_whatever_the_order_of_names() {
        let index = index(&[(3, "A", None), (1, "B", None), (2, "C", None)]);

        for number in 1..=3 {
            assert_eq!(index.find(id(number)).unwrap().id, id(number));
        }
        assert_eq!(index.find(id(4)), None);
    }

    #[test]
    fn names_and_domains_are_searched_as_they_are_shown() {
        let index = index(&[
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
            let expected: Vec<_> = expected.iter().copied().map(id).collect();

            assert_eq!(ids(index.search(&Sought::new(text))), expected, "{text:?}");
        }
    }

    #[test]
    fn only_a_whole_name_is_somebodys_and_an_empty_one_nobodys() {
        let index = index(&[
            (1, "", None),
            (2, "Contoso", None),
            (3, "Contoso Ltd", None),
        ]);

        assert_eq!(ids(index.named(&Sought::new("CONTOSO"))), [id(2)]);
        assert_eq!(ids(index.named(&Sought::new("Conto"))), []);
        assert_eq!(ids(index.named(&Sought::new("\u{2068}"))), []);
    }
}
