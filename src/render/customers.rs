//! The list of customers: rendered whole, and cut to what a caller may see or wants of it.

mod continuation;
mod cuts;
mod filter;
mod search;

use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc};

use serde::Serialize;

use self::cuts::{Cut, Cuts};
pub use self::{
    continuation::{Continuation, InvalidContinuation},
    filter::{CustomerFilter, InvalidFilter},
    search::Sought,
};
use super::{Coding, Document};
use crate::domain::{CustomerEntry, CustomerId, CustomerList, ListPlace};

/// The list in links, which are relative to `/v1` as some of Partner Center's are: Microsoft's Java
/// SDK puts that before whatever they say.
const PATH: &str = "/customers";

/// Which part of the list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Customers of a page at most, as asked; all where absent. [`Page::rounded_size`] says how many
    /// are shown.
    pub size: Option<NonZeroU32>,
    /// The page begins behind this place; at the beginning where absent.
    pub after: Option<ListPlace>,
    /// Which customers; all where absent.
    pub filter: Option<CustomerFilter>,
}

/// What a caller is shown of the list.
#[derive(Clone, Debug)]
pub enum Shown {
    /// All of it: the native form.
    Whole,
    /// Less.
    Part(Arc<Document>),
}

/// Who is in a rendered list, and where.
pub struct CustomerIndex {
    listed: Vec<Listed>,
    /// Places in `listed`, by the customers' ids.
    by_id: Box<[usize]>,
    terms_bytes: usize,
    cuts: Cuts,
}

/// A customer, and where it stands in the body of the whole.
struct Listed {
    entry: CustomerEntry,
    at: Range<usize>,
    /// What it is found by.
    terms: Box<str>,
}

/// Partner Center's form of a collection, as it is written.
struct Collection {
    body: Vec<u8>,
    empty: bool,
}

#[derive(Serialize)]
struct Tail<'a> {
    #[serde(rename = "continuationToken", skip_serializing_if = "Option::is_none")]
    continuation_token: Option<&'a str>,
    links: Links<'a>,
    attributes: Attributes,
}

#[derive(Serialize)]
struct Links<'a> {
    #[serde(rename = "self")]
    this: Link<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Link<'a>>,
}

#[derive(Serialize)]
struct Link<'a> {
    uri: String,
    method: &'static str,
    headers: Vec<Header<'a>>,
}

#[derive(Serialize)]
struct Header<'a> {
    key: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
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
    let mut collection = Collection::begin(total, raw_bytes + total);
    let listed: Vec<_> = list
        .into_iter()
        .map(|customer| Listed {
            at: collection.item(customer.raw.as_bytes()),
            terms: search::terms(&customer.entry),
            entry: customer.entry,
        })
        .collect();
    let body = collection.end(&Tail::new(Link::to(None, None, None), None))?;
    let cuts = Cuts::of_at_most(body.len());
    let mut by_id: Box<[_]> = (0..listed.len()).collect();
    by_id.sort_unstable_by_key(|at| listed.get(*at).map(|one| one.entry.id));
    let index = CustomerIndex {
        terms_bytes: listed.iter().map(|one| one.terms.len()).sum(),
        listed,
        by_id,
        cuts,
    };
    Ok((body, index))
}

// === impl Page ===

impl Page {
    /// Most customers of a page, as Partner Center has it.
    pub const LARGEST: NonZeroU32 = NonZeroU32::new(500).unwrap();

    /// Sizes of pages, from the largest on; smaller pages have any size.
    const SIZES: [NonZeroU32; 5] = [
        Self::LARGEST,
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
        let mut sizes = Self::SIZES.into_iter();
        Some(sizes.find(|size| *size <= asked).unwrap_or(asked))
    }
}

// === impl CustomerIndex ===

impl CustomerIndex {
    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The customers, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CustomerEntry> {
        self.listed.iter().map(|listed| &listed.entry)
    }

    /// Returns what is shown to a caller who may see these, where it was made before in this coding.
    pub(super) fn shown(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&Page>,
        coding: Coding,
    ) -> Option<Shown> {
        let Some(cut) = self.cut(may_see, page) else {
            return Some(Shown::Whole);
        };
        let part = self.cuts.get(&cut)?;
        part.ready(coding)?;
        Some(Shown::Part(part))
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
    pub(super) fn show(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&Page>,
        whole: &Document,
    ) -> Result<Shown, Arc<serde_json::Error>> {
        let Some(cut) = self.cut(may_see, page) else {
            return Ok(Shown::Whole);
        };
        let make = |cut: &Cut| {
            let body = self.write(cut, whole.identity.body())?;
            Ok(Arc::new(Document::new(&body, whole.modified_at)))
        };
        self.cuts.get_or_make(cut, make).map(Shown::Part)
    }

    /// `None` where all of it is shown.
    fn cut(&self, may_see: impl Fn(CustomerId) -> bool, page: Option<&Page>) -> Option<Cut> {
        let filter = page.and_then(|page| page.filter.as_ref());
        let matches = filter.map(CustomerFilter::matcher);
        let shows = |listed: &Listed| {
            may_see(listed.entry.id)
                && matches
                    .as_ref()
                    .is_none_or(|matches| matches(&listed.terms))
        };
        let visible: Vec<bool> = self.listed.iter().map(shows).collect();
        if page.is_none() && visible.iter().all(|visible| *visible) {
            return None;
        }
        let behind = page
            .and_then(|page| page.after.as_ref())
            .map_or(0, |after| {
                self.listed
                    .partition_point(|listed| listed.entry.place() <= *after)
            });
        let start = visible
            .iter()
            .take(behind)
            .filter(|visible| **visible)
            .count();
        let size = page.and_then(Page::rounded_size);
        Some(Cut::new(&visible, start, size, filter.cloned()))
    }

    fn write(&self, cut: &Cut, whole: &[u8]) -> serde_json::Result<Vec<u8>> {
        let visible: Vec<&Listed> = self
            .listed
            .iter()
            .enumerate()
            .filter_map(|(index, listed)| cut.shows(index).then_some(listed))
            .collect();
        let (size, filter) = (cut.size(), cut.filter());
        let rest = visible.get(cut.start()..).unwrap_or_default();
        let of_page = size.map_or(rest.len(), |size| size.get() as usize);
        let (items, more) = rest.split_at(of_page.min(rest.len()));
        let token_behind = |listed: &Listed| {
            size.map(|size| {
                Continuation {
                    size,
                    filter: filter.cloned(),
                    after: listed.entry.place(),
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

        let bytes: usize = items.iter().map(|listed| listed.at.len() + 1).sum();
        let mut collection = Collection::begin(visible.len(), bytes);
        for listed in items {
            collection.item(whole.get(listed.at.clone()).unwrap_or_default());
        }
        let link = |token| Link::to(size, filter, token);
        let next = next.as_deref().map(|token| (token, link(Some(token))));
        collection.end(&Tail::new(link(this.as_deref()), next))
    }

    /// Bytes that it takes, the cuts that it may come to hold included.
    pub(super) fn weight(&self) -> usize {
        let texts: usize = self
            .entries()
            .map(|entry| entry.name.len() + entry.domain.as_ref().map_or(0, String::len))
            .sum();
        let places = self.listed.len() * (size_of::<Listed>() + size_of::<usize>());
        places + texts + self.terms_bytes + self.cuts.weight()
    }
}

impl fmt::Debug for CustomerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerIndex")
            .field("customers", &self.listed.len())
            .finish_non_exhaustive()
    }
}

// === impl Collection ===

impl Collection {
    /// What stands before and behind the items, about.
    const FRAME: usize = 512;

    fn begin(total: usize, item_bytes: usize) -> Self {
        let mut body = Vec::with_capacity(item_bytes + Self::FRAME);
        body.extend_from_slice(format!("{{\"totalCount\":{total},\"items\":[").as_bytes());
        Self { body, empty: true }
    }

    /// Adds an item, and returns where it stands.
    fn item(&mut self, raw: &[u8]) -> Range<usize> {
        if !self.empty {
            self.body.push(b',');
        }
        self.empty = false;
        let start = self.body.len();
        self.body.extend_from_slice(raw);
        start..self.body.len()
    }

    fn end(mut self, tail: &Tail<'_>) -> serde_json::Result<Vec<u8>> {
        let tail = serde_json::to_vec(tail)?;
        self.body.extend_from_slice(b"],");
        // The rest of one object is that of another without its first brace.
        self.body
            .extend_from_slice(tail.get(1..).unwrap_or_default());
        Ok(self.body)
    }
}

// === impl Tail ===

impl<'a> Tail<'a> {
    fn new(this: Link<'a>, next: Option<(&'a str, Link<'a>)>) -> Self {
        let (continuation_token, next) = next.unzip();
        Self {
            continuation_token,
            links: Links { this, next },
            attributes: Attributes {
                object_type: "Collection",
            },
        }
    }
}

// === impl Link ===

impl<'a> Link<'a> {
    /// To a page of this size, behind what the token names; as Partner Center writes it.
    fn to(
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
            "" => PATH.to_owned(),
            query => format!("{PATH}?{query}"),
        };
        let headers = token.map(|value| Header {
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
