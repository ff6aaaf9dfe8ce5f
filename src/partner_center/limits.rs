//! Limits of the calls to Partner Center: throttles, circuit breakers and the retry budget.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    call::LogicalCall,
    error::UpstreamError,
    metrics::UpstreamMetrics,
    throttle::{MAX_PAUSE, ThrottleScope, ThrottleTable},
};
use crate::{
    clock::SharedClock,
    domain::{CustomerId, UpstreamApi},
    resilience::{
        backoff::Backoff,
        circuit_breaker::{CircuitBreaker, CircuitPermit},
        retry_budget::RetryBudget,
    },
};

/// The failed attempts in a row that open a circuit: more than one call makes by default.
const FAILURES: u32 = 5;

/// The pauses before an open circuit is probed.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// The time over which retries are counted, and the retries that are always allowed in it.
const RETRY_WINDOW: Duration = Duration::from_secs(60);
const RETRY_FLOOR: u32 = 10;

/// The limits that all calls share.
#[derive(Debug)]
pub(super) struct UpstreamLimits {
    /// In the order of [`UpstreamApi::ALL`].
    by_api: [ApiLimits; UpstreamApi::ALL.len()],
    pub(super) retries: RetryBudget,
    /// A reply asked for a pause.
    pub(super) throttled: Notify,
    clock: SharedClock,
}

/// The calls that a pause concerns, in a form that other replicas read: `insights/*` or
/// `insights/4d3cf487-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamPause {
    api: UpstreamApi,
    scope: ThrottleScope,
    customer: Option<CustomerId>,
}

/// The limits of one of the calls: one may fail while another works.
#[derive(Debug)]
struct ApiLimits {
    throttle: ThrottleTable,
    circuit: CircuitBreaker<FailingScope>,
}

/// The subject of a failed call. A circuit opens once there is more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailingScope {
    /// A customer, however often it was requested.
    Customer(CustomerId),
    /// One call for the partner. Each counts by itself.
    Partner(Uuid),
}

// === impl UpstreamLimits ===

impl UpstreamLimits {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            by_api: UpstreamApi::ALL.map(|_| ApiLimits {
                throttle: ThrottleTable::default(),
                circuit: CircuitBreaker::new(FAILURES, PAUSES),
            }),
            retries: RetryBudget::new(RETRY_WINDOW, RETRY_FLOOR, clock.now()),
            throttled: Notify::new(),
            clock,
        }
    }

    /// Returns the end of the pause of this call, if it is throttled.
    pub(super) fn throttled_until(&self, call: &LogicalCall) -> Option<Instant> {
        let throttle = &self.of(call.api()).throttle;
        throttle.until(call.customer(), self.clock.now())
    }

    /// Records a 429 that asked for a pause, and returns when this call may go on.
    pub(super) fn record_throttle(&self, call: &LogicalCall, asked: Option<Duration>) -> Instant {
        let now = self.clock.now();
        let throttle = &self.of(call.api()).throttle;
        let (until, scope) = throttle.record(call.customer(), now, asked);
        self.throttled.notify_one();
        tracing::debug!(
            api = call.api().as_str(),
            customer.id = call.customer().map(tracing::field::display),
            scope = scope.into_str(),
            pause_seconds = until.saturating_duration_since(now).as_secs_f64(),
            "Partner Center throttles this call"
        );
        until
    }

    /// Returns the pauses that replies to this process asked for, and their ends.
    pub(super) fn own_pauses(&self) -> Vec<(UpstreamPause, Instant)> {
        let now = self.clock.now();
        let of = |api| {
            let pauses = self.of(api).throttle.own_pauses(now).into_iter();
            pauses.map(move |(scope, customer, until)| {
                let pause = UpstreamPause {
                    api,
                    scope,
                    customer,
                };
                (pause, until)
            })
        };
        UpstreamApi::ALL.into_iter().flat_map(of).collect()
    }

    /// Obeys a pause that a reply to another replica asked for.
    pub(super) fn obey_pause(&self, pause: UpstreamPause, remaining: Duration) {
        if remaining > MAX_PAUSE {
            // No reply asks for it, so that no process has written it.
            return;
        }
        let until = self.clock.now() + remaining;
        let throttle = &self.of(pause.api).throttle;
        throttle.obey(pause.scope, pause.customer, until);
    }

    /// Records a reply other than 429.
    pub(super) fn record_not_throttled(&self, call: &LogicalCall) {
        self.of(call.api()).throttle.record_other(call.customer());
    }

    /// Checks that the circuit lets this call pass at this moment.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::CircuitOpen`].
    pub(super) fn check_circuit(&self, call: &LogicalCall) -> Result<(), UpstreamError> {
        let circuit = &self.of(call.api()).circuit;
        match circuit.current_rejection(self.clock.now()) {
            Some(until) => Err(UpstreamError::CircuitOpen { until }),
            None => Ok(()),
        }
    }

    /// Returns the permit for one request. Acquire it last, since it may be the one probe.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::CircuitOpen`].
    pub(super) fn enter_circuit(
        &self,
        call: &LogicalCall,
    ) -> Result<CircuitPermit<'_, FailingScope>, UpstreamError> {
        let circuit = &self.of(call.api()).circuit;
        circuit
            .acquire(self.clock.now())
            .map_err(|until| UpstreamError::CircuitOpen { until })
    }

    /// Records whether Partner Center was reachable by the request that `permit` was for.
    pub(super) fn record_outcome(
        &self,
        permit: CircuitPermit<'_, FailingScope>,
        call: &LogicalCall,
        is_reachable: bool,
    ) {
        let api = call.api().as_str();
        if is_reachable {
            if permit.record_success() {
                tracing::info!(api, "circuit closed: Partner Center answers again");
            }
        } else if let Some(pause) = permit.record_failure(self.clock.now(), FailingScope::of(call))
        {
            tracing::warn!(
                api,
                pause_seconds = pause.as_secs_f64(),
                "circuit opened: Partner Center fails, and is not asked for a while"
            );
        }
    }

    /// Records a first attempt, which earns a part of a retry.
    pub(super) fn record_first_attempt(&self) {
        self.retries.record_call(self.clock.now());
    }

    /// Takes one retry from the budget of all calls, if there is one.
    pub(super) fn acquire_retry(&self) -> bool {
        self.retries.acquire_retry(self.clock.now())
    }

    /// Sets the gauges of the circuits and of the retry budget, which change with time alone too.
    pub(super) fn update_gauges(&self, metrics: &UpstreamMetrics) {
        let now = self.clock.now();
        for api in UpstreamApi::ALL {
            metrics.set_circuit_state(api, self.of(api).circuit.state(now));
        }
        metrics.retry_budget.set(self.retries.remaining_share(now));
    }

    #[expect(clippy::indexing_slicing, reason = "there is an entry for each call")]
    fn of(&self, api: UpstreamApi) -> &ApiLimits {
        &self.by_api[api as usize]
    }
}

// === impl UpstreamPause ===

impl UpstreamPause {
    /// Reads its text; `None` for that of a newer release.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, subject) = text.split_once('/')?;
        let api = UpstreamApi::ALL
            .into_iter()
            .find(|api| api.as_str() == name)?;
        let (scope, customer) = match subject {
            "*" => (ThrottleScope::Partner, None),
            "-" => (ThrottleScope::Customer, None),
            customer => (
                ThrottleScope::Customer,
                Some(CustomerId::parse(customer).ok()?),
            ),
        };
        Some(Self {
            api,
            scope,
            customer,
        })
    }
}

impl fmt::Display for UpstreamPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.api.as_str())?;
        match (self.scope, self.customer) {
            (ThrottleScope::Partner, _) => f.write_str("*"),
            (ThrottleScope::Customer, Some(customer)) => customer.fmt(f),
            (ThrottleScope::Customer, None) => f.write_str("-"),
        }
    }
}

// === impl FailingScope ===

impl FailingScope {
    fn of(call: &LogicalCall) -> Self {
        match call.customer() {
            Some(customer_id) => Self::Customer(customer_id),
            None => Self::Partner(call.ids.request_id),
        }
    }
}
