//! Putting an answer where what is held is: what it confirms stays, what it outdates goes.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{Freshness, Held, SnapshotKey, UsageCache, freshness};
use crate::{domain::Question, representation::Prepared};

/// What became of an answer that was to be stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The answer to hand out, stored or not.
    pub held: Held,
    /// Whether it is held from now on.
    pub stored: bool,
    /// What it did to the newest date.
    pub change: Change,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing of the kind was held.
    New,
    /// The same content again: validators stay, freshness begins anew.
    Confirmed,
    /// Other content, or a newer date.
    Replaced,
    /// An older date than the one held: the held one stays the newest.
    WentBackwards,
}

// === impl UsageCache ===

impl UsageCache {
    /// Stores the answer to a question, keeping what it confirms.
    ///
    /// Whether it may be stored at all is for the caller to say: an answer that a purge overtook
    /// is handed out with [`UsageCache::pass_through`].
    pub fn store(&self, question: Question, prepared: Prepared, now: Instant) -> Stored {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = SnapshotKey {
            customer_id: prepared.customer_id(),
            api: question.api(),
            date: prepared.processed_date(),
        };
        let earlier = self.snapshots.get(&key);
        // Content that comes back after other content was modified by that, for those who ask by
        // `If-Modified-Since`.
        let returns = matches!(question, Question::Newest(_))
            && self
                .newest
                .get(&key.newest())
                .is_some_and(|newest| newest.date != key.date);
        let unchanged = !returns
            && earlier
                .as_ref()
                .is_some_and(|earlier| prepared.is_unchanged_from(&earlier.prepared));
        let prepared = match &earlier {
            Some(_) if returns => Arc::new(prepared),
            Some(earlier) if unchanged => Arc::clone(&earlier.prepared),
            Some(earlier) => Arc::new(prepared.succeeding(&earlier.prepared)),
            None => Arc::new(prepared),
        };
        let stored = self.snapshots.insert(key, Arc::clone(&prepared), now);
        let change = match (&earlier, unchanged) {
            (None, _) => Change::New,
            (Some(_), true) => Change::Confirmed,
            (Some(_), false) => Change::Replaced,
        };
        match question {
            Question::Dated(_) => Stored {
                held: self.settled(&prepared, now, false, now),
                stored,
                change,
            },
            Question::Newest(_) => self.store_newest(key, prepared, stored, change, now),
        }
    }

    fn store_newest(
        &self,
        snapshot: SnapshotKey,
        prepared: Arc<Prepared>,
        stored: bool,
        change: Change,
        now: Instant,
    ) -> Stored {
        let key = snapshot.newest();
        let before = self.newest.get(&key);
        if let Some(before) =
            before.filter(|before| snapshot.date.is_some() && snapshot.date < before.date)
            && self.snapshots.get(&key.snapshot(before.date)).is_some()
        {
            self.newest
                .insert(key, before.date, self.policy.draw_lifetime(), now);
            if let Some(held) = self.look_up_newest(key, now) {
                let change = Change::WentBackwards;
                return Stored {
                    held,
                    stored,
                    change,
                };
            }
        }
        let lifetime = self.policy.draw_lifetime();
        if stored {
            self.newest
                .insert(key, snapshot.date, lifetime.clone(), now);
        } else {
            // What is held is known to be outdated, and the new does not fit.
            self.newest.remove(&key);
        }
        if let Some(date) = snapshot.date {
            self.metrics.saw_processed_date(date);
        }
        let held = Held {
            prepared,
            stored_at: now,
            age: Duration::ZERO,
            freshness: Freshness::Fresh,
            ttl: freshness::ttl(lifetime.duration, Duration::ZERO),
            cache_control: lifetime.cache_control,
        };
        Stored {
            held,
            stored,
            change,
        }
    }
}
