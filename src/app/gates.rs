//! The readiness gates of the service.

use std::sync::Arc;

use crate::{
    admin::readiness::{Readiness, ReadinessGate},
    partner_center::{PartnerCenter, TokenStatus},
    service::UsageService,
    shutdown::Shutdown,
};

/// Adds the gates: the service is ready while it runs, and has a usable token or cached data.
pub(super) fn add_gates(
    readiness: Readiness,
    shutdown: &Shutdown,
    upstream: &Arc<PartnerCenter>,
    usage: &UsageService,
) -> Readiness {
    let shutdown = shutdown.clone();
    let (upstream, usage) = (Arc::clone(upstream), usage.clone());
    readiness
        .gate("running", move || {
            if shutdown.is_draining() {
                ReadinessGate::waiting_for("its end: the process is draining")
            } else {
                ReadinessGate::open()
            }
        })
        .gate("can-answer", move || can_answer(&upstream, &usage))
}

fn can_answer(upstream: &PartnerCenter, usage: &UsageService) -> ReadinessGate {
    let status = upstream.status();
    let empty_responses = status.empty_responses_advice.map(str::to_owned);
    let store = usage.store_problem();
    let missing = match status.token {
        TokenStatus::Usable => {
            let refresh = status.refresh_problem.as_deref().map(str::to_owned);
            let mfa = status.mfa_advice.map(str::to_owned);
            return ReadinessGate::open().with_notes([refresh, mfa, empty_responses, store]);
        }
        TokenStatus::Waiting { detail: None } => "the first access token".to_owned(),
        TokenStatus::Waiting {
            detail: Some(detail),
        } => format!("an access token: {detail}"),
        TokenStatus::Refused { action } => action.to_string(),
    };
    if usage.cache().has_data() {
        ReadinessGate::open().with_notes([Some(missing), empty_responses, store])
    } else {
        ReadinessGate::waiting_for(missing).with_notes([empty_responses, store])
    }
}
