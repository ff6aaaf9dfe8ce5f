//! The list of customers: rendered whole, and cut to what a caller may see or wants of it.

mod continuation;
mod filter;
mod search;
mod slices;

use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc};

use serde::Serialize;

use self::slices::{CustomerSlice, SliceCache};
pub use self::{
    continuation::{Continuation, InvalidContinuation},
    filter::{CustomerFilter, InvalidFilter},
    search::CustomerSearch,
};
use super::{ContentCoding, RenderedDocument};
use crate::domain::{CustomerEntry, CustomerId, CustomerList, ListPosition};

/// The list in links, which are relative to `/v1` as some of Partner Center's are: Microsoft's Java
/// SDK puts that before whatever they say.
const CUSTOMERS_PATH: &str = "/customers";

/// Which part of the list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerPageRequest {
    /// Customers of a page at most, as asked; all where absent. [`CustomerPageRequest::rounded_size`] says how many
    /// are shown.
    pub size: Option<NonZeroU32>,
    /// The page begins behind this place; at the beginning where absent.
    pub after: Option<ListPosition>,
    /// Which customers; all where absent.
    pub filter: Option<CustomerFilter>,
}

/// What a caller is shown of the list.
#[derive(Clone, Debug)]
pub enum VisibleCustomers {
    /// All of it: the native form.
    Whole,
    /// Less.
    Part(Arc<RenderedDocument>),
}

/// Who is in a rendered list, and where.
pub struct CustomerIndex {
    customers: Vec<IndexedCustomer>,
    /// Places in `customers`, by the customers' ids.
    by_id: Box<[usize]>,
    search_text_bytes: usize,
    slices: SliceCache,
}

/// A customer, and where it stands in the body of the whole.
struct IndexedCustomer {
    entry: CustomerEntry,
    body_range: Range<usize>,
    /// What it is found by.
    search_text: Box<str>,
}

/// Partner Center's form of a collection, as it is written.
struct CollectionWriter {
    body: Vec<u8>,
    empty: bool,
}

#[derive(Serialize)]
struct CollectionTail<'a> {
    #[serde(rename = "continuationToken", skip_serializing_if = "Option::is_none")]
    continuation_token: Option<&'a str>,
    links: CollectionLinks<'a>,
    attributes: CollectionAttributes,
}

#[derive(Serialize)]
struct CollectionLinks<'a> {
    #[serde(rename = "self")]
    this: CollectionLink<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<CollectionLink<'a>>,
}

#[derive(Serialize)]
struct CollectionLink<'a> {
    uri: String,
    method: &'static str,
    headers: Vec<LinkHeader<'a>>,
}

#[derive(Serialize)]
struct LinkHeader<'a> {
    key: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CollectionAttributes {
    object_type: &'static str,
}

/// Renders the whole list, and indexes it.
///
/// # Errors
///
/// Where its links have no JSON form, which they have.
pub(super) fn render(list: CustomerList) -> serde_json::Result<(Vec<u8>, CustomerIndex)> {
    let total = list.customers().len();
    let raw_bytes: usize = list.customers().iter().map(|listed| listed.raw.len()).sum();
    let mut collection = CollectionWriter::new(total, raw_bytes + total);
    let listed: Vec<_> = list
        .into_iter()
        .map(|customer| IndexedCustomer {
            body_range: collection.push(customer.raw.as_bytes()),
            search_text: search::search_text(&customer.entry),
            entry: customer.entry,
        })
        .collect();
    let body = collection.finish(&CollectionTail::new(
        CollectionLink::to_page(None, None, None),
        None,
    ))?;
    let cuts = SliceCache::with_capacity_for(body.len());
    let mut by_id: Box<[_]> = (0..listed.len()).collect();
    by_id.sort_unstable_by_key(|at| listed.get(*at).map(|one| one.entry.id));
    let index = CustomerIndex {
        search_text_bytes: listed.iter().map(|one| one.search_text.len()).sum(),
        customers: listed,
        by_id,
        slices: cuts,
    };
    Ok((body, index))
}

// === impl Page ===

impl CustomerPageRequest {
    /// Most customers of a page, as Partner Center has it.
    pub const MAX_SIZE: NonZeroU32 = NonZeroU32::new(500).unwrap();

    /// Sizes of pages, from the largest on; smaller pages have any size.
    const ROUNDED_SIZES: [NonZeroU32; 5] = [
        Self::MAX_SIZE,
        NonZeroU32::new(200).unwrap(),
        NonZeroU32::new(100).unwrap(),
        NonZeroU32::new(50).unwrap(),
        NonZeroU32::new(20).unwrap(),
    ];

    /// Returns how many customers are shown at most: the size asked for, rounded down to 20, 50, 100,
    /// 200 or 500, and as it is below 20. So callers that ask for nearly the same share one page.
    /// `None` where all are shown.
    pub fn rounded_size(&self) -> Option<NonZeroU32> {
        let asked = self.size?;
        let mut sizes = Self::ROUNDED_SIZES.into_iter();
        Some(sizes.find(|size| *size <= asked).unwrap_or(asked))
    }
}

// === impl CustomerIndex ===

impl CustomerIndex {
    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.customers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }

    /// The customers, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CustomerEntry> {
        self.customers.iter().map(|listed| &listed.entry)
    }

    /// Returns what is shown to a caller who may see these, where it was made before in this coding.
    pub(super) fn cached_visible(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Option<VisibleCustomers> {
        let Some(cut) = self.slice(may_see, page) else {
            return Some(VisibleCustomers::Whole);
        };
        let part = self.slices.get(&cut)?;
        part.ready(coding)?;
        Some(VisibleCustomers::Part(part))
    }

    /// What of the list that `whole` is gets shown to a caller who may see these.
    ///
    /// # Errors
    ///
    /// Where its links have no JSON form, which they have.
    ///
    /// # Blocking
    ///
    /// Where another thread makes the same, until it has.
    pub(super) fn visible(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        whole: &RenderedDocument,
    ) -> Result<VisibleCustomers, Arc<serde_json::Error>> {
        let Some(cut) = self.slice(may_see, page) else {
            return Ok(VisibleCustomers::Whole);
        };
        let make = |cut: &CustomerSlice| {
            let body = self.write_slice(cut, whole.identity.body())?;
            Ok(Arc::new(RenderedDocument::new(&body, whole.modified_at)))
        };
        self.slices
            .get_or_render(cut, make)
            .map(VisibleCustomers::Part)
    }

    /// `None` where all of it is shown.
    fn slice(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
    ) -> Option<CustomerSlice> {
        let filter = page.and_then(|page| page.filter.as_ref());
        let matches = filter.map(CustomerFilter::matcher);
        let shows = |listed: &IndexedCustomer| {
            may_see(listed.entry.id)
                && matches
                    .as_ref()
                    .is_none_or(|matches| matches(&listed.search_text))
        };
        let visible: Vec<bool> = self.customers.iter().map(shows).collect();
        if page.is_none() && visible.iter().all(|visible| *visible) {
            return None;
        }
        let behind = page
            .and_then(|page| page.after.as_ref())
            .map_or(0, |after| {
                self.customers
                    .partition_point(|listed| listed.entry.position() <= *after)
            });
        let start = visible
            .iter()
            .take(behind)
            .filter(|visible| **visible)
            .count();
        let size = page.and_then(CustomerPageRequest::rounded_size);
        Some(CustomerSlice::new(&visible, start, size, filter.cloned()))
    }

    fn write_slice(&self, cut: &CustomerSlice, whole: &[u8]) -> serde_json::Result<Vec<u8>> {
        let visible: Vec<&IndexedCustomer> = self
            .customers
            .iter()
            .enumerate()
            .filter_map(|(index, listed)| cut.includes(index).then_some(listed))
            .collect();
        let (size, filter) = (cut.size(), cut.filter());
        let rest = visible.get(cut.start()..).unwrap_or_default();
        let of_page = size.map_or(rest.len(), |size| size.get() as usize);
        let (items, more) = rest.split_at(of_page.min(rest.len()));
        let token_behind = |listed: &IndexedCustomer| {
            size.map(|size| {
                Continuation {
                    size,
                    filter: filter.cloned(),
                    after: listed.entry.position(),
                }
                .to_string()
            })
        };
        let before = cut.start().checked_sub(1).and_then(|at| visible.get(at));
        let this = before.and_then(|listed| token_behind(listed));
        let next = items
            .last()
            .filter(|_| !more.is_empty())
            .and_then(|listed| token_behind(listed));

        let bytes: usize = items.iter().map(|listed| listed.body_range.len() + 1).sum();
        let mut collection = CollectionWriter::new(visible.len(), bytes);
        for listed in items {
            collection.push(whole.get(listed.body_range.clone()).unwrap_or_default());
        }
        let link = |token| CollectionLink::to_page(size, filter, token);
        let next = next.as_deref().map(|token| (token, link(Some(token))));
        collection.finish(&CollectionTail::new(link(this.as_deref()), next))
    }

    /// Bytes that it takes, the cuts that it may come to hold included.
    pub(super) fn weight(&self) -> usize {
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

// === impl Collection ===

impl CollectionWriter {
    /// What stands before and behind the items, about.
    const ENVELOPE_BYTES: usize = 512;

    fn new(total: usize, item_bytes: usize) -> Self {
        let mut body = Vec::with_capacity(item_bytes + Self::ENVELOPE_BYTES);
        body.extend_from_slice(format!("{{\"totalCount\":{total},\"items\":[").as_bytes());
        Self { body, empty: true }
    }

    /// Adds an item, and returns where it stands.
    fn push(&mut self, raw: &[u8]) -> Range<usize> {
        if !self.empty {
            self.body.push(b',');
        }
        self.empty = false;
        let start = self.body.len();
        self.body.extend_from_slice(raw);
        start..self.body.len()
    }

    fn finish(mut self, tail: &CollectionTail<'_>) -> serde_json::Result<Vec<u8>> {
        let tail = serde_json::to_vec(tail)?;
        self.body.extend_from_slice(b"],");
        // The rest of one object is that of another without its first brace.
        self.body
            .extend_from_slice(tail.get(1..).unwrap_or_default());
        Ok(self.body)
    }
}

// === impl Tail ===

impl<'a> CollectionTail<'a> {
    fn new(this: CollectionLink<'a>, next: Option<(&'a str, CollectionLink<'a>)>) -> Self {
        let (continuation_token, next) = next.unzip();
        Self {
            continuation_token,
            links: CollectionLinks { this, next },
            attributes: CollectionAttributes {
                object_type: "Collection",
            },
        }
    }
}

// === impl Link ===

impl<'a> CollectionLink<'a> {
    /// To a page of this size, behind what the token names; as Partner Center writes it.
    fn to_page(
        size: Option<NonZeroU32>,
        filter: Option<&CustomerFilter>,
        token: Option<&'a str>,
    ) -> Self {
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
        let uri = match query.as_str() {
            "" => CUSTOMERS_PATH.to_owned(),
            query => format!("{CUSTOMERS_PATH}?{query}"),
        };
        let headers = token.map(|value| LinkHeader {
            key: Continuation::HEADER,
            value,
        });
        Self {
            uri,
            method: "GET",
            headers: headers.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
