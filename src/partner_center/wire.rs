//! JSON as Partner Center sends it, surprises and all, and its conversion to the domain.
//!
//! An answer is accepted whole or not at all: a count, a name or a date that cannot be read makes it
//! a [`MalformedResponse`], which says where. Nothing unknown becomes a zero. Unknown fields are
//! ignored.

mod customers;
mod document;
mod usage;

use std::{fmt, marker::PhantomData};

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::error::Category;

pub use self::usage::decode_insights;
pub(super) use self::{
    customers::decode_customers,
    document::decode_document,
    usage::{CustomerRow, decode_commercial, decode_fleet, group_by_customer, license_usage},
};
use crate::{
    domain::{CustomerId, ProcessedAt},
    text::to_printable_line,
};

/// The most characters of the path of a field that an error shows. Its names are the answer's.
const MAX_PATH: usize = 100;

/// The most rows of one body. A page has up to 10,000, and a row that says something takes hundreds of
/// bytes. An empty row takes two bytes, and a hundred times that once it is read.
const MAX_ROWS: usize = 100_000;

/// An answer that does not match the upstream's schema. It prints which field of which row is wrong,
/// and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct MalformedResponse {
    pub(super) detail: String,
    /// A row is about another customer than the one asked for.
    pub(super) is_of_other_customer: bool,
}

/// One page of a collection.
#[derive(Debug)]
pub(super) struct DecodedPage<T> {
    pub(super) items: Vec<T>,
    /// The number of items of the page or of all pages: Partner Center's reference does not say.
    pub(super) total: Option<u64>,
    /// The page after this one.
    pub(super) next: Option<NextLink>,
}

/// A link to the next page as it was sent: not to be followed unexamined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextLink {
    /// Relative or absolute.
    pub(super) uri: String,
    /// `MS-ContinuationToken`, the one header that is repeated.
    pub(super) continuation_token: Option<String>,
}

/// The `links` of a body.
#[derive(Deserialize)]
struct PageLinks {
    next: Option<PageLink>,
}

#[derive(Deserialize)]
struct PageLink {
    uri: String,
    method: Option<String>,
    headers: Option<Vec<LinkHeader>>,
}

#[derive(Deserialize)]
struct LinkHeader {
    key: String,
    value: String,
}

/// A sequence of at most [`MAX_ROWS`].
#[derive(Debug)]
struct RowList<T>(Vec<T>);

struct RowListVisitor<T>(PhantomData<T>);

// === impl MalformedResponse ===

impl MalformedResponse {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            is_of_other_customer: false,
        }
    }

    /// Adds the place of the faulty value.
    fn within(self, place: impl fmt::Display) -> Self {
        let detail = match self.detail.strip_prefix("the body: ") {
            Some(detail) => format!("{place}: {detail}"),
            None => format!("{place}.{}", self.detail),
        };
        Self { detail, ..self }
    }
}

// === impl PageLinks ===

impl PageLinks {
    fn next(self) -> Result<Option<NextLink>, MalformedResponse> {
        let Some(link) = self.next else {
            return Ok(None);
        };
        if let Some(method) = &link.method
            && !method.eq_ignore_ascii_case("GET")
        {
            return Err(MalformedResponse::new("links.next.method: expected GET"));
        }
        let mut headers = link.headers.into_iter().flatten();
        Ok(Some(NextLink {
            uri: link.uri,
            continuation_token: headers
                .find(|header| header.key.eq_ignore_ascii_case("MS-ContinuationToken"))
                .map(|header| header.value),
        }))
    }
}

// === impl RowList ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for RowList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowListVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for RowListVisitor<T> {
    type Value = RowList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<RowList<T>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = sequence.next_element()? {
            if rows.len() == MAX_ROWS {
                let fault = format_args!("too many rows, expected at most {MAX_ROWS} rows");
                return Err(A::Error::custom(fault));
            }
            rows.push(row);
        }
        Ok(RowList(rows))
    }
}

/// Removes the byte-order mark that Microsoft's APIs sometimes put before the JSON.
pub(super) fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, MalformedResponse> {
    let body = without_byte_order_mark(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let decoded = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if body.trim_ascii_start().starts_with(b"<") {
            return MalformedResponse::new(
                "the body: is a page, expected JSON: check upstream.base_url, and what stands between",
            );
        }
        let path = match error.path().to_string() {
            root if root == "." => "the body".to_owned(),
            path => to_printable_line(&path, MAX_PATH),
        };
        MalformedResponse::new(format!("{path}: {}", describe(error.inner())))
    })?;
    json.end().map_err(|error| {
        MalformedResponse::new(format!("after the JSON value: {}", describe(&error)))
    })?;
    Ok(decoded)
}

/// Describes an error without the value that serde found and quotes, which may be long, another
/// customer's, or our own token.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if error.classify() != Category::Data
        || text.starts_with("missing field")
        || text.starts_with("duplicate field")
    {
        return text;
    }
    // The quoted value is before the last of these.
    match text.rsplit_once(", expected ") {
        Some((_found, expected)) => format!("expected {expected}"),
        None => format!(
            "unexpected, at line {} column {}",
            error.line(),
            error.column()
        ),
    }
}

/// Checks that the items of a body are all that there are.
fn check_whole(total: Option<u64>, items: usize, has_next: bool) -> Result<(), MalformedResponse> {
    match total {
        Some(total) if total != items as u64 => Err(MalformedResponse::new(format!(
            "totalCount: is {total}, expected the number of items, which is {items}"
        ))),
        _ if has_next => Err(MalformedResponse::new(
            "links.next: the collection goes on elsewhere, expected it whole",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Checks that a row with these ids is a customer's. Returns false where it has no id.
///
/// # Errors
///
/// If it is another customer's. That id is not repeated: the detail goes out to the caller.
fn check_owner(
    ids: [(&str, &Option<String>); 2],
    customer: CustomerId,
) -> Result<bool, MalformedResponse> {
    let mut is_owned = false;
    for (field, id) in ids {
        let Some(id) = id else { continue };
        if CustomerId::parse(id) != Ok(customer) {
            return Err(MalformedResponse {
                detail: format!("{field}: expected the customer that was asked for, {customer}"),
                is_of_other_customer: true,
            });
        }
        is_owned = true;
    }
    Ok(is_owned)
}

/// Parses RFC 3339, the same without an offset (which is UTC), or a date alone.
fn processed_at(text: &str) -> Result<ProcessedAt, MalformedResponse> {
    let text = text.trim();
    text.parse::<Timestamp>()
        .or_else(|_| {
            let local: civil::DateTime = text.parse()?;
            Ok::<_, jiff::Error>(local.to_zoned(TimeZone::UTC)?.timestamp())
        })
        .map(ProcessedAt)
        .map_err(|_| {
            MalformedResponse::new(
                "processedDateTime: expected a date such as 2017-03-09T00:00:00Z",
            )
        })
}

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
