use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use jiff::civil::Date;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    SimulatorOptions,
    faults::Faults,
    fleet::{self, CustomerFleet},
    overrides::CustomerOverrides,
    record::RequestRecorder,
    request_gate::RequestGate,
    throttle::SimulatedThrottle,
    tokens::{AssertionVerifier, TokenRegistry, authorization::IssuedCodes},
};
use crate::clock::SharedClock;

/// The state of the simulator, which HTTP and the handle share.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) fleet: CustomerFleet,
    pub(super) clock: SharedClock,
    pub(super) tokens: TokenRegistry,
    pub(super) recorder: RequestRecorder,
    pub(super) throttle: SimulatedThrottle,
    /// Holds API calls.
    pub(super) call_gate: RequestGate,
    /// Holds token requests.
    pub(super) token_gate: RequestGate,
    pub(super) page_size: usize,
    pub(super) allow_app_only: AtomicBool,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) assertions: AssertionVerifier,
    pub(super) codes: IssuedCodes,
    faults: Mutex<Faults>,
    today: Mutex<Date>,
    overrides: Mutex<CustomerOverrides>,
    /// Replaces the list of customers.
    customer_list_override: Mutex<Option<Arc<[Value]>>>,
}

// === impl Simulation ===

impl Simulation {
    pub(super) fn new(options: SimulatorOptions) -> Self {
        Self {
            fleet: CustomerFleet::new(options.seed, options.customers, options.wide_rows),
            clock: options.clock,
            tokens: TokenRegistry::new(options.expires_in),
            recorder: RequestRecorder::new(),
            throttle: SimulatedThrottle::default(),
            call_gate: RequestGate::new(),
            token_gate: RequestGate::new(),
            page_size: options.page_size.max(1),
            allow_app_only: AtomicBool::new(options.allow_app_only),
            client_id: options.client_id,
            client_secret: options.client_secret,
            assertions: AssertionVerifier::new(options.client_certificate, options.federated_token),
            codes: IssuedCodes::default(),
            faults: Mutex::new(options.faults),
            today: Mutex::new(options.today),
            overrides: Mutex::new(HashMap::new()),
            customer_list_override: Mutex::new(None),
        }
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(super) fn today(&self) -> MutexGuard<'_, Date> {
        lock(&self.today)
    }

    pub(super) fn newest_date(&self) -> Date {
        fleet::newest_date(*self.today())
    }

    pub(super) fn overrides(&self) -> CustomerOverrides {
        self.overrides_mut().clone()
    }

    pub(super) fn customer_list_override_mut(&self) -> MutexGuard<'_, Option<Arc<[Value]>>> {
        lock(&self.customer_list_override)
    }

    pub(super) fn overrides_mut(&self) -> MutexGuard<'_, CustomerOverrides> {
        lock(&self.overrides)
    }
}

/// A poisoned lock is as good as any: no panic leaves its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
