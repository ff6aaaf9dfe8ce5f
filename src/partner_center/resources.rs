//! Fetches each resource: the URL of its call, its pages, and the answer that they make.

use std::hash::Hash;

use url::Url;
use uuid::Uuid;

use super::{
    attempts::AttemptRunner,
    call::LogicalCall,
    error::UpstreamError,
    paging::{PageCursor, PageRequest},
    wire::{self, CustomerRow, DecodedPage, MalformedResponse},
};
use crate::{
    config::UpstreamConfig,
    domain::{CustomerList, LicenseUsage, ProcessedDate, Resource, SharedTexts},
    http_client::HttpReply,
    offload,
    service::source::AnswerContent,
};

/// The largest page of the commercial call.
const COMMERCIAL_PAGE_ROWS: u32 = 10_000;

/// The number of rows that are fetched to find the newest date: those of about 25 customers.
///
/// One customer's rows may lag behind for days, so a single row would not do. If all of these lag behind
/// the other customers, a later check finds the newer date.
const FLEET_HEAD_ROWS: u32 = 200;

/// The largest page of the list of customers.
const CUSTOMERS_PAGE_ROWS: u32 = 500;

/// The addresses of the calls.
#[derive(Clone, Debug)]
pub(super) struct ApiEndpoints {
    base_url: Url,
    commercial_path: String,
}

// === impl ApiEndpoints ===

impl ApiEndpoints {
    pub(super) fn new(config: &UpstreamConfig) -> Self {
        Self {
            base_url: config.base_url.clone(),
            commercial_path: config.commercial_path.clone(),
        }
    }

    /// Returns the URL of the first page of a resource. Spaces are written `%20`: not every server reads
    /// `+` as one.
    pub(super) fn url(&self, resource: Resource) -> Url {
        match resource {
            Resource::InsightsUsage(customer) => self.below(
                &format!("/v1/customers/{customer}/analytics/licenses/usage"),
                None,
            ),
            Resource::CommercialUsage(customer, date) => {
                let filter = format!("filter=customerTenantId%20eq%20%27{customer}%27&");
                self.commercial(&filter, COMMERCIAL_PAGE_ROWS, date)
            }
            Resource::FleetUsage(date) => self.commercial("", COMMERCIAL_PAGE_ROWS, date),
            Resource::FleetDate => self.commercial("", FLEET_HEAD_ROWS, None),
            Resource::Customers => self.customers(CUSTOMERS_PAGE_ROWS),
            Resource::Deployment(customer) => self.below(
                &format!("/v1/customers/{customer}/analytics/licenses/deployment"),
                None,
            ),
            Resource::PartnerUsage => self.below("/v1/analytics/licenses/usage", None),
            Resource::PartnerDeployment => self.below("/v1/analytics/licenses/deployment", None),
        }
    }

    /// `filter` is empty, or a parameter that ends with `&`.
    fn commercial(&self, filter: &str, page_rows: u32, date: Option<ProcessedDate>) -> Url {
        let mut query = format!("{filter}top={page_rows}");
        if let Some(date) = date {
            query.push_str(&format!("&processedDateTime={date}"));
        }
        self.below(&self.commercial_path, Some(&query))
    }

    /// Returns the URL of the list of customers, so many to a page.
    pub(super) fn customers(&self, page_rows: u32) -> Url {
        self.below("/v1/customers", Some(&format!("size={page_rows}")))
    }

    /// Returns the URL of `path` below the base URL, whose own path is a prefix.
    fn below(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        url.set_fragment(None);
        url
    }
}

/// Fetches a resource, with all of its pages or not at all.
///
/// The first page has the call's own `MS-RequestId`. Each further page is a request with an id of its
/// own, under the same correlation id.
///
/// # Errors
///
/// [`UpstreamError`] when a page fails, when the pages do not belong together, or when they are not for
/// the date asked for.
pub(super) async fn fetch(
    runner: &AttemptRunner,
    endpoints: &ApiEndpoints,
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let resource = call.call.resource;
    let url = endpoints.url(resource);
    match resource {
        Resource::InsightsUsage(customer) => {
            let body = fetch_one(runner, url, call, call.ids.request_id)
                .await?
                .body;
            let native = body.clone();
            let decode = move || wire::decode_insights(&body, customer);
            Ok(AnswerContent::Usage {
                usage: offload::run_cpu_bound(native.len(), decode).await?,
                native: Some(native),
            })
        }
        Resource::CommercialUsage(customer, date) => {
            let decode =
                move |body: &[u8], texts: &mut _| wire::decode_commercial(body, customer, texts);
            let rows = fetch_pages(runner, url, call, decode, identity).await?;
            let usage = wire::license_usage(customer, rows)?;
            if let Some(date) = date {
                check_date(usage.processed_date(), date)?;
            }
            Ok(AnswerContent::Usage {
                usage,
                native: None,
            })
        }
        Resource::FleetUsage(date) => {
            let rows = fetch_pages(runner, url, call, wire::decode_fleet, identity).await?;
            if date.is_none() {
                check_unchanged(runner, endpoints, call, &rows).await?;
            }
            let bytes = rows.len().saturating_mul(size_of::<CustomerRow>());
            let group = move || wire::group_by_customer(rows);
            let usages = offload::run_cpu_bound(bytes, group).await?;
            if let Some(date) = date {
                check_date(LicenseUsage::newest_date(&usages), date)?;
            }
            Ok(AnswerContent::Fleet(usages))
        }
        Resource::FleetDate => {
            let rows = fetch_head(runner, endpoints, call, call.ids.request_id).await?;
            Ok(AnswerContent::FleetDate(newest_date(&rows)))
        }
        Resource::Customers => {
            let decode = |body: &[u8], _: &mut _| wire::decode_customers(body);
            let items = fetch_pages(runner, url, call, decode, |item| item.entry.id).await?;
            Ok(AnswerContent::Customers(CustomerList::new(items)))
        }
        Resource::Deployment(_) | Resource::PartnerUsage | Resource::PartnerDeployment => {
            let body = fetch_one(runner, url, call, call.ids.request_id)
                .await?
                .body;
            let document = body.clone();
            let decode = move || wire::decode_document(&body, resource.customer());
            Ok(AnswerContent::Document {
                summary: offload::run_cpu_bound(document.len(), decode).await?,
                body: document,
            })
        }
    }
}

async fn fetch_one(
    runner: &AttemptRunner,
    url: Url,
    call: &mut LogicalCall,
    request_id: Uuid,
) -> Result<HttpReply, UpstreamError> {
    let request = PageRequest {
        url,
        continuation_token: None,
    };
    runner.get(call, &request, request_id).await
}

/// Fetches the first rows of all customers, newest data. Its total may count rows that follow.
async fn fetch_head(
    runner: &AttemptRunner,
    endpoints: &ApiEndpoints,
    call: &mut LogicalCall,
    request_id: Uuid,
) -> Result<Vec<CustomerRow>, UpstreamError> {
    let url = endpoints.url(Resource::FleetDate);
    let body = fetch_one(runner, url, call, request_id).await?.body;
    let bytes = body.len();
    let decode = move || wire::decode_fleet(&body, &mut SharedTexts::default());
    Ok(offload::run_cpu_bound(bytes, decode).await?.items)
}

/// Checks that no newer date was published while the pages were read. Then later pages have rows of
/// another date, so that none repeats.
///
/// If the head lags behind the other rows, it is fetched again: it is the same unless that happened.
async fn check_unchanged(
    runner: &AttemptRunner,
    endpoints: &ApiEndpoints,
    call: &mut LogicalCall,
    rows: &[CustomerRow],
) -> Result<(), UpstreamError> {
    let Some((head, rest)) = rows.split_at_checked(FLEET_HEAD_ROWS as usize) else {
        return Ok(());
    };
    if newest_date(rest) <= newest_date(head) {
        return Ok(());
    }
    call.start_next_page(runner.now());
    let again = fetch_head(runner, endpoints, call, Uuid::new_v4()).await?;
    if again.is_empty() || !rows.starts_with(&again) {
        return Err(MalformedResponse::new(
            "the first rows have changed while the others were read: expected pages of one date",
        )
        .into());
    }
    Ok(())
}

fn newest_date(rows: &[CustomerRow]) -> Option<ProcessedDate> {
    rows.iter().map(|item| item.row.processed_at.date()).max()
}

async fn fetch_pages<T: Send + 'static, I: Hash>(
    runner: &AttemptRunner,
    url: Url,
    call: &mut LogicalCall,
    decode: impl Fn(&[u8], &mut SharedTexts) -> Result<DecodedPage<T>, MalformedResponse>
    + Copy
    + Send
    + 'static,
    identity: impl Fn(&T) -> I,
) -> Result<Vec<T>, UpstreamError> {
    let mut cursor = PageCursor::new(url);
    let mut request_id = call.ids.request_id;
    let mut items = Vec::new();
    let mut texts = SharedTexts::default();
    loop {
        let used = call.memory.used();
        let reply = runner.get(call, cursor.request(), request_id).await?;
        let bytes = reply.body.len();
        let earlier = items.len();
        let decode = move || {
            let page = decode(&reply.body, &mut texts)?;
            items.extend(page.items);
            Ok::<_, MalformedResponse>((items, texts, page.total, page.next))
        };
        let (total, next);
        (items, texts, total, next) = offload::run_cpu_bound(bytes, decode).await?;
        let added = items.get(earlier..).unwrap_or_default();
        cursor.record_page(total, added.iter().map(&identity))?;
        let kept = added.len();
        let Some(link) = next else { break };
        // Each listed customer keeps its JSON. Rows of usage keep nothing of the body but a few texts.
        if call.call.resource != Resource::Customers {
            call.memory.shrink_to(used);
        }
        runner.reserve_memory::<T>(call, kept)?;
        cursor.follow(&link)?;
        request_id = Uuid::new_v4();
        if matches!(
            call.call.resource,
            Resource::Customers | Resource::FleetUsage(_)
        ) {
            // These are read for the cache, also when that takes longer than any request waits.
            call.start_next_page(runner.now());
        }
    }
    cursor.check_totals()?;
    Ok(items)
}

/// Returns what distinguishes a row from others.
fn identity(
    CustomerRow {
        customer_id, row, ..
    }: &CustomerRow,
) -> impl Hash + use<> {
    (
        *customer_id,
        row.product_id.as_ref().map(|id| id.to_ascii_lowercase()),
        row.product_name.clone(),
        row.workload_name.clone(),
        row.service_name.clone(),
        row.channel.clone(),
        row.processed_at.0,
    )
}

/// Checks the newest date of the rows of an answer. Rows may lag behind the date asked for, but the
/// newest must be of that date.
fn check_date(newest: Option<ProcessedDate>, date: ProcessedDate) -> Result<(), UpstreamError> {
    match newest {
        None => Err(UpstreamError::NothingProcessed(format!(
            "Partner Center has no usage for {date}"
        ))),
        Some(newest) if newest < date => Err(UpstreamError::NothingProcessed(format!(
            "nothing was processed on {date}; the newest before it is {newest}"
        ))),
        Some(newest) if newest > date => Err(MalformedResponse::new(format!(
            "processedDateTime: is {newest}, expected at most {date}"
        ))
        .into()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> ProcessedDate {
        ProcessedDate::parse(text).unwrap()
    }

    #[test]
    fn the_newest_row_must_be_of_the_requested_date() {
        let check = |newest: Option<&str>| check_date(newest.map(date), date("2018-10-14"));

        assert!(check(Some("2018-10-14")).is_ok());
        for older in [None, Some("2018-10-13")] {
            let error = check(older).unwrap_err();
            assert!(matches!(error, UpstreamError::NothingProcessed(_)));
        }
        let newer = check(Some("2018-10-15")).unwrap_err();
        assert!(matches!(newer, UpstreamError::Malformed(_)));
    }
}
