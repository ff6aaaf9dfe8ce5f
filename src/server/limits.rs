//! The limits of connections.

use std::{num::NonZeroUsize, time::Duration};

use super::activity::Phase;

/// The limits of the connections of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The longest time for the head of a request, from its first byte or from the start of the
    /// connection. The TLS handshake may take as long.
    pub header_timeout: Duration,
    /// The longest time between two requests.
    pub idle_timeout: Duration,
    /// The longest time from the end of a request's head until the system has accepted the last byte
    /// of the response, so it limits slow readers too. An HTTP/2 stream that takes longer ends its
    /// connection.
    pub request_timeout: Duration,
    /// The longest time for which a client may read nothing of its response. Then its connection is
    /// closed. An HTTP/2 stream is reset, or its connection closed if that is no longer possible.
    pub stall_timeout: Duration,
    /// The time after which an idle HTTP/1 connection releases its buffers.
    pub release_buffers_after: Duration,
    /// The most open connections.
    pub max_connections: NonZeroUsize,
}

// === impl ConnectionLimits ===

impl ConnectionLimits {
    /// The longest time for a client to close a connection after us.
    ///
    /// If we closed it at once with unread bytes, a reset could destroy the response.
    pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

    /// Returns the limits of a connection over `max_connections`, which gets a problem document.
    pub(super) const fn for_rejected(self) -> Self {
        Self {
            header_timeout: Self::LINGER_TIMEOUT,
            idle_timeout: Self::LINGER_TIMEOUT,
            request_timeout: Self::LINGER_TIMEOUT,
            stall_timeout: Self::LINGER_TIMEOUT,
            ..self
        }
    }

    /// Returns the longest time for a phase.
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
    /// Returns the limits of the admin listener, which has few and trusted clients.
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
