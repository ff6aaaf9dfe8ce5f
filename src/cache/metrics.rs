use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{anomaly::AnomalyKind, status::CacheResult};
use crate::domain::ProcessedDate;

/// What the cache and the fetches behind it count. Children are resolved here, once.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    results: [IntCounter; CacheResult::ALL.len()],
    /// Requests that waited for another request's upstream call.
    pub collapsed: IntCounter,
    /// Stale answers served while a refresh ran behind them.
    pub stale_while_revalidate: IntCounter,
    /// Stale answers served because upstream failed.
    pub stale_if_error: IntCounter,
    /// Stale answers served because upstream took longer than the soft timeout.
    pub soft_timeout: IntCounter,
    /// Upstream calls under way to fill the cache.
    pub fills_in_flight: IntGauge,
    /// Calls that wait for their turn.
    pub fills_waiting: IntGauge,
    shed: [IntCounter; ShedReason::ALL.len()],
    cached_failures: [IntGauge; CachedFailureKind::ALL.len()],
    failures_evicted: [IntCounter; CachedFailureKind::ALL.len()],
    pub(super) suspects: [IntCounter; AnomalyKind::ALL.len()],
    pub(super) entries: IntGauge,
    pub(super) weight: IntGauge,
    pub(super) capacity: IntGauge,
    pub(super) evicted_for_size: IntCounter,
    pub(super) evicted_by_purge: IntCounter,
    pub(super) rejected_for_size: IntCounter,
    newest_processed: IntGauge,
    newest_processed_date: Arc<Mutex<Option<ProcessedDate>>>,
}

/// Why no call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedReason {
    /// The caller alone has as many waiting as can be answered in time.
    Caller,
    /// All callers together have.
    Queue,
    /// It waited for its turn until its time was up.
    Deadline,
    /// It was a refresh behind a stale answer, so nobody waited for it.
    Refresh,
}

/// What is remembered of a fetch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedFailureKind {
    /// It may succeed next time.
    Fault,
    /// There is nothing to be had: no such customer, no relationship, nothing of that date.
    Absence,
    /// There is nothing of a date that is older than the customer's newest.
    PastAbsence,
}

// === impl FailureKind ===

impl CachedFailureKind {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Fault, Self::Absence, Self::PastAbsence];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Absence => "absence",
            Self::PastAbsence => "past-absence",
        }
    }
}

// === impl Shed ===

impl ShedReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Caller, Self::Queue, Self::Deadline, Self::Refresh];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Queue => "queue",
            Self::Deadline => "deadline",
            Self::Refresh => "refresh",
        }
    }
}

// === impl CacheMetrics ===

impl CacheMetrics {
    /// Registers every family, each child at zero.
    ///
    /// # Errors
    ///
    /// When one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let labelled = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let results = labelled(
            "usage_proxy_cache_requests_total",
            "Requests for data by what they found in the cache.",
            "result",
        )?;
        let stale = labelled(
            "usage_proxy_stale_served_total",
            "Stale answers served, by why.",
            "reason",
        )?;
        let evictions = labelled(
            "usage_proxy_cache_evictions_total",
            "Snapshots that left the cache or were too large to enter it, by cause.",
            "cause",
        )?;
        let suspects = labelled(
            "usage_proxy_upstream_suspect_total",
            "Upstream answers that were suspect, so that cached data was served in their place, by reason.",
            "reason",
        )?;
        let shed = labelled(
            "usage_proxy_shed_total",
            "Upstream calls that were not made because too many wait, by why.",
            "reason",
        )?;
        let remembered = IntGaugeVec::new(
            Opts::new(
                "usage_proxy_failures_remembered",
                "Failed fetches that are remembered, by kind.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(remembered.clone()))?;
        let evicted = labelled(
            "usage_proxy_failures_evicted_total",
            "Failed fetches that were forgotten for want of room, by kind.",
            "kind",
        )?;
        Ok(Self {
            cached_failures: CachedFailureKind::ALL
                .map(|kind| remembered.with_label_values(&[kind.as_str()])),
            failures_evicted: CachedFailureKind::ALL
                .map(|kind| evicted.with_label_values(&[kind.as_str()])),
            shed: ShedReason::ALL.map(|reason| shed.with_label_values(&[reason.as_str()])),
            fills_waiting: gauge(
                "usage_proxy_fills_waiting",
                "Of the upstream calls under way, those that wait for their turn.",
            )?,
            suspects: AnomalyKind::ALL
                .map(|suspicion| suspects.with_label_values(&[suspicion.as_str()])),
            results: CacheResult::ALL.map(|result| results.with_label_values(&[result.as_str()])),
            collapsed: counter(
                "usage_proxy_collapsed_total",
                "Requests that waited for another request's upstream call.",
            )?,
            stale_while_revalidate: stale.with_label_values(&["while-revalidate"]),
            stale_if_error: stale.with_label_values(&["if-error"]),
            soft_timeout: stale.with_label_values(&["soft-timeout"]),
            fills_in_flight: gauge(
                "usage_proxy_fills_in_flight",
                "Upstream calls under way to fill the cache.",
            )?,
            entries: gauge("usage_proxy_cache_entries", "Snapshots held.")?,
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
            newest_processed_date: Arc::default(),
        })
    }

    /// Counts a request.
    pub fn record_request(&self, result: CacheResult) {
        if let Some(counter) = self.results.get(result as usize) {
            counter.inc();
        }
    }

    /// Counts a call that was not made.
    pub fn record_shed(&self, reason: ShedReason) {
        if let Some(counter) = self.shed.get(reason as usize) {
            counter.inc();
        }
    }

    /// How many calls were not made for this reason.
    #[cfg(test)]
    pub(crate) fn shed_count(&self, reason: ShedReason) -> u64 {
        self.shed.get(reason as usize).map_or(0, IntCounter::get)
    }

    pub(super) fn set_cached_failures(&self, kind: CachedFailureKind, count: u64) {
        if let Some(remembered) = self.cached_failures.get(kind as usize) {
            remembered.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The counter of failures of this kind that were forgotten for want of room.
    pub(super) fn failures_evicted(&self, kind: CachedFailureKind) -> &IntCounter {
        let [faults, absences, past_absences] = &self.failures_evicted;
        match kind {
            CachedFailureKind::Fault => faults,
            CachedFailureKind::Absence => absences,
            CachedFailureKind::PastAbsence => past_absences,
        }
    }

    /// Counts an answer that was doubted.
    pub(super) fn record_suspect(&self, suspicion: AnomalyKind) {
        if let Some(counter) = self.suspects.get(suspicion as usize) {
            counter.inc();
        }
    }

    /// Hits, of all usage requests so far; `None` before the first.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let count =
            |result: CacheResult| self.results.get(result as usize).map_or(0, IntCounter::get);
        let all: u64 = CacheResult::ALL.into_iter().map(count).sum();
        let served = count(CacheResult::Hit) + count(CacheResult::Stale);
        (all > 0).then(|| served as f64 / all as f64)
    }

    pub(super) fn observe_processed_date(&self, date: ProcessedDate) {
        let mut newest = self
            .newest_processed_date
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if newest.is_none_or(|before| before < date) {
            *newest = Some(date);
            self.newest_processed.set(date.start().as_second());
        }
    }

    pub(super) fn newest_processed_date(&self) -> Option<ProcessedDate> {
        *self
            .newest_processed_date
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
