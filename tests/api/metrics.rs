//! `/metrics`: every family from the start, and counters that move as the traffic says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::support::prelude::*;

/// Every family of the contract, by its type. Those that begin with `process_` are not ours.
const FAMILIES: [(&str, &str); 3] = [
    (
        "counter",
        "admin_authentication_failures_total authentication_failures_total
         authorization_denied_total cache_evictions_total cache_requests_total collapsed_total
         connections_closed_total failures_evicted_total fleet_checks_total fleet_refreshes_total
         handler_panics_total http_requests_total
         jwks_fetches_total lease_attempts_total log_lines_dropped_total process_cpu_seconds_total rate_limited_total
         shed_total stale_served_total store_dropped_writes_total store_operations_total tenant_mismatch_total token_refresh_total
         trace_spans_dropped_total trace_spans_exported_total upstream_contradictions_total
         upstream_errors_total upstream_requests_total upstream_retries_total
         upstream_suspect_total",
    ),
    (
        "gauge",
        "build_info cache_capacity_bytes cache_entries cache_weight_bytes callers callers_info
         callers_last_reload_success_timestamp_seconds callers_last_reload_successful circuit_state
         connections credentials_refused failures_remembered fills_in_flight fills_waiting
         fleet_customers fleet_processed_date_timestamp_seconds
         http_requests_in_flight jwks_keys jwks_last_success_timestamp_seconds leases_held
         newest_processed_timestamp_seconds portfolio_groups portfolio_info
         portfolio_last_reload_success_timestamp_seconds portfolio_last_reload_successful
         portfolio_products process_max_fds process_open_fds
         process_resident_memory_bytes process_start_time_seconds process_threads
         process_virtual_memory_bytes ready refresh_token_issued_timestamp_seconds
         refresh_token_unsaved retry_budget_remaining_ratio store_bytes store_lag_seconds
         store_pending_writes store_up
         tls_certificate_expiry_timestamp_seconds tls_last_reload_successful
         token_expiry_timestamp_seconds upstream_client_certificate_expiry_timestamp_seconds
         upstream_mfa_compliant upstream_throttled_until_timestamp_seconds",
    ),
    (
        "histogram",
        "fleet_refresh_duration_seconds http_request_duration_seconds served_age_seconds
         store_duration_seconds upstream_request_duration_seconds",
    ),
];

#[tokio::test]
async fn every_metric_family_exists_from_the_start_with_its_type_and_help() {
    let app = TestApp::with_every_metric().start_without_waiting().await;

    let reply = app.admin_get("/metrics").await;

    reply.assert_headers(&[("content-type", "text/plain; version=0.0.4; charset=utf-8")]);
    let scrape = reply.text();
    let mut expected = BTreeSet::new();
    for (kind, names) in FAMILIES {
        for name in names.split_whitespace() {
            let family = match name.starts_with("process_") {
                true => name.to_owned(),
                false => format!("usage_proxy_{name}"),
            };
            let help = format!("# HELP {family} ");
            let help = scrape.lines().find_map(|line| line.strip_prefix(&help));
            assert!(help.is_some_and(|help| help.len() > 10), "{family}'s help");
            let mut samples = scrape.lines().filter_map(|line| line.strip_prefix(&family));
            assert!(
                samples.any(|rest| rest.starts_with(['{', ' ', '_'])),
                "{family}"
            );
            expected.insert(format!("{family} {kind}"));
        }
    }
    let types = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<_> = types.map(str::to_owned).collect();
    assert_eq!(families, expected);
}

/// The values of each label: family, label, values.
const LABELS: &str = "
    cache_requests_total | result | bypass hit miss negative stale
    stale_served_total | reason | if-error soft-timeout while-revalidate
    trace_spans_dropped_total | reason | ending queue-full refused undelivered
    cache_evictions_total | cause | oversized purge size
    upstream_requests_total | api | commercial customers deployment insights partner-deployment \
      partner-usage
    upstream_requests_total | status_class | 2xx 3xx 4xx 5xx error
    upstream_requests_total | code | 1000 20002 2032 2100 3000 400 60003 800001 800002 90000 \
      900308 900309 900329 900416 900420 900421 none other
    upstream_errors_total | class | access-denied circuit-open connection deadline interrupted \
      malformed other-customer out-of-memory no-relationship nothing-processed proof-missing \
      redirect rejected server-fault throttled timeout token-refused token-unavailable \
      unauthorized unknown-customer unrecognized wrong-audience
    circuit_state | state | closed half-open open
    upstream_retries_total | reason | connection status throttled timeout unauthorized
    token_refresh_total | result | refused success unavailable
    credentials_refused | refuser | partner-center token-endpoint
    ready | gate | can-answer running
    connections | state | active idle
    connections_closed_total | reason | bad-request client cut drained error header-timeout \
      idle-timeout refused request-timeout stall-timeout tls-handshake
    authentication_failures_total | reason | issuer-unavailable malformed no-credential several \
      token-algorithm token-audience token-customers token-expired token-extension token-issuer \
      token-key token-malformed token-not-yet-valid token-signature token-subject token-type \
      unknown-certificate unknown-key unknown-subject
    admin_authentication_failures_total | reason | malformed missing unknown
    jwks_fetches_total | result | connection malformed status success timed-out
    shed_total | reason | caller deadline queue refresh
    upstream_suspect_total | reason | empty grown many-absent shrunken went-backwards
    failures_remembered | kind | absence fault past-absence
    failures_evicted_total | kind | absence fault past-absence
    fleet_checks_total | outcome | failure success
    fleet_refreshes_total | outcome | failure success
    store_operations_total | operation | acquire-lease all-of-date asked-dates changed-snapshots changes customers dates delete fleet-history \
      history last-refresh maintain newest-of-all probe publish-refresh purges recent-totals \
      release-lease renew-lease report-applied server-time share-pause shared-pauses tokens swap-tokens snapshot write
    lease_attempts_total | outcome | finished granted held
    store_operations_total | outcome | error rejected success timeout
    fleet_customers | status | current empty failed notFetched stale
    http_requests_total | route | / /assets/{file} /v1/analytics/licenses/deployment \
      /v1/analytics/licenses/usage /v1/customers \
      /v1/customers/{customer_id}/analytics/licenses/deployment \
      /v1/customers/{customer_id}/analytics/licenses/usage /v1/customers/{customer_id}/usage \
      /v1/customers/{customer_id}/usage/chart.svg /v1/customers/{customer_id}/usage/table.csv \
      /v1/customers/{customer_id}/usage/dates /v1/customers/{customer_id}/usage/dates/table.csv \
      /v1/customers/{customer_id}/usage/history /v1/customers/{customer_id}/usage/history/table.csv \
      /v1/customers/{customer_id}/usage/history/chart.svg \
      /v1/customers/{customer_id}/usage/changes /v1/customers/{customer_id}/usage/changes/table.csv \
      /v1/usage /v1/usage/table.csv /v1/usage/customers /v1/usage/customers/table.csv \
      /v1/usage/unused /v1/usage/unused/table.csv /v1/usage/history /v1/usage/history/table.csv \
      /docs /docs/{file} /openapi.json unmatched
    http_requests_total | method | GET HEAD other
    http_request_duration_seconds_count | cache | bypass hit miss negative none stale
";

#[tokio::test]
async fn labels_have_values_from_closed_lists_and_zero_differs_from_absent() {
    let app = TestApp::with_every_metric().start().await;

    let scrape = Scrape::of(&app).await;

    for [family, label, values] in rows(LABELS) {
        let found = scrape.values_of(&format!("usage_proxy_{family}"), label);
        let expected = values.split(' ').map(str::to_owned).collect();
        assert_eq!(found, expected, "{label} of {family}");
    }
    let counted: Vec<_> = scrape
        .counters()
        .filter(|(sample, count)| {
            let at_start = ["token_refresh", "jwks_fetches", "store_operations"];
            *count != 0.0 && !at_start.iter().any(|family| sample.contains(family))
        })
        .collect();
    assert_eq!(counted, [], "nothing has happened yet");
}

#[tokio::test]
async fn request_duration_buckets_span_half_a_millisecond_to_ten_seconds() {
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
async fn counters_move_with_the_traffic() {
    let app = TestApp::start().await;

    for expected in traffic() {
        let (counters, case) = (expected.counters(), expected.case);
        app.advance(expected.after);
        let before = Scrape::of(&app).await;

        let headers = expected.header.as_slice();
        app.call(expected.method, &expected.path, headers).await;
        let (insights, commercial) = expected.calls;
        app.wait_for_calls(SimulatedApi::Insights, insights).await;
        app.wait_for_calls(SimulatedApi::Commercial, commercial)
            .await;
        app.wait_until_filled().await;

        let counted = Scrape::of(&app).await.counted_since(&before);
        assert_eq!(counted, counters, "{case}");
    }
}

#[tokio::test]
async fn durations_are_observed_by_the_result_of_the_cache() {
    let app = TestApp::start().await;

    app.usage(customer(0)).await;
    app.native(customer(0)).await;
    app.native(customer(0)).await;
    app.get("/nowhere").await;

    for (sample, observed) in [
        (
            r#"http_request_duration_seconds_count{cache="miss",route="/v1/customers/{customer_id}/usage"}"#,
            1.0,
        ),
        (
            r#"http_request_duration_seconds_count{cache="hit",route="/v1/customers/{customer_id}/analytics/licenses/usage"}"#,
            2.0,
        ),
        (
            r#"http_request_duration_seconds_count{cache="none",route="unmatched"}"#,
            1.0,
        ),
        (
            r#"upstream_request_duration_seconds_count{api="insights"}"#,
            1.0,
        ),
    ] {
        let sample = format!("usage_proxy_{sample}");
        assert_eq!(app.metric(&sample).await, observed, "{sample}");
    }
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
    let app = TestApp::without_retries().await;
    let customers = [
        DOCUMENTED.to_owned(),
        customer(0).to_string(),
        NO_RELATIONSHIP_CUSTOMER.to_string(),
        Uuid::from_u128(7).to_string(),
    ];

    for customer in &customers {
        for path in [
            usage_path(customer),
            dated_path(customer, "2026-11-10"),
            native_path(customer),
            format!("/v1/customers/{customer}/subscriptions"),
            format!("/{customer}"),
        ] {
            app.get(&path).await;
            app.call(Method::DELETE, &path, &[]).await;
        }
    }

    let scrape = app.admin_get("/metrics").await.text();
    for customer in &customers {
        for written in [customer, &customer.replace('-', "")] {
            assert!(!scrape.contains(written), "{written}");
        }
    }
}

#[tokio::test]
async fn entries_and_bytes_follow_the_content_of_the_cache() {
    let app = TestApp::with("cache.max_bytes", "1MiB").await;
    let path = usage_path(customer(1));
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
async fn entries_that_do_not_fit_are_evicted_and_counted() {
    let app = TestApp::with("cache.max_bytes", "64KiB").await;

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
async fn entries_that_grow_too_large_are_counted_only_as_oversized() {
    let app = TestApp::with("cache.max_bytes", "64KiB").await;
    let date = app.simulator.newest_date();
    let rows = (0..200).map(|row| SimulatedRow::new(&format!("PLAN {row}"), "Exchange", 5, date));
    app.usage(customer(0)).await;
    app.set_rows(customer(0), rows.collect::<Vec<_>>());
    app.advance(4_500 * SECOND);

    let reply = app.usage(customer(0)).await;

    assert_eq!(reply.json()["products"].as_array().unwrap().len(), 200);
    assert_eq!(
        reply.cache_status(),
        "fwd=stale; fwd-status=200; ttl=900",
        "it is not stored"
    );
    assert_eq!(app.metric("usage_proxy_cache_entries").await, 0.0);
    for (cause, evicted) in [("oversized", 1.0), ("purge", 0.0), ("size", 0.0)] {
        let sample = format!("usage_proxy_cache_evictions_total{{cause=\"{cause}\"}}");
        assert_eq!(app.metric(&sample).await, evicted, "{cause}");
    }
}

#[tokio::test]
async fn requests_and_fills_in_flight_are_counted() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let look = async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
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
    let unix = |time: &str| time.parse::<Timestamp>().unwrap().as_second() as f64;
    let newest = "usage_proxy_newest_processed_timestamp_seconds";
    let throttled = "usage_proxy_upstream_throttled_until_timestamp_seconds";
    let expiry = "usage_proxy_token_expiry_timestamp_seconds";
    let issued = "usage_proxy_refresh_token_issued_timestamp_seconds";

    let before = [app.metric(newest).await, app.metric(throttled).await];
    app.usage(customer(0)).await;
    app.usage(DOCUMENTED).await;
    app.set_faults(throttling("57"));
    app.usage(customer(1)).await;

    assert_eq!(before, [0.0, 0.0]);
    // The newest date of all customers, not of the last one.
    assert_eq!(app.metric(newest).await, unix("2026-11-19T00:00:00Z"));
    assert_eq!(app.metric(throttled).await, unix(START) + 57.0);
    assert_eq!(app.metric(expiry).await, unix(START) + 3_599.0);
    assert!(app.metric(issued).await > 0.0);
}

#[tokio::test]
async fn every_failed_call_is_counted_once_by_its_cause() {
    let app = TestApp::start().await;
    for (index, (class, faults)) in (1_usize..).zip([
        ("server-fault", failing(500)),
        ("throttled", throttling("60")),
        ("rejected", failing(400)),
        ("connection", broken_off()),
        ("proof-missing", no_mfa()),
        ("malformed", bad_body(BodyFault::Html)),
    ]) {
        app.set_faults(faults);

        app.usage(app.simulator.customers()[index]).await;

        let sample =
            format!("usage_proxy_upstream_errors_total{{api=\"insights\",class=\"{class}\"}}");
        assert_eq!(app.metric(&sample).await, 1.0, "{class}");
    }
}

#[tokio::test]
async fn multi_factor_proof_is_unknown_then_present_then_missing() {
    let app = TestApp::with("upstream.validate_mfa", "true").await;
    let compliant = "usage_proxy_upstream_mfa_compliant";
    let missing = "usage_proxy_upstream_requests_total{api=\"insights\",code=\"900421\",status_class=\"4xx\"}";

    let unknown = app.metric(compliant).await;
    app.usage(customer(0)).await;
    let there = app.metric(compliant).await;
    app.set_faults(no_mfa());
    app.usage(customer(1)).await;

    assert_eq!((unknown, there), (-1.0, 1.0));
    assert_eq!(app.metric(compliant).await, 0.0);
    assert!(app.metric(missing).await >= 1.0);
}

#[tokio::test]
async fn two_services_in_one_process_share_no_counter() {
    let (used, idle) = tokio::join!(TestApp::start(), TestApp::start());

    used.usage(customer(0)).await;

    let misses = "usage_proxy_cache_requests_total{result=\"miss\"}";
    assert_eq!(used.metric(misses).await, 1.0);
    assert_eq!(idle.metric(misses).await, 0.0);
}

/// A request of the table, and every counter that it changes. The others stay the same.
struct Expected {
    case: &'static str,
    after: Duration,
    method: Method,
    path: String,
    header: Option<(&'static str, &'static str)>,
    /// The calls of insights and commercial so far.
    calls: (usize, usize),
    /// `METHOD ROUTE STATUS` of the request, where `usage` is a customer's usage.
    request: &'static str,
    counted: &'static [&'static str],
}

impl Expected {
    fn get(case: &'static str, path: &str) -> Self {
        Self {
            case,
            after: Duration::ZERO,
            method: Method::GET,
            path: path.to_owned(),
            header: None,
            calls: (4, 1),
            request: "GET usage 200",
            counted: &[],
        }
    }

    /// The counters that the request moves.
    fn counters(&self) -> BTreeMap<String, f64> {
        let [method, route, status] = self.request.split(' ').collect::<Vec<_>>()[..] else {
            panic!("no method, route and status: {}", self.request);
        };
        let route = match route {
            "usage" => "/v1/customers/{customer_id}/usage",
            "native" => "/v1/customers/{customer_id}/analytics/licenses/usage",
            other => other,
        };
        let request = format!(
            r#"http_requests_total{{method="{method}",route="{route}",status="{status}"}}"#
        );
        let counted = self.counted.iter().map(|counter| (*counter).to_owned());
        let counted = counted.chain([request]);
        counted
            .map(|counter| (format!("usage_proxy_{counter}"), 1.0))
            .collect()
    }
}

/// One request after another, of one service.
fn traffic() -> Vec<Expected> {
    const MISS: &str = r#"cache_requests_total{result="miss"}"#;
    const HIT: &str = r#"cache_requests_total{result="hit"}"#;
    const INSIGHTS: &str =
        r#"upstream_requests_total{api="insights",code="none",status_class="2xx"}"#;

    let usage = usage_path(customer(0));
    let unknown = usage_path(Uuid::from_u128(7));
    vec![
        Expected {
            calls: (1, 0),
            counted: &[MISS, INSIGHTS],
            ..Expected::get("a miss", &usage)
        },
        Expected {
            calls: (1, 0),
            counted: &[HIT],
            ..Expected::get("a hit", &usage)
        },
        Expected {
            header: Some(("if-none-match", "*")),
            calls: (1, 0),
            request: "GET usage 304",
            counted: &[HIT],
            ..Expected::get("a hit that is not modified", &usage)
        },
        Expected {
            method: Method::HEAD,
            calls: (1, 0),
            request: "HEAD native 200",
            counted: &[HIT],
            ..Expected::get("the head of the native form", &native_path(customer(0)))
        },
        Expected {
            after: 30 * SECOND,
            header: Some(("cache-control", "no-cache")),
            calls: (2, 0),
            counted: &[r#"cache_requests_total{result="bypass"}"#, INSIGHTS],
            ..Expected::get("no-cache", &usage)
        },
        Expected {
            after: 900 * SECOND,
            calls: (3, 0),
            counted: &[
                r#"cache_requests_total{result="stale"}"#,
                r#"stale_served_total{reason="while-revalidate"}"#,
                INSIGHTS,
            ],
            ..Expected::get("a stale answer and its refresh", &usage)
        },
        Expected {
            calls: (3, 1),
            counted: &[
                MISS,
                r#"upstream_requests_total{api="commercial",code="none",status_class="2xx"}"#,
            ],
            ..Expected::get("a past day", &dated_path(customer(0), "2026-11-10"))
        },
        Expected {
            request: "GET usage 404",
            counted: &[
                MISS,
                r#"upstream_errors_total{api="insights",class="unknown-customer"}"#,
                r#"upstream_requests_total{api="insights",code="1000",status_class="4xx"}"#,
            ],
            ..Expected::get("an unknown customer", &unknown)
        },
        Expected {
            request: "GET usage 404",
            counted: &[r#"cache_requests_total{result="negative"}"#],
            ..Expected::get("the same again", &unknown)
        },
        Expected {
            header: Some(("cache-control", "only-if-cached")),
            request: "GET usage 504",
            counted: &[MISS],
            ..Expected::get("only-if-cached", &usage_path(customer(1)))
        },
        Expected {
            request: "GET usage 400",
            ..Expected::get("no customer id", "/v1/customers/nobody/usage")
        },
        Expected {
            method: Method::DELETE,
            request: "other usage 405",
            ..Expected::get("another method", &usage)
        },
        Expected {
            request: "GET unmatched 404",
            ..Expected::get("another path", "/v1/customers/x")
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

/// The values of the cache's gauges.
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
        () = app.wait_for_calls(SimulatedApi::Insights, 1) => {}
    }

    app.wait_for_metric(GONE, 1.0).await;
    app.wait_for_metric("usage_proxy_http_requests_in_flight", 0.0)
        .await;
}
