//! Usage of all customers: `/v1/usage`, `/v1/usage/customers`, `/v1/usage/unused`.

use jiff::ToSpan;
use usage_proxy::simulator::SimulatedApi;

use crate::support::prelude::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

const PATHS: [&str; 3] = ["/v1/usage", "/v1/usage/customers", "/v1/usage/unused"];

const SUCCESSFUL_REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;

fn commercial() -> Builder {
    TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
}

async fn refreshed(builder: Builder) -> TestApp {
    let app = builder.start().await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 1.0).await;
    app
}

/// Has the documented customer alone fetched.
async fn one_fetched() -> TestApp {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app
}

/// Returns a number of each item, `None` for null.
fn numbers(answer: &Value, list: &str, field: &str) -> Vec<Option<u64>> {
    let items = answer[list].as_array().unwrap().iter();
    items.map(|item| item[field].as_u64()).collect()
}

fn total(answer: &Value, list: &str, field: &str) -> u64 {
    numbers(answer, list, field).into_iter().flatten().sum()
}

#[tokio::test]
async fn before_anything_is_fetched_the_answer_says_so() {
    let app = TestApp::start().await;

    let answer = app.get("/v1/usage").await.json();

    let customers = app.simulator.customers().len();
    assert_eq!(answer["complete"], false);
    assert_eq!(answer["processedDate"], Value::Null);
    assert_eq!(answer["customers"]["total"], customers);
    assert_eq!(answer["customers"]["notFetched"], customers);
    assert_eq!(answer["totals"]["licensesQualified"], 0);
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn without_the_list_of_customers_the_answer_is_503() {
    let app = TestApp::without_retries().await;
    app.set_faults(failing(500));

    for path in PATHS {
        let reply = app.get(path).await;

        reply.problem(503, "unavailable");
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    app.clear_faults();
    app.advance(60 * SECOND);
    assert_eq!(app.get("/v1/usage").await.status, 200);
}

#[tokio::test]
async fn after_a_refresh_all_customers_are_counted_and_the_three_answers_agree() {
    let app = refreshed(commercial()).await;
    app.simulator.clear_requests();

    let totals = app.get("/v1/usage").await.json();
    let customers = app.get("/v1/usage/customers?limit=5000").await.json();
    let unused = app.get("/v1/usage/unused?limit=5000").await.json();

    assert_eq!(app.simulator.requests().len(), 0);
    assert_eq!(totals["customers"], customers["customers"]);
    assert_eq!(totals["customers"], unused["customers"]);
    let newest = app.simulator.newest_date().to_string();
    for (field, of_one) in [
        ("licensesQualified", 100),
        ("licensesActive", 1),
        ("licensesUnused", 1),
    ] {
        let sum = totals["totals"][field].as_u64().unwrap();
        assert!(sum >= of_one, "{field}: {sum}");
        for (answer, list) in [
            (&totals, "products"),
            (&totals, "services"),
            (&customers, "items"),
            (&unused, "items"),
        ] {
            assert_eq!(total(answer, list, field), sum, "{list} {field}");
            assert_eq!(answer["processedDate"], newest);
        }
    }
    let sorted = numbers(&unused, "items", "licensesUnused");
    assert!(sorted.is_sorted_by(|before, after| before >= after));
}

#[tokio::test]
async fn the_numbers_of_a_customer_are_those_of_its_own_answer() {
    let app = refreshed(commercial()).await;
    let own = app.usage(customer(0)).await.json();

    let path = format!("/v1/usage/unused?customer={}&limit=5000", customer(0));
    let answer = app.get(&path).await.json();

    assert_eq!(answer["customers"]["total"], 1);
    assert_eq!(answer["complete"], true);
    for field in ["licensesQualified", "licensesUnused"] {
        assert_eq!(
            total(&answer, "items", field),
            total(&own, "products", field)
        );
    }
}

#[tokio::test]
async fn a_caller_sees_its_customers_in_every_number() {
    let callers = [
        TestCaller::named("grafana"),
        TestCaller::named("portal").with_customers(&[customer(0), customer(1)]),
        TestCaller::named("nobody").with_customers(&[Uuid::from_u128(1)]),
    ];
    let app = refreshed(commercial().callers(&callers)).await;

    for (path, list) in [
        ("/v1/usage", "products"),
        ("/v1/usage/customers", "items"),
        ("/v1/usage/unused", "items"),
    ] {
        let both = format!("{path}?customer={}&customer={}", customer(0), customer(1));
        let of_both = app.get_as("grafana", &both).await;
        let own = app.get_as("portal", path).await;
        let none = app.get_as("nobody", path).await.json();

        assert_eq!(own.json()["customers"]["total"], 2);
        assert!(total(&own.json(), list, "licensesQualified") > 0);
        assert_eq!(own.text(), of_both.text(), "{path}");
        assert_eq!(
            own.header("vary"),
            "Accept, Accept-Encoding, Authorization, X-Api-Key"
        );
        assert_eq!(none["customers"]["total"], 0);
        assert_eq!(none[list], json!([]));
    }
}

#[tokio::test]
async fn a_caller_may_not_ask_for_other_customers() {
    let callers = [
        TestCaller::named("portal").with_customers(&[customer(0)]),
        TestCaller::named("refresher").with_scopes(&["cache:refresh"]),
    ];
    let app = refreshed(commercial().callers(&callers)).await;
    let denied = "usage_proxy_authorization_denied_total";

    for path in PATHS {
        let before = app.metric(denied).await;
        let other = format!("{path}?customer={}&customer={}", customer(0), customer(1));
        let unknown = format!("{path}?customer={}", Uuid::from_u128(1));
        for reply in [
            app.get_as("portal", &other).await,
            app.get_as("portal", &unknown).await,
            app.get_as("refresher", path).await,
        ] {
            reply.problem(403, "not-allowed");
        }
        assert_eq!(app.metric(denied).await, before + 3.0);
    }
}

#[tokio::test]
async fn the_portfolio_names_prices_and_excludes_products_and_groups_customers() {
    let portfolio = format!(
        "[[product]]\nproduct = \"Exchange Online (Plan 1)\"\nname = \"Mail\"\nprice = 3.70\ncurrency = \"EUR\"\n\
         [[product]]\nproduct = \"OFFICE 365 BUSINESS ESSENTIALS\"\nexclude = true\n\
         [[group]]\nname = \"Demo\"\ncustomers = [\"{DOCUMENTED}\"]\n"
    );
    let app = TestApp::builder().portfolio(&portfolio).start().await;
    app.usage(DOCUMENTED).await;

    let totals = app.get("/v1/usage?group=Demo").await.json();
    let customers = app.get("/v1/usage/customers?group=Demo").await.json();
    let unused = app
        .get("/v1/usage/unused?sort=cost&product=mail")
        .await
        .json();
    let unknown = app.get("/v1/usage?group=North").await;

    let cost = json!([{ "currency": "EUR", "perMonth": 18.5, "licensesPriced": 5 }]);
    assert_eq!(totals["excluded"], 1);
    assert_eq!(
        totals["totals"],
        json!({ "licensesQualified": 7, "licensesActive": 0, "licensesUnused": 7, "unusedCost": cost })
    );
    assert_eq!(totals["products"][0]["displayName"], "Mail");
    assert_eq!(customers["items"][0]["groups"], json!(["Demo"]));
    assert_eq!(unused["items"].as_array().unwrap().len(), 1);
    assert_eq!(unused["items"][0]["unusedCost"], cost);
    unknown.problem(400, "invalid-parameter");

    app.reload_portfolio("[[product]]\nproduct = \"Teams\"\nexclude = true\n")
        .await;
    let reloaded = app.get("/v1/usage").await.json();
    assert_eq!(reloaded["excluded"], 0);
    assert_eq!(reloaded["totals"]["licensesUnused"], 8);
}

#[tokio::test]
async fn csv_is_negotiated_and_a_table_is_saved_as_a_file() {
    let app = one_fetched().await;
    let date = "2017-03-09";

    for (path, name, first) in [
        (
            "/v1/usage",
            "products",
            "productName,displayName,customers,",
        ),
        (
            "/v1/usage/customers",
            "customers",
            "customerId,customerName,groups,",
        ),
        (
            "/v1/usage/unused",
            "unused",
            "customerId,customerName,productName,",
        ),
    ] {
        let csv = app.get_with(path, &[("accept", "text/csv")]).await;
        let table = app.get(&format!("{path}/table.csv")).await;
        let semicolons = app
            .get(&format!("{path}/table.csv?separator=semicolon"))
            .await;

        assert!(csv.text().starts_with(first), "{}", csv.text());
        assert_eq!(table.text(), format!("\u{feff}{}", csv.text()));
        let first = format!("\u{feff}{}", first.replace(',', ";"));
        assert!(
            semicolons.text().starts_with(&first),
            "{}",
            semicolons.text()
        );
        for reply in [csv, table.clone()] {
            assert_eq!(
                reply.header("content-type"),
                "text/csv; charset=utf-8; header=present"
            );
        }
        let file = format!("attachment; filename=\"usage-{name}-{date}.csv\"");
        assert!(table.header("content-disposition").starts_with(&file));
        let json = [("accept", "application/json")];
        app.get_with(&format!("{path}/table.csv"), &json)
            .await
            .problem(406, "not-acceptable");
    }
    let all = app.get("/v1/usage/customers/table.csv").await.text();
    assert_eq!(all.lines().count(), 1 + app.simulator.customers().len());
}

#[tokio::test]
async fn answers_are_validated_compressed_and_kept_as_everywhere() {
    let app = refreshed(commercial()).await;

    for path in PATHS {
        let first = app.get(path).await;
        let again = app.get(path).await;
        let etag = first.header("etag");
        let unchanged = app.get_with(path, &[("if-none-match", etag)]).await;
        let gzip = app.get_with(path, &[("accept-encoding", "gzip")]).await;
        let head = app.call(Method::HEAD, path, &[]).await;

        assert_eq!(first.cache_status(), "hit; ttl=4500", "{path}");
        assert_eq!(first.header("age"), "0");
        assert!(
            first
                .header("cache-control")
                .starts_with("private, max-age=4500")
        );
        assert_eq!(first.header("vary"), "Accept, Accept-Encoding");
        assert!(!first.headers.contains_key("last-modified"), "{path}");
        assert_eq!(first.body, again.body);
        assert_eq!(unchanged.status, 304);
        assert!(unchanged.body.is_empty());
        assert_eq!(gzip.header("content-encoding"), "gzip");
        assert_ne!(gzip.header("etag"), etag);
        assert!(gzip.body.len() < first.body.len());
        assert_eq!((head.status, head.header("etag")), (200, etag));
        app.call(Method::POST, path, &[])
            .await
            .problem(405, "method-not-allowed");
    }
}

#[tokio::test]
async fn the_same_data_of_another_process_has_the_same_validator() {
    let [one, other] = [refreshed(commercial()).await, refreshed(commercial()).await];

    for path in PATHS {
        let path = format!(
            "{path}{}",
            if path == "/v1/usage" { "" } else { "?limit=3" }
        );
        let (one, other) = (one.get(&path).await, other.get(&path).await);
        assert_eq!(one.header("etag"), other.header("etag"));
    }
}

#[tokio::test]
async fn a_cursor_leads_through_all_rows_and_expires_when_the_data_changes() {
    let app = refreshed(commercial()).await;
    let whole = app
        .get("/v1/usage/unused?sort=percent&limit=5000")
        .await
        .json();

    let mut rows = Vec::new();
    let mut path = "/v1/usage/unused?sort=percent&limit=7".to_owned();
    let first_cursor = loop {
        let page = app.get(&path).await.json();
        rows.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else {
            break path.split("cursor=").nth(1).unwrap().to_owned();
        };
        path = format!("/v1/usage/unused?sort=percent&limit=7&cursor={cursor}");
    };

    assert_eq!(json!(rows), whole["items"]);
    let continued = format!("/v1/usage/unused?sort=percent&cursor={first_cursor}");
    assert_eq!(app.get(&continued).await.status, 200);
    let other_order = format!("/v1/usage/unused?sort=name&cursor={first_cursor}");
    app.get(&other_order).await.problem(400, "cursor-expired");
    app.simulator.advance_day();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(SUCCESSFUL_REFRESHES, 2.0).await;
    app.get(&continued).await.problem(400, "cursor-expired");
}

#[tokio::test]
async fn a_given_date_is_fetched_once_for_all_customers() {
    let app = refreshed(commercial()).await;
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    app.simulator.clear_requests();
    let path = format!("/v1/usage?processedDate={date}");

    let first = app.get(&path).await;
    let again = app.get(&path).await;
    let unused = app
        .get(&format!("/v1/usage/unused?processedDate={date}"))
        .await;

    assert!(
        first
            .cache_status()
            .starts_with("fwd=uri-miss; fwd-status=200; stored")
    );
    assert!(first.headers.contains_key("ms-requestid"));
    assert!(
        again.cache_status().starts_with("hit;"),
        "{}",
        again.cache_status()
    );
    assert!(!again.headers.contains_key("ms-requestid"));
    let answer = first.json();
    assert_eq!(answer["processedDate"], date.to_string());
    assert_eq!(answer["complete"], true);
    assert!(answer["customers"]["current"].as_u64().unwrap() > 10);
    let items = unused.json()["items"].as_array().unwrap().clone();
    assert!(
        items
            .iter()
            .all(|item| item["processedDate"] == date.to_string())
    );
    assert_eq!(app.calls(SimulatedApi::FleetPage), 1);
    assert_eq!(app.calls(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn a_given_date_is_fetched_again_by_no_cache_and_after_a_purge() {
    let app = refreshed(commercial()).await;
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    let path = format!("/v1/usage?processedDate={date}");
    let no_cache = [("cache-control", "no-cache")];
    app.get(&path).await;
    app.simulator.clear_requests();

    assert!(
        app.get_with(&path, &no_cache)
            .await
            .cache_status()
            .starts_with("hit;")
    );
    app.advance(31 * SECOND);
    let forced = app.get_with(&path, &no_cache).await;
    assert_eq!(app.calls(SimulatedApi::FleetPage), 1);
    app.advance(SECOND);
    app.admin_post("/cache/purge").await;
    app.advance(SECOND);
    let purged = app.get(&path).await;

    assert!(
        forced
            .cache_status()
            .starts_with("fwd=request; fwd-status=200; stored")
    );
    assert!(purged.cache_status().starts_with("fwd=uri-miss"));
}

#[tokio::test]
async fn only_if_cached_makes_no_call_for_a_date() {
    let app = refreshed(commercial()).await;
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    let path = format!("/v1/usage?processedDate={date}");
    let only = [("cache-control", "only-if-cached")];
    app.simulator.clear_requests();

    app.get_with(&path, &only).await.problem(504, "not-held");
    assert_eq!(app.simulator.requests().len(), 0);
    app.get(&path).await;
    assert_eq!(app.get_with(&path, &only).await.status, 200);
}

#[tokio::test]
async fn a_date_that_cannot_be_fetched_is_a_problem_and_asked_for_again_later() {
    let app = refreshed(commercial().set("upstream.retries", "0")).await;
    let date = app.simulator.newest_date().checked_sub(40.days()).unwrap();
    let path = format!("/v1/usage?processedDate={date}");
    app.get("/v1/usage?processedDate=2001-01-01")
        .await
        .problem(404, "nothing-processed");
    app.set_faults(failing(500));

    app.get(&path).await.problem(503, "unavailable");
    let calls = app.calls(SimulatedApi::FleetPage);
    app.get(&path).await.problem(503, "unavailable");
    assert_eq!(
        app.calls(SimulatedApi::FleetPage),
        calls,
        "the failure is remembered"
    );
    app.clear_faults();
    app.advance(60 * SECOND);
    assert_eq!(app.get(&path).await.status, 200);
}

#[tokio::test]
async fn customers_that_cannot_be_asked_for_are_named_with_the_reason() {
    let app = one_fetched().await;
    app.set_faults(refusing(403, "2032"));
    app.usage(customer(0)).await.problem(403, "no-relationship");
    app.clear_faults();

    let answer = app.get("/v1/usage").await.json();
    let rows = app.get("/v1/usage/customers?limit=5000").await.json();

    let others = app.simulator.customers().len() - 2;
    let counts = json!({
        "total": others + 2, "current": 1, "stale": 0, "empty": 0, "failed": 1, "notFetched": others,
    });
    assert_eq!(answer["customers"], counts);
    let failed = answer["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["customerId"], customer(0).to_string());
    assert_eq!(failed[0]["reason"], "no-relationship");
    let items = rows["items"].as_array().unwrap().iter();
    let unknown = items
        .filter(|item| item["licensesUnused"].is_null())
        .count();
    assert_eq!(unknown, others + 1);
}

#[tokio::test]
async fn a_batch_reports_a_customer_that_does_not_exist() {
    let app = one_fetched().await;
    let unknown = Uuid::from_u128(1);

    let answer = app
        .get(&format!(
            "/v1/usage/customers?customer={DOCUMENTED}&customer={unknown}"
        ))
        .await
        .json();

    assert_eq!(answer["complete"], false);
    let failed = json!([{ "customerId": unknown.to_string(), "reason": "unknown-customer" }]);
    assert_eq!(answer["failed"], failed);
    assert_eq!(answer["items"][0]["customerId"], DOCUMENTED);
    assert_eq!(answer["items"][1]["status"], "failed");
}
