use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How connections are told of their end, in two steps.
///
/// Closing a connection that stands idle races with the request that its client may be sending. So
/// for a while every answer says `ClientConnection: close`, which tells a busy client to come again on a
/// new one; what is idle even then is closed after that.
#[derive(Debug, Default)]
pub(super) struct DrainSignal {
    begun: AtomicBool,
    close_token: CancellationToken,
}

/// What can end one connection besides itself.
#[derive(Clone, Debug)]
pub(super) struct DrainSignals {
    /// The end of the listener.
    pub(super) listener: Arc<DrainSignal>,
    /// The end of the trust in the certificate that the client showed, if it did.
    pub(super) certificate: Option<Arc<DrainSignal>>,
}

// === impl Drain ===

impl DrainSignal {
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
        self.close_token.cancel();
    }

    fn wait_for_close(&self) -> WaitForCancellationFuture<'_> {
        self.close_token.cancelled()
    }
}

// === impl Drains ===

impl DrainSignals {
    pub(super) fn has_begun(&self) -> bool {
        self.listener.has_begun() || self.is_certificate_untrusted()
    }

    /// Whether the client's certificate proves nothing any more.
    pub(super) fn is_certificate_untrusted(&self) -> bool {
        self.certificate.as_ref().is_some_and(|end| end.has_begun())
    }

    /// Completes when the connection is to be closed if it is idle, which it never is before a
    /// drain has begun.
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
