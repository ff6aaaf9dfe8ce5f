//! The calls whose answers are handed out as they came, and in no other form.

use url::Url;

use super::{
    attempts::AttemptRunner, call::LogicalCall, error::UpstreamError, insights::below,
    paging::PageRequest, wire,
};
use crate::{domain::CustomerId, offload, service::source::AnswerContent};

/// Where one is, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum DocumentCall {
    /// What a customer bought, and how much of it is deployed.
    Deployment(CustomerId),
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

/// Asks, and keeps the body as it came.
///
/// # Errors
///
/// [`UpstreamError`] when there is no answer that can be used.
pub(super) async fn fetch(
    attempts: &AttemptRunner,
    base_url: &Url,
    document: DocumentCall,
    call: &mut LogicalCall,
) -> Result<AnswerContent, UpstreamError> {
    let page = PageRequest {
        url: below(base_url, &document.path()),
        continuation_token: None,
    };
    let request_id = call.ids.request_id;
    let answer = attempts.get(call, &page, request_id).await?;
    let body = answer.body.clone();
    let decode = move || wire::decode_document(&body, document.owner());
    Ok(AnswerContent::Document {
        summary: offload::run_cpu_bound(answer.body.len(), decode).await?,
        body: answer.body,
    })
}

// === impl Document ===

impl DocumentCall {
    fn path(self) -> String {
        match self {
            Self::Deployment(customer) => {
                format!("/v1/customers/{customer}/analytics/licenses/deployment")
            }
            Self::PartnerUsage => "/v1/analytics/licenses/usage".to_owned(),
            Self::PartnerDeployment => "/v1/analytics/licenses/deployment".to_owned(),
        }
    }

    /// Whom every row is of, where it is one customer.
    fn owner(self) -> Option<CustomerId> {
        match self {
            Self::Deployment(customer) => Some(customer),
            Self::PartnerUsage | Self::PartnerDeployment => None,
        }
    }
}
