//! One of the processes that share a store refreshes all customers, and the others take over what it
//! stored.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::refresher::{FleetRefresher, LastRefresh, RefreshProgress};
use crate::{
    cache::EarlierAnswer,
    clock::with_deadline,
    domain::{LicenseUsage, Resource},
    panic,
    service::second_level::Coverage,
    store::{
        DurableStore, FleetRefresh, HeldLease, LeaseEnd, LeaseTurn, Leases, Notification,
        StoreError, StoredSnapshot, WantedLease,
    },
};

/// The lease of the process that refreshes.
const LEASE: &str = "fleet-refresher";

/// Time between two looks of the others, where no notification comes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After so many failures of the store in a row, each process refreshes for itself once its data is stale.
const FAILURES_UNTIL_ALONE: u32 = 3;

/// Time until a panic's cause may be gone.
const PANIC_PAUSE: Duration = Duration::from_secs(5);

/// Time for the rows of a refresh to be stored. If it takes longer, the refresh is published at a later attempt.
const MAX_STORE_TIME: Duration = Duration::from_secs(5);

// === impl FleetRefresher ===

impl FleetRefresher {
    /// Refreshes until the task is cancelled.
    pub async fn run(self) {
        let mut progress = RefreshProgress::new(self.interval);
        loop {
            let refreshed = panic::catch(pin!(self.refresh_or_follow(&mut progress))).await;
            if refreshed.is_err() {
                tracing::error!("the refresh of all customers panicked, and begins again");
            }
            self.pause_for(PANIC_PAUSE).await;
        }
    }

    async fn refresh_or_follow(&self, progress: &mut RefreshProgress) {
        let durable = self.level.durable();
        let leases = durable.and_then(|durable| {
            Leases::new(
                &durable.store,
                Arc::clone(&self.clock),
                self.shutdown.clone(),
            )
        });
        let (Some(durable), Some(leases)) = (durable, leases) else {
            return self.refresh_or_walk(progress, None).await;
        };
        let mut notifications = durable.store.notifications();
        let mut failures = 0_u32;
        loop {
            let wanted = WantedLease {
                name: LEASE.into(),
                unknown_since: Duration::ZERO,
                is_urgent: false,
            };
            let turn = leases.acquire(wanted).await;
            failures = match &turn {
                Ok(_) => 0,
                Err(_) => failures.saturating_add(1),
            };
            match turn {
                Ok(LeaseTurn::Held(held)) => {
                    // It goes on where another process stopped.
                    let _followed = self.follow(durable, progress).await.is_ok();
                    // A purge since the last refresh may be news to the one before.
                    let _noticed = self.level.purged.notified().now_or_never();
                    progress.last = progress
                        .last
                        .filter(|last| !self.level.purges.any_since(last.at));
                    tracing::info!("this process refreshes all customers");
                    tokio::select! {
                        () = held.lost() => {
                            tracing::warn!("another process refreshes all customers from now on");
                        }
                        // Another process goes on while this one finishes its requests.
                        () = self.shutdown.draining() => {
                            held.release(LeaseEnd::Abandoned).await;
                            return std::future::pending().await;
                        }
                        () = self.refresh_or_walk(progress, Some(&held)) => {}
                    }
                }
                Ok(_) => {
                    // The store itself reports its failures.
                    let _followed = self.follow(durable, progress).await.is_ok();
                }
                Err(_) if failures < FAILURES_UNTIL_ALONE || self.is_covered() => {}
                Err(_) => tokio::select! {
                    () = self.until_store_answers(durable) => {}
                    () = self.refresh_or_walk(progress, None) => {}
                },
            }
            let is_news =
                |it: Notification| it == Notification::FleetRefreshed || it.may_end(LEASE);
            let next = self.clock.now() + LOOK_INTERVAL;
            let _is_woken = with_deadline(&self.clock, next, notifications.wait_for(is_news)).await;
        }
    }

    /// Tells the others of a refresh or check, as soon as its rows are stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that does not work now.
    pub(super) async fn publish_to_others(
        &self,
        refresh: &LastRefresh,
        held: &HeldLease,
    ) -> Result<(), StoreError> {
        let (Some(durable), Some(lease)) = (self.level.durable(), held.lease()) else {
            return Ok(());
        };
        let deadline = self.clock.now() + MAX_STORE_TIME;
        let flushed = with_deadline(&self.clock, deadline, durable.writer.flush());
        flushed.await.unwrap_or(Err(StoreError::Unavailable))?;
        let Some((age, lifetime)) = self.level.coverage(self.clock.now()) else {
            return Ok(());
        };
        let published = FleetRefresh {
            api: self.api,
            processed_date: refresh.date,
            refreshed_at: refresh.at,
            confirmed_at: refresh.confirmed_at,
            second_look: refresh.second_look,
            age,
            fresh_for: lifetime.saturating_sub(age),
        };
        let Some(coordination) = durable.store.coordination() else {
            return Ok(());
        };
        coordination.publish_refresh(published, lease.fence).await
    }

    /// Takes over what the refreshing process did since the last look.
    async fn follow(
        &self,
        durable: &DurableStore,
        progress: &mut RefreshProgress,
    ) -> Result<(), StoreError> {
        let Some(coordination) = durable.store.coordination() else {
            return Ok(());
        };
        let Some(refresh) = coordination.last_refresh(self.api).await? else {
            return Ok(());
        };
        let last = progress.last;
        let is_known = |last: &LastRefresh| last.at == refresh.refreshed_at;
        match last.filter(is_known) {
            Some(last) if last.confirmed_at == refresh.confirmed_at => return Ok(()),
            Some(_) => {
                let book = &self.level.book;
                book.confirm(refresh.refreshed_at, refresh.confirmed_at);
            }
            None => {
                let snapshots = durable.store.newest_of_all().await?;
                self.take_over(snapshots, &refresh).await;
            }
        }
        let now = self.clock.now();
        self.cover(Coverage {
            since: refresh.refreshed_at,
            confirmed_at: now.checked_sub(refresh.age).unwrap_or(now),
            fresh_until: now + refresh.fresh_for,
        });
        if let Some(last) = last.filter(|last| last.date < refresh.processed_date) {
            progress
                .schedule
                .observe(last.confirmed_at, refresh.refreshed_at);
        }
        progress.last = Some(LastRefresh {
            date: refresh.processed_date,
            at: refresh.refreshed_at,
            confirmed_at: refresh.confirmed_at,
            second_look: refresh.second_look,
        });
        let until_due = refresh.fresh_for.saturating_sub(self.cache.fresh_for());
        progress.due = Some(now + until_due);
        Ok(())
    }

    /// Lets the rows of a refresh be those of this process, for all customers at once.
    async fn take_over(&self, snapshots: Vec<StoredSnapshot>, refresh: &FleetRefresh) {
        let (refreshed, others): (Vec<_>, Vec<_>) = snapshots.into_iter().partition(|snapshot| {
            snapshot.api == self.api && snapshot.confirmed_at >= refresh.refreshed_at
        });
        let mut changed: Vec<(Resource, EarlierAnswer)> = Vec::new();
        let mut accepted: Vec<Arc<LicenseUsage>> = Vec::with_capacity(refreshed.len());
        for snapshot in &refreshed {
            let customer = snapshot.usage.customer_id();
            let resource = Resource::newest_usage(customer, self.api);
            let before = self.level.book.record_of(customer);
            let before = before.and_then(|record| record.usage);
            let is_changed = before.is_none_or(|before| before != snapshot.usage);
            let is_cached = self.cache.look_up(resource, self.clock.now()).is_some();
            if is_changed
                && is_cached
                && let Some(answer) = self.level.render_stored(snapshot).await
            {
                changed.push((resource, answer));
            }
            accepted.push(Arc::clone(&snapshot.usage));
        }
        let kept = others
            .iter()
            .filter(|snapshot| snapshot.api == self.api && !snapshot.usage.rows().is_empty())
            .map(|snapshot| snapshot.usage.customer_id());
        let kept: Vec<_> = kept.collect();
        let now = self.clock.now();
        for (resource, answer) in changed {
            self.cache.take_over(resource, answer, now);
        }
        for usage in &accepted {
            if let Some(date) = usage.processed_date() {
                let customer = usage.customer_id();
                self.cache.observe_known_date(customer, self.api, date);
            }
        }
        let (date, at) = (refresh.processed_date, refresh.refreshed_at);
        self.level.book.refresh(date, &accepted, &kept, at);
        tracing::info!(
            processed_date = %date,
            customers = accepted.len(),
            "took over the customers that another process refreshed"
        );
    }

    /// Returns whether a refresh still keeps all customers fresh.
    fn is_covered(&self) -> bool {
        let coverage = self.level.coverage(self.clock.now());
        coverage.is_some_and(|(age, lifetime)| age < lifetime)
    }

    async fn until_store_answers(&self, durable: &DurableStore) {
        loop {
            self.pause_for(LOOK_INTERVAL).await;
            if let Some(coordination) = durable.store.coordination()
                && coordination.server_time().await.is_ok()
            {
                return;
            }
        }
    }

    async fn pause_for(&self, pause: Duration) {
        self.clock.sleep_until(self.clock.now() + pause).await;
    }
}
