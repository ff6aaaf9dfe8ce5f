//! The state that the routes of the admin listener share.

use std::sync::Arc;

use super::readiness::Readiness;
use crate::{clock::SharedClock, observability::telemetry::MetricsRegistry, service::UsageService};

/// The components that the admin listener shows; clones share them.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The service, with its cache.
    pub usage: UsageService,
    /// The readiness gates.
    pub readiness: Arc<Readiness>,
    /// The metrics of all components.
    pub metrics: MetricsRegistry,
    /// The most series of `/metrics/usage`; `None`: it is off.
    pub usage_max_series: Option<usize>,
    /// The time, for ages.
    pub clock: SharedClock,
}
