//! Control of a simulator from within its process.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{ToSpan, civil::Date};
use serde_json::Value;
use uuid::Uuid;

use super::{
    faults::Faults,
    overrides::CustomerOverride,
    record::{RecordedRequest, SimulatedApi},
    simulation::Simulation,
};

/// The longest wait for requests: more than any test needs on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Controls a simulator from within its process. Clones control the same one, and so does
/// `/_simulator` over HTTP.
#[derive(Clone, Debug)]
pub struct SimulatorHandle {
    pub(super) simulation: Arc<Simulation>,
}

// === impl SimulatorHandle ===

impl SimulatorHandle {
    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.simulation.faults() = faults;
    }

    /// Returns the requests since the last clearing, oldest first; of very many, the newest 10,000.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.simulation.recorder.requests()
    }

    /// Deletes the recorded requests and resets the counts.
    pub fn clear_requests(&self) {
        self.simulation.recorder.clear();
    }

    /// Returns the number of requests of `api` since the last clearing.
    pub fn request_count(&self, api: SimulatedApi) -> usize {
        self.simulation.recorder.count(api)
    }

    /// Waits until `n` requests of `api` have arrived since the last clearing, answered or not.
    ///
    /// # Panics
    ///
    /// If they do not arrive within a minute, so that a test fails and does not hang.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[expect(clippy::expect_used, reason = "only tests wait, and must not hang")]
    pub async fn wait_for_requests(&self, api: SimulatedApi, n: usize) {
        tokio::time::timeout(WAIT_TIMEOUT, self.simulation.recorder.wait_for(api, n))
            .await
            .expect("the requests arrive within the timeout");
    }

    /// Holds API calls that arrive from now on until [`SimulatorHandle::release_calls`].
    pub fn hold_calls(&self) {
        self.simulation.call_gate.hold();
    }

    /// Answers the API calls on hold, and holds no more.
    pub fn release_calls(&self) {
        self.simulation.call_gate.release();
    }

    /// Holds token requests until [`SimulatorHandle::release_tokens`].
    pub fn hold_tokens(&self) {
        self.simulation.token_gate.hold();
    }

    /// Answers the token requests on hold, and holds no more.
    pub fn release_tokens(&self) {
        self.simulation.token_gate.release();
    }

    /// Replaces the data of a customer, whom the fleet need not have.
    pub fn override_customer(&self, customer: Uuid, data: CustomerOverride) {
        let mut overrides = self.simulation.overrides();
        overrides.customers.insert(customer, Arc::new(data));
    }

    /// Restores the data that the fleet has of a customer.
    pub fn clear_override(&self, customer: Uuid) {
        self.simulation.overrides().customers.remove(&customer);
    }

    /// Delays the newest date of these customers by a day, and of no others: no row of theirs has the
    /// newest date of the fleet.
    pub fn delay_customers(&self, customers: impl IntoIterator<Item = Uuid>) {
        self.simulation.overrides().late = customers.into_iter().collect();
    }

    /// Corrects the counts of a date: each of its rows has one more qualified seat.
    pub fn correct_counts(&self, date: Date) {
        let mut overrides = self.simulation.overrides();
        *overrides.corrections.entry(date).or_default() += 1;
    }

    /// Replaces the list of customers.
    pub fn override_customer_list(&self, listed: impl IntoIterator<Item = Value>) {
        *self.simulation.customer_list_override() = Some(listed.into_iter().collect());
    }

    /// Moves the date on by a day, so that every customer of the fleet has a newer processed date. It
    /// changes nothing where dates are published by the clock.
    pub fn advance_day(&self) {
        let mut today = self.simulation.today();
        *today = today.saturating_add(1.day());
    }

    /// Returns the newest processed date of the fleet.
    pub fn newest_date(&self) -> Date {
        self.simulation.newest_date()
    }

    /// Returns the listed customers in their order, unless the list was replaced: the documented customer,
    /// then the fleet.
    pub fn customers(&self) -> Vec<Uuid> {
        let customers = self.simulation.fleet.customers().iter();
        customers.map(|customer| customer.id).collect()
    }

    /// Issues a refresh token, as consent would.
    pub fn issue_refresh_token(&self) -> String {
        self.simulation.tokens.issue_refresh_token()
    }

    /// Returns the refresh tokens that were issued and not yet redeemed, in no order.
    pub fn live_refresh_tokens(&self) -> Vec<String> {
        self.simulation.tokens.live_refresh_tokens()
    }

    /// Returns the number of times that a refresh token was redeemed after rotation had replaced it.
    pub fn reused_refresh_tokens(&self) -> usize {
        self.simulation.tokens.reused_refresh_tokens()
    }

    /// Rejects a refresh token from now on, with `invalid_grant`.
    pub fn revoke_refresh_token(&self, token: &str) {
        self.simulation.tokens.revoke_refresh_token(token);
    }

    /// Rejects every access token that was issued so far, with 401.
    pub fn revoke_access_tokens(&self) {
        self.simulation.tokens.revoke_access_tokens();
    }

    /// Lets the commercial call accept the tokens of an application alone, as
    /// [`SimulatorOptions::allow_app_only`](super::SimulatorOptions::allow_app_only) does.
    pub fn allow_app_only(&self) {
        let allowed = &self.simulation.allow_app_only;
        allowed.store(true, Ordering::Relaxed);
    }
}
