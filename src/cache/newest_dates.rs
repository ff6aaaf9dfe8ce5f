use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use ahash::RandomState;
use moka::policy::EvictionPolicy;

use super::{
    anomaly::Anomaly,
    freshness::FreshnessLifetime,
    key::NewestKey,
    purge::{PurgeMode, PurgeScope},
};
use crate::{domain::ProcessedDate, render::Rendered};

/// The newest processed date of each customer and call. It goes stale.
///
/// Answers without rows are in a map of their own: the commercial call returns no rows for unknown
/// customers, and a flood of those must not evict answers with rows.
#[derive(Debug)]
pub(super) struct NewestDates {
    dates: NewestDateMap,
    without_rows: NewestDateMap,
}

type NewestDateMap = moka::sync::Cache<NewestKey, Arc<NewestEntry>, RandomState>;

/// A newest date, as upstream last sent it.
#[derive(Debug)]
pub(super) struct NewestEntry {
    /// `None` if the answer has none, for example without rows.
    pub(super) date: Option<ProcessedDate>,
    has_rows: bool,
    pub(super) stored_at: Instant,
    pub(super) lifetime: FreshnessLifetime,
    anomaly: Option<Arc<Anomaly>>,
    purged: AtomicBool,
}

// === impl NewestDates ===

impl NewestDates {
    /// The bytes of one entry: key, value, header text, and moka's own records.
    const ENTRY_BYTES: u32 = 400;

    /// The bytes that an anomaly adds, with its header text.
    const ANOMALY_BYTES: u32 = 200;

    pub(super) fn new(max_bytes: u64) -> Self {
        let of = |bytes| {
            // There is room for one, so that moka rejects none.
            let bytes = u64::max(bytes, (Self::ENTRY_BYTES + Self::ANOMALY_BYTES).into());
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, newest: &Arc<NewestEntry>| match newest.anomaly {
                    Some(_) => Self::ENTRY_BYTES + Self::ANOMALY_BYTES,
                    None => Self::ENTRY_BYTES,
                })
                .build_with_hasher(RandomState::new())
        };
        let without_rows = max_bytes / WITHOUT_ROWS_SHARE;
        Self {
            dates: of(max_bytes - without_rows),
            without_rows: of(without_rows),
        }
    }

    pub(super) fn get(&self, key: &NewestKey) -> Option<Arc<NewestEntry>> {
        self.dates.get(key).or_else(|| self.without_rows.get(key))
    }

    pub(super) fn insert(
        &self,
        key: NewestKey,
        rendered: &Rendered,
        lifetime: FreshnessLifetime,
        now: Instant,
    ) {
        self.insert_entry(key, NewestEntry::new(rendered, lifetime, now));
    }

    /// Keeps a date that was confirmed.
    pub(super) fn confirm(
        &self,
        key: NewestKey,
        newest: &NewestEntry,
        lifetime: FreshnessLifetime,
        now: Instant,
    ) {
        let newest = NewestEntry {
            date: newest.date,
            has_rows: newest.has_rows,
            stored_at: now,
            lifetime,
            anomaly: None,
            purged: AtomicBool::new(false),
        };
        self.insert_entry(key, newest);
    }

    /// Keeps a date in spite of a suspect answer.
    pub(super) fn attach_anomaly(&self, key: NewestKey, newest: &NewestEntry, anomaly: Anomaly) {
        let newest = NewestEntry {
            date: newest.date,
            has_rows: newest.has_rows,
            stored_at: newest.stored_at,
            lifetime: newest.lifetime.clone(),
            anomaly: Some(Arc::new(anomaly)),
            purged: AtomicBool::new(false),
        };
        self.insert_entry(key, newest);
    }

    fn insert_entry(&self, key: NewestKey, newest: NewestEntry) {
        let (map, other) = if newest.has_rows {
            (&self.dates, &self.without_rows)
        } else {
            (&self.without_rows, &self.dates)
        };
        // In this order, so that a look-up in between finds one of them.
        map.insert(key, Arc::new(newest));
        other.invalidate(&key);
    }

    pub(super) fn mark_purged(&self, key: &NewestKey) {
        if let Some(newest) = self.get(key) {
            newest.purged.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, key: &NewestKey) {
        for dates in self.maps() {
            dates.invalidate(key);
        }
    }

    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode) {
        for dates in self.maps() {
            for (key, newest) in dates {
                if scope.covers(key.customer, newest.date) {
                    match mode {
                        PurgeMode::Soft => newest.purged.store(true, Ordering::Relaxed),
                        PurgeMode::Hard => dates.invalidate(&*key),
                    }
                }
            }
        }
    }

    /// Returns the number of customers whose newest usage is known.
    pub(super) fn customers(&self) -> u64 {
        let keys = self.maps().into_iter().flatten().map(|(key, _)| key);
        let usage = keys.filter(|key| key.api.tells_usage());
        let customers: HashSet<_> = usage.filter_map(|key| key.customer).collect();
        customers.len() as u64
    }

    /// Returns the bytes in use.
    pub(super) fn weight(&self) -> u64 {
        entries_and_bytes(self.maps()).1
    }

    fn maps(&self) -> [&NewestDateMap; 2] {
        [&self.dates, &self.without_rows]
    }
}

// === impl NewestEntry ===

impl NewestEntry {
    /// Creates the entry of an answer that arrived then.
    pub(super) fn new(
        rendered: &Rendered,
        lifetime: FreshnessLifetime,
        stored_at: Instant,
    ) -> Self {
        Self {
            date: rendered.processed_date(),
            has_rows: rendered.rows() > 0,
            stored_at,
            lifetime,
            anomaly: None,
            purged: AtomicBool::new(false),
        }
    }

    pub(super) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Relaxed)
    }

    /// The suspect answer that it is served in place of, unless a purge has ended that.
    pub(super) fn anomaly(&self) -> Option<&Anomaly> {
        self.anomaly.as_deref().filter(|_| !self.is_purged())
    }
}

/// The share of the memory of newest dates, and of snapshots, for answers without rows.
pub(super) const WITHOUT_ROWS_SHARE: u64 = 16;

/// Returns the number of entries and the bytes of two maps together.
pub(super) fn entries_and_bytes<K, V>(
    maps: [&moka::sync::Cache<K, V, RandomState>; 2],
) -> (u64, u64)
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    maps.into_iter().fold((0, 0), |(entries, bytes), map| {
        map.run_pending_tasks();
        (entries + map.entry_count(), bytes + map.weighted_size())
    })
}
