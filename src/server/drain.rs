//! Signals that end connections.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Ends connections in two steps.
///
/// Closing an idle connection races with a request that the client may be sending. So every response
/// first says `Connection: close` for a while, which moves a busy client to a new connection.
/// Connections that are still idle after that are closed.
#[derive(Debug, Default)]
pub(super) struct DrainSignal {
    begun: AtomicBool,
    close_token: CancellationToken,
}

/// The signals that can end one connection.
#[derive(Clone, Debug)]
pub(super) struct DrainSignals {
    /// The listener shuts down.
    pub(super) listener: Arc<DrainSignal>,
    /// The client's certificate is no longer trusted; `None` if it sent none.
    pub(super) certificate: Option<Arc<DrainSignal>>,
}

// === impl DrainSignal ===

impl DrainSignal {
    /// Makes each response the last one of its connection from now on.
    pub(super) fn begin(&self) {
        self.begun.store(true, Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Also closes idle connections from now on.
    pub(super) fn close(&self) {
        self.begin();
        self.close_token.cancel();
    }

    fn wait_for_close(&self) -> WaitForCancellationFuture<'_> {
        self.close_token.cancelled()
    }
}

// === impl DrainSignals ===

impl DrainSignals {
    pub(super) fn has_begun(&self) -> bool {
        self.listener.has_begun() || self.is_certificate_untrusted()
    }

    /// Returns true if the client's certificate is no longer trusted.
    pub(super) fn is_certificate_untrusted(&self) -> bool {
        self.certificate
            .as_ref()
            .is_some_and(|signal| signal.has_begun())
    }

    /// Completes when an idle connection must be closed; never before [`DrainSignals::has_begun`].
    pub(super) async fn wait_for_close(&self) {
        let listener = self.listener.wait_for_close();
        match &self.certificate {
            Some(certificate) => tokio::select! {
                () = listener => {}
                () = certificate.wait_for_close() => {}
            },
            None => listener.await,
        }
    }
}
