//! The rendered list of customers, and the parts of it.

use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{document::RenderedDocument, format::ContentCoding},
    filter::CustomerFilter,
    page::{Continuation, CustomerPageRequest},
    search::{CustomerSearch, SearchText},
    slices::{CustomerSlice, SliceCache},
};
use crate::domain::{CustomerEntry, CustomerId, CustomerList};

/// The path of the list in links. They are relative to `/v1`, as some of Partner Center's are:
/// Microsoft's Java SDK puts that before every link.
const CUSTOMERS_PATH: &str = "/customers";

/// The part of the list that a caller may see or requested.
#[derive(Clone, Debug)]
pub enum VisibleCustomers {
    /// The native format.
    Whole,
    /// A slice of it.
    Part(Arc<RenderedDocument>),
}

/// The customers of a rendered list, with their places in the body.
pub struct CustomerIndex {
    customers: Vec<IndexedCustomer>,
    /// Indexes into `customers`, sorted by id.
    by_id: Box<[usize]>,
    search_text_bytes: usize,
    slices: SliceCache,
}

struct IndexedCustomer {
    entry: CustomerEntry,
    /// The place in the body of the whole list.
    body_range: Range<usize>,
    search_text: SearchText,
}

/// Writes a collection as Partner Center does.
struct CollectionWriter {
    body: Vec<u8>,
    is_empty: bool,
}

/// Renders and indexes the whole list.
pub(in crate::render) fn render(list: CustomerList) -> (Vec<u8>, CustomerIndex) {
    let total = list.customers().len();
    let raw_bytes: usize = list.customers().iter().map(|listed| listed.raw.len()).sum();
    let mut collection = CollectionWriter::new(total, raw_bytes + total);
    let customers: Vec<_> = list
        .into_iter()
        .map(|customer| IndexedCustomer {
            body_range: collection.push(customer.raw.as_bytes()),
            search_text: SearchText::new(&customer.entry),
            entry: customer.entry,
        })
        .collect();
    let body = collection.finish(&page_link(None, None, None), None);
    let mut by_id: Box<[_]> = (0..customers.len()).collect();
    by_id.sort_unstable_by_key(|index| customers.get(*index).map(|listed| listed.entry.id));
    let index = CustomerIndex {
        search_text_bytes: customers
            .iter()
            .map(|listed| listed.search_text.len())
            .sum(),
        customers,
        by_id,
        slices: SliceCache::with_capacity_for(body.len()),
    };
    (body, index)
}

// === impl CustomerIndex ===

impl CustomerIndex {
    /// The number of customers.
    pub fn len(&self) -> usize {
        self.customers.len()
    }

    /// Returns true if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }

    /// The customers, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = &CustomerEntry> {
        self.customers.iter().map(|listed| &listed.entry)
    }

    /// Finds a customer by its id.
    pub fn find(&self, id: CustomerId) -> Option<&CustomerEntry> {
        let entry = |index: &usize| self.customers.get(*index).map(|listed| &listed.entry);
        let found = self
            .by_id
            .binary_search_by_key(&Some(id), |index| entry(index).map(|entry| entry.id));
        entry(self.by_id.get(found.ok()?)?)
    }

    /// The customers that a search matches, sorted by name.
    pub fn search(&self, search: &CustomerSearch) -> impl Iterator<Item = &CustomerEntry> {
        let found = self.customers.iter();
        found
            .filter(|listed| search.matches(&listed.search_text))
            .map(|listed| &listed.entry)
    }

    /// The customers whose whole name is searched; none if the search matches all.
    pub fn with_exact_name(&self, search: &CustomerSearch) -> impl Iterator<Item = &CustomerEntry> {
        let found = self.customers.iter();
        found
            .filter(|listed| search.matches_name(&listed.search_text))
            .map(|listed| &listed.entry)
    }

    /// The number of bytes that a search reads.
    pub fn search_bytes(&self) -> usize {
        self.customers.len() * size_of::<IndexedCustomer>() + self.search_text_bytes
    }

    /// Returns the result of [`Self::visible`] if it is cached in this coding.
    pub(in crate::render) fn cached_visible(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Option<VisibleCustomers> {
        let Some(slice) = self.slice(may_see, page) else {
            return Some(VisibleCustomers::Whole);
        };
        let part = self.slices.get(&slice)?;
        part.ready(coding)?;
        Some(VisibleCustomers::Part(part))
    }

    /// Cuts the `whole` list to what a caller may see.
    ///
    /// # Blocking
    ///
    /// If another thread renders the same, it waits for that.
    pub(in crate::render) fn visible(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        whole: &RenderedDocument,
    ) -> VisibleCustomers {
        let Some(slice) = self.slice(may_see, page) else {
            return VisibleCustomers::Whole;
        };
        VisibleCustomers::Part(self.slices.get_or_render(&slice, || {
            let body = self.write_slice(&slice, whole.identity.body());
            RenderedDocument::new(&body, whole.modified_at())
        }))
    }

    /// Returns `None` for the whole list.
    fn slice(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
    ) -> Option<CustomerSlice> {
        let filter = page.and_then(|page| page.filter.as_ref());
        let matches = filter.map(CustomerFilter::matcher);
        let is_visible = |listed: &IndexedCustomer| {
            let matches = matches.as_ref();
            may_see(listed.entry.id) && matches.is_none_or(|matches| matches(&listed.search_text))
        };
        let visible: Vec<bool> = self.customers.iter().map(is_visible).collect();
        if page.is_none() && visible.iter().all(|visible| *visible) {
            return None;
        }
        let before = page
            .and_then(|page| page.after.as_ref())
            .map_or(0, |after| {
                self.customers
                    .partition_point(|listed| listed.entry.position() <= *after)
            });
        let before = visible.iter().take(before);
        let start = before.filter(|visible| **visible).count();
        let size = page.and_then(CustomerPageRequest::rounded_size);
        Some(CustomerSlice::new(&visible, start, size, filter.cloned()))
    }

    fn write_slice(&self, slice: &CustomerSlice, whole: &[u8]) -> Vec<u8> {
        let listed = self.customers.iter().enumerate();
        let visible: Vec<&IndexedCustomer> = listed
            .filter_map(|(index, listed)| slice.includes(index).then_some(listed))
            .collect();
        let (size, filter) = (slice.size, slice.filter.as_ref());
        let rest = visible.get(slice.start..).unwrap_or_default();
        let page_len = size.map_or(rest.len(), |size| size.get() as usize);
        let (items, more) = rest.split_at(page_len.min(rest.len()));
        let token_after = |listed: &IndexedCustomer| {
            let continuation = Continuation {
                size: size?,
                filter: filter.cloned(),
                after: listed.entry.position(),
            };
            Some(continuation.to_string())
        };
        let before = slice
            .start
            .checked_sub(1)
            .and_then(|last| visible.get(last));
        let this = before.and_then(|listed| token_after(listed));
        let last = items.last().filter(|_| !more.is_empty());
        let next = last.and_then(|listed| token_after(listed));

        let bytes: usize = items.iter().map(|listed| listed.body_range.len() + 1).sum();
        let mut collection = CollectionWriter::new(visible.len(), bytes);
        for listed in items {
            collection.push(whole.get(listed.body_range.clone()).unwrap_or_default());
        }
        let next = next.map(|token| (page_link(size, filter, Some(&token)), token));
        collection.finish(&page_link(size, filter, this.as_deref()), next)
    }

    /// The memory in bytes that it takes, with the largest size of its slices.
    pub(in crate::render) fn weight(&self) -> usize {
        let texts: usize = self
            .entries()
            .map(|entry| entry.name.len() + entry.domain.as_ref().map_or(0, String::len))
            .sum();
        let places = self.customers.len() * (size_of::<IndexedCustomer>() + size_of::<usize>());
        places + texts + self.search_text_bytes + self.slices.weight()
    }
}

impl fmt::Debug for CustomerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerIndex")
            .field("customers", &self.customers.len())
            .finish_non_exhaustive()
    }
}

// === impl CollectionWriter ===

impl CollectionWriter {
    /// Room for what surrounds the items.
    const ENVELOPE_BYTES: usize = 512;

    fn new(total: usize, item_bytes: usize) -> Self {
        let mut body = Vec::with_capacity(item_bytes + Self::ENVELOPE_BYTES);
        body.extend_from_slice(format!("{{\"totalCount\":{total},\"items\":[").as_bytes());
        Self {
            body,
            is_empty: true,
        }
    }

    /// Adds an item and returns its place.
    fn push(&mut self, raw: &[u8]) -> Range<usize> {
        if !self.is_empty {
            self.body.push(b',');
        }
        self.is_empty = false;
        let start = self.body.len();
        self.body.extend_from_slice(raw);
        start..self.body.len()
    }

    /// Ends the collection with the link to this page, and the link and the token of the next one.
    fn finish(mut self, this: &Value, next: Option<(Value, String)>) -> Vec<u8> {
        let attributes = json!({ "objectType": "Collection" });
        let tail = match next {
            Some((next, token)) => json!({
                "links": { "self": this, "next": next },
                "attributes": attributes,
                "continuationToken": token,
            }),
            None => json!({ "links": { "self": this }, "attributes": attributes }),
        };
        self.body.extend_from_slice(b"],");
        // The tail continues the object of the items, so its first brace goes.
        let tail = tail.to_string();
        self.body
            .extend_from_slice(tail.trim_start_matches('{').as_bytes());
        self.body
    }
}

/// A link to the page after a token, as Partner Center writes it.
fn page_link(
    size: Option<NonZeroU32>,
    filter: Option<&CustomerFilter>,
    token: Option<&str>,
) -> Value {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if let Some(size) = size {
        query.append_pair("size", &size.to_string());
    }
    if let Some(filter) = filter {
        query.append_pair("filter", &filter.to_string());
    }
    if token.is_some() {
        query.append_pair("seekOperation", "Next");
    }
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    let headers = token.map(|value| json!({ "key": Continuation::HEADER, "value": value }));
    json!({
        "uri": format!("{CUSTOMERS_PATH}{separator}{query}"),
        "method": "GET",
        "headers": headers.into_iter().collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ListedCustomer;

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
        render(list).1
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
