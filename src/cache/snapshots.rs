use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use moka::notification::RemovalCause;

use super::{CacheMetrics, EMPTY_SHARE, PurgeMode, PurgeScope, SnapshotKey, doubt::Doubt, size};
use crate::{domain::CustomerId, representation::Prepared};

/// (Customer, date) → every form of its usage. Settled: it stays until space is needed.
#[derive(Debug)]
pub(super) struct Snapshots {
    dated: Map,
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
            dated: of(max_bytes - empty),
            empty: of(empty),
            max_entry_bytes,
            metrics: metrics.clone(),
        }
    }

    pub(super) fn get(&self, key: &SnapshotKey) -> Option<Arc<Snapshot>> {
        self.map(key).get(key)
    }

    /// Returns whether it is held from now on; one larger than an entry's share is not, and what
    /// stood in its place goes too, since it is known to be outdated.
    pub(super) fn insert(&self, key: SnapshotKey, snapshot: Snapshot) -> bool {
        if snapshot.weight() as u64 > self.max_entry_bytes {
            self.metrics.refused_for_size.inc();
            self.map(&key).invalidate(&key);
            return false;
        }
        self.map(&key).insert(key, Arc::new(snapshot));
        true
    }

    /// Has moka weigh an entry again, if it still is the one that holds `prepared`.
    pub(super) fn reweigh(&self, key: SnapshotKey, prepared: &Arc<Prepared>) {
        if let Some(snapshot) = self.get(&key)
            && Arc::ptr_eq(&snapshot.prepared, prepared)
        {
            self.map(&key).insert(key, snapshot);
        }
    }

    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        let mut purged = 0;
        for (key, snapshot) in self.both().into_iter().flatten() {
            if scope.covers(key.customer_id, key.date) {
                purged += 1;
                match mode {
                    PurgeMode::Soft => snapshot.purged.store(true, Ordering::Relaxed),
                    PurgeMode::Hard => {
                        self.map(&key).invalidate(&*key);
                        self.metrics.evicted_by_purge.inc();
                    }
                }
            }
        }
        purged
    }

    pub(super) fn of_customer(&self, customer_id: CustomerId) -> Vec<(SnapshotKey, Arc<Snapshot>)> {
        self.both()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.customer_id == customer_id)
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

    fn map(&self, key: &SnapshotKey) -> &Map {
        match key.date {
            Some(_) => &self.dated,
            None => &self.empty,
        }
    }

    fn both(&self) -> [&Map; 2] {
        [&self.dated, &self.empty]
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
