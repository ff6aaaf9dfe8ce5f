use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{activity::Phase, watchdog::WatchdogEvent};

/// What a listener counts of its connections.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    active: IntGauge,
    idle: IntGauge,
    closed: Vec<IntCounter>,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// In order: by the client, or because it asked for it.
    Client,
    /// In order, because we end, or the trust in its client's certificate did.
    Drained,
    /// Cut off, because we end and it did not.
    Aborted,
    /// The head of a request, or the TLS handshake, did not come to its end in time.
    HeaderTimeout,
    /// It stood idle for too long.
    IdleTimeout,
    /// An answer was not taken in time.
    RequestTimeout,
    /// The client took nothing of its answer for too long.
    StallTimeout,
    /// A request was refused at the edge.
    BadRequest,
    /// One connection too many.
    Rejected,
    /// The TLS handshake failed.
    TlsHandshake,
    /// It broke, or what came was no HTTP.
    Error,
}

/// An open connection; it counts where it is, and when it is dropped, why.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    metrics: ConnectionMetrics,
    idle: bool,
    reason: CloseReason,
}

// === impl ConnectionMetrics ===

impl ConnectionMetrics {
    /// Registers every family, each child at zero.
    ///
    /// # Errors
    ///
    /// When one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let connections = IntGaugeVec::new(
            Opts::new(
                "usage_proxy_connections",
                "Open connections of the API listener: active from the first byte of a request \
                 until its answer has left.",
            ),
            &["state"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        let closed = IntCounterVec::new(
            Opts::new(
                "usage_proxy_connections_closed_total",
                "Connections of the API listener that were closed, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(closed.clone()))?;
        Ok(Self {
            active: connections.with_label_values(&["active"]),
            idle: connections.with_label_values(&["idle"]),
            closed: CloseReason::ALL
                .iter()
                .map(|reason| closed.with_label_values(&[reason.as_str()]))
                .collect(),
        })
    }

    /// For a listener that nobody watches.
    pub fn unregistered() -> Self {
        let counter = || IntCounter::new("unseen", "Seen by nobody.");
        let gauge = || IntGauge::new("unseen", "Seen by nobody.");
        match (gauge(), gauge(), counter()) {
            (Ok(active), Ok(idle), Ok(closed)) => Self {
                active,
                idle,
                closed: vec![closed; CloseReason::ALL.len()],
            },
            _ => unreachable!("the names are valid"),
        }
    }

    /// Counts a connection that is open from now on.
    pub(super) fn track(&self) -> ConnectionGuard {
        self.idle.inc();
        ConnectionGuard {
            metrics: self.clone(),
            idle: true,
            reason: CloseReason::Aborted,
        }
    }

    pub(super) fn record_closed(&self, reason: CloseReason) {
        if let Some(counter) = self.closed.get(reason as usize) {
            counter.inc();
        }
    }
}

// === impl Counted ===

impl ConnectionGuard {
    /// Where the connection is now.
    pub(super) fn record_phase(&mut self, phase: Phase) {
        let idle = matches!(phase, Phase::Opening | Phase::Idle(_));
        if idle != self.idle {
            self.state_gauge().dec();
            self.idle = idle;
            self.state_gauge().inc();
        }
    }

    /// Closes it for this reason.
    pub(super) fn close(mut self, reason: CloseReason) {
        self.reason = reason;
    }

    fn state_gauge(&self) -> &IntGauge {
        if self.idle {
            &self.metrics.idle
        } else {
            &self.metrics.active
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.state_gauge().dec();
        self.metrics.record_closed(self.reason);
    }
}

// === impl CloseReason ===

impl CloseReason {
    const ALL: [Self; 11] = [
        Self::Client,
        Self::Drained,
        Self::Aborted,
        Self::HeaderTimeout,
        Self::IdleTimeout,
        Self::RequestTimeout,
        Self::StallTimeout,
        Self::BadRequest,
        Self::Rejected,
        Self::TlsHandshake,
        Self::Error,
    ];

    /// Why a connection is closed that took too long; `None` where it was closing already.
    pub(super) const fn from_watchdog(overdue: WatchdogEvent) -> Option<Self> {
        match overdue {
            WatchdogEvent::StallTimeout => Some(Self::StallTimeout),
            WatchdogEvent::PhaseTimeout(Phase::Opening | Phase::Head(_)) => {
                Some(Self::HeaderTimeout)
            }
            WatchdogEvent::PhaseTimeout(Phase::Request(_) | Phase::Streams(_)) => {
                Some(Self::RequestTimeout)
            }
            WatchdogEvent::PhaseTimeout(Phase::Idle(_)) => Some(Self::IdleTimeout),
            WatchdogEvent::PhaseTimeout(Phase::Closing) | WatchdogEvent::ReleaseBuffers => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Drained => "drained",
            Self::Aborted => "cut",
            Self::HeaderTimeout => "header-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::RequestTimeout => "request-timeout",
            Self::StallTimeout => "stall-timeout",
            Self::BadRequest => "bad-request",
            Self::Rejected => "refused",
            Self::TlsHandshake => "tls-handshake",
            Self::Error => "error",
        }
    }
}
