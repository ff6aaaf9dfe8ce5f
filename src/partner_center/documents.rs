//! The calls whose answers are handed out as they came, and in no other form.

use url::Url;

use super::{
    attempts::AttemptRunner, call::LogicalCall, error::UpstreamError, insights::below,
    paging::PageRequest, wire,
};
use crate::{offload, service::source::AnswerContent};

/// Asks, and keeps the body as it came.
///
/// # Errors
///
/// [`UpstreamError`] when there is no answer that can be used.
pub(super) async fn fetch(
    attempts: &AttemptRunner,
    base_url: &Url,
    path: &str,
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let page = PageRequest {
        url: below(base_url, path),
        continuation_token: None,
    };
    let request_id = call.ids.request_id;
    let answer = attempts.get(call, &page, request_id).await?;
    let body = answer.body.clone();
    // Every row is of this customer, where it is about one.
    let owner = call.customer();
    let decode = move || wire::decode_document(&body, owner);
    Ok(AnswerContent::Document {
        summary: offload::run_cpu_bound(answer.body.len(), decode).await?,
        body: answer.body,
    })
}
