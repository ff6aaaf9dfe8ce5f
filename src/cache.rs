//! What is held: which processed date is newest for a customer, or the partner itself, and a
//! call, and the snapshot of each date.
//!
//! moka bounds memory; freshness is judged here, by a clock that is given, because entries must
//! outlive their freshness to be served stale. The two maps are separate because they age
//! differently: "which date is newest" changes and goes stale, a snapshot of a date is settled.
//!
//! Nothing here asks upstream or waits; [`SingleFlight`] and [`FailureCache`] are the pieces with which
//! [`usage`](crate::service) does.

mod anomaly;
mod failures;
mod freshness;
mod key;
mod known_dates;
mod mass_absence;
mod metrics;
mod newest_dates;
mod purge;
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

/// The two maps, and the rules that keep them in step.
#[derive(Debug)]
pub struct UsageCache {
    policy: FreshnessPolicy,
    suspect_confirm_after: Duration,
    newest: NewestDates,
    snapshots: SnapshotStore,
    /// Locked while something is changed, so that a check and the change that depends on it are one
    /// step. Look-ups never take it.
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

/// An answer from memory, and how it may be used.
#[derive(Clone, Debug)]
pub struct CachedAnswer {
    /// Every form of it.
    pub rendered: Arc<Rendered>,
    /// When it was stored or last confirmed.
    pub stored_at: Instant,
    /// When upstream last answered for it, be it with what was doubted; else as `stored_at`.
    pub checked_at: Instant,
    /// Whether it is served in place of an answer that is doubted.
    pub suspect: bool,
    /// How old it is now.
    pub age: Duration,
    /// What may be done with it now.
    pub freshness: Freshness,
    /// Whole seconds until it goes stale; negative since.
    pub ttl: i64,
    /// `Cache-Control` to send along.
    pub cache_control: HeaderValue,
}

/// The cache as a whole, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOverview {
    /// Snapshots held.
    pub entries: u64,
    /// Customers whose newest usage is known.
    pub customers: u64,
    /// Bytes in use.
    pub weight_bytes: u64,
    /// Bytes that may be used.
    pub capacity_bytes: u64,
    /// The newest processed date of any customer.
    pub newest_processed_date: Option<ProcessedDate>,
}

/// One cached snapshot, for operators.
#[derive(Clone, Debug)]
pub struct EntryInfo {
    /// Which call told it.
    pub api: UpstreamApi,
    /// Its date; `None` where it has none, such as one without rows.
    pub processed_date: Option<ProcessedDate>,
    /// Whether this is the newest that this call told.
    pub is_newest: bool,
    /// The answer it would give now.
    pub cached: CachedAnswer,
    /// Bytes it takes.
    pub weight_bytes: usize,
    /// Until a request for it asks upstream; zero when the next one would, `None` when none will.
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

    /// An empty cache of this size.
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

    /// Returns the cached answer, whatever its age.
    ///
    /// A date is answered by what the commercial call told of it, else by what the insights call did
    /// while it was the newest.
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
        // Not the snapshot's own mark, which outlives an answer that went backwards.
        let purged = newest.is_purged();
        let doubt = newest.anomaly();
        let told = match doubt {
            _ if purged => FreshnessPolicy::purged_lifetime(),
            Some(doubt) => doubt.lifetime.clone(),
            None => newest.lifetime.clone(),
        };
        let freshness = if doubt.is_some_and(|doubt| age < doubt.lifetime.duration) {
            Freshness::Fresh
        } else {
            self.policy.freshness(newest.lifetime.duration, age, purged)
        };
        Some(CachedAnswer {
            rendered: Arc::clone(&snapshot.rendered),
            stored_at: newest.stored_at,
            checked_at: doubt.map_or(newest.stored_at, |doubt| doubt.checked_at),
            suspect: doubt.is_some(),
            age,
            freshness,
            ttl: freshness::ttl_seconds(told.duration, age),
            cache_control: told.cache_control,
        })
    }

    /// What answers for a date. The call that tells dates comes first, so that what somebody else
    /// asked for does not change the answer under a URL.
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
            (Some((_, told)), Some(other)) if told.is_purged() && !other.1.is_purged() => {
                Some(other)
            }
            (told, other) => told.or(other),
        }
    }

    /// A snapshot asked for by its date does not go stale, unless it was purged or is doubted:
    /// whoever is handed it may keep it for another freshness lifetime.
    fn dated_answer(&self, snapshot: &CachedSnapshot, now: Instant) -> CachedAnswer {
        let age = now.saturating_duration_since(snapshot.stored_at);
        let doubt = snapshot.anomaly();
        let (lifetime, fresh) = match doubt {
            _ if snapshot.is_purged() => (FreshnessPolicy::purged_lifetime(), false),
            Some(doubt) => (doubt.lifetime.clone(), age < doubt.lifetime.duration),
            None => (self.policy.lifetime(age + self.policy.fresh_for()), true),
        };
        CachedAnswer {
            rendered: Arc::clone(&snapshot.rendered),
            stored_at: snapshot.stored_at,
            checked_at: doubt.map_or(snapshot.stored_at, |doubt| doubt.checked_at),
            suspect: doubt.is_some(),
            age,
            freshness: if fresh {
                Freshness::Fresh
            } else {
                Freshness::StaleIfError
            },
            ttl: freshness::ttl_seconds(lifetime.duration, age),
            cache_control: lifetime.cache_control,
        }
    }

    /// An answer that is handed out without being stored.
    pub fn uncached_answer(&self, prepared: Rendered, now: Instant) -> CachedAnswer {
        self.dated_answer(&CachedSnapshot::new(Arc::new(prepared), now), now)
    }

    /// Weighs a snapshot again, after more forms of it were made.
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

    /// The name that the list of customers has for a customer, where the list is cached.
    pub fn customer_name(&self, customer: CustomerId, now: Instant) -> Option<String> {
        let list = self.look_up(Resource::Customers, now)?;
        let entry = list.rendered.customers()?.find(customer)?;
        Some(entry.name.clone()).filter(|name| !name.is_empty())
    }

    /// Puts a snapshot with a customer's name in the place of the same one without it.
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

    /// Marks stale or drops what is held; returns how many snapshots that was.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        let mut records = self.lock_records();
        if mode == PurgeMode::Hard {
            records.known_dates.purge(scope);
        }
        self.newest.purge(scope, mode);
        self.snapshots.purge(scope, mode)
    }

    /// A panic while the lock is held leaves the maps whole: each change is one insert or remove.
    fn lock_records(&self) -> MutexGuard<'_, CustomerRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache as a whole.
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

    /// Whether anything is held that could be served.
    pub fn has_data(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Everything cached for a customer, or for the partner itself; newest first.
    pub fn entries(&self, customer: Option<CustomerId>, now: Instant) -> Vec<EntryInfo> {
        let mut holdings: Vec<_> = self
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
                let held = newest.unwrap_or_else(|| self.dated_answer(&snapshot, now));
                EntryInfo {
                    api: key.api,
                    processed_date: key.date,
                    is_newest,
                    weight_bytes: snapshot.weight(),
                    refresh_in: refresh_in(&held, is_newest),
                    cached: held,
                }
            })
            .collect();
        holdings.sort_by_key(|holding| std::cmp::Reverse((holding.processed_date, holding.api)));
        holdings
    }

    /// The newest processed date that a customer's usage ever had, as far as it is remembered.
    pub fn newest_known_date(&self, customer: CustomerId) -> Option<ProcessedDate> {
        self.lock_records().known_dates.newest_of(customer)
    }

    /// The counters of this cache.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// Sets the gauges that are read from the maps; to be called before a scrape.
    pub fn update_gauges(&self) {
        let (entries, bytes) = self.snapshots.entries_and_bytes();
        self.metrics.entries.set(gauge_value(entries));
        self.metrics
            .weight
            .set(gauge_value(bytes + self.newest.weight()));
    }
}

fn refresh_in(held: &CachedAnswer, is_newest: bool) -> Option<Duration> {
    match held.freshness {
        Freshness::Fresh if is_newest || held.suspect => {
            Some(Duration::from_secs(u64::try_from(held.ttl).unwrap_or(0)))
        }
        Freshness::Fresh => None,
        Freshness::StaleWhileRevalidate | Freshness::StaleIfError | Freshness::Expired => {
            Some(Duration::ZERO)
        }
    }
}

/// A count as a gauge takes it.
fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
