//! Applies the purges and changes of other processes that use the same store.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{UsageService, UsageServiceInner, purge_marks::Followed};
use crate::{
    cache::{PurgeMode, PurgeScope},
    clock::{SharedClock, with_deadline},
    jitter::Jitter,
    store::{DurableStore, Notification, StoreError, StoreHealth, UsageStore},
};

/// Looks for purges and changes of other processes about every second, and at each notification of one.
///
/// While the store does not answer, nothing changes; the first answer after that has all that was missed.
#[derive(Debug)]
pub struct StoreFollower {
    usage: UsageService,
    store: Arc<dyn UsageStore>,
    health: StoreHealth,
    clock: SharedClock,
    jitter: Jitter,
    reported: Option<Report>,
}

/// The last report to other processes.
#[derive(Clone, Copy, Debug)]
struct Report {
    applied: i64,
    at: Instant,
}

/// The effect of a purge on all processes that use the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeOutcome {
    /// The snapshots that were purged in this process.
    pub purged: usize,
    /// The processes that were seen in the last 10 s, with this one.
    pub replicas: usize,
    /// Those that have applied the purge, with this one.
    pub confirmed: usize,
}

/// The changes that a look has taken over.
enum FollowedChanges {
    Some,
    All,
}

/// Time between two looks, plus the jitter. With the time that a purge takes to be stored, it is applied
/// within 2 s.
const INTERVAL: Duration = Duration::from_millis(750);

const MAX_JITTER: Duration = Duration::from_millis(500);

/// Time between two reports without a new purge. After 10 s, a process is taken for gone.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// The longest wait for other processes.
const MAX_WAIT: Duration = Duration::from_secs(2);

const WAIT_INTERVAL: Duration = Duration::from_millis(250);

// === impl StoreFollower ===

impl StoreFollower {
    pub(super) fn new(usage: UsageService, durable: DurableStore, jitter: Jitter) -> Self {
        let clock = Arc::clone(&usage.inner.clock);
        Self {
            usage,
            store: durable.store,
            health: durable.health,
            clock,
            jitter,
            reported: None,
        }
    }

    /// Follows until the task is cancelled.
    pub async fn run(mut self) {
        self.health.record_followed(self.clock.now());
        let mut notifications = self.store.notifications();
        loop {
            let pause = INTERVAL + MAX_JITTER.mul_f64(self.jitter.fraction());
            let is_news = |it| matches!(it, Notification::Purged | Notification::Changed);
            let woken = notifications.wait_for(is_news);
            let _is_woken = with_deadline(&self.clock, self.clock.now() + pause, woken).await;
            // The store itself reports its failures.
            while let Ok(FollowedChanges::Some) = self.follow_and_report().await {}
        }
    }

    async fn follow_and_report(&mut self) -> Result<FollowedChanges, StoreError> {
        let applied = self.follow().await?;
        let changes = self.follow_changes().await;
        let now = self.clock.now();
        if matches!(changes, Ok(FollowedChanges::All)) {
            self.health.record_followed(now);
        }
        let is_known =
            |reported: Report| reported.applied == applied && now < reported.at + REPORT_INTERVAL;
        if !self.reported.is_some_and(is_known) {
            let others = self.store.report_applied(applied).await?;
            self.usage.inner.level.set_other_replicas(others.len());
            self.usage.follow_clock().await;
            self.reported = Some(Report { applied, at: now });
        }
        changes
    }

    /// Takes over the next changes by other processes, of what this one has cached.
    async fn follow_changes(&self) -> Result<FollowedChanges, StoreError> {
        let UsageServiceInner {
            level,
            dated_fleets,
            ..
        } = &*self.usage.inner;
        let known = level.last_change();
        let later = self.store.changes_after(known).await?;
        if later.is_cut || known.is_none() {
            self.usage
                .apply_purge(PurgeScope::default(), PurgeMode::Soft);
        }
        let resources = level.known_of(&later.resources);
        if !resources.is_empty() {
            let stored = self.store.changed_snapshots(resources.clone()).await?;
            for (resource, stored) in resources.into_iter().zip(stored) {
                level.take_changed(resource, stored).await;
            }
        }
        // Rows of the newest date come for one customer after the other.
        let dates = later
            .resources
            .iter()
            .filter_map(|resource| resource.date());
        let dates: HashSet<_> = dates.filter(|date| level.book.is_past(*date)).collect();
        for date in dates {
            dated_fleets.forget_date(date);
        }
        level.set_last_change(Some(later.number));
        Ok(match later.has_more {
            true => FollowedChanges::Some,
            false => FollowedChanges::All,
        })
    }

    /// Returns the generation up to which all purges are applied.
    async fn follow(&self) -> Result<i64, StoreError> {
        let level = &self.usage.inner.level;
        let applied = match level.purges.followed() {
            Followed::UpTo(generation) => Some(generation),
            Followed::Nothing | Followed::Unknown => None,
        };
        let later = self.store.purges_after(applied).await?;
        let of_others = later.purges.iter().filter(|purge| !purge.is_own);
        match applied {
            Some(applied) => {
                for purge in of_others.clone() {
                    self.usage.apply_purge(purge.scope, purge.mode);
                }
                if later.went_back {
                    tracing::warn!(
                        "the store went back in time, so purges may be lost: all data is fetched again when \
                         it is asked for"
                    );
                    // Another process has noticed it before.
                    let is_purged = of_others
                        .clone()
                        .any(|purge| purge.scope == PurgeScope::default());
                    if !is_purged {
                        self.usage.apply_lost_purges(applied);
                    }
                }
            }
            // The store could not be read at the start. It knows the purges of its own data.
            None => self
                .usage
                .apply_purge(PurgeScope::default(), PurgeMode::Soft),
        }
        level.purges.set_followed(Followed::UpTo(later.generation));
        Ok(later.generation)
    }
}

// === impl UsageService ===

impl UsageService {
    /// Purges as [`UsageService::purge`], and waits up to 2 s for the other processes that use the store.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the purge.
    pub async fn purge_everywhere(&self, scope: PurgeScope, mode: PurgeMode) -> PurgeOutcome {
        let purged = self.purge(scope, mode);
        let others = self.inner.level.other_replicas();
        let alone = PurgeOutcome {
            purged,
            replicas: others + 1,
            confirmed: 1,
        };
        match others {
            0 => alone,
            _ => self.wait_for_others(alone).await,
        }
    }

    async fn wait_for_others(&self, mut outcome: PurgeOutcome) -> PurgeOutcome {
        let UsageServiceInner { level, clock, .. } = &*self.inner;
        let Some(DurableStore { store, writer, .. }) = level.durable() else {
            return outcome;
        };
        let deadline = clock.now() + MAX_WAIT;
        let mut notifications = store.notifications();
        let stored = async {
            writer.flush().await?;
            store.purges_after(None).await
        };
        let Some(Ok(stored)) = with_deadline(clock, deadline, stored).await else {
            return outcome;
        };
        while clock.now() < deadline {
            let applied = level.purges.generation().unwrap_or_default();
            let report = store.report_applied(applied);
            let Some(Ok(others)) = with_deadline(clock, deadline, report).await else {
                break;
            };
            let confirmed = others
                .iter()
                .filter(|applied| **applied >= stored.generation);
            outcome.replicas = others.len() + 1;
            outcome.confirmed = confirmed.count() + 1;
            if outcome.confirmed == outcome.replicas {
                break;
            }
            let next = deadline.min(clock.now() + WAIT_INTERVAL);
            let applied = notifications.wait_for(|it| it == Notification::PurgesApplied);
            let _is_woken = with_deadline(clock, next, applied).await;
        }
        outcome
    }
}
