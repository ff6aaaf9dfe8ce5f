//! Counts, percentages, dates and names: the same in every form of an answer, whatever upstream
//! sends first.

use crate::support::prelude::*;

/// A row of Exchange Online (Plan 1) as the insights call sends it.
fn row(active: u64, qualified: u64) -> Value {
    json!({
        "customerId": customer(0).to_string(),
        "customerName": "Contoso",
        "productName": "EXCHANGE ONLINE (PLAN 1)",
        "serviceName": "o365",
        "channel": "reseller",
        "workloadName": "Exchange",
        "licensesActive": active,
        "licensesQualified": qualified,
        "usagePercent": 0,
        "processedDateTime": "2026-11-19T00:00:00+00:00",
    })
}

/// The same row with other fields.
fn changed(mut row: Value, fields: Value) -> Value {
    let fields = fields.as_object().unwrap().clone();
    row.as_object_mut().unwrap().extend(fields);
    row
}

fn send(app: &TestApp, rows: &[Value]) {
    let body = json!({ "totalCount": rows.len(), "items": rows });
    app.set_body(customer(0), body.to_string());
}

async fn csv(app: &TestApp) -> Reply {
    let path = usage_path(customer(0));
    app.get_with(&path, &[("accept", "text/csv")]).await
}

async fn chart(app: &TestApp) -> String {
    let path = format!("/v1/customers/{}/usage/chart.svg", customer(0));
    app.get(&path).await.text()
}

async fn page(app: &TestApp) -> String {
    app.get(&format!("/?customer={}", customer(0))).await.text()
}

#[tokio::test]
async fn every_form_shows_the_same_percentage() {
    let app = TestApp::start().await;
    let workload = |name: &str, active: u64, qualified: u64| SimulatedRow {
        licenses_active: active,
        ..SimulatedRow::new("E3", name, qualified, app.simulator.newest_date())
    };
    let rows = vec![
        workload("A", 118, 163),
        workload("B", 99_999, 100_000),
        workload("C", 7, 5),
        workload("D", 1, 100_000),
        workload("E", 3, 0),
    ];
    app.set_rows(customer(0), rows);

    let json = app.usage(customer(0)).await.json();
    let csv = csv(&app).await.text();
    let (chart, page) = (chart(&app).await, page(&app).await);

    let of = |workloads: &Value, field: &str| {
        let workloads = workloads.as_array().unwrap().iter();
        workloads.map(|one| one[field].clone()).collect::<Value>()
    };
    let expected = json!([72.4, 99.9, 140.0, 0.1, null]);
    let product = &json["products"][0]["workloads"];
    assert_eq!(of(&json["workloads"], "usagePercent"), expected);
    assert_eq!(of(product, "usagePercent"), expected);
    // The simulator cuts off, as Microsoft does.
    let reported = json!([72.3, 99.9, 140.0, 0.0, 300.0]);
    assert_eq!(of(product, "reportedUsagePercent"), reported);
    assert_eq!(
        of(&json["workloads"], "reportedUsagePercent"),
        json!([null, null, null, null, null])
    );
    for line in ["118,163,72.4,72.3,\r\n", "3,0,,300.0,\r\n"] {
        assert!(csv.contains(line), "{line} in {csv}");
    }
    for percent in [">72.4%<", ">99.9%<", ">140.0%<", ">0.1%<"] {
        for form in [&chart, &page] {
            assert!(form.contains(percent), "{percent} in {form}");
        }
    }
}

#[tokio::test]
async fn the_busiest_workload_decides_how_many_licenses_are_unused() {
    let app = TestApp::start().await;
    let workload = |name: &str, active: u64, qualified: u64| {
        let fields = json!({ "workloadName": name, "productName": "E3" });
        changed(row(active, qualified), fields)
    };
    let rows = [
        workload("Exchange", 3, 9),
        workload("Teams", 7, 10),
        row(7, 5),
    ];
    send(&app, &rows);

    let json = app.usage(customer(0)).await.json();

    let unused = |product: usize| json["products"][product]["licensesUnused"].clone();
    assert_eq!((unused(0), unused(1)), (json!(3), json!(0)), "{json}");
}

#[tokio::test]
async fn totals_over_several_dates_are_marked() {
    let app = TestApp::start().await;
    let older = json!({
        "productName": "E3",
        "workloadName": "Teams",
        "processedDateTime": "2026-11-18T00:00:00Z",
    });
    send(&app, &[row(1, 2), changed(row(1, 2), older)]);

    let json = app.usage(customer(0)).await.json();
    let (chart, page) = (chart(&app).await, page(&app).await);

    assert_eq!(json["processedDate"], "2026-11-19");
    assert_eq!(json["oldestProcessedDate"], "2026-11-18");
    let oldest = |total: usize| &json["workloads"][total]["oldestProcessedDate"];
    assert_eq!((oldest(0), oldest(1)), (&Value::Null, &json!("2026-11-18")));
    let dates = " 2026-11-18 to 2026-11-19";
    for (form, text) in [(chart, "processed"), (page, "counts of")] {
        assert!(form.contains(&format!("{text}{dates}")), "{form}");
    }
}

#[tokio::test]
async fn an_answer_of_one_date_has_no_other() {
    let app = TestApp::start().await;
    send(&app, &[row(1, 2)]);

    let json = app.usage(customer(0)).await.text();

    assert!(!json.contains("oldestProcessedDate"), "{json}");
}

#[tokio::test]
async fn products_of_the_same_name_are_distinguished_by_channel() {
    let app = TestApp::start().await;
    let direct = changed(row(1, 2), json!({ "channel": "direct" }));
    send(&app, &[row(1, 2), direct]);

    let (chart, page) = (chart(&app).await, page(&app).await);

    for channel in ["reseller", "direct"] {
        let (in_chart, in_page) = (", 2 licences<", ", o365, 2 licences, 1 unused<");
        for (form, text) in [(&chart, in_chart), (&page, in_page)] {
            assert!(form.contains(&format!(">{channel}{text}")), "{form}");
        }
    }
}

#[tokio::test]
async fn a_row_that_is_sent_twice_counts_once() {
    let app = TestApp::start().await;
    let noon = changed(
        row(9, 10),
        json!({ "processedDateTime": "2026-11-19T12:00:00Z" }),
    );
    for (rows, expected) in [
        (vec![row(1, 5), row(1, 5)], (1, 5)),
        (vec![row(1, 5), noon.clone()], (9, 10)),
        (vec![noon, row(1, 5)], (9, 10)),
    ] {
        let app = TestApp::start().await;
        send(&app, &rows);

        let json = app.usage(customer(0)).await.json();

        let product = &json["products"][0];
        assert_eq!(product["workloads"].as_array().unwrap().len(), 1, "{json}");
        for counts in [&product["workloads"][0], &json["workloads"][0]] {
            assert_eq!(counts["licensesActive"], expected.0, "{json}");
            assert_eq!(counts["licensesQualified"], expected.1, "{json}");
        }
        assert_eq!(product["licensesQualified"], expected.1);
    }
    send(&app, &[row(1, 5), row(1, 5)]);
    let native = app.native(customer(0)).await.json();
    assert_eq!(native["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn rows_that_contradict_each_other_are_counted_and_the_larger_wins() {
    let app = TestApp::start().await;
    send(&app, &[row(4, 5), row(1, 6), row(4, 5)]);

    let json = app.usage(customer(0)).await.json();

    assert_eq!(json["workloads"][0]["licensesQualified"], 6);
    assert_eq!(json["workloads"][0]["licensesActive"], 1);
    let contradictions = app
        .metric("usage_proxy_upstream_contradictions_total")
        .await;
    assert_eq!(contradictions, 2.0);
}

#[tokio::test]
async fn the_order_of_rows_changes_nothing() {
    let named = |name: Value, at: &str| {
        let fields = json!({ "customerName": name, "processedDateTime": at, "workloadName": at });
        changed(row(1, 5), fields)
    };
    let rows = [
        named(json!("Zulu"), "2026-11-18T00:00:00Z"),
        named(json!("Contoso B"), "2026-11-19T00:00:00Z"),
        named(json!("Contoso A"), "2026-11-19T00:00:00+00:00"),
        named(Value::Null, "2026-11-19T12:00:00Z"),
    ];
    let mut answers = Vec::new();

    for first in 0..rows.len() {
        let app = TestApp::start().await;
        let mut rows = rows.to_vec();
        rows.rotate_left(first);
        send(&app, &rows);
        answers.push(app.usage(customer(0)).await);
    }

    assert_eq!(answers[0].json()["customerName"], "Contoso A");
    for answer in &answers[1..] {
        assert_eq!(answer.text(), answers[0].text());
        assert_eq!(answer.header("etag"), answers[0].header("etag"));
    }
}

#[tokio::test]
async fn a_customer_without_rows_has_the_name_from_the_cached_list() {
    let app = TestApp::start().await;
    // The simulator's first customer that uses nothing.
    let customer = app.simulator.customers()[20];
    let nameless = app.usage(customer).await;
    let usage = usage_path(customer);
    let list = app.get("/v1/customers").await.json();
    let listed = list["items"].as_array().unwrap().iter();
    let mut listed = listed.filter(|item| item["id"] == customer.to_string());
    let name = listed.next().unwrap()["companyProfile"]["companyName"].clone();
    let name = name.as_str().unwrap();

    let named = app.usage(customer).await;
    let chart = app.get(&format!("{usage}/chart.svg")).await.text();
    app.advance(Duration::from_secs(1_000));
    app.usage(customer).await;
    app.wait_until_filled().await;
    let refreshed = app.usage(customer).await;

    assert_eq!(nameless.json()["customerName"], Value::Null);
    assert_eq!(named.json()["customerName"], name);
    assert!(named.cache_status().contains("hit"));
    assert!(
        chart.contains(&format!("<title id=\"title\">Licence adoption of {name}, ")),
        "{chart}"
    );
    assert_ne!(named.header("etag"), nameless.header("etag"));
    for header in ["etag", "last-modified"] {
        assert_eq!(refreshed.header(header), named.header(header), "{header}");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}
