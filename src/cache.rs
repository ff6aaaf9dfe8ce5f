//! The cache: the newest processed date of each customer and call, and the snapshot of each date.
//!
//! moka bounds the memory. Freshness is computed here, from a clock that callers pass, because entries
//! outlive their freshness to be served stale. There are two maps, since they age differently: the newest
//! date goes stale, the snapshot of a date does not.
//!
//! Nothing here waits or asks upstream. [`SingleFlight`] and [`FailureCache`] are for the
//! [`service`](crate::service), which does.

mod anomaly;
mod failures;
mod freshness;
mod key;
mod known_dates;
mod mass_absence;
mod metrics;
mod newest_dates;
mod purge;
mod restore;
mod single_flight;
mod snapshots;
mod status;
mod store;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;

pub use self::{
    anomaly::AnomalyKind,
    failures::{CachedFailure, FailureCache},
    freshness::{Freshness, FreshnessPolicy},
    key::{NewestKey, SnapshotKey},
    metrics::{CacheMetrics, CachedFailureKind, ShedReason},
    purge::{PurgeMode, PurgeScope},
    restore::EarlierAnswer,
    single_flight::{FetchAborted, Flight, FlightRole, LeaderGuard, SingleFlight},
    status::{CacheResult, CacheStatus, ForwardReason},
    store::{AbsenceKind, NewerData, StoreChange, StoreResult},
};
use self::{
    known_dates::KnownDates,
    mass_absence::MassAbsenceDetector,
    newest_dates::NewestDates,
    snapshots::{CachedSnapshot, SnapshotStore},
};
use crate::{
    config::CacheConfig,
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    jitter::Jitter,
    render::Rendered,
};

/// The two maps, and the rules that keep them consistent.
#[derive(Debug)]
pub struct UsageCache {
    policy: FreshnessPolicy,
    suspect_confirm_after: Duration,
    newest: NewestDates,
    snapshots: SnapshotStore,
    /// Locked during a change, so that a check and the change that depends on it are one step. Look-ups do
    /// not lock it.
    records: Mutex<CustomerRecords>,
    metrics: CacheMetrics,
    max_bytes: u64,
}

/// Records of customers that outlive their data.
#[derive(Debug)]
struct CustomerRecords {
    known_dates: KnownDates,
    absences: MassAbsenceDetector,
}

/// An answer from the cache, with its age and freshness.
#[derive(Clone, Debug)]
pub struct CachedAnswer {
    /// All formats.
    pub rendered: Arc<Rendered>,
    /// The time when it was stored or last confirmed.
    pub stored_at: Instant,
    /// The time of upstream's last answer, also of a suspect one.
    pub checked_at: Instant,
    /// It is served in place of a suspect answer.
    pub suspect: bool,
    /// Its age now.
    pub age: Duration,
    /// Its freshness now.
    pub freshness: Freshness,
    /// Whole seconds until it goes stale; negative if it is stale.
    pub ttl: i64,
    /// The value of `Cache-Control`.
    pub cache_control: HeaderValue,
}

/// The cache as a whole, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOverview {
    /// The snapshots.
    pub entries: u64,
    /// The customers whose newest usage is known.
    pub customers: u64,
    /// The bytes in use.
    pub weight_bytes: u64,
    /// The bytes that may be used.
    pub capacity_bytes: u64,
    /// The newest processed date of any customer.
    pub newest_processed_date: Option<ProcessedDate>,
}

/// One cached snapshot, for operators.
#[derive(Clone, Debug)]
pub struct EntryInfo {
    /// The call that returned it.
    pub api: UpstreamApi,
    /// Its date; `None` if it has none, for example without rows.
    pub processed_date: Option<ProcessedDate>,
    /// It is the newest of this call.
    pub is_newest: bool,
    /// The answer that it is now.
    pub cached: CachedAnswer,
    /// Its bytes.
    pub weight_bytes: usize,
    /// The time until a request for it asks upstream; `None` if no request will.
    pub refresh_in: Option<Duration>,
}

// === impl UsageCache ===

impl UsageCache {
    /// The share of memory for newest dates; the rest is for snapshots.
    const NEWEST_SHARE: u64 = 16;

    /// The share of memory for the dates that outlive their data.
    const KNOWN_DATES_SHARE: u64 = 32;

    /// The largest snapshot that is stored, as a share of the memory for snapshots.
    const MAX_ENTRY_SHARE: u64 = 4;

    /// Creates an empty cache.
    pub fn new(config: &CacheConfig, jitter: Jitter, metrics: CacheMetrics) -> Self {
        let newest_bytes = config.max_bytes / Self::NEWEST_SHARE;
        let known_bytes = config.max_bytes / Self::KNOWN_DATES_SHARE;
        let snapshot_bytes = config.max_bytes - newest_bytes - known_bytes;
        let cache = Self {
            policy: FreshnessPolicy::new(config, jitter),
            suspect_confirm_after: config.suspect_confirm_after,
            newest: NewestDates::new(newest_bytes),
            snapshots: SnapshotStore::new(
                snapshot_bytes,
                snapshot_bytes / Self::MAX_ENTRY_SHARE,
                &metrics,
            ),
            records: Mutex::new(CustomerRecords {
                known_dates: KnownDates::new(known_bytes),
                absences: MassAbsenceDetector::default(),
            }),
            metrics,
            max_bytes: config.max_bytes,
        };
        cache.metrics.capacity.set(gauge_value(config.max_bytes));
        cache
    }

    /// The freshness lifetime before jitter.
    pub fn fresh_for(&self) -> Duration {
        self.policy.fresh_for()
    }

    /// Returns `Cache-Control` for an answer of this lifetime.
    pub fn cache_control(&self, lifetime: Duration) -> HeaderValue {
        self.policy.lifetime(lifetime).cache_control
    }

    /// Returns the cached answer, whatever its age.
    ///
    /// A date is answered by the commercial call, else by the insights call while it was the newest.
    pub fn look_up(&self, resource: Resource, now: Instant) -> Option<CachedAnswer> {
        match resource {
            Resource::CommercialUsage(customer, Some(date)) => {
                let (_, snapshot) = self.dated_snapshot(customer, date)?;
                Some(self.dated_answer(&snapshot, now))
            }
            _ => self.look_up_newest(resource.into(), now),
        }
    }

    fn look_up_newest(&self, key: NewestKey, now: Instant) -> Option<CachedAnswer> {
        let newest = self.newest.get(&key)?;
        let snapshot = self.snapshots.get(&key.snapshot(newest.date))?;
        let age = now.saturating_duration_since(newest.stored_at);
        // The snapshot's own mark outlives an answer that went backwards.
        let purged = newest.is_purged();
        let anomaly = newest.anomaly();
        let lifetime = match anomaly {
            _ if purged => FreshnessPolicy::purged_lifetime(),
            Some(anomaly) => anomaly.lifetime.clone(),
            None => newest.lifetime.clone(),
        };
        let freshness = if anomaly.is_some_and(|anomaly| age < anomaly.lifetime.duration) {
            Freshness::Fresh
        } else {
            self.policy.freshness(newest.lifetime.duration, age, purged)
        };
        Some(CachedAnswer {
            rendered: Arc::clone(&snapshot.rendered),
            stored_at: newest.stored_at,
            checked_at: anomaly.map_or(newest.stored_at, |anomaly| anomaly.checked_at),
            suspect: anomaly.is_some(),
            age,
            freshness,
            ttl: freshness::ttl_seconds(lifetime.duration, age),
            cache_control: lifetime.cache_control,
        })
    }

    /// Returns the snapshot that answers for a date. That of the call that knows dates comes first, so that
    /// the requests of others do not change the answer under a URL.
    fn dated_snapshot(
        &self,
        customer: CustomerId,
        date: ProcessedDate,
    ) -> Option<(SnapshotKey, Arc<CachedSnapshot>)> {
        let of = |api| {
            let key = SnapshotKey {
                customer: Some(customer),
                api,
                date: Some(date),
            };
            Some((key, self.snapshots.get(&key)?))
        };
        match (of(UpstreamApi::Commercial), of(UpstreamApi::Insights)) {
            (Some((_, dated)), Some(other)) if dated.is_purged() && !other.1.is_purged() => {
                Some(other)
            }
            (dated, other) => dated.or(other),
        }
    }

    /// Returns the answer of a snapshot that was requested by its date. It does not go stale, unless it was
    /// purged or is suspect: clients may keep it for another freshness lifetime.
    fn dated_answer(&self, snapshot: &CachedSnapshot, now: Instant) -> CachedAnswer {
        let age = now.saturating_duration_since(snapshot.stored_at);
        let anomaly = snapshot.anomaly();
        let (lifetime, is_fresh) = match anomaly {
            _ if snapshot.is_purged() => (FreshnessPolicy::purged_lifetime(), false),
            Some(anomaly) => (anomaly.lifetime.clone(), age < anomaly.lifetime.duration),
            None => (self.policy.lifetime(age + self.policy.fresh_for()), true),
        };
        CachedAnswer {
            rendered: Arc::clone(&snapshot.rendered),
            stored_at: snapshot.stored_at,
            checked_at: anomaly.map_or(snapshot.stored_at, |anomaly| anomaly.checked_at),
            suspect: anomaly.is_some(),
            age,
            freshness: if is_fresh {
                Freshness::Fresh
            } else {
                Freshness::StaleIfError
            },
            ttl: freshness::ttl_seconds(lifetime.duration, age),
            cache_control: lifetime.cache_control,
        }
    }

    /// Returns an answer that is served without being stored.
    pub fn uncached_answer(&self, prepared: Rendered, now: Instant) -> CachedAnswer {
        self.dated_answer(&CachedSnapshot::new(Arc::new(prepared), now), now)
    }

    /// Weighs a snapshot again, after more formats were rendered.
    pub fn update_weight(&self, prepared: &Arc<Rendered>) {
        let _change = self.lock_records();
        for api in UpstreamApi::ALL {
            self.snapshots.update_weight(
                SnapshotKey {
                    customer: prepared.customer(),
                    api,
                    date: prepared.processed_date(),
                },
                prepared,
            );
        }
    }

    /// Returns the name of a customer in the list of customers, if that is cached.
    pub fn customer_name(&self, customer: CustomerId, now: Instant) -> Option<String> {
        let list = self.look_up(Resource::Customers, now)?;
        let entry = list.rendered.customers()?.find(customer)?;
        Some(entry.name.clone()).filter(|name| !name.is_empty())
    }

    /// Replaces a snapshot by the same one with other names.
    pub fn replace_rendered(&self, prepared: &Arc<Rendered>, named: &Arc<Rendered>) {
        let _change = self.lock_records();
        for api in UpstreamApi::ALL {
            let key = SnapshotKey {
                customer: prepared.customer(),
                api,
                date: prepared.processed_date(),
            };
            self.snapshots.replace_rendered(key, prepared, named);
        }
    }

    /// Marks data stale or removes it. Returns the number of snapshots.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        let mut records = self.lock_records();
        if mode == PurgeMode::Hard {
            records.known_dates.purge(scope);
        }
        self.newest.purge(scope, mode);
        self.snapshots.purge(scope, mode)
    }

    /// The maps are consistent after a panic: each change is one insert or remove.
    fn lock_records(&self) -> MutexGuard<'_, CustomerRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the overview for operators.
    pub fn overview(&self) -> CacheOverview {
        let (entries, snapshot_bytes) = self.snapshots.entries_and_bytes();
        CacheOverview {
            entries,
            customers: self.newest.customers(),
            weight_bytes: snapshot_bytes + self.newest.weight(),
            capacity_bytes: self.max_bytes,
            newest_processed_date: self.metrics.newest_processed_date(),
        }
    }

    /// Returns whether there is any data.
    pub fn has_data(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Returns the entries of a customer, or of the partner itself; newest first.
    pub fn entries(&self, customer: Option<CustomerId>, now: Instant) -> Vec<EntryInfo> {
        let mut entries: Vec<_> = self
            .snapshots
            .of_customer(customer)
            .into_iter()
            .map(|(key, snapshot)| {
                let newest = self
                    .newest
                    .get(&key.newest())
                    .filter(|newest| newest.date == key.date)
                    .and_then(|_| self.look_up_newest(key.newest(), now));
                let is_newest = newest.is_some();
                let cached = newest.unwrap_or_else(|| self.dated_answer(&snapshot, now));
                EntryInfo {
                    api: key.api,
                    processed_date: key.date,
                    is_newest,
                    weight_bytes: snapshot.weight(),
                    refresh_in: refresh_in(&cached, is_newest),
                    cached,
                }
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.processed_date, entry.api)));
        entries
    }

    /// Returns the newest processed date that a customer's usage ever had, as far as it is known.
    pub fn newest_known_date(&self, customer: CustomerId) -> Option<ProcessedDate> {
        self.lock_records().known_dates.newest_of(customer)
    }

    /// The metrics.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// Sets the gauges of the maps. Call it before a scrape.
    pub fn update_gauges(&self) {
        let (entries, bytes) = self.snapshots.entries_and_bytes();
        self.metrics.entries.set(gauge_value(entries));
        self.metrics
            .weight
            .set(gauge_value(bytes + self.newest.weight()));
    }
}

fn refresh_in(cached: &CachedAnswer, is_newest: bool) -> Option<Duration> {
    match cached.freshness {
        Freshness::Fresh if is_newest || cached.suspect => {
            Some(Duration::from_secs(u64::try_from(cached.ttl).unwrap_or(0)))
        }
        Freshness::Fresh => None,
        Freshness::StaleWhileRevalidate | Freshness::StaleIfError | Freshness::Expired => {
            Some(Duration::ZERO)
        }
    }
}

fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
