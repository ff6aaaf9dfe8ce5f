//! JSON as Partner Center sends it, surprises and all, and how it becomes the domain's.
//!
//! An answer is taken whole or not at all: a count, a name or a date that cannot be read makes it
//! [`MalformedResponse`], which says where. Nothing unknown ever becomes a zero. Fields that nobody asked
//! for are ignored.

mod customers;
mod document;
mod rows;
mod totals;

use std::cmp::Reverse;

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::Deserialize;
use serde_json::error::Category;

use crate::{
    domain::{CustomerId, LicenseUsage, ProcessedAt, UsageRow},
    text::to_printable_line,
};

use self::rows::RowList;
pub(super) use self::{customers::decode_customers, document::decode_document, totals::PageTotals};

/// Characters of a field's path that are told; its names are the answer's.
const LONGEST_PLACE: usize = 100;

/// An answer that is not what the upstream's schema promises; prints which field of which row, and
/// what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedResponse(pub(super) String);

/// Why an answer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableResponse {
    /// It is not what the upstream's schema promises.
    #[error(transparent)]
    Malformed(#[from] MalformedResponse),
    /// A row tells of another customer than the one asked for.
    #[error(transparent)]
    OtherCustomer(MalformedResponse),
}

/// One page of the commercial call.
#[derive(Debug)]
pub(super) struct CommercialPage {
    /// The customer's name, where a row has it.
    pub(super) customer_name: Option<NameAsOf>,
    /// The page's rows, all of the customer asked for.
    pub(super) rows: Vec<UsageRow>,
    /// Of the page, or of all pages: Partner Center's reference does not say.
    pub(super) total: Option<u64>,
    /// Where the rows after these are.
    pub(super) next: Option<NextLink>,
}

/// A customer's name in a row. Of several names the least one counts: that of the newest instant,
/// then the first in the alphabet, whatever the order of the rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameAsOf {
    processed_at: Reverse<ProcessedAt>,
    name: String,
}

/// Where a body says that it goes on, as it was sent: not to be followed unexamined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextLink {
    /// Relative or absolute.
    pub(super) uri: String,
    /// `MS-ContinuationToken`, the one header that is repeated.
    pub(super) continuation_token: Option<String>,
}

/// The body of either call: a `ResourceCollection`, or a page of rows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageBody {
    total_count: Option<u64>,
    items: Option<RowList<UsageRowBody>>,
    /// The commercial call's reference says `items`, its example `RowValue`.
    #[serde(rename = "Value")]
    documented: Option<RowList<UsageRowBody>>,
    value: Option<RowList<UsageRowBody>>,
    links: Option<PageLinks>,
    next_link: Option<String>,
    #[serde(rename = "@odata.nextLink")]
    odata_next_link: Option<String>,
    #[serde(rename = "@nextLink")]
    at_next_link: Option<String>,
}

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

/// A row of either call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageRowBody {
    customer_id: Option<String>,
    customer_tenant_id: Option<String>,
    customer_name: Option<String>,
    service_code: Option<String>,
    service_name: String,
    product_id: Option<String>,
    product_name: String,
    channel: Option<String>,
    workload_code: Option<String>,
    workload_name: String,
    licenses_active: Option<u64>,
    /// The commercial call's example spells it so.
    license_active: Option<u64>,
    licenses_qualified: u64,
    usage_percent: Option<f64>,
    processed_date_time: String,
}

/// Whether a row must say whose it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowOwner {
    /// The call was for one customer, so a row may leave it out.
    MayBeLeftOut,
    /// The call can answer for every customer: a row of nobody may be anybody's.
    Required,
}

/// Reads the body of the insights call.
///
/// # Errors
///
/// [`UnusableResponse`], also when the body is only a part of the collection.
pub fn decode_insights(
    body: &[u8],
    customer: CustomerId,
) -> Result<LicenseUsage, UnusableResponse> {
    let mut collection: UsageBody = decode(body)?;
    let Some(RowList(items)) = collection.items.take() else {
        return Err(MalformedResponse("items: is missing, expected an array".to_owned()).into());
    };
    let goes_on = collection.next_link()?.is_some();
    check_whole(collection.total_count, items.len(), goes_on)?;
    let (customer_name, rows) = rows("items", items, customer, RowOwner::MayBeLeftOut)?;
    Ok(snapshot(customer, customer_name, rows)?)
}

/// Reads one page of the commercial call.
///
/// # Errors
///
/// [`UnusableResponse`], also for a row of nobody.
pub(super) fn decode_commercial(
    body: &[u8],
    customer: CustomerId,
) -> Result<CommercialPage, UnusableResponse> {
    let mut page: UsageBody = decode(body)?;
    let next = page.next_link()?;
    let (field, RowList(page_rows)) = match (page.documented, page.value, page.items) {
        (Some(page_rows), None, None) => ("Value", page_rows),
        (None, Some(page_rows), None) => ("value", page_rows),
        (None, None, Some(page_rows)) => ("items", page_rows),
        _ => {
            return Err(MalformedResponse(
                "expected the rows under exactly one of Value, value and items".to_owned(),
            )
            .into());
        }
    };
    let (customer_name, rows) = rows(field, page_rows, customer, RowOwner::Required)?;
    Ok(CommercialPage {
        customer_name,
        rows,
        total: page.total_count,
        next,
    })
}

/// Puts rows together, once all of them are there.
///
/// # Errors
///
/// [`MalformedResponse`] when they cannot be one customer's usage.
pub(super) fn snapshot(
    customer: CustomerId,
    customer_name: Option<NameAsOf>,
    rows: Vec<UsageRow>,
) -> Result<LicenseUsage, MalformedResponse> {
    let customer_name = customer_name.map(|name| name.name);
    LicenseUsage::new(customer, customer_name, rows)
        .map_err(|fault| MalformedResponse(fault.to_string()))
}

/// Whether the items of a body are all that there are.
fn check_whole(total: Option<u64>, items: usize, goes_on: bool) -> Result<(), MalformedResponse> {
    match total {
        Some(total) if total != items as u64 => Err(MalformedResponse(format!(
            "totalCount: is {total}, expected the number of items, which is {items}"
        ))),
        _ if goes_on => Err(MalformedResponse(
            "links.next: the collection goes on elsewhere, expected it whole".to_owned(),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Microsoft's APIs sometimes put a byte-order mark before the JSON.
pub(super) fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, MalformedResponse> {
    let body = without_byte_order_mark(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let decoded = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        if body.trim_ascii_start().starts_with(b"<") {
            let hint = "check upstream.base_url, and what stands between";
            return MalformedResponse(format!("the body: is a page, expected JSON: {hint}"));
        }
        let at = match fault.path().to_string() {
            root if root == "." => "the body".to_owned(),
            path => to_printable_line(&path, LONGEST_PLACE),
        };
        MalformedResponse(format!("{at}: {}", place(fault.inner())))
    })?;
    json.end()
        .map_err(|fault| MalformedResponse(format!("after the JSON value: {}", place(&fault))))?;
    Ok(decoded)
}

/// What is wrong with some JSON, and where, without a word of it: serde quotes the value that it
/// found, which may be long, another customer's, or our own token.
fn place(fault: &serde_json::Error) -> String {
    let told = fault.to_string();
    match fault.classify() {
        Category::Data => {
            let of_the_schema = ["missing field", "duplicate field"];
            if of_the_schema.iter().any(|start| told.starts_with(start)) {
                return told;
            }
            // Whatever was quoted stands before the last of these.
            match told.rsplit_once(", expected ") {
                Some((_found, expected)) => format!("expected {expected}"),
                None => format!(
                    "unexpected, at line {} column {}",
                    fault.line(),
                    fault.column()
                ),
            }
        }
        Category::Io | Category::Syntax | Category::Eof => told,
    }
}

fn rows(
    field: &str,
    rows: Vec<UsageRowBody>,
    customer: CustomerId,
    owner: RowOwner,
) -> Result<(Option<NameAsOf>, Vec<UsageRow>), UnusableResponse> {
    let mut customer_name = None;
    let mut converted = Vec::with_capacity(rows.len());
    for (index, mut row) in rows.into_iter().enumerate() {
        let at = |fault: MalformedResponse| MalformedResponse(format!("{field}[{index}].{fault}"));
        row.check_owner(customer, owner)
            .map_err(|unusable| unusable.at(at))?;
        let name = row.customer_name.take().filter(|name| !name.is_empty());
        let row = UsageRow::try_from(row).map_err(at)?;
        let name = name.map(|name| NameAsOf {
            processed_at: Reverse(row.processed_at),
            name,
        });
        customer_name = customer_name.into_iter().chain(name).min();
        converted.push(row);
    }
    Ok((customer_name, converted))
}

/// Whether a row that tells these ids is a customer's; `false` where it does not say.
///
/// # Errors
///
/// [`UnusableResponse::OtherCustomer`] where it is another's.
fn check_owner(
    told: [(&str, &Option<String>); 2],
    customer: CustomerId,
) -> Result<bool, UnusableResponse> {
    let mut owned = false;
    for (field, id) in told {
        let Some(id) = id else { continue };
        // The other customer's id is not repeated: the detail goes out to the caller.
        if CustomerId::parse(id) != Ok(customer) {
            return Err(UnusableResponse::OtherCustomer(MalformedResponse(format!(
                "{field}: expected the customer that was asked for, {customer}"
            ))));
        }
        owned = true;
    }
    Ok(owned)
}

// === impl Unusable ===

impl UnusableResponse {
    /// The same, said of a place.
    fn at(self, place: impl FnOnce(MalformedResponse) -> MalformedResponse) -> Self {
        match self {
            Self::Malformed(fault) => Self::Malformed(place(fault)),
            Self::OtherCustomer(fault) => Self::OtherCustomer(place(fault)),
        }
    }
}

// === impl Row ===

impl UsageRowBody {
    fn check_owner(&self, customer: CustomerId, owner: RowOwner) -> Result<(), UnusableResponse> {
        let told = [
            ("customerId", &self.customer_id),
            ("customerTenantId", &self.customer_tenant_id),
        ];
        let owned = check_owner(told, customer)?;
        if owner == RowOwner::Required && !owned {
            return Err(MalformedResponse(format!(
                "customerTenantId: is missing, expected {customer}"
            ))
            .into());
        }
        Ok(())
    }
}

impl TryFrom<UsageRowBody> for UsageRow {
    type Error = MalformedResponse;

    fn try_from(row: UsageRowBody) -> Result<Self, MalformedResponse> {
        let active = match (row.licenses_active, row.license_active) {
            (Some(count), None) | (None, Some(count)) => count,
            (Some(count), Some(same)) if count == same => count,
            (Some(_), Some(_)) => {
                return Err(MalformedResponse(
                    "licenseActive: differs from licensesActive".to_owned(),
                ));
            }
            (None, None) => {
                return Err(MalformedResponse(
                    "licensesActive: is missing, expected a count".to_owned(),
                ));
            }
        };
        Ok(Self {
            licenses_active: seats("licensesActive", active)?,
            licenses_qualified: seats("licensesQualified", row.licenses_qualified)?,
            reported_usage_percent: row.usage_percent,
            processed_at: processed_at(&row.processed_date_time)?,
            service_code: row.service_code,
            service_name: row.service_name,
            product_id: row.product_id,
            product_name: row.product_name,
            channel: row.channel,
            workload_code: row.workload_code,
            workload_name: row.workload_name,
        })
    }
}

// === impl Body ===

impl UsageBody {
    /// The next link, in whichever spelling.
    fn next_link(&mut self) -> Result<Option<NextLink>, MalformedResponse> {
        if let Some(link) = self.links.take().and_then(|links| links.next) {
            return link.read().map(Some);
        }
        let uri = self
            .next_link
            .take()
            .or(self.odata_next_link.take())
            .or(self.at_next_link.take())
            // An empty text stands for "no more" here and there.
            .filter(|uri| !uri.is_empty());
        Ok(uri.map(|uri| NextLink {
            uri,
            continuation_token: None,
        }))
    }
}

impl PageLink {
    fn read(self) -> Result<NextLink, MalformedResponse> {
        if let Some(method) = &self.method
            && !method.eq_ignore_ascii_case("GET")
        {
            return Err(MalformedResponse(
                "links.next.method: expected GET".to_owned(),
            ));
        }
        let continuation_token = self
            .headers
            .into_iter()
            .flatten()
            .find(|header| header.key.eq_ignore_ascii_case("MS-ContinuationToken"))
            .map(|header| header.value);
        Ok(NextLink {
            uri: self.uri,
            continuation_token,
        })
    }
}

/// Microsoft's counts are signed 64-bit numbers.
fn seats(field: &str, count: u64) -> Result<u64, MalformedResponse> {
    if i64::try_from(count).is_err() {
        return Err(MalformedResponse(format!(
            "{field}: is {count}, expected at most {}",
            i64::MAX
        )));
    }
    Ok(count)
}

/// Reads RFC 3339, the same without an offset (which is UTC), or a date alone.
fn processed_at(text: &str) -> Result<ProcessedAt, MalformedResponse> {
    let text = text.trim();
    text.parse::<Timestamp>()
        .or_else(|_| {
            let local: civil::DateTime = text.parse()?;
            Ok::<_, jiff::Error>(local.to_zoned(TimeZone::UTC)?.timestamp())
        })
        .map(ProcessedAt)
        .map_err(|_| {
            MalformedResponse(
                "processedDateTime: expected a date such as 2017-03-09T00:00:00Z".to_owned(),
            )
        })
}

#[cfg(test)]
mod tests;
