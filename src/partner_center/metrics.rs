//! What is counted and measured about Partner Center and its token endpoint.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{
    Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
    histogram_opts,
};

use super::error_class::ErrorClass;
use crate::domain::UpstreamApi;

/// Upstream metrics, registered once per process; every child exists from the start, so that zero
/// differs from absent.
#[derive(Clone, Debug)]
pub(super) struct UpstreamMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    throttled_until: Gauge,
    token_refresh: IntCounterVec,
    token_expiry: Gauge,
    refresh_token_issued: Gauge,
    refresh_token_unsaved: IntGauge,
    client_certificate_expiry: IntGauge,
    mfa_compliant: IntGauge,
    pub(super) tenant_mismatches: IntCounter,
    pub(super) contradictions: IntCounter,
}

/// How one HTTP request ended, as far as a label may tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusClass {
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirect,
    /// 400 to 499.
    Client,
    /// 500 to 599, and what no class has.
    Server,
    /// No whole answer: connection, timeout, body.
    Error,
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryReason {
    /// 408, 500, 502, 503 or 504.
    Status,
    /// The connection could not be made, or broke, in mid-body too.
    Connection,
    /// The attempt took too long.
    Timeout,
    /// 429.
    Throttled,
    /// 401, and a fresh token may help.
    Unauthorized,
}

/// How one attempt at an access token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshResult {
    /// A token came.
    Success,
    /// A passing fault.
    Unavailable,
    /// The credentials were refused: a person must act.
    Refused,
}

/// Codes of Partner Center that stand in a label by themselves; any other is `other`, and no code
/// at all is `none`.
const KNOWN_CODES: [&str; 16] = [
    "400", "1000", "2032", "2100", "3000", "20002", "60003", "90000", "800001", "800002", "900308",
    "900309", "900329", "900416", "900420", "900421",
];
const NO_CODE: &str = "none";
const OTHER_CODE: &str = "other";

// === impl Metrics ===

impl UpstreamMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: counters(
                registry,
                "usage_proxy_upstream_requests_total",
                "HTTP requests to Partner Center that ended, by call, class of status (error: no \
                 whole answer) and Partner Center's own error code",
                &["api", "status_class", "code"],
            )?,
            duration: registered(
                registry,
                HistogramVec::new(
                    histogram_opts!(
                        "usage_proxy_upstream_request_duration_seconds",
                        "Seconds from sending an HTTP request to Partner Center to the last byte \
                         of its answer, or to giving it up",
                        vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
                    ),
                    &["api"],
                )?,
            )?,
            errors: counters(
                registry,
                "usage_proxy_upstream_errors_total",
                "Logical calls to Partner Center, over all their attempts, that brought nothing, \
                 by what ended them",
                &["api", "class"],
            )?,
            retries: counters(
                registry,
                "usage_proxy_upstream_retries_total",
                "HTTP requests to Partner Center that were sent again, by what had gone wrong",
                &["reason"],
            )?,
            throttled_until: gauge(
                registry,
                "usage_proxy_upstream_throttled_until_timestamp_seconds",
                "Unix time until which Partner Center asked for no more requests, the latest over \
                 its calls; 0 when it never did",
            )?,
            token_refresh: counters(
                registry,
                "usage_proxy_token_refresh_total",
                "Attempts at a new access token, by result (refused: a person must act)",
                &["result"],
            )?,
            token_expiry: gauge(
                registry,
                "usage_proxy_token_expiry_timestamp_seconds",
                "Unix time at which the held access token expires; 0 when none is held or its end \
                 is not known",
            )?,
            refresh_token_issued: gauge(
                registry,
                "usage_proxy_refresh_token_issued_timestamp_seconds",
                "Unix time since which the held refresh token is known, from its file's \
                 modification or its rotation; unused for 90 days it dies; 0 when there is none",
            )?,
            refresh_token_unsaved: int_gauge(
                registry,
                "usage_proxy_refresh_token_unsaved",
                "1 while a rotated refresh token could not be written to its file: a restart would \
                 lose it",
            )?,
            client_certificate_expiry: int_gauge(
                registry,
                "usage_proxy_upstream_client_certificate_expiry_timestamp_seconds",
                "Unix time at which the certificate expires that the application proves itself \
                 with, as of the last redemption; 0 where it uses none",
            )?,
            mfa_compliant: int_gauge(
                registry,
                "usage_proxy_upstream_mfa_compliant",
                "1 when Partner Center last said that the access token carries multi-factor proof, \
                 0 when it said that it does not, -1 until it says either",
            )?,
            tenant_mismatches: IntCounter::new(
                "usage_proxy_tenant_mismatch_total",
                "Answers of Partner Center that told of another customer than the one asked for; \
                 they are refused whole",
            )?,
            contradictions: IntCounter::new(
                "usage_proxy_upstream_contradictions_total",
                "Rows of Partner Center that were left out because another row for the same \
                 product, workload and instant had larger counts",
            )?,
        };
        registry.register(Box::new(metrics.tenant_mismatches.clone()))?;
        registry.register(Box::new(metrics.contradictions.clone()))?;
        metrics.touch();
        Ok(metrics)
    }

    fn touch(&self) {
        for api in UpstreamApi::ALL {
            let api = api.as_str();
            for class in StatusClass::ALL {
                let codes: &[&str] = match class {
                    StatusClass::Client => &KNOWN_CODES,
                    _ => &[],
                };
                for code in codes.iter().chain(class.unknown_codes()) {
                    self.requests
                        .with_label_values(&[api, class.as_str(), code]);
                }
            }
            self.duration.with_label_values(&[api]);
            for class in ErrorClass::ALL {
                self.errors.with_label_values(&[api, class.as_str()]);
            }
        }
        for reason in RetryReason::ALL {
            self.retries.with_label_values(&[reason.as_str()]);
        }
        for result in RefreshResult::ALL {
            self.token_refresh.with_label_values(&[result.as_str()]);
        }
        self.mfa_unknown();
    }

    /// Counts one HTTP request and the time it took.
    pub(super) fn request_ended(
        &self,
        api: UpstreamApi,
        class: StatusClass,
        code: Option<&str>,
        took: Duration,
    ) {
        let api = api.as_str();
        self.requests
            .with_label_values(&[api, class.as_str(), class.code_label(code)])
            .inc();
        self.duration
            .with_label_values(&[api])
            .observe(took.as_secs_f64());
    }

    /// Counts one logical call that brought no usage.
    pub(super) fn call_failed(&self, api: UpstreamApi, class: ErrorClass) {
        self.errors
            .with_label_values(&[api.as_str(), class.as_str()])
            .inc();
    }

    /// Counts one HTTP request that is about to be sent again.
    pub(super) fn retried(&self, reason: RetryReason) {
        self.retries.with_label_values(&[reason.as_str()]).inc();
    }

    /// Says until when Partner Center wants no more requests.
    pub(super) fn throttled_until(&self, until: Timestamp) {
        let until = unix_seconds(until);
        self.throttled_until
            .set(until.max(self.throttled_until.get()));
    }

    /// Counts one attempt at an access token.
    pub(super) fn token_refreshed(&self, result: RefreshResult) {
        self.token_refresh
            .with_label_values(&[result.as_str()])
            .inc();
    }

    /// Says when the held access token expires; `None` where that is not known.
    pub(super) fn token_expires(&self, at: Option<Timestamp>) {
        self.token_expiry.set(at.map_or(0.0, unix_seconds));
    }

    /// Says since when the held refresh token is known.
    pub(super) fn refresh_token_issued(&self, at: Timestamp) {
        self.refresh_token_issued.set(unix_seconds(at));
    }

    /// Says whether a rotated refresh token is held in memory alone.
    pub(super) fn refresh_token_unsaved(&self, unsaved: bool) {
        self.refresh_token_unsaved.set(i64::from(unsaved));
    }

    /// Says when the certificate that the application proves itself with expires, in Unix time;
    /// `None` where there is none.
    pub(super) fn client_certificate_expires(&self, at: Option<i64>) {
        self.client_certificate_expiry.set(at.unwrap_or(0));
    }

    /// Says what Partner Center thinks of the access token's multi-factor proof.
    pub(super) fn mfa_compliant(&self, compliant: bool) {
        self.mfa_compliant.set(i64::from(compliant));
    }

    /// Says that nobody has said what Partner Center thinks of it.
    pub(super) fn mfa_unknown(&self) {
        self.mfa_compliant.set(-1);
    }
}

// === impl StatusClass ===

impl StatusClass {
    const ALL: [Self; 5] = [
        Self::Success,
        Self::Redirect,
        Self::Client,
        Self::Server,
        Self::Error,
    ];

    /// The class of a status code.
    pub(super) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            _ => Self::Server,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::Client => "4xx",
            Self::Server => "5xx",
            Self::Error => "error",
        }
    }

    /// What `code` may say beside the known ones.
    const fn unknown_codes(self) -> &'static [&'static str] {
        match self {
            Self::Client | Self::Server => &[NO_CODE, OTHER_CODE],
            Self::Success | Self::Redirect | Self::Error => &[NO_CODE],
        }
    }

    fn code_label(self, code: Option<&str>) -> &'static str {
        match (self, code) {
            (Self::Client, Some(code)) => KNOWN_CODES
                .into_iter()
                .find(|known| *known == code)
                .unwrap_or(OTHER_CODE),
            (Self::Server, Some(_)) => OTHER_CODE,
            _ => NO_CODE,
        }
    }
}

// === impl RetryReason ===

impl RetryReason {
    const ALL: [Self; 5] = [
        Self::Status,
        Self::Connection,
        Self::Timeout,
        Self::Throttled,
        Self::Unauthorized,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
        }
    }
}

// === impl RefreshResult ===

impl RefreshResult {
    const ALL: [Self; 3] = [Self::Success, Self::Unavailable, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registered(registry, Gauge::new(name, help)?)
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn unix_seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_child_exists_before_anything_happens() {
        let registry = Registry::new();

        UpstreamMetrics::register(&registry).unwrap();

        let families = registry.gather();
        assert_eq!(families.len(), 13);
        for family in families {
            assert!(
                family.name().starts_with("usage_proxy_"),
                "{}",
                family.name()
            );
            assert!(!family.get_metric().is_empty(), "{}", family.name());
        }
    }

    #[test]
    fn a_code_that_nobody_knows_makes_no_label_of_its_own() {
        assert_eq!(StatusClass::Client.code_label(Some("900421")), "900421");
        assert_eq!(StatusClass::Client.code_label(Some("; drop")), "other");
        assert_eq!(StatusClass::Server.code_label(Some("900421")), "other");
        assert_eq!(StatusClass::Client.code_label(None), "none");
    }
}
