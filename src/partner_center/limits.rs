//! What keeps Partner Center from being asked in vain: throttles, circuits and the retry budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{
    Gauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use uuid::Uuid;

use super::{
    call::LogicalCall,
    error::UpstreamError,
    throttle::{ThrottleScope, ThrottleTable},
};
use crate::{
    clock::SharedClock,
    domain::{CustomerId, UpstreamApi},
    resilience::{
        backoff::Backoff,
        circuit_breaker::{CircuitBreaker, CircuitPermit, CircuitState},
        retry_budget::RetryBudget,
    },
};

/// Failed attempts in a row that open a circuit: more than one call makes of itself by default.
const FAILURES: u32 = 5;

/// How long an open circuit refuses before it is probed, from the first time to the longest.
const PAUSES: Backoff = match Backoff::new(Duration::from_secs(5), Duration::from_secs(60)) {
    Ok(pauses) => pauses,
    Err(_) => panic!("not a backoff"),
};

/// Retries are counted over this time, and so many of them are always allowed in it.
const RETRY_WINDOW: Duration = Duration::from_secs(60);
const RETRY_FLOOR: u32 = 10;

/// All that is known of what Partner Center can bear; shared by every call.
#[derive(Debug)]
pub(super) struct UpstreamLimits {
    /// By [`UpstreamApi`], in the order of [`UpstreamApi::ALL`].
    lanes: [ApiLimits; UpstreamApi::ALL.len()],
    retries: RetryBudget,
    clock: SharedClock,
}

/// What concerns one of the calls alone: one may fail while another works.
#[derive(Debug)]
struct ApiLimits {
    throttle: ThrottleTable,
    circuit: CircuitBreaker<FailingScope>,
}

/// For whom a call failed: a circuit opens once that is more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailingScope {
    /// A customer, however often it was asked for.
    Customer(CustomerId),
    /// One call for the partner, who is nobody's exception: its next call stands for itself.
    Partner(Uuid),
}

// === impl Restraint ===

impl UpstreamLimits {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            lanes: UpstreamApi::ALL.map(|_| ApiLimits::new()),
            retries: RetryBudget::new(RETRY_WINDOW, RETRY_FLOOR, clock.now()),
            clock,
        }
    }

    /// Until when this call may send nothing since Partner Center throttles it.
    pub(super) fn throttled_until(&self, call: &LogicalCall) -> Option<Instant> {
        let throttle = &self.lane(call.api()).throttle;
        throttle.until(call.customer(), self.clock.now())
    }

    /// Takes note of a 429 that asked for a pause, and returns when this call may go on.
    pub(super) fn record_throttle(&self, call: &LogicalCall, asked: Option<Duration>) -> Instant {
        let now = self.clock.now();
        let throttle = &self.lane(call.api()).throttle;
        let (until, scope) = throttle.throttled(call.customer(), now, asked);
        tracing::debug!(
            api = call.api().as_str(),
            customer.id = call.customer().map(tracing::field::display),
            scope = match scope {
                ThrottleScope::Partner => "partner",
                ThrottleScope::Customer => "customer",
            },
            pause_seconds = until.saturating_duration_since(now).as_secs_f64(),
            "upstream throttles"
        );
        until
    }

    /// Takes note of an answer other than 429.
    pub(super) fn record_not_throttled(&self, call: &LogicalCall) {
        self.lane(call.api()).throttle.admitted(call.customer());
    }

    /// Whether the circuit would refuse this call at this moment.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::CircuitOpen`].
    pub(super) fn check_circuit(&self, call: &LogicalCall) -> Result<(), UpstreamError> {
        let circuit = &self.lane(call.api()).circuit;
        match circuit.current_refusal(self.clock.now()) {
            Some(refused) => Err(UpstreamError::CircuitOpen {
                until: refused.retry_at,
            }),
            None => Ok(()),
        }
    }

    /// Leave to send one request; to be had last, since it may be the one probe.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::CircuitOpen`].
    pub(super) fn enter_circuit(
        &self,
        call: &LogicalCall,
    ) -> Result<CircuitPermit<'_, FailingScope>, UpstreamError> {
        let circuit = &self.lane(call.api()).circuit;
        circuit
            .acquire(self.clock.now())
            .map_err(|refused| UpstreamError::CircuitOpen {
                until: refused.retry_at,
            })
    }

    /// Takes note of whether the request that `permit` was for showed that Partner Center lives.
    pub(super) fn record_outcome(
        &self,
        permit: CircuitPermit<'_, FailingScope>,
        call: &LogicalCall,
        lives: bool,
    ) {
        let api = call.api().as_str();
        if lives {
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

    /// Takes note of the first attempt at something.
    pub(super) fn first_attempt(&self) {
        self.retries.record_call(self.clock.now());
    }

    /// Whether all calls together may make one retry more; it is then counted.
    pub(super) fn may_retry(&self) -> bool {
        self.retries.acquire_retry(self.clock.now())
    }

    /// Has `/metrics` say how things stand at each scrape: they change with time alone, too.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub(super) fn register(self: &Arc<Self>, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(LimitGauges {
            circuit_state: IntGaugeVec::new(
                Opts::new(
                    "usage_proxy_circuit_state",
                    "1 for the state that a call's circuit is in (closed: calls pass; open: they \
                     are refused; half-open: one may probe), 0 for the others",
                ),
                &["api", "state"],
            )?,
            retry_budget: Gauge::new(
                "usage_proxy_retry_budget_remaining_ratio",
                "Share of the retries allowed to all calls together within a minute that is left",
            )?,
            restraint: Arc::clone(self),
        }))
    }

    #[expect(clippy::indexing_slicing, reason = "there is a lane for each call")]
    fn lane(&self, api: UpstreamApi) -> &ApiLimits {
        &self.lanes[api as usize]
    }
}

// === impl Failing ===

impl FailingScope {
    fn of(call: &LogicalCall) -> Self {
        match call.customer() {
            Some(customer_id) => Self::Customer(customer_id),
            None => Self::Partner(call.ids.request_id),
        }
    }
}

// === impl Lane ===

impl ApiLimits {
    fn new() -> Self {
        Self {
            throttle: ThrottleTable::default(),
            circuit: CircuitBreaker::new(FAILURES, PAUSES),
        }
    }
}

/// What a scrape reads of a [`UpstreamLimits`].
#[derive(Debug)]
struct LimitGauges {
    circuit_state: IntGaugeVec,
    retry_budget: Gauge,
    restraint: Arc<UpstreamLimits>,
}

// === impl Gauges ===

impl Collector for LimitGauges {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.circuit_state.desc();
        all.extend(self.retry_budget.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.restraint.clock.now();
        for api in UpstreamApi::ALL {
            let current = self.restraint.lane(api).circuit.state(now);
            for state in CircuitState::ALL {
                self.circuit_state
                    .with_label_values(&[api.as_str(), state.as_str()])
                    .set(i64::from(state == current));
            }
        }
        self.retry_budget
            .set(self.restraint.retries.remaining_share(now));
        let mut families = self.circuit_state.collect();
        families.extend(self.retry_budget.collect());
        families
    }
}
