use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use ahash::RandomState;
use moka::{notification::RemovalCause, policy::EvictionPolicy};

use super::{
    anomaly::Anomaly,
    key::SnapshotKey,
    metrics::CacheMetrics,
    newest_dates::{WITHOUT_ROWS_SHARE, entries_and_bytes},
    purge::{PurgeMode, PurgeScope},
};
use crate::{domain::CustomerId, render::Rendered};

/// The snapshots, with all formats of each answer. They do not expire: the least recently used one is
/// evicted when memory is needed. (moka's default policy would reject a large entry whenever the cache is
/// full.)
#[derive(Debug)]
pub(super) struct SnapshotStore {
    with_rows: SnapshotMap,
    /// Answers without rows, for the reason that `NewestDates` has.
    without_rows: SnapshotMap,
    max_entry_bytes: u64,
    metrics: CacheMetrics,
}

type SnapshotMap = moka::sync::Cache<SnapshotKey, Arc<CachedSnapshot>, RandomState>;

/// One cached snapshot.
#[derive(Debug)]
pub(super) struct CachedSnapshot {
    pub(super) rendered: Arc<Rendered>,
    pub(super) stored_at: Instant,
    /// The suspect answer to a request of its date that it is served in place of.
    anomaly: Option<Box<Anomaly>>,
    purged: AtomicBool,
}

// === impl SnapshotStore ===

impl SnapshotStore {
    /// The bytes that moka and the allocator take for an entry besides its content, as measured.
    const OVERHEAD_BYTES: usize = 350;

    pub(super) fn new(max_bytes: u64, max_entry_bytes: u64, metrics: &CacheMetrics) -> Self {
        let of = |bytes| {
            let evictions = metrics.clone();
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, snapshot: &Arc<CachedSnapshot>| {
                    u32::try_from(snapshot.weight()).unwrap_or(u32::MAX)
                })
                .eviction_listener(move |_, _, cause| match cause {
                    RemovalCause::Size => evictions.evicted_for_size.inc(),
                    // Purges count themselves: what is too large is removed explicitly too.
                    RemovalCause::Explicit | RemovalCause::Replaced | RemovalCause::Expired => {}
                })
                .build_with_hasher(RandomState::new())
        };
        let empty = max_bytes / WITHOUT_ROWS_SHARE;
        Self {
            with_rows: of(max_bytes - empty),
            without_rows: of(empty),
            max_entry_bytes,
            metrics: metrics.clone(),
        }
    }

    pub(super) fn get(&self, key: &SnapshotKey) -> Option<Arc<CachedSnapshot>> {
        // An answer with a date has rows.
        let without_rows = || self.without_rows.get(key).filter(|_| key.date.is_none());
        self.with_rows.get(key).or_else(without_rows)
    }

    /// Returns whether it is stored. One larger than an entry's share is not; the entry that it
    /// would replace is removed all the same, since it is known to be outdated.
    pub(super) fn insert(
        &self,
        key: SnapshotKey,
        snapshot: impl Into<Arc<CachedSnapshot>>,
    ) -> bool {
        let snapshot = snapshot.into();
        let (now, no_more) = self.maps(&snapshot.rendered);
        let capacity = now.policy().max_capacity().unwrap_or(u64::MAX);
        if snapshot.weight() as u64 > self.max_entry_bytes.min(capacity) {
            self.metrics.rejected_for_size.inc();
            self.remove(&key);
            return false;
        }
        // In this order, so that a look-up in between finds one of them.
        now.insert(key, snapshot);
        no_more.invalidate(&key);
        true
    }

    pub(super) fn remove(&self, key: &SnapshotKey) {
        for map in self.all_maps() {
            map.invalidate(key);
        }
    }

    /// Weighs an entry again, if it still has this rendered answer.
    pub(super) fn update_weight(&self, key: SnapshotKey, rendered: &Arc<Rendered>) {
        if let Some(snapshot) = self.get(&key)
            && Arc::ptr_eq(&snapshot.rendered, rendered)
        {
            let (map, _) = self.maps(rendered);
            map.insert(key, snapshot);
        }
    }

    /// Replaces the rendered answer of an entry, if it still has that.
    pub(super) fn replace_rendered(
        &self,
        key: SnapshotKey,
        rendered: &Arc<Rendered>,
        named: &Arc<Rendered>,
    ) {
        if let Some(snapshot) = self.get(&key)
            && Arc::ptr_eq(&snapshot.rendered, rendered)
        {
            self.insert(key, snapshot.with_rendered(Arc::clone(named)));
        }
    }

    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        let mut purged = 0;
        for (key, snapshot) in self.all_maps().into_iter().flatten() {
            if scope.covers(key.customer, key.date) {
                purged += 1;
                match mode {
                    PurgeMode::Soft => snapshot.mark_purged(),
                    PurgeMode::Hard => {
                        self.remove(&key);
                        self.metrics.evicted_by_purge.inc();
                    }
                }
            }
        }
        purged
    }

    pub(super) fn of_customer(
        &self,
        customer: Option<CustomerId>,
    ) -> Vec<(SnapshotKey, Arc<CachedSnapshot>)> {
        self.all_maps()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.customer == customer)
            .map(|(key, snapshot)| (*key, snapshot))
            .collect()
    }

    /// Returns the number of entries and their bytes.
    pub(super) fn entries_and_bytes(&self) -> (u64, u64) {
        entries_and_bytes(self.all_maps())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all_maps().into_iter().flatten().next().is_none()
    }

    /// Returns the map for an answer, and the other one.
    fn maps(&self, rendered: &Rendered) -> (&SnapshotMap, &SnapshotMap) {
        if rendered.rows() > 0 {
            (&self.with_rows, &self.without_rows)
        } else {
            (&self.without_rows, &self.with_rows)
        }
    }

    fn all_maps(&self) -> [&SnapshotMap; 2] {
        [&self.with_rows, &self.without_rows]
    }
}

// === impl CachedSnapshot ===

impl CachedSnapshot {
    pub(super) fn new(rendered: Arc<Rendered>, now: Instant) -> Self {
        Self {
            rendered,
            stored_at: now,
            anomaly: None,
            purged: AtomicBool::new(false),
        }
    }

    /// Returns the same snapshot with other names.
    fn with_rendered(&self, rendered: Arc<Rendered>) -> Self {
        Self {
            rendered,
            stored_at: self.stored_at,
            anomaly: self.anomaly.clone(),
            purged: AtomicBool::new(self.is_purged()),
        }
    }

    /// Returns the same snapshot, kept in spite of a suspect answer.
    pub(super) fn with_anomaly(&self, anomaly: Anomaly) -> Self {
        Self {
            rendered: Arc::clone(&self.rendered),
            stored_at: self.stored_at,
            anomaly: Some(Box::new(anomaly)),
            purged: AtomicBool::new(false),
        }
    }

    /// The suspect answer that it is served in place of, unless a purge has ended that.
    pub(super) fn anomaly(&self) -> Option<&Anomaly> {
        self.anomaly.as_deref().filter(|_| !self.is_purged())
    }

    pub(super) fn mark_purged(&self) {
        self.purged.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Relaxed)
    }

    /// The bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        self.rendered.weight() + SnapshotStore::OVERHEAD_BYTES
    }
}
