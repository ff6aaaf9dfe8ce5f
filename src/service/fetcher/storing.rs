//! Stores answers and failures in the cache, and answers in the store.

use std::{sync::Arc, time::Instant};

use super::{
    FetchGuard, FetchOutcome, FetchedAnswer, Fetcher,
    rendering::{AcceptedData, RenderedAnswer},
};
use crate::{
    cache::{
        AbsenceKind, CachedAnswer, CachedFailure, CachedFailureKind, StoreChange, StoreResult,
    },
    domain::Resource,
    service::{
        call_leases::CallLease,
        source::{CallIds, SourceError},
    },
    store::Lease,
};

/// The data of a customer's newest date, where upstream's newest is older or has no rows.
pub(super) enum NewestFallback {
    /// It was cached when the answer arrived.
    Current(CachedAnswer),
    /// It is cached for requests of its date.
    Cached(CachedAnswer),
    /// It was fetched by the call for its date.
    Fetched(Resource, Box<RenderedAnswer>),
    /// Upstream no longer has that date either.
    Missing,
}

impl Fetcher {
    pub(super) fn store_answer(
        &self,
        resource: Resource,
        answer: RenderedAnswer,
        newest: Option<NewestFallback>,
        call_ids: CallIds,
        guard: FetchGuard,
        call_lease: Option<CallLease>,
    ) -> FetchedAnswer {
        let lease = call_lease.as_ref().and_then(CallLease::lease);
        let now = self.clock.now();
        let rows = answer.rendered.rows();
        let completed = guard.complete((answer, newest), |(answer, newest)| {
            self.failures.remove(&resource);
            let RenderedAnswer { rendered, accepted } = answer;
            let stored = match newest {
                None => self.cache.store(resource, rendered, now),
                Some(NewestFallback::Current(cached)) => {
                    self.cache
                        .store_beside(resource, rendered, Some(&cached), now)
                }
                Some(NewestFallback::Missing) => {
                    self.cache.store_without_rows(resource, rendered, now)
                }
                Some(NewestFallback::Cached(cached)) => {
                    self.cache.store_older(resource, rendered, &cached, now)
                }
                Some(NewestFallback::Fetched(dated, fetched)) => {
                    let dated_result = self.store(dated, *fetched, now, lease);
                    self.cache
                        .store_older(resource, rendered, &dated_result.answer, now)
                }
            };
            self.record_accepted(resource, accepted, &stored, lease);
            stored
        });
        let (cached, stored) = match completed {
            Ok(stored) => {
                log_anomaly(resource, rows, &stored);
                if let Some(lease) = call_lease
                    && !matches!(stored.change, StoreChange::Suspect(_))
                {
                    lease.finish();
                }
                (stored.answer, stored.stored)
            }
            // Purged during the call: the answer is served to those who waited, and not stored.
            Err((_, Some(NewestFallback::Cached(cached)))) => (cached, false),
            Err((_, Some(NewestFallback::Fetched(_, answer)))) => {
                (self.cache.uncached_answer(answer.rendered, now), false)
            }
            Err((answer, _)) => (self.cache.uncached_answer(answer.rendered, now), false),
        };
        FetchedAnswer {
            cached,
            stored,
            forward_status: Some(200),
            call_ids: Some(call_ids),
        }
    }

    fn store(
        &self,
        resource: Resource,
        answer: RenderedAnswer,
        now: Instant,
        lease: Option<&Lease>,
    ) -> StoreResult {
        let stored = self.cache.store(resource, answer.rendered, now);
        self.record_accepted(resource, answer.accepted, &stored, lease);
        stored
    }

    /// Hands accepted data to the second level. It keeps no suspect answers.
    fn record_accepted(
        &self,
        resource: Resource,
        accepted: Option<AcceptedData>,
        stored: &StoreResult,
        lease: Option<&Lease>,
    ) {
        match accepted {
            Some(_) if matches!(stored.change, StoreChange::Suspect(_)) => {}
            Some(AcceptedData::Usage(usage)) => self.level.record_usage(resource, usage, lease),
            Some(AcceptedData::Customers(list)) => {
                self.level.record_customers(&stored.answer.rendered, list);
            }
            None => {}
        }
    }

    /// Ends a failed call: removes data that upstream no longer has, unless that is suspect, and
    /// caches the failure.
    pub(super) fn store_failure(
        &self,
        resource: Resource,
        error: SourceError,
        guard: FetchGuard,
    ) -> FetchOutcome {
        let now = self.clock.now();
        let (kind, retry_after) = (error.kind, error.retry_after);
        let completed = guard.complete(error, |error| {
            let absence = kind.absence();
            if let Some(absence) = absence
                && let Some(stored) = self.cache.store_absence(resource, absence, now)
            {
                self.failures.remove(&resource);
                return Ok((stored, error));
            }
            let is_past = absence == Some(AbsenceKind::Date) && self.is_before_newest(resource);
            let failure_kind = match absence {
                Some(_) if is_past => CachedFailureKind::PastAbsence,
                Some(_) => CachedFailureKind::Absence,
                None => CachedFailureKind::Fault,
            };
            let remember_for = |streak| match failure_kind {
                CachedFailureKind::PastAbsence => self.past_absence_fresh_for,
                _ => self.failure_lifetime(kind, retry_after, streak),
            };
            Err(self
                .failures
                .record(failure_kind, resource, error, now, remember_for))
        });
        match completed {
            Ok(Ok((suspect, error))) => {
                log_anomaly(resource, 0, &suspect);
                Ok(FetchedAnswer {
                    cached: suspect.answer,
                    stored: false,
                    forward_status: error.status,
                    call_ids: error.call_ids,
                })
            }
            Ok(Err(failure)) => {
                self.level.record_absence(resource, kind);
                Err(failure)
            }
            Err(error) => Err(Arc::new(CachedFailure::uncached(
                error,
                now,
                self.failure_lifetime(kind, retry_after, 1),
            ))),
        }
    }

    /// Returns whether its date is older than the customer's newest: such a date gets no new data.
    fn is_before_newest(&self, resource: Resource) -> bool {
        let newest = |customer| self.cache.newest_known_date(customer);
        let dates = resource.date().zip(resource.customer().and_then(newest));
        dates.is_some_and(|(date, newest)| date < newest)
    }
}

/// Logs that an answer is withheld, and when one is accepted after all.
fn log_anomaly(resource: Resource, rows: usize, stored: &StoreResult) {
    let cached = &stored.answer.rendered;
    match stored.change {
        StoreChange::Suspect(kind) => tracing::warn!(
            api = resource.api().as_str(),
            customer.id = resource.customer().map(tracing::field::display),
            reason = kind.as_str(),
            upstream.rows = rows,
            held.rows = cached.rows(),
            held.processed_date = cached.processed_date().map(tracing::field::display),
            age_seconds = stored.answer.age.as_secs(),
            "Partner Center's answer is suspect: cached data is served in its place"
        ),
        StoreChange::AcceptedAfterRepeat => tracing::warn!(
            api = resource.api().as_str(),
            customer.id = resource.customer().map(tracing::field::display),
            upstream.rows = rows,
            "Partner Center has sent the same again, so the answer that was suspect is accepted"
        ),
        StoreChange::New | StoreChange::Unchanged | StoreChange::Replaced => {}
    }
}
