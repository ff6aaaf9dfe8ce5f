//! The commercial call: one customer's rows for any processed date, page by page.

use std::hash::Hash;

use url::Url;
use uuid::Uuid;

use super::{
    attempts::AttemptRunner,
    call::LogicalCall,
    error::UpstreamError,
    insights::below,
    paging::{PageCursor, PageRequest, PageRows},
    wire::{self, MalformedResponse, NameAsOf, PageTotals},
};
use crate::{
    domain::{CustomerId, LicenseUsage, ProcessedDate, UsageRow},
    offload,
    service::source::AnswerContent,
};

/// The largest page there is.
const PAGE_ROWS: u32 = 10_000;

/// Asks for every page, and answers only when all of them came.
///
/// The first page bears the call's own `MS-RequestId`; every further one is a request of its own,
/// with an id of its own under the same correlation id.
///
/// # Errors
///
/// [`UpstreamError`] when any page fails, when they are not pages of one answer, or when they are not
/// for the date asked for.
pub(super) async fn fetch(
    attempts: &AttemptRunner,
    base_url: &Url,
    path: &str,
    (customer, date): (CustomerId, Option<ProcessedDate>),
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let mut request = PageRequest {
        url: url(&below(base_url, path), customer, date),
        continuation_token: None,
    };
    let mut pages = PageCursor::from(&request);
    let mut request_id = call.ids.request_id;
    let mut customer_name: Option<NameAsOf> = None;
    let (mut totals, mut page_rows) = (PageTotals::default(), PageRows::default());
    let mut rows = Vec::new();
    loop {
        let answer = attempts.get(call, &request, request_id).await?;
        let bytes = answer.body.len();
        let decode = move || wire::decode_commercial(&answer.body, customer);
        let page = offload::run_cpu_bound(bytes, decode).await?;
        customer_name = customer_name.into_iter().chain(page.customer_name).min();
        totals.add(page.total, page.rows.len());
        page_rows.add(page.rows.iter().map(identity))?;
        let kept = page.rows.len();
        rows.extend(page.rows);
        let Some(link) = page.next else { break };
        attempts.reserve_memory::<UsageRow>(call, kept)?;
        request = pages.next(&request, &link)?;
        request_id = Uuid::new_v4();
    }
    totals.check()?;
    let snapshot = wire::snapshot(customer, customer_name, rows)?;
    if let Some(asked) = date {
        check_date(&snapshot, asked)?;
    }
    Ok(AnswerContent::Usage {
        usage: snapshot,
        native: None,
    })
}

/// What tells a row from the others of its customer.
fn identity(row: &UsageRow) -> impl Hash {
    (
        row.product_id.as_ref().map(|id| id.to_ascii_lowercase()),
        row.product_name.clone(),
        row.workload_name.clone(),
        row.service_name.clone(),
        row.channel.clone(),
        row.processed_at.0,
    )
}

/// Spaces are written `%20`: not every server reads `+` as one.
pub(super) fn url(endpoint: &Url, customer: CustomerId, date: Option<ProcessedDate>) -> Url {
    let mut query = format!("filter=customerTenantId%20eq%20%27{customer}%27&top={PAGE_ROWS}");
    if let Some(date) = date {
        query.push_str(&format!("&processedDateTime={date}"));
    }
    let mut url = endpoint.clone();
    url.set_query(Some(&query));
    url
}

/// Rows may lag behind the date asked for, but the newest must be of that date.
fn check_date(snapshot: &LicenseUsage, asked: ProcessedDate) -> Result<(), UpstreamError> {
    let nothing = |what: String| Err(UpstreamError::NothingProcessed(what));
    match snapshot.processed_date() {
        None => nothing(format!("Partner Center has no usage for {asked}")),
        Some(newest) if newest < asked => nothing(format!(
            "nothing was processed on {asked}; the newest before it is {newest}"
        )),
        Some(newest) if newest > asked => Err(MalformedResponse(format!(
            "processedDateTime: is {newest}, expected at most {asked}"
        ))
        .into()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ProcessedAt, UsageRow, samples};

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
    fn the_query_asks_for_one_customer_and_all_of_its_rows() {
        let base = "https://api.example/partner/".parse().unwrap();
        let endpoint = below(&base, "/v1/analytics/commercial/usage/license/");

        let url = url(&endpoint, customer(), Some(date("2018-10-14")));

        let path = "/partner/v1/analytics/commercial/usage/license/";
        assert_eq!(url.path(), path);
        let query: Vec<_> = url.query_pairs().collect();
        let filter = "customerTenantId eq '4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04'";
        assert_eq!(query[0], ("filter".into(), filter.into()));
        assert_eq!(query[1], ("top".into(), "10000".into()));
        assert_eq!(query[2], ("processedDateTime".into(), "2018-10-14".into()));
    }

    #[test]
    fn only_the_date_asked_for_is_an_answer() {
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
