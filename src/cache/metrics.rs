//! Metrics of the cache, and of the fetches that fill it.

use jiff::Timestamp;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};
use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::{anomaly::AnomalyKind, status::CacheResult};
use crate::domain::ProcessedDate;

/// The metrics of the cache, with all children from the start.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// By discriminant, like the other vectors.
    results: Vec<IntCounter>,
    /// Requests that waited for another request's upstream call.
    pub collapsed: IntCounter,
    /// Stale answers served while a refresh ran behind them.
    pub stale_while_revalidate: IntCounter,
    /// Stale answers served because upstream failed.
    pub stale_if_error: IntCounter,
    /// Stale answers served because upstream took longer than the soft timeout.
    pub soft_timeout: IntCounter,
    /// Upstream calls in progress, and those that wait for a permit or for another process.
    pub fills_in_flight: IntGauge,
    /// Calls that wait for a permit.
    pub fills_waiting: IntGauge,
    shed: Vec<IntCounter>,
    cached_failures: Vec<IntGauge>,
    failures_evicted: Vec<IntCounter>,
    suspects: Vec<IntCounter>,
    pub(super) entries: IntGauge,
    pub(super) weight: IntGauge,
    pub(super) capacity: IntGauge,
    pub(super) evicted_for_size: IntCounter,
    pub(super) evicted_by_purge: IntCounter,
    pub(super) rejected_for_size: IntCounter,
    newest_processed: IntGauge,
}

/// The reason why a call was not made, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum ShedReason {
    /// The caller alone has as many calls waiting as can be answered in time.
    Caller,
    /// All callers together have.
    Queue,
    /// It waited for a permit until its deadline.
    Deadline,
    /// It was a refresh behind a stale answer, so no request waited for it.
    Refresh,
}

/// The kind of a cached failure, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum CachedFailureKind {
    /// The next attempt may succeed.
    Fault,
    /// There is no such data: no such customer, no relationship, nothing of that date.
    Absence,
    /// There is nothing of a date that is older than the customer's newest.
    PastAbsence,
}

// === impl CacheMetrics ===

impl CacheMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, label: &str| {
            register_int_counter_vec_with_registry!(name, help, &[label], registry)
        };
        let gauge =
            |name: &str, help: &str| register_int_gauge_with_registry!(name, help, registry);
        let stale = counters(
            "usage_proxy_stale_served_total",
            "Stale answers served, by reason.",
            "reason",
        )?;
        let evictions = counters(
            "usage_proxy_cache_evictions_total",
            "Snapshots that left the cache or were too large to enter it, by cause.",
            "cause",
        )?;
        let cached_failures = register_int_gauge_vec_with_registry!(
            "usage_proxy_failures_remembered",
            "Failed fetches that are cached, by kind.",
            &["kind"],
            registry
        )?;
        Ok(Self {
            results: children::<CacheResult>(&counters(
                "usage_proxy_cache_requests_total",
                "Requests for data, by the result of the look into the cache.",
                "result",
            )?),
            collapsed: register_int_counter_with_registry!(
                "usage_proxy_collapsed_total",
                "Requests that waited for another request's upstream call.",
                registry
            )?,
            stale_while_revalidate: stale.with_label_values(&["while-revalidate"]),
            stale_if_error: stale.with_label_values(&["if-error"]),
            soft_timeout: stale.with_label_values(&["soft-timeout"]),
            fills_in_flight: gauge(
                "usage_proxy_fills_in_flight",
                "Upstream calls in progress, and those that wait for a permit or for another replica.",
            )?,
            fills_waiting: gauge(
                "usage_proxy_fills_waiting",
                "Upstream calls that wait for a permit.",
            )?,
            shed: children::<ShedReason>(&counters(
                "usage_proxy_shed_total",
                "Upstream calls that were not made because too many wait, by reason.",
                "reason",
            )?),
            cached_failures: CachedFailureKind::VARIANTS
                .iter()
                .map(|kind| cached_failures.with_label_values::<&str>(&[kind.into()]))
                .collect(),
            failures_evicted: children::<CachedFailureKind>(&counters(
                "usage_proxy_failures_evicted_total",
                "Failed fetches that were evicted to make room, by kind.",
                "kind",
            )?),
            suspects: children::<AnomalyKind>(&counters(
                "usage_proxy_upstream_suspect_total",
                "Upstream answers that were suspect, so that cached data was served in their place, by reason.",
                "reason",
            )?),
            entries: gauge("usage_proxy_cache_entries", "Cached snapshots.")?,
            weight: gauge(
                "usage_proxy_cache_weight_bytes",
                "Memory that the cache uses.",
            )?,
            capacity: gauge(
                "usage_proxy_cache_capacity_bytes",
                "Memory that the cache may use.",
            )?,
            evicted_for_size: evictions.with_label_values(&["size"]),
            evicted_by_purge: evictions.with_label_values(&["purge"]),
            rejected_for_size: evictions.with_label_values(&["oversized"]),
            newest_processed: gauge(
                "usage_proxy_newest_processed_timestamp_seconds",
                "Newest processed date of any customer, as midnight UTC in Unix time; 0 before the first.",
            )?,
        })
    }

    /// Records a request.
    pub fn record_request(&self, result: CacheResult) {
        increment(&self.results, result as usize);
    }

    /// Records a call that was not made.
    pub fn record_shed(&self, reason: ShedReason) {
        increment(&self.shed, reason as usize);
    }

    /// Records a suspect answer.
    pub(super) fn record_suspect(&self, kind: AnomalyKind) {
        increment(&self.suspects, kind as usize);
    }

    /// Records the eviction of a cached failure.
    pub(super) fn record_failure_evicted(&self, kind: CachedFailureKind) {
        increment(&self.failures_evicted, kind as usize);
    }

    pub(super) fn set_cached_failures(&self, kind: CachedFailureKind, count: u64) {
        if let Some(gauge) = self.cached_failures.get(kind as usize) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Returns the share of hits of all requests so far; `None` before the first.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let count = |result: CacheResult| count(&self.results, result as usize);
        let all: u64 = self.results.iter().map(IntCounter::get).sum();
        let served = count(CacheResult::Hit) + count(CacheResult::Stale);
        (all > 0).then(|| served as f64 / all as f64)
    }

    pub(super) fn observe_processed_date(&self, date: ProcessedDate) {
        let newest = date.start().as_second().max(self.newest_processed.get());
        self.newest_processed.set(newest);
    }

    pub(super) fn newest_processed_date(&self) -> Option<ProcessedDate> {
        let seconds = Some(self.newest_processed.get()).filter(|seconds| *seconds != 0)?;
        let midnight = Timestamp::from_second(seconds).ok()?;
        Some(ProcessedDate::from_timestamp(midnight))
    }
}

#[cfg(test)]
impl CacheMetrics {
    pub(crate) fn shed_count(&self, reason: ShedReason) -> u64 {
        count(&self.shed, reason as usize)
    }

    pub(super) fn evicted_failure_count(&self, kind: CachedFailureKind) -> u64 {
        count(&self.failures_evicted, kind as usize)
    }
}

/// Returns a child for each variant, in the order of their discriminants.
fn children<L>(family: &IntCounterVec) -> Vec<IntCounter>
where
    L: VariantArray + Copy + Into<&'static str>,
{
    let labels = L::VARIANTS.iter().copied().map(Into::into);
    labels
        .map(|label: &str| family.with_label_values(&[label]))
        .collect()
}

fn increment(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}

fn count(counters: &[IntCounter], index: usize) -> u64 {
    counters.get(index).map_or(0, IntCounter::get)
}
