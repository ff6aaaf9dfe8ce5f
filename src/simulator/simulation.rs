//! The settings and the state of a simulator.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use jiff::{civil::Date, tz::Offset};
use secrecy::SecretString;
use serde_json::Value;

use super::{
    dataset::Dataset,
    faults::Faults,
    fleet::{self, CustomerFleet},
    overrides::DataOverrides,
    record::RequestRecorder,
    request_gate::RequestGate,
    throttle::SimulatedThrottle,
    tokens::{
        assertion::{AssertionVerifier, RegisteredCertificate},
        codes::IssuedCodes,
        registry::TokenRegistry,
    },
};
use crate::clock::{Clock, SharedClock, SystemClock};

/// Settings of a simulator.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// The number of generated customers, besides the documented one.
    pub customers: usize,
    /// The seed of the generated customers and their usage.
    pub seed: u64,
    /// The day of the start.
    pub today: Date,
    /// The newest processed date as time passes.
    pub publication: Publication,
    /// Faults to begin with.
    pub faults: Faults,
    /// The largest and the default number of rows in a page of the commercial call.
    pub page_size: usize,
    /// Lets the commercial call accept the token of an application alone. It is not known that
    /// Partner Center does. Every other call about usage or deployment still rejects it.
    pub allow_app_only: bool,
    /// The only client id that gets tokens; any when absent.
    pub client_id: Option<String>,
    /// The only client secret that gets tokens; any when absent.
    pub client_secret: Option<SecretString>,
    /// A certificate whose assertions also authenticate the client.
    pub client_certificate: Option<RegisteredCertificate>,
    /// A federated token that also authenticates the client.
    pub federated_token: Option<SecretString>,
    /// The lifetime of access tokens.
    pub expires_in: Duration,
    /// The clock of tokens and of throttling. Latency takes real time.
    pub clock: SharedClock,
}

/// The newest processed date as time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publication {
    /// Three days before [`SimulatorOptions::today`], which [`SimulatorHandle::advance_day`] moves.
    ///
    /// [`SimulatorHandle::advance_day`]: super::SimulatorHandle::advance_day
    #[default]
    Manual,
    /// By the clock: a date is published three days later, at a time of day that drifts with the
    /// seasons. Some are late, and then two are published at once.
    Daily,
}

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
    seed: u64,
    publication: Publication,
    today: Mutex<Date>,
    overrides: Mutex<DataOverrides>,
    /// Replaces the list of customers.
    customer_list_override: Mutex<Option<Vec<Value>>>,
}

// === impl SimulatorOptions ===

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            customers: 25,
            seed: 1,
            today: Offset::UTC.to_datetime(SystemClock.wall_time()).date(),
            publication: Publication::default(),
            faults: Faults::default(),
            page_size: 10_000,
            allow_app_only: false,
            client_id: None,
            client_secret: None,
            client_certificate: None,
            federated_token: None,
            expires_in: Duration::from_secs(3_599),
            clock: Arc::new(SystemClock),
        }
    }
}

// === impl Simulation ===

impl Simulation {
    pub(super) fn new(options: SimulatorOptions) -> Self {
        Self {
            fleet: CustomerFleet::new(options.seed, options.customers, options.today),
            clock: options.clock,
            tokens: TokenRegistry::new(options.expires_in),
            recorder: RequestRecorder::default(),
            throttle: SimulatedThrottle::default(),
            call_gate: RequestGate::default(),
            token_gate: RequestGate::default(),
            page_size: options.page_size.max(1),
            allow_app_only: AtomicBool::new(options.allow_app_only),
            client_id: options.client_id,
            client_secret: options.client_secret,
            assertions: AssertionVerifier::new(options.client_certificate, options.federated_token),
            codes: IssuedCodes::default(),
            faults: Mutex::new(options.faults),
            seed: options.seed,
            publication: options.publication,
            today: Mutex::new(options.today),
            overrides: Mutex::default(),
            customer_list_override: Mutex::default(),
        }
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(super) fn today(&self) -> MutexGuard<'_, Date> {
        lock(&self.today)
    }

    pub(super) fn newest_date(&self) -> Date {
        match self.publication {
            Publication::Manual => fleet::newest_date(*self.today()),
            Publication::Daily => fleet::newest_published(self.seed, self.clock.wall_time()),
        }
    }

    /// Returns the rows of all customers as of now, with `overrides` that were cloned from
    /// [`Simulation::overrides`].
    pub(super) fn dataset<'a>(&'a self, overrides: &'a DataOverrides) -> Dataset<'a> {
        Dataset {
            fleet: &self.fleet,
            overrides,
            newest: self.newest_date(),
        }
    }

    pub(super) fn overrides(&self) -> MutexGuard<'_, DataOverrides> {
        lock(&self.overrides)
    }

    pub(super) fn customer_list_override(&self) -> MutexGuard<'_, Option<Vec<Value>>> {
        lock(&self.customer_list_override)
    }
}

/// Ignores poisoning, because no panic leaves a value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
