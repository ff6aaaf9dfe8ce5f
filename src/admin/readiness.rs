//! Readiness: named gates, each with the reason for which it is closed.
//!
//! Readiness does not depend on Partner Center: a service that can serve its cache stays in
//! rotation.

use std::{fmt, sync::Arc};

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::UpstreamConfig;

/// All gates. The service is ready if all are open.
#[derive(Default)]
pub struct Readiness {
    account: String,
    gates: Vec<(&'static str, GateCheck)>,
}

/// Checks a gate.
type GateCheck = Box<dyn Fn() -> ReadinessGate + Send + Sync>;

/// The state of one gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadinessGate {
    /// The reason for which it is closed; `None` if it is open.
    pub waits_for: Option<String>,
    /// A remark for operators, also on an open gate.
    pub note: Option<String>,
}

/// The response of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct ReadinessReport {
    /// True if every gate is open.
    pub ready: bool,
    /// The account that this process serves.
    account: String,
    gates: Vec<GateReport>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GateReport {
    name: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

// === impl Readiness ===

impl Readiness {
    /// Creates a readiness without gates for this account, as [`account_id`] returns it.
    pub fn for_account(account: String) -> Self {
        Self {
            account,
            gates: Vec::new(),
        }
    }

    /// Adds a gate, which is checked for each report.
    #[must_use]
    pub fn gate(
        mut self,
        name: &'static str,
        check: impl Fn() -> ReadinessGate + Send + Sync + 'static,
    ) -> Self {
        self.gates.push((name, Box::new(check)));
        self
    }

    /// Registers a metric that shows at each scrape which gates are open.
    ///
    /// # Errors
    ///
    /// Fails if the metric is registered already.
    pub fn register(self: &Arc<Self>, registry: &Registry) -> prometheus::Result<()> {
        let family = IntGaugeVec::new(
            Opts::new(
                "usage_proxy_ready",
                "1 for an open readiness gate, 0 for a closed one; the service is ready if all are open.",
            ),
            &["gate"],
        )?;
        registry.register(Box::new(ReadinessCollector {
            family,
            readiness: Arc::clone(self),
        }))
    }

    /// Checks all gates.
    pub fn report(&self) -> ReadinessReport {
        let gates: Vec<_> = self
            .gates
            .iter()
            .map(|(name, check)| {
                let ReadinessGate { waits_for, note } = check();
                GateReport {
                    name,
                    ready: waits_for.is_none(),
                    waits_for,
                    note,
                }
            })
            .collect();
        ReadinessReport {
            ready: gates.iter().all(|gate| gate.ready),
            account: self.account.clone(),
            gates,
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.gates.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Checks the gates at each scrape.
#[derive(Debug)]
struct ReadinessCollector {
    family: IntGaugeVec,
    readiness: Arc<Readiness>,
}

// === impl ReadinessCollector ===

impl Collector for ReadinessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for gate in self.readiness.report().gates {
            self.family
                .with_label_values(&[gate.name])
                .set(i64::from(gate.ready));
        }
        self.family.collect()
    }
}

// === impl ReadinessGate ===

impl ReadinessGate {
    /// Returns an open gate.
    pub fn open() -> Self {
        Self::default()
    }

    /// Returns a closed gate with its reason.
    pub fn waiting_for(what: impl Into<String>) -> Self {
        Self {
            waits_for: Some(what.into()),
            note: None,
        }
    }

    /// Adds remarks.
    #[must_use]
    pub fn with_notes<const N: usize>(mut self, notes: [Option<String>; N]) -> Self {
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        self.note = (!notes.is_empty()).then(|| notes.join("; "));
        self
    }
}

/// The length of an account id in bytes: enough to tell the accounts of a partner apart.
const ACCOUNT_ID_BYTES: usize = 8;

/// Returns an id that is the same for processes that call the same Partner Center as the same
/// application of the same tenant.
///
/// It is the beginning of a SHA-256 of `base_url`, `token_url` and `client_id` in hexadecimal, and
/// reveals no secret.
pub fn account_id(upstream: &UpstreamConfig) -> String {
    let mut hash = Sha256::new();
    let grant = upstream.auth.grant();
    for part in [
        upstream.base_url.as_str(),
        grant.map_or("", |grant| grant.token_url.as_str()),
        grant.map_or("", |grant| grant.client_id.as_str()),
    ] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    let bytes = bytes.iter().take(ACCOUNT_ID_BYTES);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_closed_gate_makes_the_service_not_ready_and_names_its_reason() {
        let readiness = Readiness::default()
            .gate("open", ReadinessGate::open)
            .gate("closed", || ReadinessGate::waiting_for("a token"));

        let report = readiness.report();

        assert!(!report.ready);
        assert_eq!(
            serde_json::to_value(report).unwrap()["gates"][1],
            serde_json::json!({"name": "closed", "ready": false, "waitsFor": "a token"})
        );
    }
}
