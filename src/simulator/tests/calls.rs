use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What both calls can tell of a row, with the percentage and the spelling left out.
fn comparable_rows(rows: &Value) -> Vec<BTreeMap<&'static str, String>> {
    let text = |value: &Value| value.to_string().trim_matches('"').to_owned();
    let read = |row: &Value| {
        let active = row.get("licensesActive").or(row.get("licenseActive"));
        let customer = row.get("customerId").or(row.get("customerTenantId"));
        let date = text(&row["processedDateTime"]).replace("+00:00", "");
        BTreeMap::from([
            ("customer", text(customer.unwrap()).to_lowercase()),
            ("product", text(&row["productName"])),
            ("workload", text(&row["workloadName"])),
            ("active", text(active.unwrap())),
            ("qualified", text(&row["licensesQualified"])),
            ("processed", date),
        ])
    };
    rows.as_array().unwrap().iter().map(read).collect()
}

fn customer_filter(id: Uuid) -> String {
    format!("customerTenantId eq '{id}'")
}

#[tokio::test]
async fn the_documented_customer_gets_the_documented_bytes() {
    let stand = TestSimulator::start().await;

    let answer = stand.insights(DOCUMENTED_CUSTOMER).await;

    assert_eq!(answer.status(), 200);
    assert_eq!(
        header(&answer, "content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(answer.bytes().await.unwrap(), documented_body());
}

#[tokio::test]
async fn the_documented_customer_has_the_same_rows_in_commercial_form() {
    let stand = TestSimulator::start().await;
    let filter = customer_filter(DOCUMENTED_CUSTOMER);

    let newest = json(stand.commercial(&[("filter", &filter)]).await).await;
    let dated = [
        ("filter", filter.as_str()),
        ("processedDateTime", "2017-03-09"),
    ];
    let dated = json(stand.commercial(&dated).await).await;

    assert_eq!(newest, dated);
    assert_eq!(newest["totalCount"], 5);
    let row = &newest["Value"][3];
    assert_eq!(row["processedDateTime"], "2017-03-09T00:00:00");
    assert_eq!(
        row["customerTenantId"],
        "4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04"
    );
    assert_eq!(row["productName"], "EXCHANGE ONLINE (PLAN 1)");
    assert_eq!(
        (&row["licenseActive"], &row["licensesQualified"]),
        (&0.into(), &5.into())
    );
    assert_eq!(row.get("usagePercent"), None);
    let product_id = row["productId"].as_str().unwrap();
    assert_eq!(product_id, product_id.to_uppercase());
}

#[tokio::test]
async fn both_apis_return_the_same_data_for_every_customer() {
    let stand = TestSimulator::start().await;

    for id in stand.handle.customers().into_iter().skip(1) {
        let insights = json(stand.insights(id).await).await;
        let commercial = json(stand.commercial(&[("filter", &customer_filter(id))]).await).await;

        assert_eq!(
            comparable_rows(&insights["items"]),
            comparable_rows(&commercial["Value"])
        );
        assert_eq!(insights["totalCount"], commercial["totalCount"]);
    }
}

/// Seats of a collection, by service and channel.
fn licenses_sold(items: &Value) -> BTreeMap<(String, String), u64> {
    let mut sold = BTreeMap::new();
    for item in items.as_array().unwrap() {
        let text = |name| item[name].as_str().unwrap().to_owned();
        let seats = item["licensesSold"].as_u64().unwrap();
        *sold
            .entry((text("serviceName"), text("channel")))
            .or_default() += seats;
    }
    sold
}

#[tokio::test]
async fn deployment_lists_each_product_once_and_the_partner_total_all_of_them() {
    let stand = TestSimulator::start().await;
    let mut items = Vec::new();
    for id in stand.handle.customers().into_iter().skip(1) {
        let usage = json(stand.insights(id).await).await;
        let path = format!("/v1/customers/{id}/analytics/licenses/deployment");
        let deployment = json(stand.get(&path).await).await;
        let of = |body: &Value| -> BTreeSet<String> {
            let rows = body["items"].as_array().unwrap().iter();
            rows.map(|row| row["productName"].to_string()).collect()
        };
        assert_eq!(of(&deployment), of(&usage));
        assert_eq!(deployment["totalCount"], of(&usage).len());
        items.extend(deployment["items"].as_array().unwrap().clone());
    }

    let partner = json(stand.get("/v1/analytics/licenses/deployment").await).await;

    let mut expected = licenses_sold(&Value::from(items));
    // Microsoft's documented customer is one of the partner's, too.
    *expected
        .entry(("o365".to_owned(), "reseller".to_owned()))
        .or_default() += 1 + 5 + 2;
    assert_eq!(licenses_sold(&partner["items"]), expected);
    let usage = json(stand.get("/v1/analytics/licenses/usage").await).await;
    for item in usage["items"].as_array().unwrap() {
        let percent = item["proratedLicensesUsagePercent"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{item}");
    }
}

#[tokio::test]
async fn every_path_also_works_with_the_partner_prefix_and_without_a_trailing_slash() {
    let stand = TestSimulator::start().await;

    for path in [
        format!("/partner{}", insights_path(DOCUMENTED_CUSTOMER)),
        format!("/partner{COMMERCIAL}"),
        COMMERCIAL.trim_end_matches('/').to_owned(),
        "/partner/v1/customers".to_owned(),
        "/partner/v1/analytics/licenses/usage".to_owned(),
        "/partner/v1/analytics/licenses/deployment".to_owned(),
        format!("/partner/v1/customers/{DOCUMENTED_CUSTOMER}/analytics/licenses/deployment"),
    ] {
        assert_eq!(stand.get(&path).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn linked_pages_return_every_row_once() {
    let options = SimulatorOptions {
        wide_rows: 250,
        page_size: 100,
        ..SimulatorOptions::default()
    };
    let stand = TestSimulator::start_with(options).await;
    let filter = customer_filter(WIDE_CUSTOMER);
    let mut page = json(
        stand
            .commercial(&[("filter", &filter), ("top", "1000")])
            .await,
    )
    .await;
    let mut sizes = Vec::new();
    let mut products = Vec::new();

    loop {
        assert_eq!(page["totalCount"], 250);
        let rows = page["Value"].as_array().unwrap();
        sizes.push(rows.len());
        products.extend(rows.iter().map(|row| row["productName"].to_string()));
        let Some(next) = page.pointer("/links/next") else {
            break;
        };
        assert_eq!(next["method"], "GET");
        page = json(stand.get(next["uri"].as_str().unwrap()).await).await;
    }

    assert_eq!(sizes, [100, 100, 50]);
    products.sort();
    products.dedup();
    assert_eq!(products.len(), 250);
}

#[tokio::test]
async fn a_dated_query_returns_only_that_date_and_an_unprocessed_date_has_no_rows() {
    let stand = TestSimulator::start().await;
    let filter = customer_filter(customer_id(1, 0));
    let ask = async |date: &str| {
        let query = [("filter", filter.as_str()), ("processedDateTime", date)];
        json(stand.commercial(&query).await).await
    };

    let day = ask("2026-10-01").await;
    let instant = ask("2026-10-01T00:00:00").await;
    let future = ask("2026-11-18").await;

    assert_eq!(day, instant);
    let rows = day["Value"].as_array().unwrap();
    assert!(!rows.is_empty());
    assert!(
        rows.iter()
            .all(|row| row["processedDateTime"] == "2026-10-01T00:00:00")
    );
    assert_eq!(future["totalCount"], 0);
}

#[tokio::test]
async fn an_invalid_query_is_rejected() {
    let stand = TestSimulator::start().await;

    for query in [
        ("filter", "colour eq 'red'"),
        ("groupby", "productName"),
        ("top", "0"),
        ("skip", "some"),
        ("processedDateTime", "yesterday"),
    ] {
        let answer = stand.commercial(&[query]).await;

        assert_eq!(answer.status(), 400, "{query:?}");
    }
}

#[tokio::test]
async fn customers_are_listed_in_pages_that_a_continuation_token_joins() {
    let stand = TestSimulator::start().await;
    let mut listed = Vec::new();
    let mut page = json(stand.get("/v1/customers?size=10").await).await;

    loop {
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["id"], item["companyProfile"]["tenantId"]);
            assert!(item["companyProfile"]["domain"].is_string());
            assert!(item["companyProfile"]["companyName"].is_string());
            assert_eq!(item["relationshipToPartner"], "reseller");
            listed.push(item["id"].as_str().unwrap().parse::<Uuid>().unwrap());
        }
        let Some(next) = page.pointer("/links/next") else {
            break;
        };
        let repeated = &next["headers"][0];
        assert_eq!(repeated["key"], "MS-ContinuationToken");
        let request = stand
            .request(next["uri"].as_str().unwrap())
            .header("MS-ContinuationToken", repeated["value"].as_str().unwrap());
        page = json(request.send().await.unwrap()).await;
    }

    assert_eq!(listed.len(), 26);
    assert_eq!(listed, stand.handle.customers());
}
