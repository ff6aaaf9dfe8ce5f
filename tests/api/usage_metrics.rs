//! `/metrics/usage`: the usage of all customers as metrics.

use usage_proxy::access_key::KeyHash;

use crate::support::prelude::*;

const METRICS: &str = include_str!("../../deploy/prometheus/METRICS.md");
const REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;

fn builder() -> Builder {
    TestApp::builder()
        .set("metrics.usage", "true")
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
}

async fn refreshed(builder: Builder) -> TestApp {
    let app = builder.start().await;
    app.wait_for_metric(REFRESHES, 1.0).await;
    app
}

/// The value of the only sample of a metric that has all of these labels.
fn sample(scrape: &str, metric: &str, labels: &[&str]) -> u64 {
    let metric = format!("{metric}{{");
    let matching: Vec<_> = scrape
        .lines()
        .filter(|line| line.starts_with(&metric) && labels.iter().all(|label| line.contains(label)))
        .collect();
    let [line] = matching.as_slice() else {
        panic!("{labels:?}: {matching:?}");
    };
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn every_customer_is_scraped_without_a_call_to_partner_center() {
    let app = refreshed(builder()).await;
    let usage = app.usage(DOCUMENTED).await.json();
    app.simulator.clear_requests();

    let reply = app.admin_get("/metrics/usage").await;

    reply.assert_headers(&[("content-type", "text/plain; version=0.0.4; charset=utf-8")]);
    let scrape = reply.text();
    for customer in app.simulator.customers() {
        let usage = app.usage(customer).await.json();
        let has_rows = usage["products"] != json!([]);
        let is_scraped = scrape.contains(&format!("customer_id=\"{customer}\""));
        assert_eq!(is_scraped, has_rows, "{customer}");
    }
    let product = &usage["products"][0];
    let workload = &product["workloads"][0];
    let labels = [
        format!("customer_id=\"{DOCUMENTED}\""),
        format!("product={}", product["productName"]),
        format!("workload={}", workload["workloadName"]),
    ];
    let labels = labels.each_ref().map(String::as_str);
    let value = |metric, labels: &[&str]| json!(sample(&scrape, metric, labels));
    let [active, qualified, unused] = ["active", "qualified", "unused"]
        .map(|number| format!("usage_proxy_customer_licenses_{number}"));
    assert_eq!(value(&active, &labels), workload["licensesActive"]);
    assert_eq!(value(&qualified, &labels), workload["licensesQualified"]);
    assert_eq!(value(&unused, &labels[..2]), product["licensesUnused"]);
    assert!(
        scrape.contains("\nusage_proxy_customer_series_cut 0\n"),
        "{scrape}"
    );
    for api in [
        SimulatedApi::Insights,
        SimulatedApi::Commercial,
        SimulatedApi::Customers,
    ] {
        assert_eq!(app.calls(api), 0, "{api:?}");
    }
}

#[tokio::test]
async fn the_metrics_of_usage_are_documented() {
    let app = builder().start_without_waiting().await;

    let scrape = app.admin_get("/metrics/usage").await.text();

    let families = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let families: Vec<_> = families.collect();
    assert_eq!(families.len(), 4, "{scrape}");
    for family in families {
        let (name, kind) = family.split_once(' ').unwrap();
        assert_eq!(kind, "gauge");
        assert!(METRICS.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test]
async fn an_excluded_product_has_no_series() {
    let excluded = "EXCHANGE ONLINE (PLAN 1)";
    let portfolio = format!("[[product]]\nproduct = \"{excluded}\"\nexclude = true\n");
    let app = refreshed(builder().portfolio(&portfolio)).await;
    let label = format!("product=\"{excluded}\"");

    let without = app.admin_get("/metrics/usage").await.text();
    app.reload_portfolio("[[product]]\nproduct = \"E3\"\n")
        .await;
    let with = app.admin_get("/metrics/usage").await.text();

    assert!(
        !without.contains(&label) && with.contains(&label),
        "{without}"
    );
}

#[tokio::test]
async fn series_beyond_the_maximum_are_cut_and_counted() {
    let whole = refreshed(builder()).await;
    let cut = refreshed(builder().set("metrics.usage_max_series", "50")).await;
    let series = |scrape: &str| {
        let series = scrape.lines().filter(|line| line.contains("customer_id="));
        series.count()
    };

    let whole = whole.admin_get("/metrics/usage").await.text();
    let scrape = cut.admin_get("/metrics/usage").await.text();

    let number = scrape
        .lines()
        .find_map(|line| line.strip_prefix("usage_proxy_customer_series_cut "));
    let number: usize = number.unwrap().parse().unwrap();
    assert!(series(&scrape) <= 50 && number > 0, "{scrape}");
    assert_eq!(series(&scrape) + number, series(&whole));
}

#[tokio::test]
async fn usage_as_metrics_is_off_unless_it_is_configured() {
    let app = TestApp::start().await;

    let reply = app.admin_get("/metrics/usage").await;

    reply.problem_with(404, "not-found", &["metrics.usage = true"]);
}

#[tokio::test]
async fn usage_as_metrics_needs_a_key_where_the_other_metrics_do() {
    const KEY: &str = "up_canary-admin";
    let hash = KeyHash::of_key(KEY.as_bytes()).to_string();
    for (metrics_need_key, without_key) in [("true", 401), ("false", 200)] {
        let app = builder()
            .set("admin.key_sha256", &hash)
            .set("admin.metrics_need_key", metrics_need_key)
            .start()
            .await;

        for (headers, status) in [(&[][..], without_key), (&[("x-api-key", KEY)], 200)] {
            let reply = app.admin_call(Method::GET, "/metrics/usage", headers).await;

            assert_eq!(
                reply.status, status,
                "metrics_need_key = {metrics_need_key}"
            );
        }
    }
}
