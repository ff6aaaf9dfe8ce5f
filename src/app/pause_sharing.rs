//! Shares throttling pauses among the replicas, and divides the retry budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::SharedClock,
    partner_center::{PartnerCenter, UpstreamPause},
    service::UsageService,
    store::{Coordination, Notification, SharedPause, StoreError, UsageStore},
};

/// Lets every replica obey the `Retry-After` that one of them got, and divides the retries among them.
#[derive(Debug)]
pub(super) struct PauseSharing {
    pub(super) upstream: Arc<PartnerCenter>,
    pub(super) usage: UsageService,
    pub(super) store: Arc<dyn UsageStore>,
    /// Pauses of one account do not concern another.
    pub(super) account: String,
    pub(super) clock: SharedClock,
    /// The pauses of this replica that are shared, with their ends.
    pub(super) shared: Vec<(UpstreamPause, Instant)>,
}

/// Time between two reads of the pauses of others, where no notification comes.
const INTERVAL: Duration = Duration::from_secs(1);

// === impl PauseSharing ===

impl PauseSharing {
    /// Shares pauses until the task is cancelled. Returns at once where each process works by itself.
    pub(super) async fn run(mut self) {
        let store = Arc::clone(&self.store);
        let Some(coordination) = store.coordination() else {
            return;
        };
        let mut notifications = coordination.notifications();
        loop {
            // The store itself reports its failures.
            let _shared = self.exchange(coordination).await.is_ok();
            self.upstream.set_replicas(self.usage.replicas());
            let next = self.clock.now() + INTERVAL;
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.upstream.throttled() => {}
                () = notifications.wait_for(|it| it == Notification::Paused) => {}
            }
        }
    }

    async fn exchange(&mut self, coordination: &dyn Coordination) -> Result<(), StoreError> {
        let own_pauses = self.upstream.own_pauses();
        // Once only: each time wakes all replicas, and this one.
        let is_new = |own: &&_| !self.shared.contains(own);
        for (pause, until) in own_pauses.iter().filter(is_new) {
            let name = format!("{}/{pause}", self.account);
            let remaining = until.saturating_duration_since(self.clock.now());
            let shared = SharedPause { name, remaining };
            coordination.share_pause(shared).await?;
        }
        self.shared = own_pauses;
        for shared in coordination.shared_pauses().await? {
            let name = shared.name.strip_prefix(&self.account);
            let name = name.and_then(|name| name.strip_prefix('/'));
            if let Some(pause) = name.and_then(UpstreamPause::parse) {
                self.upstream.obey_pause(pause, shared.remaining);
            }
        }
        Ok(())
    }
}
