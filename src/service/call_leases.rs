//! One upstream call for all processes that share a store: one asks, and the others wait for its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::source::{SourceError, SourceErrorKind};
use crate::{
    clock::{SharedClock, with_deadline},
    domain::Resource,
    shutdown::Shutdown,
    store::{DurableStore, LEASE_RENEWAL, Lease, LeaseAttempt, LeaseEnd, WantedLease, lease_name},
};

/// The leases of calls.
#[derive(Debug)]
pub(super) struct CallLeases {
    /// `None`: no other process shares a store.
    durable: Option<DurableStore>,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The right of this process to make a call. It is renewed until it ends, also when it is dropped.
#[derive(Debug)]
pub(super) struct CallLease {
    /// `None` once it ended.
    lease: Option<Lease>,
    durable: DurableStore,
    clock: SharedClock,
    shutdown: Shutdown,
    _renewal: DropGuard,
}

/// Who makes a call.
#[derive(Debug)]
pub(super) enum Turn {
    /// This process. Without a lease, others may do the same.
    Own(Option<CallLease>),
    /// Another process has made it, and its answer is in the store.
    Answered,
    /// Another process has made it, and it failed.
    Failed(SourceError),
}

/// The failure of a call, for other processes.
#[derive(Debug, Deserialize, Serialize)]
struct SharedFailure {
    kind: String,
    detail: Arc<str>,
    retry_after_ms: Option<u64>,
    status: Option<u16>,
}

/// The pauses of a process that waits for another: short at first, since most calls are.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Time for an answer to be stored. Others then ask for themselves.
const MAX_STORE_TIME: Duration = Duration::from_secs(5);

// === impl CallLeases ===

impl CallLeases {
    pub(super) fn new(
        durable: Option<DurableStore>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        let is_shared = |durable: &DurableStore| durable.store.coordination().is_some();
        Self {
            durable: durable.filter(is_shared),
            clock,
            shutdown,
        }
    }

    /// Waits until this process may make a call, or another has made it. `unknown_since` is the time of the
    /// last look for an answer. While the store does not answer, each process goes by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a lease that expires.
    pub(super) async fn turn(&self, resource: Resource, unknown_since: Instant) -> Turn {
        let named = self.durable.as_ref().zip(lease_name(resource));
        let Some((durable, name)) = named else {
            return Turn::Own(None);
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let now = self.clock.now();
            let wanted = WantedLease {
                name: Arc::clone(&name),
                unknown_since: now.saturating_duration_since(unknown_since),
            };
            let Some(coordination) = durable.store.coordination() else {
                return Turn::Own(None);
            };
            match coordination.acquire_lease(wanted).await {
                Ok(LeaseAttempt::Granted(lease)) => {
                    return Turn::Own(Some(self.hold(durable.clone(), lease)));
                }
                Ok(LeaseAttempt::Held) => {
                    self.clock.sleep_until(now + pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Ok(LeaseAttempt::Finished) => return Turn::Answered,
                Ok(LeaseAttempt::Failed { failure, remaining }) => {
                    match SharedFailure::parse(&failure, remaining) {
                        Some(error) => return Turn::Failed(error),
                        // A newer release may have written it.
                        None => return Turn::Own(None),
                    }
                }
                // The store itself reports its failures.
                Err(_) => return Turn::Own(None),
            }
        }
    }

    fn hold(&self, durable: DurableStore, lease: Lease) -> CallLease {
        let ended = CancellationToken::new();
        self.shutdown.spawn(renew(
            durable.clone(),
            lease.clone(),
            Arc::clone(&self.clock),
            ended.clone(),
        ));
        CallLease {
            lease: Some(lease),
            durable,
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            _renewal: ended.drop_guard(),
        }
    }
}

// === impl CallLease ===

impl CallLease {
    /// The lease, for what is written because of it.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Lets others read the answer as soon as it is stored.
    pub(super) fn finish(mut self) {
        self.end(LeaseEnd::Finished);
    }

    /// Lets the failure of the call count for others too.
    pub(super) fn fail(mut self, error: &SourceError, lifetime: Duration) {
        // Another process may have more luck if nothing was sent.
        let is_reply = error.call_ids.is_some();
        let end = SharedFailure::to_text(error).filter(|_| is_reply).map_or(
            LeaseEnd::Abandoned,
            |failure| LeaseEnd::Failed { failure, lifetime },
        );
        self.end(end);
    }

    fn end(&mut self, end: LeaseEnd) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let (durable, clock) = (self.durable.clone(), Arc::clone(&self.clock));
        // Otherwise others would wait for the lease to expire.
        self.shutdown.spawn_until_done(async move {
            let end = match end {
                LeaseEnd::Finished if !is_flushed(&durable, &clock).await => LeaseEnd::Abandoned,
                end => end,
            };
            if let Some(coordination) = durable.store.coordination() {
                // If this fails, it expires.
                let _released = coordination.release_lease(lease, end).await.is_ok();
            }
        });
    }
}

impl Drop for CallLease {
    fn drop(&mut self) {
        self.end(LeaseEnd::Abandoned);
    }
}

// === impl SharedFailure ===

impl SharedFailure {
    fn to_text(error: &SourceError) -> Option<String> {
        let retry_after = error.retry_after.map(|after| after.as_millis());
        let failure = Self {
            kind: error.kind.as_str().to_owned(),
            detail: Arc::clone(&error.detail),
            retry_after_ms: retry_after.and_then(|millis| u64::try_from(millis).ok()),
            status: error.status,
        };
        serde_json::to_string(&failure).ok()
    }

    fn parse(text: &str, remaining: Duration) -> Option<SourceError> {
        let failure: Self = serde_json::from_str(text).ok()?;
        let retry_after = failure.retry_after_ms.map(Duration::from_millis);
        Some(SourceError {
            retry_after: retry_after.map(|after| after.min(remaining)),
            status: failure.status,
            ..SourceError::without_reply(SourceErrorKind::from_name(&failure.kind)?, failure.detail)
        })
    }
}

async fn is_flushed(durable: &DurableStore, clock: &SharedClock) -> bool {
    let flushed = with_deadline(clock, clock.now() + MAX_STORE_TIME, durable.writer.flush());
    matches!(flushed.await, Some(Ok(())))
}

/// Renews a lease until it ends or is lost.
async fn renew(durable: DurableStore, lease: Lease, clock: SharedClock, ended: CancellationToken) {
    let renewals = async {
        loop {
            clock.sleep_until(clock.now() + LEASE_RENEWAL).await;
            let Some(coordination) = durable.store.coordination() else {
                return;
            };
            // While the store does not answer, the lease may still be ours.
            if let Ok(false) = coordination.renew_lease(lease.clone()).await {
                return;
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = renewals => {}
    }
}
