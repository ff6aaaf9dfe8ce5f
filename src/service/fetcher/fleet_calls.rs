//! Calls for all customers at once, whose answers are not cached as one.

use std::sync::Arc;

use super::Fetcher;
use crate::{
    cache::CachedFailure,
    domain::{Caller, LicenseUsage, ProcessedDate, Resource},
    resilience::byte_budget::MemoryShare,
    service::{
        concurrency_limiter::{FetchReason, GaugeGuard},
        source::{AnswerContent, CallIds, CallTrace, SourceAnswer, SourceCall, SourceError},
    },
};

/// The usage of every customer that has rows.
pub(in crate::service) struct FleetAnswer {
    pub(in crate::service) usages: Vec<LicenseUsage>,
    pub(in crate::service) call_ids: CallIds,
    /// Reserves memory for the rows while they are processed.
    _memory: Option<MemoryShare>,
}

impl Fetcher {
    /// Fetches the usage of all customers, of a date or the newest.
    ///
    /// # Errors
    ///
    /// The failure, which is not cached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call.
    pub(in crate::service) async fn fetch_fleet(
        &self,
        date: Option<ProcessedDate>,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
    ) -> Result<FleetAnswer, Arc<CachedFailure<SourceError>>> {
        let resource = Resource::FleetUsage(date);
        let answer = self.call_for_all(resource, caller, reason, trace).await?;
        match answer.content {
            AnswerContent::Fleet(usages) => Ok(FleetAnswer {
                usages,
                call_ids: answer.call_ids,
                _memory: answer.memory,
            }),
            AnswerContent::Usage { .. }
            | AnswerContent::FleetDate(_)
            | AnswerContent::Customers(_)
            | AnswerContent::Document { .. } => Err(self.other_content_failure()),
        }
    }

    /// Fetches the newest date of any customer; `None` if nobody has rows.
    ///
    /// # Errors
    ///
    /// The failure, which is not cached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call.
    pub(in crate::service) async fn fetch_fleet_date(
        &self,
        caller: &Caller,
    ) -> Result<Option<ProcessedDate>, Arc<CachedFailure<SourceError>>> {
        let (reason, trace) = (FetchReason::Refresh, CallTrace::default());
        let answer = self.call_for_all(Resource::FleetDate, caller, reason, trace);
        match answer.await?.content {
            AnswerContent::FleetDate(date) => Ok(date),
            AnswerContent::Usage { .. }
            | AnswerContent::Fleet(_)
            | AnswerContent::Customers(_)
            | AnswerContent::Document { .. } => Err(self.other_content_failure()),
        }
    }

    async fn call_for_all(
        &self,
        resource: Resource,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
    ) -> Result<SourceAnswer, Arc<CachedFailure<SourceError>>> {
        let _in_flight = GaugeGuard::increment(&self.cache.metrics().fills_in_flight);
        let pending = self.acquire_permit(resource, caller, reason, self.clock.now())?;
        let (permit, requested_at) = pending
            .acquire()
            .await
            .map_err(|overloaded| self.overloaded_failure(overloaded))?;
        // Its many pages say nothing of the time that other calls take.
        let _permit = permit.uncounted();
        let call = SourceCall {
            resource,
            trace,
            requested_at,
        };
        let fetched = self.source.fetch(call).await;
        fetched.map_err(|error| self.uncached_source_failure(error))
    }
}
