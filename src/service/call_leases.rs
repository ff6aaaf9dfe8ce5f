//! One upstream call for all processes that share a store: one asks, and the others wait for its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::source::{SourceError, SourceErrorKind};
use crate::{
    clock::{SharedClock, with_deadline},
    domain::Resource,
    shutdown::Shutdown,
    store::{DurableStore, HeldLease, Lease, LeaseEnd, LeaseTurn, Leases, WantedLease, lease_name},
};

/// The leases of calls.
#[derive(Debug)]
pub(super) struct CallLeases {
    /// `None`: no other process shares the store.
    shared: Option<(DurableStore, Leases)>,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The right of this process to make a call.
#[derive(Debug)]
pub(super) struct CallLease {
    held: HeldLease,
    durable: DurableStore,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The process that makes a call.
#[derive(Debug)]
pub(super) enum Turn {
    /// This process. Without a lease, others may do the same.
    Own(Option<CallLease>),
    /// This process, unless there is an answer by now: another process had its turn.
    Next(CallLease),
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
    /// Milliseconds since 1970 by the server's clock, which all processes follow.
    retry_at_ms: Option<i64>,
    status: Option<u16>,
}

/// The pauses of a process that waits for another, and is not notified: short at first, since most calls are.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait for other processes: no request waits for so long.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The longest pause that upstream asks for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// Time for an answer to be stored. Others then ask for themselves.
const MAX_STORE_TIME: Duration = Duration::from_secs(5);

// === impl CallLeases ===

impl CallLeases {
    pub(super) fn new(
        durable: Option<&DurableStore>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        let shared = durable.and_then(|durable| {
            let leases = Leases::new(&durable.store, Arc::clone(&clock), shutdown.clone())?;
            Some((durable.clone(), leases))
        });
        Self {
            shared,
            clock,
            shutdown,
        }
    }

    /// Waits until this process may make a call, or another has made it. `unknown_since` is the time of the
    /// last look for an answer. While the store does not answer, or takes no answers, each process goes by
    /// itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a lease that expires.
    pub(super) async fn turn(&self, resource: Resource, unknown_since: Instant) -> Turn {
        let Some(((durable, leases), name)) = self.shared.as_ref().zip(lease_name(resource)) else {
            return Turn::Own(None);
        };
        let mut notifications = durable.store.notifications();
        let mut pause = FIRST_PAUSE;
        let latest = self.clock.now() + MAX_WAIT;
        loop {
            let now = self.clock.now();
            if now >= latest || durable.writer.is_failing() {
                return Turn::Own(None);
            }
            let wanted = WantedLease {
                name: Arc::clone(&name),
                unknown_since: now.saturating_duration_since(unknown_since),
                is_urgent: true,
            };
            match leases.acquire(wanted).await {
                Ok(LeaseTurn::Held(held)) => {
                    let lease = CallLease {
                        held,
                        durable: durable.clone(),
                        clock: Arc::clone(&self.clock),
                        shutdown: self.shutdown.clone(),
                    };
                    return match pause {
                        FIRST_PAUSE => Turn::Own(Some(lease)),
                        _ => Turn::Next(lease),
                    };
                }
                Ok(LeaseTurn::OfAnother) => {
                    let ended = notifications.wait_for(|it| it.may_end(&name));
                    let _is_woken = with_deadline(&self.clock, now + pause, ended).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Ok(LeaseTurn::Finished) => return Turn::Answered,
                Ok(LeaseTurn::Failed { failure, .. }) => {
                    // A newer release may have written what this one cannot read.
                    let failure = SharedFailure::parse(&failure, self.clock.wall_time());
                    return failure.map_or(Turn::Own(None), Turn::Failed);
                }
                // The store itself reports its failures.
                Err(_) => return Turn::Own(None),
            }
        }
    }
}

// === impl CallLease ===

impl CallLease {
    /// The lease, for what is written because of it.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.held.lease()
    }

    /// Lets others read the answer as soon as it is stored.
    pub(super) fn finish(self) {
        let Self {
            held,
            durable,
            clock,
            shutdown,
        } = self;
        shutdown.spawn_until_done(async move {
            let end = match is_flushed(&durable, &clock).await {
                true => LeaseEnd::Finished,
                false => LeaseEnd::Abandoned,
            };
            held.release(end).await;
        });
    }

    /// Lets the failure of the call count for others too.
    pub(super) fn fail(self, error: &SourceError, lifetime: Duration) {
        // Another process may have more luck if nothing was sent.
        let is_reply = error.call_ids.is_some();
        if let Some(failure) =
            SharedFailure::to_text(error, self.clock.wall_time()).filter(|_| is_reply)
        {
            let end = LeaseEnd::Failed { failure, lifetime };
            self.shutdown.spawn_until_done(self.held.release(end));
        }
    }
}

// === impl SharedFailure ===

impl SharedFailure {
    fn to_text(error: &SourceError, now: Timestamp) -> Option<String> {
        let retry_at = error.retry_after.map(|after| now.checked_add(after));
        let failure = Self {
            kind: error.kind.as_str().to_owned(),
            detail: Arc::clone(&error.detail),
            retry_at_ms: retry_at.transpose().ok()?.map(Timestamp::as_millisecond),
            status: error.status,
        };
        serde_json::to_string(&failure).ok()
    }

    fn parse(text: &str, now: Timestamp) -> Option<SourceError> {
        let failure: Self = serde_json::from_str(text).ok()?;
        let remaining = |at: i64| {
            let millis = at.saturating_sub(now.as_millisecond());
            Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(MAX_RETRY_AFTER)
        };
        Some(SourceError {
            retry_after: failure.retry_at_ms.map(remaining),
            status: failure.status,
            ..SourceError::without_reply(SourceErrorKind::from_name(&failure.kind)?, failure.detail)
        })
    }
}

async fn is_flushed(durable: &DurableStore, clock: &SharedClock) -> bool {
    if durable.writer.is_failing() {
        // The others would wait for the next attempt.
        return false;
    }
    let flushed = with_deadline(clock, clock.now() + MAX_STORE_TIME, durable.writer.flush());
    matches!(flushed.await, Some(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_from_its_own_time_for_others() {
        let failed_at = Timestamp::from_second(1_000_000).unwrap();
        let error = SourceError {
            retry_after: Some(Duration::from_secs(57)),
            ..SourceError::without_reply(SourceErrorKind::Throttled, "wait")
        };
        let text = SharedFailure::to_text(&error, failed_at).unwrap();

        for (later, remaining) in [(20, 37), (60, 0)] {
            let now = failed_at + Duration::from_secs(later);
            let failure = SharedFailure::parse(&text, now).unwrap();

            let remaining = Some(Duration::from_secs(remaining));
            assert_eq!((failure.kind, failure.retry_after), (error.kind, remaining));
        }
    }
}
