//! What is counted and measured about Partner Center and its token endpoint.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{
    Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, histogram_opts,
    register_gauge_with_registry, register_histogram_vec_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_with_registry,
};

use strum::{EnumIter, IntoEnumIterator as _, IntoStaticStr};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub(super) enum StatusClass {
    /// 200 to 299.
    #[strum(serialize = "2xx")]
    Success,
    /// 300 to 399.
    #[strum(serialize = "3xx")]
    Redirect,
    /// 400 to 499.
    #[strum(serialize = "4xx")]
    Client,
    /// 500 to 599, and what no class has.
    #[strum(serialize = "5xx")]
    Server,
    /// No whole answer: connection, timeout, body.
    #[strum(serialize = "error")]
    Error,
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum RefreshResult {
    /// A token came.
    Success,
    /// A passing fault.
    Unavailable,
    /// The credentials were refused: a person must act.
    Refused,
}

/// The kind of failure that ended a call, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum ErrorClass {
    /// No connection, or one that broke.
    Connection,
    /// An attempt had no answer in time.
    Timeout,
    /// The call's time ran out before its turn came.
    Deadline,
    /// 429, told to this call or to another.
    Throttled,
    /// Not made, since others had failed.
    CircuitOpen,
    /// 408 or 5xx.
    ServerFault,
    /// 401: the access token is refused.
    Unauthorized,
    /// 900421: the token carries no multi-factor proof.
    ProofMissing,
    /// 900420: the token is for another audience.
    WrongAudience,
    /// 403 with a code that is about our credentials.
    AccessDenied,
    /// 403 with a code that says so.
    NoRelationship,
    /// 404 with a code that says so.
    UnknownCustomer,
    /// 403 or 404 with any other code, or with none.
    Unrecognized,
    /// 3xx.
    Redirect,
    /// Any other status: the request was wrong.
    Rejected,
    /// A 200 that is not what its schema promises, or too large.
    Malformed,
    /// A 200 that was not read, since other answers take the memory for it.
    OutOfMemory,
    /// A 200 that tells of another customer than the one asked for.
    OtherCustomer,
    /// A sound answer without the date asked for.
    NothingProcessed,
    /// No access token, by a passing fault.
    TokenUnavailable,
    /// No access token, until a person has acted.
    TokenRefused,
    /// The process is ending.
    Interrupted,
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
            requests: register_int_counter_vec_with_registry!(
                "usage_proxy_upstream_requests_total",
                "HTTP requests to Partner Center that ended, by call, class of status (error: no \
                 whole answer) and Partner Center's own error code",
                &["api", "status_class", "code"],
                registry
            )?,
            duration: register_histogram_vec_with_registry!(
                histogram_opts!(
                    "usage_proxy_upstream_request_duration_seconds",
                    "Seconds from sending an HTTP request to Partner Center to the last byte of its \
                     answer, or until it is given up",
                    vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
                ),
                &["api"],
                registry
            )?,
            errors: register_int_counter_vec_with_registry!(
                "usage_proxy_upstream_errors_total",
                "Logical calls to Partner Center, over all their attempts, that brought nothing, \
                 by what ended them",
                &["api", "class"],
                registry
            )?,
            retries: register_int_counter_vec_with_registry!(
                "usage_proxy_upstream_retries_total",
                "HTTP requests to Partner Center that were sent again, by what had gone wrong",
                &["reason"],
                registry
            )?,
            throttled_until: register_gauge_with_registry!(
                "usage_proxy_upstream_throttled_until_timestamp_seconds",
                "Unix time until which Partner Center asked for no more requests, the latest over \
                 its calls; 0 when it never did",
                registry
            )?,
            token_refresh: register_int_counter_vec_with_registry!(
                "usage_proxy_token_refresh_total",
                "Attempts at a new access token, by result (refused: a person must act)",
                &["result"],
                registry
            )?,
            token_expiry: register_gauge_with_registry!(
                "usage_proxy_token_expiry_timestamp_seconds",
                "Unix time at which the held access token expires; 0 when none is held or its end \
                 is not known",
                registry
            )?,
            refresh_token_issued: register_gauge_with_registry!(
                "usage_proxy_refresh_token_issued_timestamp_seconds",
                "Unix time since which the held refresh token is known, from its file's \
                 modification or its rotation; unused for 90 days it dies; 0 when there is none",
                registry
            )?,
            refresh_token_unsaved: register_int_gauge_with_registry!(
                "usage_proxy_refresh_token_unsaved",
                "1 while a rotated refresh token could not be written to its file: a restart would \
                 lose it",
                registry
            )?,
            client_certificate_expiry: register_int_gauge_with_registry!(
                "usage_proxy_upstream_client_certificate_expiry_timestamp_seconds",
                "Unix time at which the certificate expires that the application proves itself \
                 with, as of the last redemption; 0 where it uses none",
                registry
            )?,
            mfa_compliant: register_int_gauge_with_registry!(
                "usage_proxy_upstream_mfa_compliant",
                "1 when Partner Center last said that the access token carries multi-factor proof, \
                 0 when it said that it does not, -1 until it says either",
                registry
            )?,
            tenant_mismatches: register_int_counter_with_registry!(
                "usage_proxy_tenant_mismatch_total",
                "Answers of Partner Center that told of another customer than the one asked for; \
                 they are refused whole",
                registry
            )?,
            contradictions: register_int_counter_with_registry!(
                "usage_proxy_upstream_contradictions_total",
                "Rows of Partner Center that were left out because another row for the same \
                 product, workload and instant had larger counts",
                registry
            )?,
        };
        metrics.touch();
        Ok(metrics)
    }

    fn touch(&self) {
        for api in UpstreamApi::ALL {
            let api = api.as_str();
            for class in StatusClass::iter() {
                let codes: &[&str] = match class {
                    StatusClass::Client => &KNOWN_CODES,
                    _ => &[],
                };
                for code in codes.iter().chain(class.unknown_codes()) {
                    self.requests.with_label_values(&[api, class.into(), code]);
                }
            }
            self.duration.with_label_values(&[api]);
            for class in ErrorClass::iter() {
                self.errors.with_label_values(&[api, class.into()]);
            }
        }
        for reason in RetryReason::iter() {
            self.retries.with_label_values::<&str>(&[reason.into()]);
        }
        for result in RefreshResult::iter() {
            self.token_refresh
                .with_label_values::<&str>(&[result.into()]);
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
            .with_label_values(&[api, class.into(), class.code_label(code)])
            .inc();
        self.duration
            .with_label_values(&[api])
            .observe(took.as_secs_f64());
    }

    /// Counts one logical call that brought no usage.
    pub(super) fn call_failed(&self, api: UpstreamApi, class: ErrorClass) {
        self.errors
            .with_label_values(&[api.as_str(), class.into()])
            .inc();
    }

    /// Counts one HTTP request that is about to be sent again.
    pub(super) fn retried(&self, reason: RetryReason) {
        self.retries
            .with_label_values::<&str>(&[reason.into()])
            .inc();
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
            .with_label_values::<&str>(&[result.into()])
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
    /// The class of a status code.
    pub(super) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            _ => Self::Server,
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
