//! The partner's list of customers, as far as a caller may see it.

use std::{sync::Arc, time::Instant};

use super::{Answer, Directive, Fetch, Unanswered, UsageService, source::CallTrace};
use crate::{
    domain::{Caller, Question, Scope, Subject, UpstreamApi},
    offload,
    render::{
        Coding, Prepared, RenderError,
        customers::{Page, Shown},
    },
};

/// About what a customer takes, rendered.
const CUSTOMER_BYTES: usize = 400;

/// About what it takes to see whether a caller may see a customer, in bytes to work on.
const RIGHTS_BYTES: usize = 2;

// === impl UsageService ===

impl UsageService {
    /// The list of customers, for whoever may read any usage at all. It is held whole: what of it
    /// the caller may see is for [`UsageService::show_customers`] to cut.
    ///
    /// # Errors
    ///
    /// As [`UsageService::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`UsageService::answer`].
    pub async fn list(
        &self,
        directive: Directive,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        if !caller.holds(Scope::UsageRead) {
            return Err(Unanswered::not_allowed());
        }
        let fetch = Fetch {
            subject: Subject::Partner,
            question: Question::Newest(UpstreamApi::Customers),
        };
        self.answer_allowed(fetch, directive, caller, trace, now)
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
    pub async fn show_customers(
        &self,
        prepared: &Arc<Prepared>,
        caller: &Caller,
        page: Option<Page>,
        coding: Coding,
    ) -> Result<Option<Shown>, RenderError> {
        if page.is_none() && caller.may_read_all() {
            return Ok(prepared.customers().map(|_| Shown::Whole));
        }
        let (prepared, caller) = (Arc::clone(prepared), caller.clone());
        // What was made before waits for nothing that is being made.
        let made = {
            let (prepared, caller, page) = (Arc::clone(&prepared), caller.clone(), page.clone());
            offload::run_cpu_bound(prepared.rows() * RIGHTS_BYTES, move || {
                prepared.shown_customers(|id| caller.may_read(id), page.as_ref(), coding)
            })
        };
        if let Some(shown) = made.await {
            return Ok(Some(shown));
        }
        let customers = prepared.rows();
        let size = page.as_ref().and_then(Page::rounded_size);
        let shown = size.map_or(customers, |size| customers.min(size.get() as usize));
        let bytes = customers.max(shown * coding.effort()) * CUSTOMER_BYTES;
        offload::run_cpu_bound(bytes, move || {
            prepared.show_customers(|id| caller.may_read(id), page.as_ref(), coding)
        })
        .await
    }
}
