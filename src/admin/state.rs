//! The state that the routes of the admin listener share.

use std::sync::Arc;

use prometheus::IntCounter;

use super::{access::AdminAuth, readiness::Readiness};
use crate::{
    allowed_hosts::AllowedHosts, clock::SharedClock, observability::telemetry::MetricsRegistry,
    service::UsageService,
};

/// Everything that the admin listener serves; clones share it.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The service, with its cache.
    pub usage: UsageService,
    /// The readiness gates.
    pub readiness: Arc<Readiness>,
    /// The metrics of all components.
    pub metrics: MetricsRegistry,
    /// The time, for ages.
    pub clock: SharedClock,
    /// The accepted values of `Host`; `None` accepts all.
    pub allowed_hosts: Option<AllowedHosts>,
    /// Authenticates operators.
    pub access: AdminAuth,
    /// Counts panics of handlers.
    pub panics: IntCounter,
}
