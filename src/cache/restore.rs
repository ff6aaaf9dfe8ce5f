//! Takes answers back that were evicted or are older than this process, and confirms answers without
//! a call for each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CachedAnswer, CustomerRecords, NewestKey, UsageCache, freshness::whole_seconds,
    snapshots::CachedSnapshot,
};
use crate::{
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    render::Rendered,
};

/// An answer that was accepted earlier, by this process or another.
#[derive(Clone, Debug)]
pub struct EarlierAnswer {
    /// Its formats.
    pub rendered: Rendered,
    /// The time when it arrived or was last confirmed.
    pub stored_at: Instant,
    /// Its freshness lifetime; `None`: that of any answer.
    pub lifetime: Option<Duration>,
    /// True after a soft purge.
    pub is_purged: bool,
}

// === impl UsageCache ===

impl UsageCache {
    /// Takes an answer back, unless a newer one is cached by now, and returns the cached answer.
    ///
    /// An answer that is older than the customer's newest known date is only taken back for requests
    /// of its own date.
    pub fn restore(
        &self,
        resource: Resource,
        answer: EarlierAnswer,
        now: Instant,
    ) -> Option<CachedAnswer> {
        let mut records = self.lock_records();
        if let Some(cached) = self.look_up(resource, now) {
            return Some(cached);
        }
        self.insert_earlier(&mut records, resource, answer, now)
    }

    /// Takes an answer that another process accepted in place of the cached one, if that is older or was
    /// purged. It must not be purged itself. Returns whether it is cached now.
    pub fn take_over(&self, resource: Resource, answer: EarlierAnswer, now: Instant) -> bool {
        let mut records = self.lock_records();
        if !self.is_newer_than_cached(resource, answer.stored_at, now) {
            return false;
        }
        let rendered = match self.look_up(resource, now) {
            // Its other formats are rendered.
            Some(cached) => answer.rendered.reusing_unchanged(&cached.rendered),
            None => answer.rendered,
        };
        let answer = EarlierAnswer { rendered, ..answer };
        self.insert_earlier(&mut records, resource, answer, now)
            .is_some()
    }

    /// Returns whether an answer of this time would take the place of what is cached.
    pub fn is_newer_than_cached(
        &self,
        resource: Resource,
        stored_at: Instant,
        now: Instant,
    ) -> bool {
        self.is_purged(resource)
            || self
                .look_up(resource, now)
                .is_none_or(|cached| cached.checked_at < stored_at)
    }

    fn is_purged(&self, resource: Resource) -> bool {
        match resource {
            Resource::CommercialUsage(customer, Some(date)) => self
                .dated_snapshot(customer, date)
                .is_some_and(|(_, snapshot)| snapshot.is_purged()),
            _ => self
                .newest
                .get(&resource.into())
                .is_some_and(|newest| newest.is_purged()),
        }
    }

    fn insert_earlier(
        &self,
        records: &mut CustomerRecords,
        resource: Resource,
        answer: EarlierAnswer,
        now: Instant,
    ) -> Option<CachedAnswer> {
        let date = answer.rendered.processed_date();
        let newest_key = NewestKey::from(resource);
        let snapshot = CachedSnapshot::new(Arc::new(answer.rendered), answer.stored_at);
        let rendered = Arc::clone(&snapshot.rendered);
        if answer.is_purged {
            snapshot.mark_purged();
        }
        if resource.date().is_some() {
            let cached = self.dated_answer(&snapshot, now);
            self.snapshots.insert(newest_key.snapshot(date), snapshot);
            return Some(cached);
        }
        let known = records.known_dates.get(&newest_key);
        if known.is_some_and(|known| date.is_none_or(|date| date < known)) {
            return None;
        }
        if let Some(date) = date.filter(|_| newest_key.api.tells_usage()) {
            records.known_dates.observe(newest_key, date);
            self.metrics.observe_processed_date(date);
        }
        let lifetime = match answer.lifetime {
            Some(lifetime) => self.policy.lifetime(whole_seconds(lifetime)),
            None => self.policy.jittered_lifetime(newest_key),
        };
        if self.snapshots.insert(newest_key.snapshot(date), snapshot) {
            self.newest
                .insert(newest_key, &rendered, lifetime, answer.stored_at);
        }
        if answer.is_purged {
            self.newest.mark_purged(&newest_key);
        }
        self.look_up(resource, now)
    }

    /// Confirms the newest answer of a customer's usage, as a call with the same answer would, for this
    /// freshness lifetime. Nothing changes where there is none, after a purge, and for an answer that
    /// is served in place of a suspect one.
    pub fn confirm_newest(
        &self,
        customer: CustomerId,
        api: UpstreamApi,
        lifetime: Duration,
        now: Instant,
    ) {
        let _change = self.lock_records();
        let key = NewestKey {
            customer: Some(customer),
            api,
        };
        if let Some(newest) = self.newest.get(&key)
            && !newest.is_purged()
            && newest.anomaly().is_none()
        {
            let lifetime = self.policy.lifetime(whole_seconds(lifetime));
            self.newest.confirm(key, &newest, lifetime, now);
        }
    }

    /// Records the newest date that a customer's usage had before this process, so that it never goes
    /// backwards.
    pub fn observe_known_date(&self, customer: CustomerId, api: UpstreamApi, date: ProcessedDate) {
        let key = NewestKey {
            customer: Some(customer),
            api,
        };
        self.lock_records().known_dates.observe(key, date);
        self.metrics.observe_processed_date(date);
    }
}
