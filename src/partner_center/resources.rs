//! Fetches each resource: the URL of its call, its pages, and the answer that they make.

use std::hash::Hash;

use url::Url;
use uuid::Uuid;

use super::{
    attempts::AttemptRunner,
    call::LogicalCall,
    error::UpstreamError,
    paging::{PageCursor, PageRequest},
    wire::{self, DecodedPage, MalformedResponse},
};
use crate::{
    config::UpstreamConfig,
    domain::{CustomerList, LicenseUsage, ProcessedDate, Resource, UsageRow},
    http_client::HttpReply,
    offload,
    service::source::AnswerContent,
};

/// The largest page of the commercial call.
const COMMERCIAL_PAGE_ROWS: u32 = 10_000;

/// The largest page of the list of customers.
const CUSTOMERS_PAGE_ROWS: u32 = 500;

/// The addresses of the calls.
#[derive(Clone, Debug)]
pub(super) struct ApiEndpoints {
    base_url: Url,
    commercial_path: String,
}

/// The items of all pages.
struct AllPages<T> {
    items: Vec<T>,
    customer_name: Option<wire::NameAsOf>,
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
                let mut query = format!(
                    "filter=customerTenantId%20eq%20%27{customer}%27&top={COMMERCIAL_PAGE_ROWS}"
                );
                if let Some(date) = date {
                    query.push_str(&format!("&processedDateTime={date}"));
                }
                self.below(&self.commercial_path, Some(&query))
            }
            Resource::Customers => self.customers(CUSTOMERS_PAGE_ROWS),
            Resource::Deployment(customer) => self.below(
                &format!("/v1/customers/{customer}/analytics/licenses/deployment"),
                None,
            ),
            Resource::PartnerUsage => self.below("/v1/analytics/licenses/usage", None),
            Resource::PartnerDeployment => self.below("/v1/analytics/licenses/deployment", None),
        }
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
            let body = fetch_one(runner, url, call).await?.body;
            let native = body.clone();
            let decode = move || wire::decode_insights(&body, customer);
            Ok(AnswerContent::Usage {
                usage: offload::run_cpu_bound(native.len(), decode).await?,
                native: Some(native),
            })
        }
        Resource::CommercialUsage(customer, date) => {
            let decode = move |body: &[u8]| wire::decode_commercial(body, customer);
            let pages = fetch_pages(runner, url, call, decode, identity).await?;
            let usage = wire::license_usage(customer, pages.customer_name, pages.items)?;
            if let Some(date) = date {
                check_date(&usage, date)?;
            }
            Ok(AnswerContent::Usage {
                usage,
                native: None,
            })
        }
        Resource::Customers => {
            let decode = wire::decode_customers;
            let pages = fetch_pages(runner, url, call, decode, |item| item.entry.id).await?;
            Ok(AnswerContent::Customers(CustomerList::new(pages.items)))
        }
        Resource::Deployment(_) | Resource::PartnerUsage | Resource::PartnerDeployment => {
            let body = fetch_one(runner, url, call).await?.body;
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
) -> Result<HttpReply, UpstreamError> {
    let request = PageRequest {
        url,
        continuation_token: None,
    };
    runner.get(call, &request, call.ids.request_id).await
}

async fn fetch_pages<T: Send + 'static, I: Hash>(
    runner: &AttemptRunner,
    url: Url,
    call: &mut LogicalCall,
    decode: impl Fn(&[u8]) -> Result<DecodedPage<T>, MalformedResponse> + Copy + Send + 'static,
    identity: impl Fn(&T) -> I,
) -> Result<AllPages<T>, UpstreamError> {
    let mut cursor = PageCursor::new(url);
    let mut request_id = call.ids.request_id;
    let (mut items, mut customer_name) = (Vec::new(), None);
    loop {
        let reply = runner.get(call, cursor.request(), request_id).await?;
        let bytes = reply.body.len();
        let page = offload::run_cpu_bound(bytes, move || decode(&reply.body)).await?;
        cursor.record_page(page.total, page.items.iter().map(&identity))?;
        customer_name = customer_name.into_iter().chain(page.customer_name).min();
        let kept = page.items.len();
        items.extend(page.items);
        let Some(link) = page.next else { break };
        runner.reserve_memory::<T>(call, kept)?;
        cursor.follow(&link)?;
        request_id = Uuid::new_v4();
        if call.call.resource == Resource::Customers {
            // The list is read for the cache, also when it takes longer than any request waits.
            call.start_next_page(runner.now());
        }
    }
    cursor.check_totals()?;
    Ok(AllPages {
        items,
        customer_name,
    })
}

/// Returns what distinguishes a row from the others of its customer.
fn identity(row: &UsageRow) -> impl Hash + use<> {
    (
        row.product_id.as_ref().map(|id| id.to_ascii_lowercase()),
        row.product_name.clone(),
        row.workload_name.clone(),
        row.service_name.clone(),
        row.channel.clone(),
        row.processed_at.0,
    )
}

/// Checks the date of an answer. Rows may lag behind the date asked for, but the newest must be of that
/// date.
fn check_date(usage: &LicenseUsage, date: ProcessedDate) -> Result<(), UpstreamError> {
    match usage.processed_date() {
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
    use crate::domain::{CustomerId, ProcessedAt, samples};

    fn customer() -> CustomerId {
        samples::customer()
    }

    fn date(text: &str) -> ProcessedDate {
        ProcessedDate::parse(text).unwrap()
    }

    fn snapshot(dates: &[&str]) -> LicenseUsage {
        let rows = dates.iter().map(|date| UsageRow {
            product_name: "A".into(),
            licenses_active: 1,
            licenses_qualified: 2,
            processed_at: ProcessedAt(format!("{date}T03:00:00Z").parse().unwrap()),
            ..samples::row()
        });
        LicenseUsage::new(customer(), None, rows.collect()).unwrap()
    }

    #[test]
    fn the_newest_row_must_be_of_the_requested_date() {
        let check = |dates: &[&str]| check_date(&snapshot(dates), date("2018-10-14"));

        assert!(check(&["2018-10-14", "2018-10-12"]).is_ok());
        for older in [&[][..], &["2018-10-13"]] {
            let error = check(older).unwrap_err();
            assert!(matches!(error, UpstreamError::NothingProcessed(_)));
        }
        let newer = check(&["2018-10-14", "2018-10-15"]).unwrap_err();
        assert!(matches!(newer, UpstreamError::Malformed(_)));
    }
}
