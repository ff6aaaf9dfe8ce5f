//! `/metrics`: every family from the start, and counters that move as the traffic says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use usage_proxy::simulator::{
    CustomerOverride, Faults, NO_RELATIONSHIP_CUSTOMER, SimulatedApi, SimulatedRow,
};
use uuid::Uuid;

use crate::support::{DOCUMENTED, START, TestApp, customer};

const SECOND: Duration = Duration::from_secs(1);

/// Every family of the contract and its type.
const FAMILIES: [(&str, &str); 62] = [
    ("usage_proxy_http_requests_total", "counter"),
    ("usage_proxy_http_request_duration_seconds", "histogram"),
    ("usage_proxy_http_requests_in_flight", "gauge"),
    ("usage_proxy_cache_requests_total", "counter"),
    ("usage_proxy_collapsed_total", "counter"),
    ("usage_proxy_stale_served_total", "counter"),
    ("usage_proxy_cache_entries", "gauge"),
    ("usage_proxy_cache_weight_bytes", "gauge"),
    ("usage_proxy_cache_capacity_bytes", "gauge"),
    ("usage_proxy_cache_evictions_total", "counter"),
    ("usage_proxy_fills_in_flight", "gauge"),
    ("usage_proxy_upstream_requests_total", "counter"),
    ("usage_proxy_upstream_request_duration_seconds", "histogram"),
    ("usage_proxy_upstream_errors_total", "counter"),
    ("usage_proxy_upstream_retries_total", "counter"),
    (
        "usage_proxy_upstream_throttled_until_timestamp_seconds",
        "gauge",
    ),
    ("usage_proxy_circuit_state", "gauge"),
    ("usage_proxy_retry_budget_remaining_ratio", "gauge"),
    (
        "usage_proxy_tls_certificate_expiry_timestamp_seconds",
        "gauge",
    ),
    ("usage_proxy_tls_last_reload_successful", "gauge"),
    ("usage_proxy_connections", "gauge"),
    ("usage_proxy_connections_closed_total", "counter"),
    ("usage_proxy_token_refresh_total", "counter"),
    ("usage_proxy_token_expiry_timestamp_seconds", "gauge"),
    (
        "usage_proxy_refresh_token_issued_timestamp_seconds",
        "gauge",
    ),
    ("usage_proxy_upstream_mfa_compliant", "gauge"),
    ("usage_proxy_newest_processed_timestamp_seconds", "gauge"),
    ("usage_proxy_admin_authentication_failures_total", "counter"),
    ("usage_proxy_authentication_failures_total", "counter"),
    ("usage_proxy_authorization_denied_total", "counter"),
    ("usage_proxy_callers", "gauge"),
    ("usage_proxy_callers_info", "gauge"),
    (
        "usage_proxy_callers_last_reload_success_timestamp_seconds",
        "gauge",
    ),
    ("usage_proxy_callers_last_reload_successful", "gauge"),
    ("usage_proxy_failures_evicted_total", "counter"),
    ("usage_proxy_failures_remembered", "gauge"),
    ("usage_proxy_fills_waiting", "gauge"),
    ("usage_proxy_jwks_fetches_total", "counter"),
    ("usage_proxy_jwks_keys", "gauge"),
    ("usage_proxy_jwks_last_success_timestamp_seconds", "gauge"),
    ("usage_proxy_rate_limited_total", "counter"),
    ("usage_proxy_refresh_token_unsaved", "gauge"),
    ("usage_proxy_shed_total", "counter"),
    ("usage_proxy_tenant_mismatch_total", "counter"),
    ("usage_proxy_trace_spans_dropped_total", "counter"),
    ("usage_proxy_trace_spans_exported_total", "counter"),
    ("usage_proxy_upstream_suspect_total", "counter"),
    ("usage_proxy_upstream_contradictions_total", "counter"),
    ("usage_proxy_credentials_refused", "gauge"),
    ("usage_proxy_ready", "gauge"),
    ("usage_proxy_served_age_seconds", "histogram"),
    (
        "usage_proxy_upstream_client_certificate_expiry_timestamp_seconds",
        "gauge",
    ),
    ("usage_proxy_handler_panics_total", "counter"),
    ("usage_proxy_log_lines_dropped_total", "counter"),
    ("usage_proxy_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
];

#[tokio::test]
async fn every_family_is_there_from_the_start_with_its_type_and_help() {
    let app = TestApp::with_every_metric().start_without_waiting().await;

    let reply = app.admin_get("/metrics").await;

    assert_eq!(
        reply.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let scrape = reply.text();
    for (family, kind) in FAMILIES {
        assert!(
            scrape.contains(&format!("# TYPE {family} {kind}\n")),
            "{family} is a {kind}"
        );
        let help = format!("# HELP {family} ");
        let help = scrape.lines().find_map(|line| line.strip_prefix(&help));
        assert!(help.is_some_and(|help| help.len() > 10), "{family}'s help");
        let sampled = scrape.lines().any(|line| {
            line.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
        });
        assert!(sampled, "{family} has a sample");
    }
    let types = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let more: Vec<_> = types
        .filter_map(|line| line.split_once(' '))
        .filter(|family| !FAMILIES.contains(family))
        .collect();
    assert_eq!(more, [], "the contract has no more");
}

#[tokio::test]
async fn labels_have_their_values_from_closed_lists_and_zero_differs_from_absent() {
    let app = TestApp::with_every_metric().start().await;

    let scrape = Scrape::of(&app).await;

    for (family, label, values) in [
        (
            "usage_proxy_cache_requests_total",
            "result",
            &["bypass", "hit", "miss", "negative", "stale"][..],
        ),
        (
            "usage_proxy_stale_served_total",
            "reason",
            &["if-error", "soft-timeout", "while-revalidate"],
        ),
        (
            "usage_proxy_trace_spans_dropped_total",
            "reason",
            &["ending", "queue-full", "refused", "undelivered"],
        ),
        (
            "usage_proxy_cache_evictions_total",
            "cause",
            &["oversized", "purge", "size"],
        ),
        (
            "usage_proxy_upstream_requests_total",
            "api",
            &[
                "commercial",
                "customers",
                "deployment",
                "insights",
                "partner-deployment",
                "partner-usage",
            ],
        ),
        (
            "usage_proxy_upstream_requests_total",
            "status_class",
            &["2xx", "3xx", "4xx", "5xx", "error"],
        ),
        (
            "usage_proxy_upstream_requests_total",
            "code",
            &[
                "1000", "20002", "2032", "2100", "3000", "400", "60003", "800001", "800002",
                "90000", "900308", "900309", "900329", "900416", "900420", "900421", "none",
                "other",
            ],
        ),
        (
            "usage_proxy_upstream_errors_total",
            "class",
            &[
                "access-denied",
                "circuit-open",
                "connection",
                "deadline",
                "interrupted",
                "malformed",
                "other-customer",
                "out-of-memory",
                "no-relationship",
                "nothing-processed",
                "proof-missing",
                "redirect",
                "rejected",
                "server-fault",
                "throttled",
                "timeout",
                "token-refused",
                "token-unavailable",
                "unauthorized",
                "unknown-customer",
                "unrecognized",
                "wrong-audience",
            ],
        ),
        (
            "usage_proxy_circuit_state",
            "state",
            &["closed", "half-open", "open"],
        ),
        (
            "usage_proxy_upstream_retries_total",
            "reason",
            &[
                "connection",
                "status",
                "throttled",
                "timeout",
                "unauthorized",
            ],
        ),
        (
            "usage_proxy_token_refresh_total",
            "result",
            &["refused", "success", "unavailable"],
        ),
        (
            "usage_proxy_credentials_refused",
            "refuser",
            &["partner-center", "token-endpoint"],
        ),
        ("usage_proxy_ready", "gate", &["can-answer", "running"]),
        ("usage_proxy_connections", "state", &["active", "idle"]),
        (
            "usage_proxy_connections_closed_total",
            "reason",
            &[
                "bad-request",
                "client",
                "cut",
                "drained",
                "error",
                "header-timeout",
                "idle-timeout",
                "refused",
                "request-timeout",
                "stall-timeout",
                "tls-handshake",
            ],
        ),
        (
            "usage_proxy_authentication_failures_total",
            "reason",
            &[
                "issuer-unavailable",
                "malformed",
                "no-credential",
                "several",
                "token-algorithm",
                "token-audience",
                "token-customers",
                "token-expired",
                "token-extension",
                "token-issuer",
                "token-key",
                "token-malformed",
                "token-not-yet-valid",
                "token-signature",
                "token-subject",
                "token-type",
                "unknown-certificate",
                "unknown-key",
                "unknown-subject",
            ],
        ),
        (
            "usage_proxy_admin_authentication_failures_total",
            "reason",
            &["malformed", "missing", "unknown"],
        ),
        (
            "usage_proxy_jwks_fetches_total",
            "result",
            &["connection", "malformed", "status", "success", "timed-out"],
        ),
        (
            "usage_proxy_shed_total",
            "reason",
            &["caller", "deadline", "queue", "refresh"],
        ),
        (
            "usage_proxy_upstream_suspect_total",
            "reason",
            &[
                "empty",
                "grown",
                "many-absent",
                "shrunken",
                "went-backwards",
            ],
        ),
        (
            "usage_proxy_failures_remembered",
            "kind",
            &["absence", "fault", "past-absence"],
        ),
        (
            "usage_proxy_failures_evicted_total",
            "kind",
            &["absence", "fault", "past-absence"],
        ),
        (
            "usage_proxy_http_requests_total",
            "route",
            &[
                "/",
                "/assets/{file}",
                "/v1/analytics/licenses/deployment",
                "/v1/analytics/licenses/usage",
                "/v1/customers",
                "/v1/customers/{customer_id}/analytics/licenses/deployment",
                "/v1/customers/{customer_id}/analytics/licenses/usage",
                "/v1/customers/{customer_id}/usage",
                "/v1/customers/{customer_id}/usage/chart.svg",
                "/v1/customers/{customer_id}/usage/table.csv",
                "/docs",
                "/docs/{file}",
                "/openapi.json",
                "unmatched",
            ],
        ),
        (
            "usage_proxy_http_requests_total",
            "method",
            &["GET", "HEAD", "other"],
        ),
        (
            "usage_proxy_http_request_duration_seconds_count",
            "cache",
            &["bypass", "hit", "miss", "negative", "none", "stale"],
        ),
    ] {
        let expected: BTreeSet<_> = values.iter().map(|value| (*value).to_owned()).collect();
        assert_eq!(
            scrape.values_of(family, label),
            expected,
            "{label} of {family}"
        );
    }
    let counted: Vec<_> = scrape
        .counters()
        .filter(|(sample, count)| {
            let at_start = ["token_refresh", "jwks_fetches"];
            *count != 0.0 && !at_start.iter().any(|family| sample.contains(family))
        })
        .collect();
    assert_eq!(counted, [], "nothing has happened yet");
}

#[tokio::test]
async fn request_durations_are_told_apart_from_half_a_millisecond_to_ten_seconds() {
    let app = TestApp::start().await;

    let scrape = app.admin_get("/metrics").await.text();

    let child = "usage_proxy_http_request_duration_seconds_bucket{cache=\"hit\",route=\"/v1/customers/{customer_id}/usage\",le=\"";
    let bounds: Vec<_> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix(child)?.split('"').next())
        .collect();
    assert_eq!(
        bounds,
        [
            "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5",
            "1", "2.5", "5", "10", "+Inf"
        ]
    );
}

#[tokio::test]
async fn counters_move_as_the_traffic_says() {
    let app = TestApp::start().await;

    for expected in traffic() {
        let (what, path) = (expected.what, &expected.path);
        app.advance(expected.after);
        let before = Scrape::of(&app).await;

        app.call(expected.method, path, expected.headers).await;
        let (insights, commercial) = expected.calls;
        app.simulator
            .wait_for_requests(SimulatedApi::Insights, insights)
            .await;
        app.simulator
            .wait_for_requests(SimulatedApi::Commercial, commercial)
            .await;
        app.wait_until_filled().await;

        let counted = Scrape::of(&app).await.counted_since(&before);
        let once: BTreeMap<_, _> = expected
            .counted
            .iter()
            .map(|sample| (format!("usage_proxy_{sample}"), 1.0))
            .collect();
        assert_eq!(counted, once, "{what}");
    }
}

#[tokio::test]
async fn durations_are_observed_under_what_the_cache_said() {
    let app = TestApp::start().await;
    let count = |route: &str, cache: &str| {
        format!(
            "usage_proxy_http_request_duration_seconds_count{{cache=\"{cache}\",route=\"{route}\"}}"
        )
    };

    app.usage(customer(0)).await;
    app.native(customer(0)).await;
    app.native(customer(0)).await;
    app.get("/nowhere").await;

    for (route, cache, observed) in [
        ("/v1/customers/{customer_id}/usage", "miss", 1.0),
        (
            "/v1/customers/{customer_id}/analytics/licenses/usage",
            "hit",
            2.0,
        ),
        ("unmatched", "none", 1.0),
    ] {
        let sample = count(route, cache);
        assert_eq!(app.metric(&sample).await, observed, "{sample}");
    }
    let upstream = "usage_proxy_upstream_request_duration_seconds_count{api=\"insights\"}";
    assert_eq!(app.metric(upstream).await, 1.0);
}

#[tokio::test]
async fn the_age_of_what_is_served_is_observed_and_that_of_a_failure_is_not() {
    let app = TestApp::start().await;
    let samples = |bound: &str| format!("usage_proxy_served_age_seconds_bucket{{le=\"{bound}\"}}");

    app.usage(customer(0)).await;
    app.advance(600 * SECOND);
    app.usage(customer(0)).await;
    app.native(customer(0)).await;
    app.get("/nowhere").await;
    app.usage(Uuid::from_u128(7)).await;

    for (bound, observed) in [("60", 1.0), ("300", 1.0), ("900", 3.0), ("+Inf", 3.0)] {
        assert_eq!(app.metric(&samples(bound)).await, observed, "{bound}");
    }
}

#[tokio::test]
async fn no_label_names_a_customer() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    let customers = [
        DOCUMENTED.to_owned(),
        customer(0).to_string(),
        NO_RELATIONSHIP_CUSTOMER.to_string(),
        Uuid::from_u128(7).to_string(),
    ];

    for customer in &customers {
        for path in [
            format!("/v1/customers/{customer}/usage"),
            format!("/v1/customers/{customer}/usage?processedDate=2026-11-10"),
            format!("/v1/customers/{customer}/analytics/licenses/usage"),
            format!("/v1/customers/{customer}/subscriptions"),
            format!("/{customer}"),
        ] {
            app.get(&path).await;
            app.call(Method::DELETE, &path, &[]).await;
        }
    }

    let scrape = app.admin_get("/metrics").await.text();
    for customer in &customers {
        assert!(!scrape.contains(customer.as_str()), "{customer}");
        assert!(
            !scrape.contains(&customer.replace('-', "")),
            "{customer} without dashes"
        );
    }
}

#[tokio::test]
async fn entries_and_bytes_follow_what_is_held() {
    let app = TestApp::builder()
        .set("cache.max_bytes", "1MiB")
        .start()
        .await;
    let path = format!("/v1/customers/{}/usage", customer(1));
    let empty = Sizes::of(&app).await;

    app.usage(customer(0)).await;
    let one = Sizes::of(&app).await;
    app.get(&path).await;
    let two = Sizes::of(&app).await;
    app.get_with(&path, &[("accept", "text/csv")]).await;
    let another_form = Sizes::of(&app).await;
    app.admin_post("/cache/purge?hard=true").await;
    let purged = Sizes::of(&app).await;

    assert_eq!((empty.entries, empty.bytes), (0.0, 0.0));
    assert_eq!(empty.capacity, 1_048_576.0);
    assert!(one.entries == 1.0 && one.bytes > 0.0, "{one:?}");
    assert!(two.entries == 2.0 && two.bytes > one.bytes, "{two:?}");
    assert!(
        another_form.entries == 2.0 && another_form.bytes > two.bytes,
        "a form made later is weighed: {another_form:?}"
    );
    assert_eq!(purged, empty);
}

#[tokio::test]
async fn what_does_not_fit_leaves_and_is_counted() {
    let app = TestApp::builder()
        .set("cache.max_bytes", "64KiB")
        .start()
        .await;

    for index in 0..25 {
        app.usage(customer(index)).await;
    }

    let sizes = Sizes::of(&app).await;
    let evicted = app
        .metric("usage_proxy_cache_evictions_total{cause=\"size\"}")
        .await;
    assert!(sizes.bytes <= sizes.capacity, "{sizes:?}");
    assert!(evicted > 0.0);
    assert_eq!(sizes.entries + evicted, 25.0, "{sizes:?}");
}

#[tokio::test]
async fn what_has_grown_too_large_to_be_held_is_counted_as_that_alone() {
    let app = TestApp::builder()
        .set("cache.max_bytes", "64KiB")
        .start()
        .await;
    let date = app.simulator.newest_date();
    let rows = (0..200).map(|row| SimulatedRow::new(&format!("PLAN {row}"), "Exchange", 5, date));
    app.usage(customer(0)).await;
    app.simulator
        .override_customer(customer(0), CustomerOverride::Rows(rows.collect()));
    app.advance(4_500 * SECOND);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.json()["products"].as_array().unwrap().len(), 200);
    assert_eq!(
        reply.header("cache-status"),
        "usage-proxy; fwd=stale; fwd-status=200; ttl=900",
        "it is not stored"
    );
    assert_eq!(app.metric("usage_proxy_cache_entries").await, 0.0);
    for (cause, evicted) in [("oversized", 1.0), ("purge", 0.0), ("size", 0.0)] {
        let sample = format!("usage_proxy_cache_evictions_total{{cause=\"{cause}\"}}");
        assert_eq!(app.metric(&sample).await, evicted, "{cause}");
    }
}

#[tokio::test]
async fn what_is_under_way_is_counted_while_it_is() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let look = async {
        app.simulator
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        let in_flight = app.metric("usage_proxy_http_requests_in_flight").await;
        let fills = app.metric("usage_proxy_fills_in_flight").await;
        app.simulator.release_calls();
        (in_flight, fills)
    };

    let (_, under_way) = tokio::join!(app.usage(customer(0)), look);

    assert_eq!(under_way, (1.0, 1.0));
    app.wait_for_metric("usage_proxy_http_requests_in_flight", 0.0)
        .await;
    app.wait_until_filled().await;
}

#[tokio::test]
async fn timestamps_are_unix_time_and_zero_before_the_first() {
    let app = TestApp::start().await;
    let started = START.parse::<Timestamp>().unwrap().as_second() as f64;
    let newest = "usage_proxy_newest_processed_timestamp_seconds";
    let throttled = "usage_proxy_upstream_throttled_until_timestamp_seconds";

    let before = [app.metric(newest).await, app.metric(throttled).await];
    app.usage(customer(0)).await;
    app.usage(DOCUMENTED).await;
    app.simulator.set_faults(Faults {
        status: Some(StatusCode::TOO_MANY_REQUESTS),
        retry_after: Some("57".into()),
        ..Faults::default()
    });
    app.usage(customer(1)).await;

    assert_eq!(before, [0.0, 0.0]);
    let midnight = "2026-11-19T00:00:00Z".parse::<Timestamp>().unwrap();
    assert_eq!(
        app.metric(newest).await,
        midnight.as_second() as f64,
        "the newest of any customer, whoever was asked for last"
    );
    assert_eq!(app.metric(throttled).await, started + 57.0);
    assert_eq!(
        app.metric("usage_proxy_token_expiry_timestamp_seconds")
            .await,
        started + 3_599.0
    );
    assert!(
        app.metric("usage_proxy_refresh_token_issued_timestamp_seconds")
            .await
            > 0.0
    );
}

#[tokio::test]
async fn every_call_that_fails_is_counted_once_by_what_ended_it() {
    let app = TestApp::start().await;
    let status = |status| Faults {
        status: Some(StatusCode::from_u16(status).unwrap()),
        ..Faults::default()
    };
    for (customer, (class, faults)) in (1_usize..).zip([
        ("server-fault", status(500)),
        (
            "throttled",
            Faults {
                retry_after: Some("60".to_owned()),
                ..status(429)
            },
        ),
        ("rejected", status(400)),
        (
            "connection",
            Faults {
                close_mid_body: true,
                ..Faults::default()
            },
        ),
        (
            "proof-missing",
            Faults {
                mfa_required: true,
                ..Faults::default()
            },
        ),
        (
            "malformed",
            Faults {
                body: Some(usage_proxy::simulator::BodyFault::Html),
                ..Faults::default()
            },
        ),
    ]) {
        app.simulator.set_faults(faults);

        app.usage(app.simulator.customers()[customer]).await;

        let sample =
            format!("usage_proxy_upstream_errors_total{{api=\"insights\",class=\"{class}\"}}");
        assert_eq!(app.metric(&sample).await, 1.0, "{class}");
    }
}

#[tokio::test]
async fn multi_factor_proof_is_unknown_then_there_then_missing() {
    let app = TestApp::builder()
        .set("upstream.validate_mfa", "true")
        .start()
        .await;
    let compliant = "usage_proxy_upstream_mfa_compliant";
    let missing = "usage_proxy_upstream_requests_total{api=\"insights\",code=\"900421\",status_class=\"4xx\"}";

    let unknown = app.metric(compliant).await;
    app.usage(customer(0)).await;
    let there = app.metric(compliant).await;
    app.simulator.set_faults(Faults {
        mfa_required: true,
        ..Faults::default()
    });
    app.usage(customer(1)).await;

    assert_eq!((unknown, there), (-1.0, 1.0));
    assert_eq!(app.metric(compliant).await, 0.0);
    assert!(app.metric(missing).await >= 1.0);
}

#[tokio::test]
async fn two_services_in_one_process_share_no_counter() {
    let (asked, idle) = tokio::join!(TestApp::start(), TestApp::start());

    asked.usage(customer(0)).await;

    let misses = "usage_proxy_cache_requests_total{result=\"miss\"}";
    assert_eq!(asked.metric(misses).await, 1.0);
    assert_eq!(idle.metric(misses).await, 0.0);
}

/// A request of the table, and every counter that it moves; those that are not named stand still.
struct Expected {
    what: &'static str,
    after: Duration,
    method: Method,
    path: String,
    headers: &'static [(&'static str, &'static str)],
    /// Of the upstream calls, all together.
    calls: (usize, usize),
    counted: &'static [&'static str],
}

impl Expected {
    fn get(what: &'static str, path: &str) -> Self {
        Self {
            what,
            after: Duration::ZERO,
            method: Method::GET,
            path: path.to_owned(),
            headers: &[],
            calls: (0, 0),
            counted: &[],
        }
    }
}

/// One request after another, of one service.
fn traffic() -> Vec<Expected> {
    let usage = format!("/v1/customers/{}/usage", customer(0));
    let native = format!("/v1/customers/{}/analytics/licenses/usage", customer(0));
    let unknown = format!("/v1/customers/{}/usage", Uuid::from_u128(7));
    vec![
        Expected {
            calls: (1, 0),
            counted: &[
                r#"cache_requests_total{result="miss"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="200"}"#,
                r#"upstream_requests_total{api="insights",code="none",status_class="2xx"}"#,
            ],
            ..Expected::get("a miss", &usage)
        },
        Expected {
            calls: (1, 0),
            counted: &[
                r#"cache_requests_total{result="hit"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="200"}"#,
            ],
            ..Expected::get("a hit", &usage)
        },
        Expected {
            headers: &[("if-none-match", "*")],
            calls: (1, 0),
            counted: &[
                r#"cache_requests_total{result="hit"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="304"}"#,
            ],
            ..Expected::get("a hit that is not modified", &usage)
        },
        Expected {
            method: Method::HEAD,
            calls: (1, 0),
            counted: &[
                r#"cache_requests_total{result="hit"}"#,
                r#"http_requests_total{method="HEAD",route="/v1/customers/{customer_id}/analytics/licenses/usage",status="200"}"#,
            ],
            ..Expected::get("the head of the native form", &native)
        },
        Expected {
            after: 30 * SECOND,
            headers: &[("cache-control", "no-cache")],
            calls: (2, 0),
            counted: &[
                r#"cache_requests_total{result="bypass"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="200"}"#,
                r#"upstream_requests_total{api="insights",code="none",status_class="2xx"}"#,
            ],
            ..Expected::get("no-cache", &usage)
        },
        Expected {
            after: 900 * SECOND,
            calls: (3, 0),
            counted: &[
                r#"cache_requests_total{result="stale"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="200"}"#,
                r#"stale_served_total{reason="while-revalidate"}"#,
                r#"upstream_requests_total{api="insights",code="none",status_class="2xx"}"#,
            ],
            ..Expected::get("a stale answer and its refresh", &usage)
        },
        Expected {
            calls: (3, 1),
            counted: &[
                r#"cache_requests_total{result="miss"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="200"}"#,
                r#"upstream_requests_total{api="commercial",code="none",status_class="2xx"}"#,
            ],
            ..Expected::get("a past day", &format!("{usage}?processedDate=2026-11-10"))
        },
        Expected {
            calls: (4, 1),
            counted: &[
                r#"cache_requests_total{result="miss"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="404"}"#,
                r#"upstream_errors_total{api="insights",class="unknown-customer"}"#,
                r#"upstream_requests_total{api="insights",code="1000",status_class="4xx"}"#,
            ],
            ..Expected::get("an unknown customer", &unknown)
        },
        Expected {
            calls: (4, 1),
            counted: &[
                r#"cache_requests_total{result="negative"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="404"}"#,
            ],
            ..Expected::get("the same again", &unknown)
        },
        Expected {
            headers: &[("cache-control", "only-if-cached")],
            calls: (4, 1),
            counted: &[
                r#"cache_requests_total{result="miss"}"#,
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="504"}"#,
            ],
            ..Expected::get(
                "only-if-cached",
                &format!("/v1/customers/{}/usage", customer(1)),
            )
        },
        Expected {
            calls: (4, 1),
            counted: &[
                r#"http_requests_total{method="GET",route="/v1/customers/{customer_id}/usage",status="400"}"#,
            ],
            ..Expected::get("no customer id", "/v1/customers/nobody/usage")
        },
        Expected {
            method: Method::DELETE,
            calls: (4, 1),
            counted: &[
                r#"http_requests_total{method="other",route="/v1/customers/{customer_id}/usage",status="405"}"#,
            ],
            ..Expected::get("another method", &usage)
        },
        Expected {
            calls: (4, 1),
            counted: &[r#"http_requests_total{method="GET",route="unmatched",status="404"}"#],
            ..Expected::get("another path", &format!("/v1/customers/{}", customer(0)))
        },
    ]
}

/// Samples by name and labels, as they are written.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(app: &TestApp) -> Self {
        let text = app.admin_get("/metrics").await.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            samples
                .filter_map(|line| line.rsplit_once(' '))
                .map(|(sample, value)| (sample.to_owned(), value.parse().unwrap()))
                .collect(),
        )
    }

    /// Our own counters.
    fn counters(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(|(sample, value)| {
            let family = sample.split('{').next()?;
            (family.starts_with("usage_proxy_") && family.ends_with("_total"))
                .then_some((sample.as_str(), *value))
        })
    }

    fn counted_since(&self, before: &Self) -> BTreeMap<String, f64> {
        self.counters()
            .map(|(sample, count)| {
                let earlier = before.0.get(sample).copied().unwrap_or_default();
                (sample.to_owned(), count - earlier)
            })
            .filter(|(_, more)| *more != 0.0)
            .collect()
    }

    fn values_of(&self, family: &str, label: &str) -> BTreeSet<String> {
        let label = format!("{label}=\"");
        self.0
            .keys()
            .filter_map(|sample| sample.strip_prefix(family)?.strip_prefix('{'))
            .filter_map(|labels| labels.split(&label).nth(1)?.split('"').next())
            .map(str::to_owned)
            .collect()
    }
}

/// What the cache's gauges say.
#[derive(Debug, PartialEq)]
struct Sizes {
    entries: f64,
    bytes: f64,
    capacity: f64,
}

impl Sizes {
    async fn of(app: &TestApp) -> Self {
        Self {
            entries: app.metric("usage_proxy_cache_entries").await,
            bytes: app.metric("usage_proxy_cache_weight_bytes").await,
            capacity: app.metric("usage_proxy_cache_capacity_bytes").await,
        }
    }
}

/// Counts requests for usage whose caller went away.
const GONE: &str = "usage_proxy_http_requests_total{method=\"GET\",\
                    route=\"/v1/customers/{customer_id}/usage\",status=\"499\"}";

#[tokio::test]
async fn a_caller_that_resets_its_connection_is_counted_as_gone() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let mut caller = TcpStream::connect(app.api).await.unwrap();
    let request =
        format!("GET /v1/customers/{DOCUMENTED}/usage HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    app.upstream_asked(SimulatedApi::Insights, 1).await;

    caller.set_zero_linger().unwrap();
    drop(caller);

    app.wait_for_metric(GONE, 1.0).await;
    app.wait_for_metric("usage_proxy_http_requests_in_flight", 0.0)
        .await;
}

#[tokio::test]
async fn a_caller_that_resets_its_stream_is_counted_as_gone() {
    let app = TestApp::builder().set("server.http2_cleartext", "true");
    let app = app.start().await;
    app.simulator.hold_calls();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("http://{}/v1/customers/{DOCUMENTED}/usage", app.api);

    tokio::select! {
        _ = client.get(url).send() => panic!("upstream does not answer"),
        () = app.upstream_asked(SimulatedApi::Insights, 1) => {}
    }

    app.wait_for_metric(GONE, 1.0).await;
    app.wait_for_metric("usage_proxy_http_requests_in_flight", 0.0)
        .await;
}
