//! The list of the partner's customers, page by page to its end.

use url::Url;
use uuid::Uuid;

use super::{
    attempts::AttemptRunner,
    call::LogicalCall,
    error::UpstreamError,
    insights::below,
    paging::{PageCursor, PageRequest, PageRows},
    wire::{self, PageTotals},
};
use crate::{
    domain::{CustomerList, ListedCustomer},
    offload,
    service::source::AnswerContent,
};

/// The largest page there is.
const PAGE_SIZE: u32 = 500;

/// Asks for every page, and answers only when all of them came.
///
/// The first page bears the call's own `MS-RequestId`; every further one is a request of its own,
/// with an id of its own under the same correlation id, and a time of its own: a list that takes
/// longer than anybody waits for it comes to be had all the same.
///
/// # Errors
///
/// [`UpstreamError`] when any page fails, or when they are not pages of one list.
pub(super) async fn fetch(
    attempts: &AttemptRunner,
    base_url: &Url,
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let mut request = PageRequest {
        url: url(base_url),
        continuation_token: None,
    };
    let mut pages = PageCursor::from(&request);
    let mut request_id = call.ids.request_id;
    let (mut totals, mut page_rows) = (PageTotals::default(), PageRows::default());
    let mut customers = Vec::new();
    loop {
        let answer = attempts.get(call, &request, request_id).await?;
        let bytes = answer.body.len();
        let decode = move || wire::decode_customers(&answer.body);
        let page = offload::run_cpu_bound(bytes, decode).await?;
        totals.add(page.total, page.customers.len());
        page_rows.add(page.customers.iter().map(|customer| customer.entry.id))?;
        let kept = page.customers.len();
        customers.extend(page.customers);
        let Some(link) = page.next else { break };
        attempts.reserve_memory::<ListedCustomer>(call, kept)?;
        request = pages.next(&request, &link)?;
        request_id = Uuid::new_v4();
        call.goes_on(attempts.now());
    }
    totals.check()?;
    Ok(AnswerContent::Customers(CustomerList::new(customers)))
}

fn url(base_url: &Url) -> Url {
    let mut url = below(base_url, "/v1/customers");
    url.set_query(Some(&format!("size={PAGE_SIZE}")));
    url
}
