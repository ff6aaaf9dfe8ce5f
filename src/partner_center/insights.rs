//! The insights call: one customer's newest data, in the form that clients know.

use url::Url;

use super::{
    attempts::AttemptRunner, call::LogicalCall, error::UpstreamError, paging::PageRequest, wire,
};
use crate::{domain::CustomerId, offload, service::source::AnswerContent};

/// Asks, and keeps the body as it came.
///
/// # Errors
///
/// [`UpstreamError`] when there is no answer that can be used.
pub(super) async fn fetch(
    attempts: &AttemptRunner,
    base_url: &Url,
    customer: CustomerId,
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let page = PageRequest {
        url: url(base_url, customer),
        continuation_token: None,
    };
    let request_id = call.ids.request_id;
    let answer = attempts.get(call, &page, request_id).await?;
    let body = answer.body.clone();
    let decode = move || wire::decode_insights(&body, customer);
    Ok(AnswerContent::Usage {
        usage: offload::run_cpu_bound(answer.body.len(), decode).await?,
        native: Some(answer.body),
    })
}

pub(super) fn url(base_url: &Url, customer: CustomerId) -> Url {
    below(
        base_url,
        &format!("/v1/customers/{customer}/analytics/licenses/usage"),
    )
}

/// The URL of `path` below a base URL, whose own path is kept as a prefix.
pub(super) fn below(base_url: &Url, path: &str) -> Url {
    let mut url = base_url.clone();
    url.set_path(&format!("{}{path}", base_url.path().trim_end_matches('/')));
    url.set_query(None);
    url.set_fragment(None);
    url
}
