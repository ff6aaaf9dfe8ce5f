use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{NewestKey, PurgeMode, PurgeScope, doubt::Doubt, freshness::Lifetime};
use crate::domain::ProcessedDate;

/// Customer → its newest processed date. This is what goes stale.
#[derive(Debug)]
pub(super) struct NewestDates {
    dates: moka::sync::Cache<NewestKey, Arc<Newest>>,
}

/// A customer's newest date, as we were last told.
#[derive(Debug)]
pub(super) struct Newest {
    /// `None` when the customer has no rows.
    pub(super) date: Option<ProcessedDate>,
    pub(super) stored_at: Instant,
    pub(super) lifetime: Lifetime,
    doubt: Option<Arc<Doubt>>,
    purged: AtomicBool,
}

// === impl NewestDates ===

impl NewestDates {
    /// Bytes of one entry: key, value, header text, and moka's own records of it.
    const ENTRY_BYTES: u32 = 400;

    /// Bytes that a doubt adds to it: itself and its header text.
    const DOUBT_BYTES: u32 = 200;

    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            dates: moka::sync::Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, newest: &Arc<Newest>| match newest.doubt {
                    Some(_) => Self::ENTRY_BYTES + Self::DOUBT_BYTES,
                    None => Self::ENTRY_BYTES,
                })
                .build(),
        }
    }

    pub(super) fn get(&self, key: &NewestKey) -> Option<Arc<Newest>> {
        self.dates.get(key)
    }

    pub(super) fn insert(
        &self,
        key: NewestKey,
        date: Option<ProcessedDate>,
        lifetime: Lifetime,
        now: Instant,
    ) {
        let newest = Newest {
            date,
            stored_at: now,
            lifetime,
            doubt: None,
            purged: AtomicBool::new(false),
        };
        self.dates.insert(key, Arc::new(newest));
    }

    /// Keeps a date in spite of an answer that is doubted.
    pub(super) fn keep(&self, key: NewestKey, newest: &Newest, doubt: Doubt) {
        let newest = Newest {
            date: newest.date,
            stored_at: newest.stored_at,
            lifetime: newest.lifetime.clone(),
            doubt: Some(Arc::new(doubt)),
            purged: AtomicBool::new(false),
        };
        self.dates.insert(key, Arc::new(newest));
    }

    pub(super) fn remove(&self, key: &NewestKey) {
        self.dates.invalidate(key);
    }

    pub(super) fn purge(&self, scope: PurgeScope, mode: PurgeMode) {
        for (key, newest) in &self.dates {
            if scope.covers(key.customer_id, newest.date) {
                match mode {
                    PurgeMode::Soft => newest.purged.store(true, Ordering::Relaxed),
                    PurgeMode::Hard => self.dates.invalidate(&*key),
                }
            }
        }
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.dates.run_pending_tasks();
        (self.dates.entry_count(), self.dates.weighted_size())
    }
}

// === impl Newest ===

impl Newest {
    pub(super) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Relaxed)
    }

    /// What stands against it; a purge has ended that.
    pub(super) fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_deref().filter(|_| !self.is_purged())
    }
}
