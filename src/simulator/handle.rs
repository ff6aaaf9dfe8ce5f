use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{ToSpan, civil::Date};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Simulation,
    faults::Faults,
    overrides::CustomerOverride,
    record::{RecordedRequest, SimulatedApi},
};

/// Control over a stand-in from within its process; clones control the same one.
///
/// The control surface under `/_simulator` works on the same state.
#[derive(Clone, Debug)]
pub struct SimulatorHandle {
    pub(super) simulation: Arc<Simulation>,
}

// === impl SimulatorHandle: faults ===

impl SimulatorHandle {
    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.simulation.faults() = faults;
    }

    /// The faults as they stand, with what is left of their `times`.
    pub fn faults(&self) -> Faults {
        self.simulation.faults().clone()
    }
}

// === impl SimulatorHandle: requests ===

impl SimulatorHandle {
    /// The requests since the last clearing, oldest first; of very many, the newest 10,000.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.simulation.recorder.requests()
    }

    /// Forgets the requests and counts from zero.
    pub fn clear_requests(&self) {
        self.simulation.recorder.clear();
    }

    /// How many requests of `api` arrived since the last clearing.
    pub fn request_count(&self, api: SimulatedApi) -> usize {
        self.simulation.recorder.count(api)
    }

    /// Completes once `n` requests of `api` have arrived since the last clearing, answered or not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait_for_requests(&self, api: SimulatedApi, n: usize) {
        self.simulation.recorder.wait_for(api, n).await;
    }
}

// === impl SimulatorHandle: holding answers ===

impl SimulatorHandle {
    /// API calls that arrive from now on are not answered until [`SimulatorHandle::release_calls`].
    pub fn hold_calls(&self) {
        self.simulation.call_gate.hold();
    }

    /// Answers the API calls that are held, and holds no more.
    pub fn release_calls(&self) {
        self.simulation.call_gate.release();
    }

    /// Token requests are not answered until [`SimulatorHandle::release_tokens`].
    pub fn hold_tokens(&self) {
        self.simulation.token_gate.hold();
    }

    /// Answers the token requests that are held, and holds no more.
    pub fn release_tokens(&self) {
        self.simulation.token_gate.release();
    }
}

// === impl SimulatorHandle: data ===

impl SimulatorHandle {
    /// Tells `told` of a customer, whom the fleet need not know, instead of what the fleet says.
    pub fn override_customer(&self, customer: Uuid, told: CustomerOverride) {
        let mut overrides = self.simulation.overrides_mut();
        overrides.insert(customer, Arc::new(told));
    }

    /// Tells of a customer what the fleet says.
    pub fn clear_override(&self, customer: Uuid) {
        self.simulation.overrides_mut().remove(&customer);
    }

    /// Tells these as the list of customers, instead of the fleet.
    pub fn override_customer_list(&self, listed: impl IntoIterator<Item = Value>) {
        *self.simulation.customer_list_override_mut() = Some(listed.into_iter().collect());
    }

    /// What the stand-in takes for the date of today.
    pub fn today(&self) -> Date {
        *self.simulation.today()
    }

    /// Sets the date of today: the newest processed date follows it.
    pub fn set_today(&self, today: Date) {
        *self.simulation.today() = today;
    }

    /// Goes on by a day, so that every customer of the fleet has a newer processed date.
    pub fn advance_day(&self) {
        let mut today = self.simulation.today();
        *today = today.saturating_add(1.day());
    }

    /// The newest processed date of the fleet.
    pub fn newest_date(&self) -> Date {
        self.simulation.newest_date()
    }

    /// Whom the list of customers has, in its order, unless it was replaced: the documented customer,
    /// then the fleet.
    pub fn customers(&self) -> Vec<Uuid> {
        let customers = self.simulation.fleet.customers().iter();
        customers.map(|customer| customer.id).collect()
    }
}

// === impl SimulatorHandle: tokens ===

impl SimulatorHandle {
    /// A new refresh token, as consent would give it.
    pub fn issue_refresh_token(&self) -> String {
        self.simulation.tokens.issue_refresh_token()
    }

    /// The refresh tokens that were given out and not yet spent, in no order.
    pub fn live_refresh_tokens(&self) -> Vec<String> {
        self.simulation.tokens.live_refresh_tokens()
    }

    /// How often a refresh token was presented that rotation had already replaced.
    pub fn reused_refresh_tokens(&self) -> usize {
        self.simulation.tokens.reused_refresh_tokens()
    }

    /// Refuses a refresh token from now on, with `invalid_grant`.
    pub fn revoke_refresh_token(&self, token: &str) {
        self.simulation.tokens.revoke_refresh_token(token);
    }

    /// Answers 401 from now on to every access token that was issued so far.
    pub fn revoke_access_tokens(&self) {
        self.simulation.tokens.revoke_access_tokens();
    }

    /// Has the commercial call take the tokens of an application alone, as
    /// [`SimulatorOptions::allow_app_only`](super::SimulatorOptions::allow_app_only) does.
    pub fn allow_app_only(&self) {
        let allowed = &self.simulation.allow_app_only;
        allowed.store(true, Ordering::Relaxed);
    }

    /// How long access tokens live that are issued from now on.
    pub fn set_expires_in(&self, expires_in: Duration) {
        self.simulation.tokens.set_expires_in(expires_in);
    }

    /// Whether redeeming a refresh token spends it and brings a new one.
    pub fn set_rotate(&self, rotate: bool) {
        self.simulation.tokens.set_rotate(rotate);
    }
}
