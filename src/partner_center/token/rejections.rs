//! Whether our credentials are refused until a person has acted, as a scrape reads it.

use std::sync::{Arc, Weak};

use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use super::state::{RefreshDemand, TokenState};

/// Reads what the keeper and the callers have told each other; it keeps neither alive.
///
/// A counter of refusals would not do: refused credentials are not shown again before they have
/// changed, so it moves once and then stands still, however long that takes.
#[derive(Debug)]
struct CredentialRejections {
    state: watch::Receiver<TokenState>,
    wanted: Weak<watch::Sender<RefreshDemand>>,
    family: IntGaugeVec,
    token_endpoint: IntGauge,
    partner_center: IntGauge,
}

/// Has `/metrics` say at each scrape who refuses our credentials.
///
/// # Errors
///
/// When a metric of the same name is registered already.
pub(super) fn register(
    state: watch::Receiver<TokenState>,
    wanted: &Arc<watch::Sender<RefreshDemand>>,
    registry: &Registry,
) -> Result<(), prometheus::Error> {
    let family = IntGaugeVec::new(
        Opts::new(
            "usage_proxy_credentials_refused",
            "1 while a person must act (token-endpoint: no access token can be had with these \
             credentials; partner-center: it refuses the access token that came)",
        ),
        &["refuser"],
    )?;
    registry.register(Box::new(CredentialRejections {
        state,
        wanted: Arc::downgrade(wanted),
        token_endpoint: family.with_label_values(&["token-endpoint"]),
        partner_center: family.with_label_values(&["partner-center"]),
        family,
    }))
}

// === impl Refusals ===

impl CredentialRejections {
    fn current(&self) -> (bool, bool) {
        let state = self.state.borrow();
        let by_endpoint = matches!(&state.trouble, Some(trouble) if trouble.retry_at.is_none());
        let disowned = self
            .wanted
            .upgrade()
            .and_then(|wanted| wanted.borrow().disowned);
        let by_partner_center = match (disowned, &state.token) {
            (Some(disowned), Some(token)) => disowned.applies_to(token),
            _ => false,
        };
        (by_endpoint, by_partner_center)
    }
}

impl Collector for CredentialRejections {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (by_endpoint, by_partner_center) = self.current();
        self.token_endpoint.set(i64::from(by_endpoint));
        self.partner_center.set(i64::from(by_partner_center));
        self.family.collect()
    }
}
