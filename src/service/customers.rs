//! The partner's list of customers, as far as a caller may see it.

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

/// About what a customer takes, rendered.
const RENDERED_CUSTOMER_BYTES: usize = 400;

/// About what it takes to see whether a caller may see a customer, in bytes to work on.
const VISIBILITY_CHECK_BYTES: usize = 2;

// === impl UsageService ===

impl UsageService {
    /// The list of customers, for whoever may read any usage at all. It is held whole: what of it
    /// the caller may see is for [`UsageService::visible_customers`] to cut.
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

    /// What of a list of customers its caller is shown, ready in a coding. `Ok(None)` where this is
    /// no such list.
    ///
    /// # Errors
    ///
    /// When it could not be rendered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons what is shown; what was begun is finished and kept.
    pub async fn visible_customers(
        &self,
        prepared: &Arc<Rendered>,
        caller: &Caller,
        page: Option<CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Result<Option<VisibleCustomers>, RenderError> {
        if page.is_none() && caller.may_read_all() {
            return Ok(prepared.customers().map(|_| VisibleCustomers::Whole));
        }
        let (prepared, caller) = (Arc::clone(prepared), caller.clone());
        // What was made before waits for nothing that is being made.
        let made = {
            let (prepared, caller, page) = (Arc::clone(&prepared), caller.clone(), page.clone());
            offload::run_cpu_bound(prepared.rows() * VISIBILITY_CHECK_BYTES, move || {
                prepared.cached_visible_customers(|id| caller.may_read(id), page.as_ref(), coding)
            })
        };
        if let Some(shown) = made.await {
            return Ok(Some(shown));
        }
        let customers = prepared.rows();
        let size = page.as_ref().and_then(CustomerPageRequest::rounded_size);
        let shown = size.map_or(customers, |size| customers.min(size.get() as usize));
        let bytes = customers.max(shown * coding.compression_cost()) * RENDERED_CUSTOMER_BYTES;
        offload::run_cpu_bound(bytes, move || {
            prepared.visible_customers(|id| caller.may_read(id), page.as_ref(), coding)
        })
        .await
    }
}
