//! Metrics of a listener's connections.

use prometheus::{
    IntCounter, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_gauge_vec_with_registry,
};
use strum::{IntoStaticStr, VariantArray};

use super::activity::Phase;

/// Counts the connections of a listener.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    active: IntGauge,
    idle: IntGauge,
    closed: Vec<IntCounter>,
}

/// The reason for which a connection was closed; converts into the value of the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum CloseReason {
    /// The client closed it, or asked for that.
    Client,
    /// We are shutting down, or the client's certificate is no longer trusted.
    Drained,
    /// It did not end in time while we were shutting down.
    #[strum(serialize = "cut")]
    Aborted,
    /// The head of a request, or the TLS handshake, took too long.
    HeaderTimeout,
    /// It was idle for too long.
    IdleTimeout,
    /// A request took too long.
    RequestTimeout,
    /// The client read nothing of its response for too long.
    StallTimeout,
    /// A request was rejected before it reached the handler.
    BadRequest,
    /// Too many connections were open.
    #[strum(serialize = "refused")]
    Rejected,
    /// The TLS handshake failed.
    TlsHandshake,
    /// It broke, or the client did not speak HTTP.
    Error,
}

/// Counts an open connection. Dropping it counts the connection as closed.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    metrics: ConnectionMetrics,
    idle: bool,
    reason: CloseReason,
}

// === impl ConnectionMetrics ===

impl ConnectionMetrics {
    /// Registers all metrics, each label at zero.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let connections = register_int_gauge_vec_with_registry!(
            "usage_proxy_connections",
            "Open connections of the API listener: active from the first byte of a request \
             until its answer has left.",
            &["state"],
            registry
        )?;
        let closed = register_int_counter_vec_with_registry!(
            "usage_proxy_connections_closed_total",
            "Connections of the API listener that were closed, by reason.",
            &["reason"],
            registry
        )?;
        Ok(Self {
            active: connections.with_label_values(&["active"]),
            idle: connections.with_label_values(&["idle"]),
            closed: CloseReason::VARIANTS
                .iter()
                .map(|reason| closed.with_label_values(&[<&str>::from(reason)]))
                .collect(),
        })
    }

    /// Returns metrics that are not exported.
    pub fn unregistered() -> Self {
        Self::new(&Registry::new()).unwrap_or_else(|_| unreachable!("a new registry is empty"))
    }

    /// Counts a new connection.
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

// === impl ConnectionGuard ===

impl ConnectionGuard {
    /// Records the phase that the connection entered.
    pub(super) fn record_phase(&mut self, phase: Phase) {
        let idle = matches!(phase, Phase::Opening | Phase::Idle(_));
        if idle != self.idle {
            self.state_gauge().dec();
            self.idle = idle;
            self.state_gauge().inc();
        }
    }

    /// Counts the connection as closed for this reason.
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
