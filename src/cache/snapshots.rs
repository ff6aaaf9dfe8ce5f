use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use moka::{notification::RemovalCause, policy::EvictionPolicy};

use super::{CacheMetrics, EMPTY_SHARE, PurgeMode, PurgeScope, SnapshotKey, doubt::Doubt, size};
use crate::{domain::Subject, render::Prepared};

/// (Subject, call, date) → every form of the answer. It does not expire: it is kept until memory is
/// needed, which the least recently used entry gives up. (moka's default policy would refuse a large
/// entry whenever the cache is full.)
#[derive(Debug)]
pub(super) struct Snapshots {
    with_rows: Map,
    /// Answers without rows, apart for the reason that `NewestDates` has.
    empty: Map,
    max_entry_bytes: u64,
    metrics: CacheMetrics,
}

type Map = moka::sync::Cache<SnapshotKey, Arc<Snapshot>>;

/// One snapshot, held.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) prepared: Arc<Prepared>,
    pub(super) stored_at: Instant,
    /// What stands against it where it was asked for by its date.
    doubt: Option<Box<Doubt>>,
    purged: AtomicBool,
}

// === impl Snapshots ===

impl Snapshots {
    /// Bytes that moka and the allocator take for an entry besides its content, as measured.
    const OVERHEAD_BYTES: usize = 350;

    pub(super) fn new(max_bytes: u64, max_entry_bytes: u64, metrics: &CacheMetrics) -> Self {
        let of = |bytes| {
            let evictions = metrics.clone();
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, snapshot: &Arc<Snapshot>| {
                    u32::try_from(snapshot.weight()).unwrap_or(u32::MAX)
                })
                .eviction_listener(move |_, _, cause| match cause {
                    RemovalCause::Size => evictions.evicted_for_size.inc(),
                    // Purges count themselves: what is too large is removed explicitly too.
                    RemovalCause::Explicit | RemovalCause::Replaced | RemovalCause::Expired => {}
                })
                .build()
        };
        let empty = max_bytes / EMPTY_SHARE;
        Self {
            with_rows: of(max_bytes - empty),
            empty: of(empty),
            max_entry_bytes,
            metrics: metrics.clone(),
        }
    }

    pub(super) fn get(&self, key: &SnapshotKey) -> Option<Arc<Snapshot>> {
        // Whatever has a date has rows.
        let without_rows = || self.empty.get(key).filter(|_| key.date.is_none());
        self.with_rows.get(key).or_else(without_rows)
    }

    /// Returns whether it is stored. One larger than an entry's share is not; the entry that it
    /// would replace is removed all the same, since it is known to be outdated.
    pub(super) fn insert(&self, key: SnapshotKey, snapshot: impl Into<Arc<Snapshot>>) -> bool {
        let snapshot = snapshot.into();
        let (now, no_more) = self.maps(&snapshot.prepared);
        let capacity = now.policy().max_capacity().unwrap_or(u64::MAX);
        if snapshot.weight() as u64 > self.max_entry_bytes.min(capacity) {
            self.metrics.refused_for_size.inc();
            self.remove(&key);
            return false;
        }
        // In this order, so that a look-up in between finds one of them.
        now.insert(key, snapshot);
        no_more.invalidate(&key);
        true
    }

    pub(super) fn remove(&self, key: &SnapshotKey) {
        for map in self.both() {
            map.invalidate(key);
        }
    }

    /// Has moka weigh an entry again, if it still is the one that holds `prepared`.
    pub(super) fn reweigh(&self, key: SnapshotKey, prepared: &Arc<Prepared>) {
        if let Some(snapshot) = self.get(&key)
            && Arc::ptr_eq(&snapshot.prepared, prepared)
        {
            let (map, _) = self.maps(prepared);
            map.insert(key, snapshot);
        }
    }

    /// Puts `named` in the place of `prepared`, if an entry still has that.
    pub(super) fn rename(&self, key: SnapshotKey, prepared: &Arc<Prepared>, named: &Arc<Prepared>) {
        if let Some(snapshot) = self.get(&key)
            && Arc::ptr_eq(&snapshot.prepared, prepared)
        {
            self.insert(key, snapshot.named(Arc::clone(named)));
        }
    }

    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        let mut purged = 0;
        for (key, snapshot) in self.both().into_iter().flatten() {
            if scope.covers(key.subject, key.date) {
                purged += 1;
                match mode {
                    PurgeMode::Soft => snapshot.purged.store(true, Ordering::Relaxed),
                    PurgeMode::Hard => {
                        self.remove(&key);
                        self.metrics.evicted_by_purge.inc();
                    }
                }
            }
        }
        purged
    }

    pub(super) fn of(&self, subject: Subject) -> Vec<(SnapshotKey, Arc<Snapshot>)> {
        self.both()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.subject == subject)
            .map(|(key, snapshot)| (*key, snapshot))
            .collect()
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        size(self.both())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.both().into_iter().flatten().next().is_none()
    }

    /// Where an answer belongs, and where it does not.
    fn maps(&self, prepared: &Prepared) -> (&Map, &Map) {
        if prepared.rows() > 0 {
            (&self.with_rows, &self.empty)
        } else {
            (&self.empty, &self.with_rows)
        }
    }

    fn both(&self) -> [&Map; 2] {
        [&self.with_rows, &self.empty]
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn new(prepared: Arc<Prepared>, now: Instant) -> Self {
        Self {
            prepared,
            stored_at: now,
            doubt: None,
            purged: AtomicBool::new(false),
        }
    }

    /// The same usage with a customer's name.
    fn named(&self, prepared: Arc<Prepared>) -> Self {
        Self {
            prepared,
            stored_at: self.stored_at,
            doubt: self.doubt.clone(),
            purged: AtomicBool::new(self.is_purged()),
        }
    }

    /// The same, kept in spite of an answer that is doubted.
    pub(super) fn doubted(&self, doubt: Doubt) -> Self {
        Self {
            prepared: Arc::clone(&self.prepared),
            stored_at: self.stored_at,
            doubt: Some(Box::new(doubt)),
            purged: AtomicBool::new(false),
        }
    }

    /// What stands against it; a purge has ended that.
    pub(super) fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_deref().filter(|_| !self.is_purged())
    }

    pub(super) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Relaxed)
    }

    /// Bytes that holding it takes.
    pub(super) fn weight(&self) -> usize {
        self.prepared.weight() + Snapshots::OVERHEAD_BYTES
    }
}
