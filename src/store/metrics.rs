//! Metrics of the store, and its health.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Gauge, Histogram, IntCounter, IntGauge, Registry, histogram_opts, register_gauge_with_registry,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The metrics of the store, with all children from the start.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    up: IntGauge,
    /// By operation and outcome.
    operations: Vec<IntCounter>,
    /// By operation.
    durations: Vec<Histogram>,
    pub(super) bytes: IntGauge,
    pub(super) pending: IntGauge,
    lag: Gauge,
    /// By outcome.
    lease_attempts: Vec<IntCounter>,
    pub(super) leases_held: IntGauge,
    pub(super) dropped: IntCounter,
}

/// A method of a store, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum StoreOperation {
    /// A look-up on the path of a request.
    Snapshot,
    NewestOfAll,
    AllOfDate,
    Customers,
    Write,
    Dates,
    History,
    FleetHistory,
    RecentTotals,
    AskedDates,
    Purges,
    Changes,
    ChangedSnapshots,
    ReportApplied,
    AcquireLease,
    RenewLease,
    ReleaseLease,
    PublishRefresh,
    LastRefresh,
    SharePause,
    SharedPauses,
    ServerTime,
    Tokens,
    SwapTokens,
    Delete,
    Maintain,
    Probe,
}

/// The end of a call, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum StoreOutcome {
    Success,
    Error,
    /// It took longer than it may.
    Timeout,
    /// The store was not asked, because it failed a moment ago or other look-ups came first.
    Rejected,
}

/// The end of a request for a lease, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum LeaseOutcome {
    Granted,
    /// Another process holds it.
    Held,
    /// Another process has just finished or failed.
    Finished,
}

/// The health of the store; clones share it.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    problems: Arc<Mutex<StoreProblems>>,
    /// The last time when everything was applied that other processes stored.
    followed_at: Arc<Mutex<Option<Instant>>>,
    metrics: StoreMetrics,
}

#[derive(Debug, Default)]
struct StoreProblems {
    reads: Option<String>,
    writes: Option<String>,
}

// === impl StoreOperation ===

impl StoreOperation {
    /// Returns true if a request asks upstream where it fails.
    pub(super) fn precedes_upstream_call(self) -> bool {
        matches!(self, Self::Snapshot | Self::AllOfDate | Self::AcquireLease)
    }

    /// Returns true if no request for usage waits for it. A purge waits for some of them, for 2 s at most.
    pub(super) fn is_background(self) -> bool {
        matches!(
            self,
            Self::Write
                | Self::Delete
                | Self::Maintain
                | Self::ReleaseLease
                | Self::RenewLease
                | Self::Purges
                | Self::Changes
                | Self::ChangedSnapshots
                | Self::ReportApplied
        )
    }
}

// === impl StoreMetrics ===

impl StoreMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge =
            |name: &str, help: &str| register_int_gauge_with_registry!(name, help, registry);
        let operations = register_int_counter_vec_with_registry!(
            "usage_proxy_store_operations_total",
            "Calls to the store, by outcome.",
            &["operation", "outcome"],
            registry
        )?;
        let durations = register_histogram_vec_with_registry!(
            histogram_opts!(
                "usage_proxy_store_duration_seconds",
                "Time that calls to the store took.",
                vec![
                    0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.02, 0.1, 0.5, 2.5, 10.0
                ]
            ),
            &["operation"],
            registry
        )?;
        let lease_attempts = register_int_counter_vec_with_registry!(
            "usage_proxy_lease_attempts_total",
            "Requests for a lease, by outcome.",
            &["outcome"],
            registry
        )?;
        let names = || StoreOperation::VARIANTS.iter().copied().map(<&str>::from);
        let outcomes = || StoreOutcome::VARIANTS.iter().copied().map(<&str>::from);
        Ok(Self {
            up: gauge(
                "usage_proxy_store_up",
                "1 if the store can be read and written, 0 if not.",
            )?,
            operations: names()
                .flat_map(|operation| outcomes().map(move |outcome| [operation, outcome]))
                .map(|labels| operations.with_label_values(&labels))
                .collect(),
            durations: names()
                .map(|operation| durations.with_label_values(&[operation]))
                .collect(),
            bytes: gauge("usage_proxy_store_bytes", "Bytes that the store takes.")?,
            pending: gauge(
                "usage_proxy_store_pending_writes",
                "Changes that are not durable yet.",
            )?,
            lag: register_gauge_with_registry!(
                "usage_proxy_store_lag_seconds",
                "Seconds since everything was applied that other processes stored.",
                registry
            )?,
            lease_attempts: LeaseOutcome::VARIANTS
                .iter()
                .map(|outcome| lease_attempts.with_label_values(&[<&str>::from(*outcome)]))
                .collect(),
            leases_held: gauge("usage_proxy_leases_held", "Leases that this process holds.")?,
            dropped: register_int_counter_with_registry!(
                "usage_proxy_store_dropped_writes_total",
                "Changes that were dropped because too many waited for the store, or it cannot have them.",
                registry
            )?,
        })
    }

    /// Records a request for a lease.
    pub(super) fn record_lease(&self, outcome: LeaseOutcome) {
        if let Some(counter) = self.lease_attempts.get(outcome as usize) {
            counter.inc();
        }
    }

    /// Records a call. One that was rejected took no time.
    pub(super) fn record(&self, operation: StoreOperation, outcome: StoreOutcome, took: Duration) {
        let index = operation as usize * StoreOutcome::COUNT + outcome as usize;
        if let Some(counter) = self.operations.get(index) {
            counter.inc();
        }
        if outcome != StoreOutcome::Rejected
            && let Some(histogram) = self.durations.get(operation as usize)
        {
            histogram.observe(took.as_secs_f64());
        }
    }
}

// === impl StoreHealth ===

impl StoreHealth {
    pub(super) fn new(metrics: &StoreMetrics) -> Self {
        metrics.up.set(1);
        Self {
            problems: Arc::default(),
            followed_at: Arc::default(),
            metrics: metrics.clone(),
        }
    }

    /// Returns the reason why the store cannot be read or written; `None` if it can.
    pub fn problem(&self) -> Option<String> {
        let problems = self.lock();
        match (&problems.reads, &problems.writes) {
            (Some(reason), _) => Some(format!("stored data cannot be read: {reason}")),
            (None, Some(reason)) => {
                let waiting = self.metrics.pending.get();
                Some(format!("{waiting} changes wait to be stored: {reason}"))
            }
            (None, None) => None,
        }
    }

    /// Records that everything is applied that other processes stored.
    pub fn record_followed(&self, now: Instant) {
        let followed_at = self.followed_at.lock();
        *followed_at.unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Sets the gauge of the time since then. Call it before a scrape.
    pub fn update_gauges(&self, now: Instant) {
        let followed_at = self.followed_at.lock();
        let followed_at = *followed_at.unwrap_or_else(PoisonError::into_inner);
        let lag = followed_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.metrics.lag.set(lag.as_secs_f64());
    }

    pub(super) fn set_read_problem(&self, problem: Option<String>) {
        self.set(|problems| problems.reads = problem);
    }

    pub(super) fn set_write_problem(&self, problem: Option<String>) {
        self.set(|problems| problems.writes = problem);
    }

    fn set(&self, change: impl FnOnce(&mut StoreProblems)) {
        let mut problems = self.lock();
        change(&mut problems);
        let is_up = problems.reads.is_none() && problems.writes.is_none();
        self.metrics.up.set(is_up.into());
    }

    fn lock(&self) -> MutexGuard<'_, StoreProblems> {
        // Each field is assigned whole.
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
