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
    fleet::{self, Fleet},
    gate::Gate,
    overrides::Overrides,
    record::Recorder,
    throttle::Throttle,
    tokens::{Assertions, TokenBook, authorization::Codes},
};
use crate::clock::SharedClock;

/// Everything that the stand-in is and remembers; HTTP and the handle are two ways to it.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) fleet: Fleet,
    pub(super) clock: SharedClock,
    pub(super) tokens: TokenBook,
    pub(super) recorder: Recorder,
    pub(super) throttle: Throttle,
    /// What API calls wait before.
    pub(super) call_gate: Gate,
    /// What token requests wait before.
    pub(super) token_gate: Gate,
    pub(super) page_size: usize,
    pub(super) require_token: bool,
    pub(super) allow_app_only: AtomicBool,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) assertions: Assertions,
    pub(super) codes: Codes,
    faults: Mutex<Faults>,
    today: Mutex<Date>,
    overrides: Mutex<Overrides>,
    /// Told as the list of customers instead of the fleet.
    listed: Mutex<Option<Arc<[Value]>>>,
}

// === impl Simulation ===

impl Simulation {
    pub(super) fn new(options: SimulatorOptions) -> Self {
        Self {
            fleet: Fleet::new(options.seed, options.customers, options.wide_rows),
            clock: options.clock,
            tokens: TokenBook::new(options.rotate, options.expires_in),
            recorder: Recorder::new(),
            throttle: Throttle::default(),
            call_gate: Gate::open(),
            token_gate: Gate::open(),
            page_size: options.page_size.max(1),
            require_token: options.require_token,
            allow_app_only: AtomicBool::new(options.allow_app_only),
            client_id: options.client_id,
            client_secret: options.client_secret,
            assertions: Assertions::new(options.client_certificate, options.federated_token),
            codes: Codes::default(),
            faults: Mutex::new(options.faults),
            today: Mutex::new(options.today),
            overrides: Mutex::new(HashMap::new()),
            listed: Mutex::new(None),
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

    /// The overrides as they are now.
    pub(super) fn overrides(&self) -> Overrides {
        self.overrides_mut().clone()
    }

    pub(super) fn listed_mut(&self) -> MutexGuard<'_, Option<Arc<[Value]>>> {
        lock(&self.listed)
    }

    pub(super) fn overrides_mut(&self) -> MutexGuard<'_, Overrides> {
        lock(&self.overrides)
    }
}

/// Nothing panics while it holds one of these locks half-changed, so a poisoned one is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
