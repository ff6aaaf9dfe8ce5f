//! What is stored shows how usage moved: dates, history and changes of a customer, and of all.

use std::collections::BTreeSet;

use usage_proxy::simulator::SimulatedApi;

use crate::support::{described::assert_matches_description, prelude::*};

const FROM_STORE: &str = "hit; detail=store";

/// The newest processed date of the simulator, and earlier ones.
pub(crate) const NEWEST: &str = "2026-11-19";
pub(crate) const DAY_BEFORE: &str = "2026-11-18";
pub(crate) const EARLIER: &str = "2026-11-16";
/// The only date of [`DOCUMENTED`].
const DOCUMENTED_DAY: &str = "2017-03-09";
pub(crate) const FOUR_WEEKS_BEFORE: &str = "2026-10-22";

pub(crate) fn builder() -> Builder {
    TestApp::builder()
        .with_own_store()
        .set("upstream.source", "commercial")
}

/// A service that has fetched these dates of a customer.
pub(crate) async fn with_dates(customer: impl Display, dates: &[&str]) -> TestApp {
    let app = builder().start().await;
    app.fetch_dates(customer, dates).await;
    app
}

fn history_path(customer: impl Display, query: &str) -> String {
    format!("/v1/customers/{customer}/usage/history{query}")
}

fn dates_path(customer: impl Display) -> String {
    format!("/v1/customers/{customer}/usage/dates")
}

fn changes_path(customer: impl Display, query: &str) -> String {
    format!("/v1/customers/{customer}/usage/changes{query}")
}

/// The items of an answer, whose schema is described.
#[track_caller]
fn items(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_matches_description(reply);
    reply.json()["items"].as_array().unwrap().clone()
}

fn dates_of(items: &[Value]) -> Vec<String> {
    let dates = items.iter().map(|item| &item["processedDate"]);
    let dates: BTreeSet<_> = dates
        .map(|date| date.as_str().unwrap().to_owned())
        .collect();
    dates.into_iter().collect()
}

impl TestApp {
    pub(crate) async fn fetch_dates(&self, customer: impl Display, dates: &[&str]) {
        for date in dates {
            let reply = self.dated(&customer, date).await;
            assert!([200, 404].contains(&reply.status), "{reply:?}");
        }
        self.wait_until_stored().await;
    }
}

#[tokio::test]
async fn history_has_the_rows_of_each_stored_date_and_none_for_a_gap() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;

    let reply = app
        .get(&history_path(customer(0), "?from=2026-11-16"))
        .await;

    let history = reply.json();
    assert_eq!(history["from"], EARLIER);
    assert_eq!(history["to"], "2026-11-22");
    assert_eq!(history["nextCursor"], Value::Null);
    assert_eq!(dates_of(&items(&reply)), [EARLIER, NEWEST]);
    let usage = app.dated(customer(0), NEWEST).await.json();
    let products = usage["products"].as_array().unwrap().iter();
    let expected: Vec<_> = products
        .flat_map(|product| {
            let workloads = product["workloads"].as_array().unwrap().iter();
            workloads.map(|workload| {
                json!({
                    "processedDate": NEWEST,
                    "productName": product["productName"],
                    "productId": product["productId"],
                    "serviceName": product["serviceName"],
                    "channel": product["channel"],
                    "workloadName": workload["workloadName"],
                    "licensesActive": workload["licensesActive"],
                    "licensesQualified": workload["licensesQualified"],
                    "usagePercent": workload["usagePercent"],
                })
            })
        })
        .collect();
    let all = items(&reply);
    let newest: Vec<_> = all
        .iter()
        .filter(|item| item["processedDate"] == NEWEST)
        .collect();
    assert_eq!(newest.len(), expected.len());
    for row in &expected {
        assert!(newest.contains(&row), "{row} in {newest:?}");
    }
}

#[tokio::test]
async fn history_is_complete_once_every_date_was_asked_for() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    let range = history_path(customer(0), "?from=2026-11-16&to=2026-11-19");
    let is_complete = async || app.get(&range).await.json()["complete"].clone();

    assert_eq!(is_complete().await, false);
    app.fetch_dates(customer(0), &["2026-11-17", DAY_BEFORE])
        .await;
    assert_eq!(is_complete().await, true);
}

#[tokio::test]
async fn a_date_for_which_nothing_was_processed_is_no_gap_in_what_is_known() {
    let app = builder().start().await;
    app.usage(DOCUMENTED).await;
    app.fetch_dates(DOCUMENTED, &["2017-03-08"]).await;

    let reply = app
        .get(&history_path(DOCUMENTED, "?from=2017-03-08&to=2017-03-09"))
        .await;

    assert_eq!(reply.json()["complete"], true);
    assert_eq!(dates_of(&items(&reply)), [DOCUMENTED_DAY]);
}

#[tokio::test]
async fn a_customer_of_whom_nothing_is_stored_has_an_empty_and_incomplete_history() {
    let app = builder().start().await;

    let reply = app.get(&history_path(customer(0), "")).await;

    assert_eq!(reply.json()["from"], "2025-10-22", "13 months ago");
    assert_eq!(reply.json()["complete"], false);
    assert!(items(&reply).is_empty());
    assert!(items(&app.get(&dates_path(customer(0))).await).is_empty());
}

#[tokio::test]
async fn history_is_answered_without_any_upstream_call_and_compared_by_etag() {
    let app = with_dates(customer(0), &[NEWEST]).await;
    app.simulator.clear_requests();
    let path = history_path(customer(0), "");

    let reply = app.get_with(&path, &[("cache-control", "no-cache")]).await;

    assert_eq!(reply.cache_status(), FROM_STORE);
    reply.assert_headers(&[
        ("cache-control", "private, no-cache"),
        ("content-type", "application/json"),
        ("last-modified", ""),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ]);
    let etag = reply.header("etag");
    let unchanged = app.get_with(&path, &[("if-none-match", etag)]).await;
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.header("etag"), etag);
    let head = app.call(Method::HEAD, &path, &[]).await;
    assert_eq!((head.status, head.header("etag")), (200, etag));
    let coded = app.get_with(&path, &[("accept-encoding", "zstd")]).await;
    assert_eq!(coded.header("content-encoding"), "zstd");
    assert_eq!(zstd::decode_all(&*coded.body).unwrap(), reply.body);
    assert_ne!(coded.header("etag"), etag);
    assert_eq!(app.simulator.requests().len(), 0);
}

#[tokio::test]
async fn another_stored_date_changes_the_etag() {
    let app = with_dates(customer(0), &[NEWEST]).await;
    let path = history_path(customer(0), "");
    let before = app.get(&path).await;

    app.fetch_dates(customer(0), &[EARLIER]).await;

    let known = [("if-none-match", before.header("etag"))];
    let after = app.get_with(&path, &known).await;
    assert_eq!(after.status, 200);
}

#[tokio::test]
async fn pages_have_every_row_once_and_in_order() {
    let app = with_dates(customer(0), &[EARLIER, DAY_BEFORE, NEWEST]).await;
    let whole = items(&app.get(&history_path(customer(0), "")).await);
    let mut paged = Vec::new();
    let mut query = "?limit=2".to_owned();

    loop {
        let page = app.get(&history_path(customer(0), &query)).await;
        let rows = items(&page);
        assert!(rows.len() <= 2);
        paged.extend(rows);
        match page.json()["nextCursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }

    assert_eq!(paged, whole);
    assert!(dates_of(&whole).is_sorted());
}

#[tokio::test]
async fn a_cursor_of_another_query_is_rejected() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    let first = app.get(&history_path(customer(0), "?limit=1")).await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let changed = cursor.replacen(&cursor[..1], if &cursor[..1] == "A" { "B" } else { "A" }, 1);

    for path in [
        history_path(customer(1), &format!("?limit=1&cursor={cursor}")),
        history_path(customer(0), &format!("?limit=1&product=E3&cursor={cursor}")),
        history_path(customer(0), &format!("?from=2026-11-18&cursor={cursor}")),
        history_path(customer(0), &format!("?cursor={changed}")),
        history_path(customer(0), "?cursor="),
    ] {
        let words = &["cursor", "nextCursor"];
        app.get(&path)
            .await
            .problem_with(400, "cursor-expired", words);
    }
}

#[tokio::test]
async fn history_of_a_product_or_workload_has_no_other_rows() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    let all = items(&app.get(&history_path(customer(0), "")).await);
    let (product, workload) = (&all[0]["productName"], &all[0]["workloadName"]);
    let lower = |value: &Value| value.as_str().unwrap().to_lowercase();

    for (query, field, value) in [
        (
            format!("?product={}", lower(product)),
            "productName",
            product,
        ),
        (
            format!("?product={}", lower(&all[0]["productId"])),
            "productName",
            product,
        ),
        (
            format!("?workload={}", lower(workload)),
            "workloadName",
            workload,
        ),
    ] {
        let rows = items(&app.get(&history_path(customer(0), &query)).await);

        let expected: Vec<_> = all.iter().filter(|row| row[field] == *value).collect();
        assert_eq!(rows.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let none = app
        .get(&history_path(customer(0), "?product=nothing"))
        .await;
    assert!(items(&none).is_empty());
}

#[tokio::test]
async fn a_correction_is_counted_and_shown() {
    let app = with_dates(customer(0), &[DAY_BEFORE, NEWEST]).await;
    let path = history_path(customer(0), "?from=2026-11-18&to=2026-11-18");
    let before = items(&app.get(&path).await);
    app.advance(Duration::from_secs(60 * 60));
    app.simulator.correct_counts(DAY_BEFORE.parse().unwrap());

    let no_cache = [("cache-control", "no-cache")];
    let dated = dated_path(customer(0), DAY_BEFORE);
    let corrected = app.get_with(&dated, &no_cache).await;
    assert_eq!(corrected.status, 200);
    app.wait_until_stored().await;

    let after = items(&app.get(&path).await);
    let qualified = |row: &Value| row["licensesQualified"].as_u64().unwrap();
    assert_eq!(after.len(), before.len());
    for (after, before) in after.iter().zip(&before) {
        assert_eq!(qualified(after), qualified(before) + 1);
    }
    let dates = items(&app.get(&dates_path(customer(0))).await);
    assert_eq!(dates_of(&dates), [DAY_BEFORE, NEWEST]);
    assert_eq!(dates[0]["corrections"], 1);
    assert_eq!(dates[1]["corrections"], 0);
    let time = |date: &Value, field: &str| date[field].as_str().unwrap().to_owned();
    assert!(time(&dates[0], "fetchedAt") > time(&dates[1], "confirmedAt"));
}

#[tokio::test]
async fn a_hard_purge_deletes_no_history() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    let before = items(&app.get(&history_path(customer(0), "")).await);

    app.admin_post("/cache/purge?hard=true").await;
    app.wait_until_stored().await;

    assert_eq!(
        items(&app.get(&history_path(customer(0), "")).await),
        before
    );
    let changes = app
        .get(&changes_path(customer(0), "?from=2026-11-16"))
        .await;
    assert_eq!(changes.status, 200);
}

#[tokio::test]
async fn changes_compare_the_newest_date_with_one_four_weeks_before() {
    let dates = [FOUR_WEEKS_BEFORE, "2026-10-23", EARLIER, NEWEST];
    let app = with_dates(customer(0), &dates).await;

    let reply = app.get(&changes_path(customer(0), "")).await;

    assert_eq!(reply.json()["from"], FOUR_WEEKS_BEFORE);
    assert_eq!(reply.json()["to"], NEWEST);
    let rows = async |date: &str| {
        let query = format!("?from={date}&to={date}");
        items(&app.get(&history_path(customer(0), &query)).await)
    };
    let counts = |rows: &[Value], change: &Value| {
        let row = rows.iter().find(|row| {
            ["productName", "productId", "workloadName"]
                .iter()
                .all(|name| row[name] == change[name])
        });
        row.map_or(Value::Null, |row| {
            json!({
                "licensesActive": row["licensesActive"],
                "licensesQualified": row["licensesQualified"],
            })
        })
    };
    let (before, after) = (rows(FOUR_WEEKS_BEFORE).await, rows(NEWEST).await);
    let changes = items(&reply);
    assert!(!changes.is_empty());
    for change in &changes {
        assert_eq!(change["from"], counts(&before, change), "{change}");
        assert_eq!(change["to"], counts(&after, change), "{change}");
    }
}

#[tokio::test]
async fn changes_name_what_was_added_removed_grown_and_shrunk() {
    let app = builder().start().await;
    let row = |date: &str, product, licenses_active, licenses_qualified| SimulatedRow {
        licenses_active,
        ..SimulatedRow::new(product, "Teams", licenses_qualified, date.parse().unwrap())
    };
    let rows = vec![
        row(EARLIER, "A", 3, 8),
        row(EARLIER, "B", 3, 8),
        row(EARLIER, "C", 3, 8),
        row(EARLIER, "D", 3, 8),
        row(NEWEST, "B", 4, 8),
        row(NEWEST, "C", 3, 7),
        row(NEWEST, "D", 3, 8),
        row(NEWEST, "E", 0, 1),
    ];
    let newest = NEWEST.parse().unwrap();
    app.set_answer(customer(0), CustomerOverride::History { newest, rows });
    app.fetch_dates(customer(0), &[EARLIER, NEWEST]).await;

    let changes = items(
        &app.get(&changes_path(customer(0), "?from=2026-11-16"))
            .await,
    );

    let changes: Vec<_> = changes
        .iter()
        .map(|change| {
            (
                change["productName"].as_str().unwrap(),
                change["change"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("A", "removed"),
        ("B", "grown"),
        ("C", "shrunk"),
        ("E", "added"),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn a_date_to_compare_that_is_not_stored_is_404_with_its_neighbours() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;

    for [query, words] in rows(
        "?from=2026-11-17 | 2026-11-17 is not stored; the nearest stored dates are 2026-11-16 and 2026-11-19
         ?from=2026-11-16&to=2026-11-20 | 2026-11-20 is not stored; the nearest stored date is 2026-11-19
         ?from=2026-11-01 | 2026-11-01 is not stored; the nearest stored date is 2026-11-16
          | no date at least 28 days before 2026-11-19 is stored, the oldest is 2026-11-16",
    ) {
        let reply = app.get(&changes_path(customer(0), query)).await;
        reply.problem_with(404, "not-stored", &[words]);
    }
    let nothing = app.get(&changes_path(customer(1), "")).await;
    nothing.problem_with(404, "not-stored", &["nothing of this customer is stored"]);
}

#[tokio::test]
async fn csv_has_the_same_rows_for_programs_and_for_spreadsheets() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    for (path, columns) in [
        (
            history_path(customer(0), ""),
            "processedDate,productName,displayName,",
        ),
        (
            dates_path(customer(0)),
            "processedDate,fetchedAt,confirmedAt,corrections",
        ),
        (
            changes_path(customer(0), "?from=2026-11-16"),
            "fromDate,toDate,change,productName,",
        ),
        (
            "/v1/usage/history".to_owned(),
            "processedDate,customers,licensesQualified,",
        ),
    ] {
        let (resource, query) = path.split_once('?').unwrap_or((&path, ""));
        let table = |parameter: &str| format!("{resource}/table.csv?{query}{parameter}");

        let json = items(&app.get(&path).await);
        let csv = app.get_with(&path, &[("accept", "text/csv")]).await;
        let spreadsheet = app.get(&table("")).await;
        let semicolons = app.get(&table("&separator=semicolon")).await;

        assert_eq!(
            csv.header("content-type"),
            "text/csv; charset=utf-8; header=present"
        );
        let csv = csv.text();
        assert!(csv.starts_with(columns), "{csv}");
        assert_eq!(csv.lines().count(), json.len() + 1);
        assert_eq!(spreadsheet.text(), format!("\u{feff}{csv}"));
        assert!(
            semicolons
                .text()
                .starts_with(&format!("\u{feff}{}", columns.replace(',', ";")))
        );
        let file = spreadsheet.header("content-disposition");
        assert!(file.starts_with("attachment; filename=\"usage-"), "{file}");
    }
}

#[tokio::test]
async fn a_table_is_named_by_customer_and_range() {
    let app = with_dates(DOCUMENTED, &[DOCUMENTED_DAY]).await;
    app.get("/v1/customers").await;

    let table = app
        .get(&format!(
            "/v1/customers/{DOCUMENTED}/usage/history/table.csv?from=2017-03-01&to=2017-03-10"
        ))
        .await;

    let name = "usage-history-DT DEMO CSP CUSTOMER 005-2017-03-01-2017-03-10.csv";
    let file = table.header("content-disposition");
    assert!(
        file.starts_with(&format!("attachment; filename=\"{name}\"")),
        "{file}"
    );
}

#[tokio::test]
async fn csv_has_all_rows_unless_a_limit_is_given() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    let csv = [("accept", "text/csv")];
    let lines = async |query: &str| {
        let reply = app.get_with(&history_path(customer(0), query), &csv).await;
        reply.text().lines().count()
    };

    let all = items(&app.get(&history_path(customer(0), "")).await).len();
    assert_eq!(lines("").await, all + 1);
    assert_eq!(lines("?limit=2").await, 3);
}

#[tokio::test]
async fn the_trend_chart_shows_the_same_history() {
    let app = with_dates(DOCUMENTED, &[DOCUMENTED_DAY]).await;
    app.get("/v1/customers").await;
    let path =
        format!("/v1/customers/{DOCUMENTED}/usage/history/chart.svg?from=2017-03-01&to=2017-03-20");

    let reply = app
        .get_with(&path, &[("accept", "image/avif,image/*")])
        .await;

    reply.assert_headers(&[
        ("content-type", "image/svg+xml"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        ),
        ("cross-origin-resource-policy", "cross-origin"),
    ]);
    let svg = reply.text();
    let picture = roxmltree::Document::parse(&svg).unwrap();
    let title = picture.root_element().first_element_child().unwrap();
    let expected = format!("Licences in use at DT DEMO CSP CUSTOMER 005, {DOCUMENTED_DAY}");
    assert_eq!(title.text(), Some(&*expected));
    assert!(
        svg.contains("EXCHANGE ONLINE (PLAN 1): 0 of 5 active on 2017-03-09."),
        "{svg}"
    );
    let dark = app.get(&format!("{path}&theme=dark")).await.text();
    assert!(dark.contains("--paper: #14181d") && !dark.contains("prefers-color-scheme"));
}

#[tokio::test]
async fn the_names_of_the_portfolio_are_in_history_and_changes() {
    let portfolio = "[[product]]\nproduct = \"EXCHANGE ONLINE (PLAN 1)\"\nname = \"Mail\"\n";
    let app = builder().portfolio(portfolio).start().await;
    app.fetch_dates(DOCUMENTED, &[DOCUMENTED_DAY]).await;
    let range = "?from=2017-03-01&to=2017-03-20";

    let rows = items(&app.get(&history_path(DOCUMENTED, range)).await);
    let named = items(
        &app.get(&history_path(DOCUMENTED, &format!("{range}&product=MAIL")))
            .await,
    );
    let chart = format!("/v1/customers/{DOCUMENTED}/usage/history/chart.svg{range}");

    assert_eq!(rows[0]["displayName"], "Mail");
    assert_eq!(rows[1]["displayName"], Value::Null);
    assert_eq!(named, [rows[0].clone()]);
    assert!(app.get(&chart).await.text().contains(">Mail<title>"));
}

#[tokio::test]
async fn fleet_history_sums_the_customers_of_each_date() {
    let app = with_dates(customer(0), &[EARLIER, NEWEST]).await;
    app.fetch_dates(customer(1), &[NEWEST]).await;

    let reply = app
        .get("/v1/usage/history?from=2026-11-16&to=2026-11-19")
        .await;

    assert_eq!(reply.cache_status(), FROM_STORE);
    assert_eq!(
        reply.json()["complete"],
        false,
        "no call asked for all customers"
    );
    let rows = items(&reply);
    assert_eq!(dates_of(&rows), [EARLIER, NEWEST]);
    assert_eq!(rows[0]["customers"], 1);
    assert_eq!(rows[1]["customers"], 2);
    let mut sums = [0; 3];
    for id in [customer(0), customer(1)] {
        add_totals(&mut sums, &app.dated(id, NEWEST).await.json());
    }
    let fields = ["licensesQualified", "licensesActive", "licensesUnused"];
    assert_eq!(fields.map(|field| rows[1][field].as_u64().unwrap()), sums);
    let constant = app
        .get("/v1/usage/history?from=2026-11-16&to=2026-11-19&cohort=constant")
        .await;
    for row in items(&constant) {
        assert_eq!(row["customers"], 1, "only one customer has both dates");
    }
}

/// Adds the qualified, active and unused licenses of each product.
fn add_totals(sums: &mut [u64; 3], usage: &Value) {
    for product in usage["products"].as_array().unwrap() {
        let workloads = product["workloads"].as_array().unwrap().iter();
        let active = workloads.map(|workload| workload["licensesActive"].as_u64().unwrap());
        sums[0] += product["licensesQualified"].as_u64().unwrap();
        sums[1] += active.max().unwrap();
        sums[2] += product["licensesUnused"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn fleet_history_has_only_the_requested_products_and_none_that_is_excluded() {
    let app = builder()
        .portfolio("[[product]]\nproduct = \"EXCHANGE ONLINE (PLAN 1)\"\nexclude = true\n")
        .start()
        .await;
    app.fetch_dates(DOCUMENTED, &[DOCUMENTED_DAY]).await;
    let qualified = async |query: &str| {
        let path = format!("/v1/usage/history?from=2017-03-01&to=2017-03-20{query}");
        let rows = items(&app.get(&path).await);
        rows.first().map(|row| row["licensesQualified"].clone())
    };

    assert_eq!(
        qualified("").await,
        Some(json!(3)),
        "8 without those of Exchange"
    );
    assert_eq!(qualified("&service=O365").await, Some(json!(3)));
    assert_eq!(qualified("&service=crm").await, None);
    assert_eq!(qualified("&channel=Reseller").await, Some(json!(3)));
    let product = "&product=office%20365%20business%20essentials";
    assert_eq!(qualified(product).await, Some(json!(1)));
    assert_eq!(
        qualified("&product=exchange%20online%20(plan%201)").await,
        None
    );
}

#[tokio::test]
async fn every_history_path_needs_a_store() {
    let app = TestApp::start().await;
    let customer = format!("/v1/customers/{}/usage", customer(0));

    for path in [
        format!("{customer}/dates"),
        format!("{customer}/dates/table.csv"),
        format!("{customer}/history"),
        format!("{customer}/history/table.csv"),
        format!("{customer}/history/chart.svg"),
        format!("{customer}/changes"),
        format!("{customer}/changes/table.csv"),
        "/v1/usage/history".to_owned(),
        "/v1/usage/history/table.csv".to_owned(),
    ] {
        app.get(&path)
            .await
            .problem_with(404, "no-store", &["store.url"]);
        app.call(Method::POST, &path, &[])
            .await
            .problem(405, "method-not-allowed");
    }
}

#[tokio::test]
async fn every_invalid_parameter_is_named() {
    let app = builder().start().await;

    for [path, kind, words] in rows(
        "USAGE/history?from=2026-02-30 | processed-date | from is
         USAGE/history?from=2026-11-22&to=2026-11-20 | invalid-parameter | from is
         USAGE/history?from=2016-11-21 | invalid-parameter | 10 years
         USAGE/history?to= | processed-date | to is
         USAGE/history?to=2026-11-23 | processed-date | to is 2026-11-23
         USAGE/history?limit=0 | invalid-parameter | limit is
         USAGE/history?limit=5&limit=5 | duplicate-parameter | limit more than once
         USAGE/history?product= | invalid-parameter | product is
         USAGE/history?theme=dark | unknown-parameter | theme
         USAGE/history/chart.svg?theme=sepia | theme | theme is
         USAGE/history/chart.svg?cursor=x | unknown-parameter | cursor
         USAGE/history/table.csv?separator=tab | invalid-parameter | separator is
         USAGE/dates?from=2026-11-22&to=2026-11-20 | invalid-parameter | from is
         USAGE/dates?limit=1 | unknown-parameter | limit
         USAGE/changes?from=2026-11-23 | processed-date | from is 2026-11-23
         USAGE/changes?from=2026-11-22&to=2026-11-20 | invalid-parameter | from is
         USAGE/changes?product=E3 | unknown-parameter | product
         /v1/customers/contoso/usage/history | customer-id | contoso
         /v1/customers/contoso/usage/changes?to=x | customer-id | contoso
         /v1/usage/history?cohort=all | invalid-parameter | cohort is
         /v1/usage/history?customer=contoso | customer-id | customer is
         /v1/usage/history?group=North | invalid-parameter | group is
         /v1/usage/history?service= | invalid-parameter | service is
         /v1/usage/history?from=2000-01-01&to=2026-01-01 | invalid-parameter | 10 years
         /v1/usage/history?min_unused=3 | unknown-parameter | min_unused",
    ) {
        let path = path.replace("USAGE", &usage_path(customer(0)));
        app.get(&path).await.problem_with(400, kind, &[words]);
    }
}

/// Two callers: one may read two customers, the other everything.
async fn with_callers(dates: &[&str]) -> TestApp {
    let group = format!(
        "[[group]]\nname = \"North\"\ncustomers = [{:?}, {:?}]\n[[group]]\nname = \"South\"\ncustomers = [{:?}]\n",
        customer(0).to_string(),
        customer(2).to_string(),
        customer(2).to_string(),
    );
    let app = builder()
        .portfolio(&group)
        .callers(&[
            TestCaller::named("portal").with_customers(&[customer(0), customer(1)]),
            TestCaller::named("reports"),
            TestCaller::named("refresher").with_scopes(&["cache:refresh"]),
        ])
        .start()
        .await;
    for index in 0..3 {
        for date in dates {
            app.get_as("reports", &dated_path(customer(index), date))
                .await;
        }
    }
    app.wait_until_stored().await;
    app
}

#[tokio::test]
async fn a_caller_sees_the_history_of_its_own_customers_only() {
    let app = with_callers(&[NEWEST]).await;

    for path in [
        history_path(customer(2), ""),
        history_path(customer(2), "/chart.svg"),
        history_path(customer(2), "/table.csv"),
        changes_path(customer(2), ""),
        dates_path(customer(2)),
    ] {
        app.get_as("portal", &path)
            .await
            .problem(403, "not-allowed");
        let own = path.replace(&customer(2).to_string(), &customer(0).to_string());
        assert_ne!(app.get_as("portal", &own).await.status, 403);
    }
    let own = app.get_as("portal", &history_path(customer(0), "")).await;
    assert_eq!(
        own.header("vary"),
        "Accept, Accept-Encoding, Authorization, X-Api-Key"
    );
}

#[tokio::test]
async fn rights_are_checked_before_the_store() {
    let app =
        TestApp::with_callers(&[TestCaller::named("portal").with_customers(&[customer(0)])]).await;

    let other = app.get_as("portal", &history_path(customer(1), "")).await;
    other.problem(403, "not-allowed");
    let own = app.get_as("portal", &history_path(customer(0), "")).await;
    own.problem(404, "no-store");
    let fleet = format!("/v1/usage/history?customer={}", customer(1));
    app.get_as("portal", &fleet)
        .await
        .problem(403, "not-allowed");
}

#[tokio::test]
async fn fleet_history_is_cut_to_the_customers_of_the_caller() {
    let app = with_callers(&[NEWEST]).await;
    let mut sums = [0; 3];
    for index in [0, 1] {
        let path = dated_path(customer(index), NEWEST);
        add_totals(&mut sums, &app.get_as("portal", &path).await.json());
    }
    let customers = async |caller: &str, query: &str| {
        let reply = app
            .get_as(caller, &format!("/v1/usage/history{query}"))
            .await;
        items(&reply)
            .first()
            .map(|row| row["customers"].as_u64().unwrap())
    };

    let reply = app.get_as("portal", "/v1/usage/history").await;

    let row = &items(&reply)[0];
    assert_eq!(row["customers"], 2);
    let fields = ["licensesQualified", "licensesActive", "licensesUnused"];
    assert_eq!(fields.map(|field| row[field].as_u64().unwrap()), sums);
    assert_eq!(customers("reports", "").await, Some(3));
    assert_eq!(
        customers("portal", "?group=North").await,
        Some(1),
        "one of its two"
    );
    assert_eq!(customers("reports", "?group=North").await, Some(2));
    let one = format!("?customer={}", customer(0));
    assert_eq!(customers("portal", &one).await, Some(1));
    let both = format!("{one}&customer={}", customer(2));
    assert_eq!(customers("reports", &both).await, Some(2));
    assert_eq!(
        customers("reports", &format!("{both}&group=South")).await,
        Some(1)
    );

    for (caller, query, status, kind) in [
        (
            "portal",
            format!("?customer={}", customer(2)),
            403,
            "not-allowed",
        ),
        ("portal", both, 403, "not-allowed"),
        (
            "portal",
            "?group=South".to_owned(),
            400,
            "invalid-parameter",
        ),
        ("refresher", String::new(), 403, "not-allowed"),
    ] {
        let reply = app
            .get_as(caller, &format!("/v1/usage/history{query}"))
            .await;
        reply.problem(status, kind);
    }
}

#[tokio::test]
async fn the_history_of_a_refreshed_fleet_is_complete_up_to_the_last_check() {
    let app = builder().set("fleet.refresh", "true").start().await;
    let refreshes = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;
    app.wait_for_metric(refreshes, 1.0).await;
    app.wait_until_stored().await;
    app.simulator.clear_requests();

    let fleet = app.get("/v1/usage/history?from=2026-11-19").await;
    let one = app
        .get(&history_path(customer(0), "?from=2026-11-19"))
        .await;
    let earlier = app.get("/v1/usage/history?from=2026-11-18").await;

    assert_eq!(fleet.json()["complete"], true);
    assert_eq!(one.json()["complete"], true);
    assert_eq!(earlier.json()["complete"], false);
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 0);
}
