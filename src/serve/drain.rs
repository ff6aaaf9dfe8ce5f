use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How the connections of a listener are told of its end, in two steps.
///
/// Closing a connection that stands idle races with the request that its client may be sending. So
/// for a while every answer says `Connection: close`, which tells a busy client to come again on a
/// new one; what is idle even then is closed after that.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    closing: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// Every answer is its connection's last from now on.
    pub(super) fn begin(&self) {
        self.begun.store(true, Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// What is idle is closed from now on.
    pub(super) fn close(&self) {
        self.begin();
        self.closing.cancel();
    }

    /// Completes when what is idle is to be closed, which it never is before the drain has begun.
    pub(super) fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }
}
