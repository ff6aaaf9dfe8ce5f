//! The usage of one customer, from the insights or the commercial call.

use std::cmp::Reverse;

use serde::Deserialize;

use super::{
    DecodedPage, MalformedResponse, NameAsOf, NextLink, PageLinks, RowList, check_owner,
    check_whole, decode, processed_at,
};
use crate::domain::{CustomerId, LicenseUsage, SharedTexts, UsageRow};

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

/// The need for a row to name its customer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowOwner {
    /// The call was for one customer.
    Optional,
    /// The call can answer for every customer.
    Required,
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
    let (customer_name, rows) = convert_rows("items", items, customer, RowOwner::Optional)?;
    license_usage(customer, customer_name, rows)
}

/// Decodes one page of the commercial call.
///
/// # Errors
///
/// [`MalformedResponse`], also for a row without a customer.
pub(in crate::partner_center) fn decode_commercial(
    body: &[u8],
    customer: CustomerId,
) -> Result<DecodedPage<UsageRow>, MalformedResponse> {
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
    let (customer_name, items) = convert_rows(field, rows, customer, RowOwner::Required)?;
    Ok(DecodedPage {
        items,
        total: body.total_count,
        next,
        customer_name,
    })
}

/// Joins the rows of all pages.
///
/// # Errors
///
/// [`MalformedResponse`] when they cannot be one customer's usage.
pub(in crate::partner_center) fn license_usage(
    customer: CustomerId,
    customer_name: Option<NameAsOf>,
    rows: Vec<UsageRow>,
) -> Result<LicenseUsage, MalformedResponse> {
    let customer_name = customer_name.map(|name| name.name);
    LicenseUsage::new(customer, customer_name, rows)
        .map_err(|error| MalformedResponse::new(error.to_string()))
}

fn convert_rows(
    field: &str,
    rows: Vec<UsageRowBody>,
    customer: CustomerId,
    owner: RowOwner,
) -> Result<(Option<NameAsOf>, Vec<UsageRow>), MalformedResponse> {
    let mut customer_name = None;
    let mut texts = SharedTexts::default();
    let mut converted = Vec::with_capacity(rows.len());
    for (index, mut row) in rows.into_iter().enumerate() {
        let name = row.customer_name.take().filter(|name| !name.is_empty());
        let row = row
            .convert(customer, owner, &mut texts)
            .map_err(|error| error.within(format_args!("{field}[{index}]")))?;
        let name = name.map(|name| NameAsOf {
            processed_at: Reverse(row.processed_at),
            name,
        });
        customer_name = customer_name.into_iter().chain(name).min();
        converted.push(row);
    }
    Ok((customer_name, converted))
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
        customer: CustomerId,
        owner: RowOwner,
        texts: &mut SharedTexts,
    ) -> Result<UsageRow, MalformedResponse> {
        let ids = [
            ("customerId", &self.customer_id),
            ("customerTenantId", &self.customer_tenant_id),
        ];
        let is_owned = check_owner(ids, customer)?;
        if owner == RowOwner::Required && !is_owned {
            return Err(MalformedResponse::new(format!(
                "customerTenantId: is missing, expected {customer}"
            )));
        }
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
        Ok(UsageRow {
            licenses_active: check_count("licensesActive", active)?,
            licenses_qualified: check_count("licensesQualified", self.licenses_qualified)?,
            reported_usage_percent: self.usage_percent,
            processed_at: processed_at(&self.processed_date_time)?,
            service_code: self.service_code.map(|text| texts.share(text)),
            service_name: texts.share(self.service_name),
            product_id: self.product_id.map(|text| texts.share(text)),
            product_name: texts.share(self.product_name),
            channel: self.channel.map(|text| texts.share(text)),
            workload_code: self.workload_code.map(|text| texts.share(text)),
            workload_name: texts.share(self.workload_name),
        })
    }
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
