//! The simulator's side of a test: its faults, its data, and the calls that reached it.

use http::{HeaderMap, StatusCode};
use jiff::civil::Date;
use usage_proxy::simulator::{
    BodyFault, CustomerOverride, Faults, RecordedRequest, SimulatedApi, SimulatedRow,
};
use uuid::Uuid;

use super::{PATIENCE, TestApp};

/// Every call is answered with this status.
pub(crate) fn failing(status: u16) -> Faults {
    Faults {
        status: Some(StatusCode::from_u16(status).unwrap()),
        ..Faults::default()
    }
}

/// Every call is answered with this status, and this code of Partner Center's.
pub(crate) fn refusing(status: u16, code: &str) -> Faults {
    Faults {
        code: Some(code.to_owned()),
        ..failing(status)
    }
}

/// Every call is answered with 429 and this `Retry-After`.
pub(crate) fn throttling(retry_after: &str) -> Faults {
    Faults {
        retry_after: Some(retry_after.to_owned()),
        ..failing(429)
    }
}

/// Every call is answered with a body that is wrong in this way.
pub(crate) fn bad_body(body: BodyFault) -> Faults {
    Faults {
        body: Some(body),
        ..Faults::default()
    }
}

/// Every call is refused for want of multi-factor authentication.
pub(crate) fn no_mfa() -> Faults {
    Faults {
        mfa_required: true,
        ..Faults::default()
    }
}

/// Every connection is closed in the middle of a body.
pub(crate) fn broken_off() -> Faults {
    Faults {
        close_mid_body: true,
        ..Faults::default()
    }
}

/// One product with this many seats, processed on this date.
pub(crate) fn seats(qualified: u64, processed: Date) -> Vec<SimulatedRow> {
    vec![SimulatedRow::new(
        "EXCHANGE ONLINE (PLAN 1)",
        "Exchange",
        qualified,
        processed,
    )]
}

impl TestApp {
    /// Has the simulator misbehave from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.simulator.set_faults(faults);
    }

    /// Ends all faults.
    pub(crate) fn clear_faults(&self) {
        self.simulator.set_faults(Faults::default());
    }

    /// Gives a customer other rows.
    pub(crate) fn set_rows(&self, customer: Uuid, rows: impl Into<Vec<SimulatedRow>>) {
        self.set_answer(customer, CustomerOverride::Rows(rows.into()));
    }

    /// Has the simulator answer with a body of JSON that need not be usage.
    pub(crate) fn set_body(&self, customer: Uuid, body: impl Into<bytes::Bytes>) {
        self.set_answer(customer, CustomerOverride::Body(body.into()));
    }

    /// Has the simulator refuse one customer with this status and code, which is written as JSON.
    pub(crate) fn set_refusal(&self, customer: Uuid, status: u16, code: &str) {
        let refusal = CustomerOverride::Status {
            status: StatusCode::from_u16(status).unwrap(),
            body: format!(r#"{{"code": {code}, "description": "no"}}"#).into(),
            headers: HeaderMap::new(),
        };
        self.set_answer(customer, refusal);
    }

    /// Has the simulator answer in another way about a customer.
    pub(crate) fn set_answer(&self, customer: Uuid, answer: CustomerOverride) {
        self.simulator.override_customer(customer, answer);
    }

    /// The number of calls of this kind so far.
    pub(crate) fn calls(&self, api: SimulatedApi) -> usize {
        self.simulator.request_count(api)
    }

    /// The calls of this kind so far.
    pub(crate) fn calls_made(&self, api: SimulatedApi) -> Vec<RecordedRequest> {
        let requests = self.simulator.requests().into_iter();
        requests.filter(|request| request.api == api).collect()
    }

    /// Waits until so many calls of this kind have come, answered or not.
    pub(crate) async fn wait_for_calls(&self, api: SimulatedApi, calls: usize) {
        let come = self.simulator.wait_for_requests(api, calls);
        if tokio::time::timeout(PATIENCE, come).await.is_err() {
            panic!("{} calls of {api:?} came, not {calls}", self.calls(api));
        }
    }

    /// The number of cached entries.
    pub(crate) async fn entries(&self) -> u64 {
        let overview = self.admin_get("/cache").await.json();
        overview["entries"].as_u64().unwrap()
    }
}
