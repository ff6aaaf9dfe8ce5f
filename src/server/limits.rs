use std::{num::NonZeroUsize, time::Duration};

use super::activity::Phase;

/// What one listener grants its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// How long the head of a request may take, from its first byte, or from the beginning of the
    /// connection; the TLS handshake may take as long.
    pub header_timeout: Duration,
    /// How long a connection may stand idle between two requests.
    pub idle_timeout: Duration,
    /// How long a request may take, from the end of its head until the last byte of its answer was
    /// taken by the client's side: it bounds slow readers too. Of HTTP/2, one stream that takes longer
    /// ends its connection.
    pub request_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it. Then its connection is
    /// closed; of HTTP/2, the stream is reset, or the connection closed where that is no longer
    /// possible.
    pub stall_timeout: Duration,
    /// How long a connection of HTTP/1 is idle before it gives its buffers back.
    pub release_buffers_after: Duration,
    /// How many connections may be open.
    pub max_connections: NonZeroUsize,
}

// === impl Limits ===

impl ConnectionLimits {
    /// How long a client may take to close a connection that we have closed.
    ///
    /// Closed at once, with bytes of the client's unread, the answer could be lost to a reset.
    pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

    /// What is granted to a connection too many, so that it is told why it is closed.
    pub(super) const fn for_rejected(self) -> Self {
        Self {
            header_timeout: Self::LINGER_TIMEOUT,
            idle_timeout: Self::LINGER_TIMEOUT,
            request_timeout: Self::LINGER_TIMEOUT,
            stall_timeout: Self::LINGER_TIMEOUT,
            ..self
        }
    }

    /// How long a connection may stay in this phase.
    pub(super) const fn phase_timeout(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Opening | Phase::Head(_) => self.header_timeout,
            Phase::Request(_) | Phase::Streams(_) => self.request_timeout,
            Phase::Idle(_) => self.idle_timeout,
            Phase::Closing => Self::LINGER_TIMEOUT,
        }
    }
}

impl Default for ConnectionLimits {
    /// What the admin listener has, whose clients are ours.
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            request_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(10),
            release_buffers_after: Duration::from_secs(1),
            max_connections: NonZeroUsize::new(1_000).unwrap_or(NonZeroUsize::MIN),
        }
    }
}
