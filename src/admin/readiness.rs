//! Whether we can answer, as named gates that each say what they wait for.
//!
//! Readiness does not ask whether Partner Center is up: a service that can serve what it holds
//! stays in rotation.

use std::{fmt, sync::Arc};

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde::Serialize;

/// The gates; all of them must be open.
#[derive(Default)]
pub struct Readiness {
    account: String,
    gates: Vec<(&'static str, GateCheck)>,
}

/// Looks at a gate.
type GateCheck = Box<dyn Fn() -> ReadinessGate + Send + Sync>;

/// One gate, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadinessGate {
    /// What it waits for; open where absent.
    pub waits_for: Option<String>,
    /// What a person should know though it is open.
    pub note: Option<String>,
}

/// What `/readyz` shows.
#[derive(Clone, Debug, Serialize)]
pub struct ReadinessReport {
    /// Whether every gate is open.
    pub ready: bool,
    /// Whose readiness this is, for whoever expects somebody to be there.
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
    /// Of this account, as [`identity`](super::identity()) names it.
    pub fn for_account(account: String) -> Self {
        Self {
            account,
            gates: Vec::new(),
        }
    }

    /// Adds a gate, which is looked at anew for each report.
    #[must_use]
    pub fn gate(
        mut self,
        name: &'static str,
        look: impl Fn() -> ReadinessGate + Send + Sync + 'static,
    ) -> Self {
        self.gates.push((name, Box::new(look)));
        self
    }

    /// Has `/metrics` say at each scrape which gates are open: whoever waits for `/readyz` may be far
    /// from whoever is to be told.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(self: &Arc<Self>, registry: &Registry) -> prometheus::Result<()> {
        let family = IntGaugeVec::new(
            Opts::new(
                "usage_proxy_ready",
                "1 for a gate of readiness that is open, 0 for one that waits; ready is who has all open.",
            ),
            &["gate"],
        )?;
        registry.register(Box::new(ReadinessCollector {
            family,
            readiness: Arc::clone(self),
        }))
    }

    /// All gates as they stand.
    pub fn report(&self) -> ReadinessReport {
        let gates: Vec<_> = self
            .gates
            .iter()
            .map(|(name, look)| {
                let ReadinessGate { waits_for, note } = look();
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

/// What a scrape reads of a [`Readiness`].
#[derive(Debug)]
struct ReadinessCollector {
    family: IntGaugeVec,
    readiness: Arc<Readiness>,
}

// === impl Gauges ===

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

// === impl Gate ===

impl ReadinessGate {
    /// A gate that waits for nothing.
    pub fn open() -> Self {
        Self::default()
    }

    /// A gate that waits for this.
    pub fn waiting_for(what: impl Into<String>) -> Self {
        Self {
            waits_for: Some(what.into()),
            note: None,
        }
    }

    /// Says something besides.
    #[must_use]
    pub fn with_notes<const N: usize>(mut self, notes: [Option<String>; N]) -> Self {
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        self.note = (!notes.is_empty()).then(|| notes.join("; "));
        self
    }
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
