//! Metrics of Partner Center and its token endpoint.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{
    Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    histogram_opts, register_gauge_with_registry, register_histogram_vec_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};
use strum::{EnumIter, IntoEnumIterator as _, IntoStaticStr};

use crate::{domain::UpstreamApi, resilience::circuit_breaker::CircuitState};

/// The metrics of Partner Center and its token endpoint. Every child exists from the start, so that
/// zero differs from absent.
#[derive(Clone, Debug)]
pub(super) struct UpstreamMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    throttled_until: IntGauge,
    circuit_state: IntGaugeVec,
    pub(super) retry_budget: Gauge,
    token_refresh: IntCounterVec,
    pub(super) token_expiry: IntGauge,
    pub(super) refresh_token_issued: IntGauge,
    pub(super) refresh_token_unsaved: IntGauge,
    pub(super) client_certificate_expiry: IntGauge,
    pub(super) refused_by_token_endpoint: IntGauge,
    pub(super) refused_by_partner_center: IntGauge,
    pub(super) mfa_compliant: IntGauge,
    pub(super) tenant_mismatches: IntCounter,
    pub(super) contradictions: IntCounter,
}

/// The outcome of one HTTP request, as a metric label.
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
    /// 500 to 599, and statuses of no class.
    #[strum(serialize = "5xx")]
    Server,
    /// No whole reply: connection, timeout, body.
    #[strum(serialize = "error")]
    Error,
}

/// The reason why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum RetryReason {
    /// 408, 500, 502, 503 or 504.
    Status,
    /// There was no connection, or it broke.
    Connection,
    /// The attempt took too long.
    Timeout,
    /// 429.
    Throttled,
    /// 401, and a fresh token may help.
    Unauthorized,
}

/// The result of one attempt to get an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum RefreshResult {
    /// There is a new token.
    Success,
    /// A transient error.
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
    /// The deadline of the call passed before it was sent.
    Deadline,
    /// 429, for this call or another.
    Throttled,
    /// The call was not made, since others had failed.
    CircuitOpen,
    /// 408 or 5xx.
    ServerFault,
    /// 401: the access token is rejected.
    Unauthorized,
    /// 900421: the token carries no multi-factor proof.
    ProofMissing,
    /// 900420: the token is for another audience.
    WrongAudience,
    /// 403 with a code that is about our credentials.
    AccessDenied,
    /// 403 with a code for exactly that.
    NoRelationship,
    /// 404 with a code for exactly that.
    UnknownCustomer,
    /// 403 or 404 with any other code, or with none.
    Unrecognized,
    /// 3xx.
    Redirect,
    /// Any other status: the request was wrong.
    Rejected,
    /// A 200 that does not match its schema, or is too large.
    Malformed,
    /// A 200 that was not read, since other answers take the memory.
    OutOfMemory,
    /// A 200 with a row of another customer than the one asked for.
    OtherCustomer,
    /// A valid answer without the date asked for.
    NothingProcessed,
    /// No access token, because of a transient error.
    TokenUnavailable,
    /// No access token, until a person has acted.
    TokenRefused,
    /// The process is ending.
    Interrupted,
}

/// The codes of Partner Center that are labels. Any other code is `other`, and a reply without one is
/// `none`.
const KNOWN_CODES: [&str; 16] = [
    "400", "1000", "2032", "2100", "3000", "20002", "60003", "90000", "800001", "800002", "900308",
    "900309", "900329", "900416", "900420", "900421",
];
const NO_CODE: &str = "none";
const OTHER_CODE: &str = "other";

/// The value of `mfa_compliant` until Partner Center says something.
pub(super) const MFA_UNKNOWN: i64 = -1;

// === impl UpstreamMetrics ===

impl UpstreamMetrics {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    ///
    /// If a metric of the same name is registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = register_int_gauge_vec_with_registry!(
            "usage_proxy_credentials_refused",
            "1 while a person must act (token-endpoint: no access token is issued for these \
             credentials; partner-center: it refuses the access token that came)",
            &["refuser"],
            registry
        )?;
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
                "Logical calls to Partner Center, over all their attempts, that returned no data, \
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
            throttled_until: register_int_gauge_with_registry!(
                "usage_proxy_upstream_throttled_until_timestamp_seconds",
                "Unix time until which Partner Center asked for no more requests, the latest over \
                 its calls; 0 when it never did",
                registry
            )?,
            circuit_state: register_int_gauge_vec_with_registry!(
                "usage_proxy_circuit_state",
                "1 for the state that a call's circuit is in (closed: calls pass; open: they are \
                 refused; half-open: one may probe), 0 for the others",
                &["api", "state"],
                registry
            )?,
            retry_budget: register_gauge_with_registry!(
                "usage_proxy_retry_budget_remaining_ratio",
                "Share of the retries allowed to all calls together within a minute that is left",
                registry
            )?,
            token_refresh: register_int_counter_vec_with_registry!(
                "usage_proxy_token_refresh_total",
                "Attempts at a new access token, by result (refused: a person must act)",
                &["result"],
                registry
            )?,
            token_expiry: register_int_gauge_with_registry!(
                "usage_proxy_token_expiry_timestamp_seconds",
                "Unix time at which the current access token expires; 0 when there is none or its \
                 end is not known",
                registry
            )?,
            refresh_token_issued: register_int_gauge_with_registry!(
                "usage_proxy_refresh_token_issued_timestamp_seconds",
                "Unix time since which the current refresh token is known, from its file's \
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
            refused_by_token_endpoint: refused.with_label_values(&["token-endpoint"]),
            refused_by_partner_center: refused.with_label_values(&["partner-center"]),
            mfa_compliant: register_int_gauge_with_registry!(
                "usage_proxy_upstream_mfa_compliant",
                "1 when Partner Center last said that the access token carries multi-factor proof, \
                 0 when it said that it does not, -1 until it says either",
                registry
            )?,
            tenant_mismatches: register_int_counter_with_registry!(
                "usage_proxy_tenant_mismatch_total",
                "Answers of Partner Center with rows of another customer than the one asked for; \
                 they are rejected whole",
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
            for class in StatusClass::iter() {
                let codes: &[&str] = match class {
                    StatusClass::Client => &KNOWN_CODES,
                    _ => &[],
                };
                for code in codes.iter().chain(class.unknown_codes()) {
                    self.requests
                        .with_label_values(&[api.as_str(), class.into(), code]);
                }
            }
            self.duration.with_label_values(&[api.as_str()]);
            for class in ErrorClass::iter() {
                self.errors.with_label_values(&[api.as_str(), class.into()]);
            }
            self.set_circuit_state(api, CircuitState::Closed);
        }
        for reason in RetryReason::iter() {
            self.retries.with_label_values::<&str>(&[reason.into()]);
        }
        for result in RefreshResult::iter() {
            self.token_refresh
                .with_label_values::<&str>(&[result.into()]);
        }
        self.mfa_compliant.set(MFA_UNKNOWN);
    }

    /// Records one HTTP request.
    pub(super) fn record_request(
        &self,
        api: UpstreamApi,
        class: StatusClass,
        code: Option<&str>,
        took: Duration,
    ) {
        self.requests
            .with_label_values(&[api.as_str(), class.into(), class.code_label(code)])
            .inc();
        self.duration
            .with_label_values(&[api.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Records one failed logical call.
    pub(super) fn record_error(&self, api: UpstreamApi, class: ErrorClass) {
        self.errors
            .with_label_values(&[api.as_str(), class.into()])
            .inc();
    }

    /// Records one retry.
    pub(super) fn record_retry(&self, reason: RetryReason) {
        self.retries
            .with_label_values::<&str>(&[reason.into()])
            .inc();
    }

    /// Records a pause that Partner Center asked for.
    pub(super) fn record_throttle(&self, until: Timestamp) {
        let latest = until.as_second().max(self.throttled_until.get());
        self.throttled_until.set(latest);
    }

    /// Records one attempt to get an access token.
    pub(super) fn record_refresh(&self, result: RefreshResult) {
        self.token_refresh
            .with_label_values::<&str>(&[result.into()])
            .inc();
    }

    pub(super) fn set_circuit_state(&self, api: UpstreamApi, current: CircuitState) {
        for state in CircuitState::iter() {
            self.circuit_state
                .with_label_values(&[api.as_str(), state.into()])
                .set(i64::from(state == current));
        }
    }
}

// === impl StatusClass ===

impl StatusClass {
    /// Returns the class of a status.
    pub(super) const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            _ => Self::Server,
        }
    }

    /// The values of `code` besides the known ones.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_child_exists_before_anything_happens() {
        let registry = Registry::new();

        UpstreamMetrics::register(&registry).unwrap();

        let families = registry.gather();
        assert_eq!(families.len(), 16);
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
    fn an_unknown_code_has_no_label_of_its_own() {
        assert_eq!(StatusClass::Client.code_label(Some("900421")), "900421");
        assert_eq!(StatusClass::Client.code_label(Some("; drop")), "other");
        assert_eq!(StatusClass::Server.code_label(Some("900421")), "other");
        assert_eq!(StatusClass::Client.code_label(None), "none");
    }
}
