use std::collections::HashSet;

use super::CustomerId;
use crate::text::fold_case_and_accents;

/// A customer as the partner's list of customers names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerEntry {
    /// The customer.
    pub id: CustomerId,
    /// Its company's name; empty where the upstream sent none.
    pub name: String,
    /// The domain of its tenant, such as `contoso.onmicrosoft.com`.
    pub domain: Option<String>,
}

/// A customer of the list, and all that the upstream said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCustomer {
    /// Its id and names.
    pub entry: CustomerEntry,
    /// The JSON that upstream sent, with unknown fields.
    pub raw: Box<str>,
}

/// Every customer of the partner, each once, in one order.
///
/// The order is by name, then by id, whatever order they came in: the same customers always render
/// to the same bytes, and a place in the list is found again when others come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerList(Vec<ListedCustomer>);

/// A customer's place in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    name: String,
    id: CustomerId,
}

// === impl CustomerEntry ===

impl CustomerEntry {
    /// Its place in the order of the list.
    pub fn position(&self) -> ListPosition {
        ListPosition::new(&self.name, self.id)
    }
}

// === impl ListPosition ===

impl ListPosition {
    /// Characters of a name that count in the order, so that a place is never long.
    const MAX_NAME_CHARS: usize = 64;

    /// The place of a customer of this name and id; letter case and accents make no difference.
    pub fn new(name: &str, id: CustomerId) -> Self {
        let name = fold_case_and_accents(name);
        Self {
            name: name.chars().take(Self::MAX_NAME_CHARS).collect(),
            id,
        }
    }

    /// The name, as far as it counts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id.
    pub fn id(&self) -> CustomerId {
        self.id
    }
}

// === impl CustomerList ===

impl CustomerList {
    /// Sorts customers. Of a customer that was sent twice, because the list changed while it was read page by
    /// page, the first entry counts.
    pub fn new(mut customers: Vec<ListedCustomer>) -> Self {
        let mut known = HashSet::with_capacity(customers.len());
        customers.retain(|customer| known.insert(customer.entry.id));
        customers.sort_by_cached_key(|customer| customer.entry.position());
        Self(customers)
    }

    /// The customers, by name.
    pub fn customers(&self) -> &[ListedCustomer] {
        &self.0
    }
}

impl IntoIterator for CustomerList {
    type Item = ListedCustomer;
    type IntoIter = std::vec::IntoIter<ListedCustomer>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(number: u32, name: &str, raw: &str) -> ListedCustomer {
        let id = format!("00000000-0000-0000-0000-{number:012}");
        ListedCustomer {
            entry: CustomerEntry {
                id: CustomerId::parse(&id).unwrap(),
                name: name.into(),
                domain: None,
            },
            raw: raw.into(),
        }
    }

    #[test]
    fn the_input_order_makes_no_difference() {
        let one_way = vec![
            listed(3, "Litware", "{}"),
            listed(2, "adatum", "{}"),
            listed(1, "Litware", "{}"),
        ];
        let other_way = one_way.iter().rev().cloned().collect();

        let list = CustomerList::new(one_way);

        assert_eq!(list, CustomerList::new(other_way));
        let names: Vec<_> = list
            .customers()
            .iter()
            .map(|listed| listed.entry.name.as_str())
            .collect();
        assert_eq!(names, ["adatum", "Litware", "Litware"]);
    }

    #[test]
    fn accents_do_not_change_the_sort_order() {
        let list = CustomerList::new(vec![
            listed(1, "Munson", "{}"),
            listed(2, "Łódź", "{}"),
            listed(3, "Litware", "{}"),
        ]);

        let names = list.customers().iter().map(|listed| &*listed.entry.name);
        assert_eq!(names.collect::<Vec<_>>(), ["Litware", "Łódź", "Munson"]);
    }

    #[test]
    fn a_customer_sent_twice_is_listed_once() {
        let sent = vec![listed(1, "Contoso", "1"), listed(1, "Contoso Ltd.", "2")];

        let list = CustomerList::new(sent);

        assert_eq!(list.customers().len(), 1);
        assert_eq!(&*list.customers()[0].raw, "1");
    }

    #[test]
    fn a_position_is_short_however_long_the_name() {
        let place = listed(1, &"Ä".repeat(1_000), "{}").entry.position();

        assert_eq!(place.name(), "a".repeat(64));
    }
}
