//! The metrics of the API listener.

use std::{collections::HashMap, time::Duration};

use http::{Method, StatusCode};
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, histogram_opts,
    register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_with_registry,
};
use strum::{EnumCount as _, VariantArray as _};

use super::{
    authentication::AuthenticationError,
    route::{Route, RouteTable},
};
use crate::{cache::CacheResult, panic};

/// The metrics of the API listener. The children that requests use are resolved once, here.
#[derive(Clone, Debug)]
pub(super) struct ApiMetrics {
    requests: IntCounterVec,
    /// By route, method and status; `None` for unexpected combinations.
    known_requests: Vec<Option<IntCounter>>,
    durations: HistogramVec,
    /// By route and result; `None` for unexpected combinations.
    known_durations: Vec<Option<Histogram>>,
    served_age: Histogram,
    in_flight: IntGauge,
    pub(super) panics: IntCounter,
    pub(super) access: AccessMetrics,
}

/// The metrics of rejected callers.
#[derive(Clone, Debug)]
pub(super) struct AccessMetrics {
    /// By reason.
    unauthenticated: HashMap<&'static str, IntCounter>,
    /// Requests for usage that the caller may not read.
    pub(super) not_allowed: IntCounter,
    /// Requests beyond the caller's rate.
    pub(super) rate_limited: IntCounter,
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(IntGauge);

/// The values of the `method` label; the last one is for all other methods.
const METHODS: [&str; 3] = ["GET", "HEAD", "other"];

/// The expected statuses.
const STATUSES: [u16; 15] = [
    200, 204, 304, 400, 401, 403, 404, 405, 406, 429, 499, 500, 502, 503, 504,
];

/// The number of values of the `cache` label: each result, and one for requests without any.
const CACHE_LABELS: usize = CacheResult::COUNT + 1;

/// The value for requests that did not use the cache.
const NO_CACHE_RESULT: &str = "none";

/// Upper bounds in seconds, from a hit to a call that takes until its deadline.
const DURATION_BUCKETS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds in seconds: within an hour for fresh answers and those that are being refreshed, up to
/// a week for stale ones while Partner Center fails.
const AGE_BUCKETS: [f64; 11] = [
    60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0,
    604_800.0,
];

// === impl ApiMetrics ===

impl ApiMetrics {
    /// Registers the metrics, each child at zero.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub(super) fn new(registry: &Registry, routes: &RouteTable) -> prometheus::Result<Self> {
        let requests = register_int_counter_vec_with_registry!(
            "usage_proxy_http_requests_total",
            "Requests answered on the API listener.",
            &["route", "method", "status"],
            registry
        )?;
        let durations = register_histogram_vec_with_registry!(
            "usage_proxy_http_request_duration_seconds",
            "Time from the arrival of a request's head until its answer is ready to be sent.",
            &["route", "cache"],
            DURATION_BUCKETS.to_vec(),
            registry
        )?;
        let mut known_requests = Vec::new();
        let mut known_durations = Vec::new();
        for route in routes.iter() {
            let pattern = route.pattern;
            for method in METHODS {
                for status in STATUSES {
                    known_requests.push(is_expected(route, method, status).then(|| {
                        requests.with_label_values(&[pattern, method, &status.to_string()])
                    }));
                }
            }
            for result in CacheResult::VARIANTS {
                let known = || durations.with_label_values(&[pattern, result.as_str()]);
                known_durations.push(route.exposes_data().then(known));
            }
            known_durations.push(Some(
                durations.with_label_values(&[pattern, NO_CACHE_RESULT]),
            ));
        }
        Ok(Self {
            requests,
            known_requests,
            durations,
            known_durations,
            served_age: register_histogram_with_registry!(
                histogram_opts!(
                    "usage_proxy_served_age_seconds",
                    "Age of the served usage: the time since Partner Center last confirmed it.",
                    AGE_BUCKETS.to_vec()
                ),
                registry
            )?,
            in_flight: register_int_gauge_with_registry!(
                "usage_proxy_http_requests_in_flight",
                "Requests being answered on the API listener.",
                registry
            )?,
            panics: panic::register_counter(registry, "api")?,
            access: AccessMetrics::new(registry)?,
        })
    }

    pub(super) fn start_request(&self) -> InFlightGuard {
        self.in_flight.inc();
        InFlightGuard(self.in_flight.clone())
    }

    /// Records the age of a served answer.
    pub(super) fn record_served_age(&self, age: Duration) {
        self.served_age.observe(age.as_secs_f64());
    }

    pub(super) fn record_request(
        &self,
        route: Route,
        method: &Method,
        status: StatusCode,
        result: Option<CacheResult>,
        took: Duration,
    ) {
        self.count(route, method, status);
        let index = result.map_or(CACHE_LABELS - 1, |result| result as usize);
        let seconds = took.as_secs_f64();
        match self.known_durations.get(route.index * CACHE_LABELS + index) {
            Some(Some(histogram)) => histogram.observe(seconds),
            _ => {
                let result = result.map_or(NO_CACHE_RESULT, CacheResult::as_str);
                self.durations
                    .with_label_values(&[route.pattern, result])
                    .observe(seconds);
            }
        }
    }

    fn count(&self, route: Route, method: &Method, status: StatusCode) {
        let method_index = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            _ => 2,
        };
        let known = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .map(|at| (route.index * METHODS.len() + method_index) * STATUSES.len() + at)
            .and_then(|at| self.known_requests.get(at)?.as_ref());
        match known {
            Some(counter) => counter.inc(),
            None => {
                let method = METHODS.get(method_index).copied().unwrap_or("other");
                self.requests
                    .with_label_values(&[route.pattern, method, status.as_str()])
                    .inc();
            }
        }
    }
}

/// Returns true for combinations that are counted from zero; others appear when they happen.
fn is_expected(route: Route, method: &str, status: u16) -> bool {
    let reads = method != "other";
    match status {
        200 | 304 => reads && !route.is_unmatched(),
        // A preflight, which belongs to no route.
        204 => !reads && route.is_unmatched(),
        405 => !reads && !route.is_unmatched(),
        406 | 502 | 504 => reads && route.exposes_data(),
        _ => true,
    }
}

// === impl AccessMetrics ===

impl AccessMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let unauthenticated = register_int_counter_vec_with_registry!(
            "usage_proxy_authentication_failures_total",
            "API requests from unidentified callers, by reason.",
            &["reason"],
            registry
        )?;
        Ok(Self {
            unauthenticated: AuthenticationError::reasons()
                .map(|reason| (reason, unauthenticated.with_label_values(&[reason])))
                .collect(),
            not_allowed: register_int_counter_with_registry!(
                "usage_proxy_authorization_denied_total",
                "API requests for usage that the caller may not read.",
                registry
            )?,
            rate_limited: register_int_counter_with_registry!(
                "usage_proxy_rate_limited_total",
                "API requests beyond the caller's rate.",
                registry
            )?,
        })
    }

    pub(super) fn record_denied(&self, denied: AuthenticationError) {
        if let Some(counter) = self.unauthenticated.get(denied.reason()) {
            counter.inc();
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::router;

    #[test]
    fn a_request_is_counted_under_its_own_labels() {
        let metrics = ApiMetrics::new(&Registry::new(), &router::table()).unwrap();
        let (route, _) = router::table().find("/v1/customers/x/analytics/licenses/usage");

        for status in [StatusCode::OK, StatusCode::IM_A_TEAPOT] {
            metrics.record_request(
                route,
                &Method::HEAD,
                status,
                Some(CacheResult::Negative),
                Duration::ZERO,
            );
        }

        for status in ["200", "418"] {
            let counted = metrics
                .requests
                .with_label_values(&[route.pattern, "HEAD", status])
                .get();
            assert_eq!(counted, 1, "{status}");
        }
        let pattern = route.pattern;
        let observed = metrics
            .durations
            .with_label_values(&[pattern, "negative"])
            .get_sample_count();
        assert_eq!(observed, 2);
    }

    #[test]
    fn unexpected_label_combinations_are_counted() {
        let metrics = ApiMetrics::new(&Registry::new(), &router::table()).unwrap();
        let (route, _) = router::table().find("/docs");

        metrics.record_request(
            route,
            &Method::GET,
            StatusCode::BAD_GATEWAY,
            Some(CacheResult::Hit),
            Duration::ZERO,
        );

        let counted = ["/docs", "GET", "502"];
        assert_eq!(metrics.requests.with_label_values(&counted).get(), 1);
        let observed = metrics.durations.with_label_values(&["/docs", "hit"]);
        assert_eq!(observed.get_sample_count(), 1);
    }

    #[test]
    fn no_series_exists_for_impossible_label_combinations() {
        let registry = Registry::new();
        let _metrics = ApiMetrics::new(&registry, &router::table()).unwrap();

        let families = registry.gather();

        let labels = |name: &str| -> Vec<Vec<String>> {
            let family = families.iter().find(|family| family.name() == name);
            let series = family.unwrap().get_metric().iter();
            series
                .map(|one| {
                    one.get_label()
                        .iter()
                        .map(|it| it.value().to_owned())
                        .collect()
                })
                .collect()
        };
        let durations = labels("usage_proxy_http_request_duration_seconds");
        let of = |route: &str| {
            let route = route.to_owned();
            durations
                .iter()
                .filter(|labels| labels.contains(&route))
                .count()
        };
        assert_eq!(of("/v1/customers"), CACHE_LABELS);
        for route in [
            "/docs",
            "/docs/{file}",
            "/assets/{file}",
            "/openapi.json",
            "unmatched",
        ] {
            assert_eq!(of(route), 1, "{route}");
        }
        let requests = labels("usage_proxy_http_requests_total");
        let has = |labels: [&str; 3]| requests.contains(&labels.map(str::to_owned).to_vec());
        // Labels are in the order of their names: method, route, status.
        assert!(has(["GET", "/v1/customers", "504"]));
        assert!(has(["other", "unmatched", "204"]));
        assert!(!has(["GET", "/docs", "504"]));
        assert!(!has(["GET", "/v1/customers", "204"]));
    }
}
