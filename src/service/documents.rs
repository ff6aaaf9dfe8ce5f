//! Documents of Partner Center's that are handed out as they come, and in no other form.

use std::time::Instant;

use super::{CacheDirective, FetchKey, UsageAnswer, UsageError, UsageService, source::CallTrace};
use crate::domain::{Caller, CustomerId, Question, Subject, UpstreamApi};

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeDocument {
    /// What a customer bought, and how much of it is deployed.
    Deployment(CustomerId),
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

// === impl NativeDocument ===

impl NativeDocument {
    /// What is told of all customers together is for those who may read all of them: who knows some
    /// of them could reckon the others.
    fn may_be_read_by(self, caller: &Caller) -> bool {
        match self {
            Self::Deployment(customer_id) => caller.may_read(customer_id),
            Self::PartnerUsage | Self::PartnerDeployment => caller.may_read_all(),
        }
    }

    fn fetch_key(self) -> FetchKey {
        let (subject, api) = match self {
            Self::Deployment(customer_id) => (customer_id.into(), UpstreamApi::Deployment),
            Self::PartnerUsage => (Subject::Partner, UpstreamApi::PartnerUsage),
            Self::PartnerDeployment => (Subject::Partner, UpstreamApi::PartnerDeployment),
        };
        FetchKey {
            subject,
            question: Question::Newest(api),
        }
    }
}

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
        document: NativeDocument,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        if !document.may_be_read_by(caller) {
            return Err(UsageError::not_allowed());
        }
        self.answer_allowed(document.fetch_key(), directive, caller, trace, now)
            .await
    }

    /// The cached document, where that is fresh and may be read, as [`UsageService::fresh_usage`].
    pub fn fresh_document(
        &self,
        document: NativeDocument,
        directive: CacheDirective,
        caller: &Caller,
        now: Instant,
    ) -> Option<UsageAnswer> {
        if !document.may_be_read_by(caller) {
            return None;
        }
        self.fresh_answer(document.fetch_key(), directive, now)
    }
}
