//! Partner Center's own documents, which have the native form only.

use std::time::Instant;

use super::{CacheDirective, UsageAnswer, UsageError, UsageService, source::CallTrace};
use crate::domain::{Caller, Resource};

// === impl UsageService ===

impl UsageService {
    /// A document, in its native form.
    ///
    /// # Errors
    ///
    /// As [`UsageService::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`UsageService::answer`].
    pub async fn document(
        &self,
        document: Resource,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        if !may_read(caller, document) {
            return Err(UsageError::not_allowed());
        }
        self.answer_allowed(document, directive, caller, trace, now)
            .await
    }

    /// The cached document, where that is fresh and may be read, as [`UsageService::fresh_usage`].
    pub fn fresh_document(
        &self,
        document: Resource,
        directive: CacheDirective,
        caller: &Caller,
        now: Instant,
    ) -> Option<UsageAnswer> {
        if !may_read(caller, document) {
            return None;
        }
        self.fresh_answer(document, directive, now)
    }
}

/// Totals over all customers are for callers that may read all of them: a caller that knows some
/// could compute the others.
fn may_read(caller: &Caller, document: Resource) -> bool {
    match document.customer() {
        Some(customer) => caller.may_read(customer),
        None => caller.may_read_all(),
    }
}
