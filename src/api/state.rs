use crate::{
    allowed_hosts::AllowedHosts, clock::SharedClock, config::RequestLog,
    render::fleet::FleetDocuments, service::UsageService,
};

use super::{
    authentication::Authenticator, cors::CorsPolicy, metrics::ApiMetrics, route::RouteTable,
    spans::RequestSpans, unsent_budget::UnsentBudgets,
};

/// The state that all requests share.
#[derive(Debug)]
pub(super) struct ApiState {
    pub(super) authenticator: Authenticator,
    pub(super) usage: UsageService,
    /// True if all customers are refreshed together.
    pub(super) refreshes_fleet: bool,
    pub(super) clock: SharedClock,
    pub(super) metrics: ApiMetrics,
    pub(super) request_log: RequestLog,
    /// `None` where any host is served.
    pub(super) allowed_hosts: Option<AllowedHosts>,
    /// `None` where no page of another origin may read answers.
    pub(super) cors: Option<CorsPolicy>,
    pub(super) unsent_budgets: UnsentBudgets,
    /// `None` where nothing is traced.
    pub(super) spans: Option<RequestSpans>,
    pub(super) routes: RouteTable,
    pub(super) fleet_documents: FleetDocuments,
}
