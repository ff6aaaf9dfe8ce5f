//! The partner's list of customers, restricted to those that a caller may see.

use std::{sync::Arc, time::Instant};

use super::{CacheDirective, UsageAnswer, UsageError, UsageService, source::CallTrace};
use crate::{
    domain::{Caller, CallerScope, Resource},
    offload,
    render::{
        ContentCoding, RenderError, Rendered,
        customers::{CustomerPageRequest, VisibleCustomers},
    },
};

/// About the size of a rendered customer.
const RENDERED_CUSTOMER_BYTES: usize = 400;

/// The cost of a check whether a caller may see a customer, in bytes of CPU-bound work.
const VISIBILITY_CHECK_BYTES: usize = 2;

// === impl UsageService ===

impl UsageService {
    /// Answers with the list of customers, for callers that may read usage. It is cached as a whole;
    /// [`UsageService::visible_customers`] selects those that the caller may see.
    ///
    /// # Errors
    ///
    /// As [`UsageService::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`UsageService::answer`].
    pub async fn customer_list(
        &self,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        if !caller.has_scope(CallerScope::UsageRead) {
            return Err(UsageError::not_allowed());
        }
        self.answer_allowed(Resource::Customers, directive, caller, trace, now)
            .await
    }

    /// Returns the part of the list that the caller may see, ready in a coding. `Ok(None)` means that the
    /// answer is no list of customers.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where it cannot be rendered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait. Rendering that has started is finished and cached.
    pub async fn visible_customers(
        &self,
        rendered: &Arc<Rendered>,
        caller: &Caller,
        page: Option<CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Result<Option<VisibleCustomers>, RenderError> {
        if page.is_none() && caller.may_read_all() {
            return Ok(rendered.customers().map(|_| VisibleCustomers::Whole));
        }
        let (rendered, caller) = (Arc::clone(rendered), caller.clone());
        // A part that is cached does not wait for one that is being rendered.
        let cached = {
            let (rendered, caller, page) = (Arc::clone(&rendered), caller.clone(), page.clone());
            offload::run_cpu_bound(rendered.rows() * VISIBILITY_CHECK_BYTES, move || {
                rendered.cached_visible_customers(|id| caller.may_read(id), page.as_ref(), coding)
            })
        };
        if let Some(visible) = cached.await {
            return Ok(Some(visible));
        }
        let customers = rendered.rows();
        let size = page.as_ref().and_then(CustomerPageRequest::rounded_size);
        let visible = size.map_or(customers, |size| customers.min(size.get() as usize));
        let bytes = customers.max(visible * coding.compression_cost()) * RENDERED_CUSTOMER_BYTES;
        offload::run_cpu_bound(bytes, move || {
            rendered.visible_customers(|id| caller.may_read(id), page.as_ref(), coding)
        })
        .await
    }
}
