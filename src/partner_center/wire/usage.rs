//! The usage of one customer or of all, from the insights or the commercial call.

use std::{cmp::Reverse, iter, sync::Arc};

use serde::Deserialize;

use super::{
    DecodedPage, MalformedResponse, NextLink, PageLinks, RowList, check_owner, check_whole, decode,
    processed_at,
};
use crate::domain::{CustomerId, LicenseUsage, ProcessedAt, SharedTexts, UsageRow};

/// The body of either call: a `ResourceCollection`, or a page of rows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageBody {
    total_count: Option<u64>,
    items: Option<RowList<UsageRowBody>>,
    /// The commercial call's reference says `items`, its example `Value`.
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

/// A row, and the customer that it is about.
#[derive(Debug, PartialEq)]
pub(in crate::partner_center) struct CustomerRow {
    pub(in crate::partner_center) customer_id: CustomerId,
    /// `None` where the row has none.
    customer_name: Option<Arc<str>>,
    pub(in crate::partner_center) row: UsageRow,
}

/// The customer that a row must be about.
#[derive(Clone, Copy)]
enum RowOwner {
    /// This one. A row need not name it: the call was for one customer.
    Implied(CustomerId),
    /// This one, by name: the call can answer for every customer.
    Named(CustomerId),
    /// Any, by name.
    Any,
}

/// Decodes the body of the insights call.
///
/// # Errors
///
/// [`MalformedResponse`], also when the body is only a part of the collection.
pub fn decode_insights(
    body: &[u8],
    customer: CustomerId,
) -> Result<LicenseUsage, MalformedResponse> {
    let mut body: UsageBody = decode(body)?;
    let has_next = body.next_link()?.is_some();
    let Some(RowList(items)) = body.items else {
        return Err(MalformedResponse::new(
            "items: is missing, expected an array",
        ));
    };
    check_whole(body.total_count, items.len(), has_next)?;
    let mut texts = SharedTexts::default();
    let rows = convert_rows("items", items, RowOwner::Implied(customer), &mut texts)?;
    license_usage(customer, rows)
}

/// Decodes one page of the commercial call for one customer.
///
/// # Errors
///
/// [`MalformedResponse`], also for a row without a customer.
pub(in crate::partner_center) fn decode_commercial(
    body: &[u8],
    customer: CustomerId,
    texts: &mut SharedTexts,
) -> Result<DecodedPage<CustomerRow>, MalformedResponse> {
    decode_page(body, RowOwner::Named(customer), texts)
}

/// Decodes one page of the commercial call for all customers.
///
/// # Errors
///
/// [`MalformedResponse`], also for a row without a customer.
pub(in crate::partner_center) fn decode_fleet(
    body: &[u8],
    texts: &mut SharedTexts,
) -> Result<DecodedPage<CustomerRow>, MalformedResponse> {
    decode_page(body, RowOwner::Any, texts)
}

/// Joins the rows of a customer. Of several names, that of the newest instant counts, then the first
/// alphabetically.
///
/// # Errors
///
/// [`MalformedResponse`] when they cannot be one customer's usage.
pub(in crate::partner_center) fn license_usage(
    customer: CustomerId,
    rows: impl IntoIterator<Item = CustomerRow>,
) -> Result<LicenseUsage, MalformedResponse> {
    let mut newest_name: Option<(Reverse<ProcessedAt>, Arc<str>)> = None;
    let mut usage_rows = Vec::new();
    for CustomerRow {
        customer_name, row, ..
    } in rows
    {
        let name = customer_name.map(|name| (Reverse(row.processed_at), name));
        newest_name = newest_name.into_iter().chain(name).min();
        usage_rows.push(row);
    }
    usage_rows.shrink_to_fit();
    let customer_name = newest_name.map(|(_, name)| name.as_ref().to_owned());
    LicenseUsage::new(customer, customer_name, usage_rows)
        .map_err(|error| MalformedResponse::new(error.to_string()))
}

/// Joins the rows of each customer, in the order of the ids.
///
/// # Errors
///
/// [`MalformedResponse`] when the rows of a customer cannot be its usage.
pub(in crate::partner_center) fn group_by_customer(
    mut rows: Vec<CustomerRow>,
) -> Result<Vec<LicenseUsage>, MalformedResponse> {
    rows.sort_by_key(|row| row.customer_id);
    let mut rows = rows.into_iter().peekable();
    let mut usages = Vec::new();
    while let Some(customer) = rows.peek().map(|row| row.customer_id) {
        let own = iter::from_fn(|| rows.next_if(|row| row.customer_id == customer));
        usages.push(license_usage(customer, own)?);
    }
    Ok(usages)
}

fn decode_page(
    body: &[u8],
    owner: RowOwner,
    texts: &mut SharedTexts,
) -> Result<DecodedPage<CustomerRow>, MalformedResponse> {
    let mut body: UsageBody = decode(body)?;
    let next = body.next_link()?;
    let (field, RowList(rows)) = match (body.documented, body.value, body.items) {
        (Some(rows), None, None) => ("Value", rows),
        (None, Some(rows), None) => ("value", rows),
        (None, None, Some(rows)) => ("items", rows),
        _ => {
            return Err(MalformedResponse::new(
                "expected the rows under exactly one of Value, value and items",
            ));
        }
    };
    Ok(DecodedPage {
        items: convert_rows(field, rows, owner, texts)?,
        total: body.total_count,
        next,
    })
}

fn convert_rows(
    field: &str,
    rows: Vec<UsageRowBody>,
    owner: RowOwner,
    texts: &mut SharedTexts,
) -> Result<Vec<CustomerRow>, MalformedResponse> {
    let rows = rows.into_iter().enumerate();
    rows.map(|(index, row)| {
        row.convert(owner, texts)
            .map_err(|error| error.within(format_args!("{field}[{index}]")))
    })
    .collect()
}

// === impl UsageBody ===

impl UsageBody {
    /// Takes the next link, in whichever spelling.
    fn next_link(&mut self) -> Result<Option<NextLink>, MalformedResponse> {
        if let Some(links) = self.links.take()
            && let Some(link) = links.next()?
        {
            return Ok(Some(link));
        }
        let spellings = [
            &mut self.next_link,
            &mut self.odata_next_link,
            &mut self.at_next_link,
        ];
        let uri = spellings.into_iter().find_map(Option::take);
        // An empty text means "no more" here and there.
        Ok(uri.filter(|uri| !uri.is_empty()).map(|uri| NextLink {
            uri,
            continuation_token: None,
        }))
    }
}

// === impl UsageRowBody ===

impl UsageRowBody {
    fn convert(
        self,
        owner: RowOwner,
        texts: &mut SharedTexts,
    ) -> Result<CustomerRow, MalformedResponse> {
        let customer_id = self.check_owner(owner)?;
        let active = match (self.licenses_active, self.license_active) {
            (Some(count), None) | (None, Some(count)) => count,
            (Some(count), Some(same)) if count == same => count,
            (Some(_), Some(_)) => {
                return Err(MalformedResponse::new(
                    "licenseActive: differs from licensesActive",
                ));
            }
            (None, None) => {
                return Err(MalformedResponse::new(
                    "licensesActive: is missing, expected a count",
                ));
            }
        };
        let name = self.customer_name.filter(|name| !name.is_empty());
        let customer_name = name.map(|name| texts.share(name));
        let row = UsageRow {
            licenses_active: check_count("licensesActive", active)?,
            licenses_qualified: check_count("licensesQualified", self.licenses_qualified)?,
            // SQLite keeps no negative zero, and both must render to the same bytes.
            reported_usage_percent: self.usage_percent.map(|percent| percent + 0.0),
            processed_at: processed_at(&self.processed_date_time)?,
            service_code: self.service_code.map(|text| texts.share(text)),
            service_name: texts.share(self.service_name),
            product_id: self.product_id.map(|text| texts.share(text)),
            product_name: texts.share(self.product_name),
            channel: self.channel.map(|text| texts.share(text)),
            workload_code: self.workload_code.map(|text| texts.share(text)),
            workload_name: texts.share(self.workload_name),
        };
        Ok(CustomerRow {
            customer_id,
            customer_name,
            row,
        })
    }

    /// Returns the customer that the row is about.
    fn check_owner(&self, owner: RowOwner) -> Result<CustomerId, MalformedResponse> {
        let ids = [
            ("customerId", &self.customer_id),
            ("customerTenantId", &self.customer_tenant_id),
        ];
        match owner {
            RowOwner::Implied(customer) => check_owner(ids, customer).map(|_| customer),
            RowOwner::Named(customer) if check_owner(ids, customer)? => Ok(customer),
            RowOwner::Named(customer) => Err(MalformedResponse::new(format!(
                "customerTenantId: is missing, expected {customer}"
            ))),
            RowOwner::Any => {
                let [id, tenant_id] = ids.map(parse_id);
                match (id?, tenant_id?) {
                    (Some(id), Some(other)) if id != other => Err(MalformedResponse::new(
                        "customerTenantId: differs from customerId",
                    )),
                    (Some(id), _) | (None, Some(id)) => Ok(id),
                    (None, None) => Err(MalformedResponse::new(
                        "customerTenantId: is missing, expected a customer",
                    )),
                }
            }
        }
    }
}

fn parse_id((field, id): (&str, &Option<String>)) -> Result<Option<CustomerId>, MalformedResponse> {
    let id = id.as_deref().map(CustomerId::parse).transpose();
    id.map_err(|error| MalformedResponse::new(format!("{field}: {error}")))
}

/// Microsoft's counts are signed 64-bit numbers.
fn check_count(field: &str, count: u64) -> Result<u64, MalformedResponse> {
    if i64::try_from(count).is_err() {
        return Err(MalformedResponse::new(format!(
            "{field}: is {count}, expected at most {}",
            i64::MAX
        )));
    }
    Ok(count)
}
