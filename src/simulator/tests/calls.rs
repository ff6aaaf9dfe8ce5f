use std::collections::BTreeMap;

use super::*;

/// The fields of a row that both calls have, in the same spelling.
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
    let simulator = TestSimulator::start().await;

    let answer = simulator.insights(DOCUMENTED_CUSTOMER).await;

    assert_eq!(answer.status(), 200);
    assert_eq!(
        header(&answer, "content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(answer.bytes().await.unwrap(), documented_body());
}

#[tokio::test]
async fn the_documented_customer_has_the_same_rows_in_commercial_form() {
    let simulator = TestSimulator::start().await;
    let filter = customer_filter(DOCUMENTED_CUSTOMER);

    let newest = json(simulator.commercial(&[("filter", &filter)]).await).await;
    let dated = [
        ("filter", filter.as_str()),
        ("processedDateTime", "2017-03-09"),
    ];
    let dated = json(simulator.commercial(&dated).await).await;

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
    let simulator = TestSimulator::start().await;

    for id in simulator.handle.customers().into_iter().skip(1) {
        let insights = json(simulator.insights(id).await).await;
        let commercial = json(
            simulator
                .commercial(&[("filter", &customer_filter(id))])
                .await,
        )
        .await;

        assert_eq!(
            comparable_rows(&insights["items"]),
            comparable_rows(&commercial["Value"])
        );
        assert_eq!(insights["totalCount"], commercial["totalCount"]);
    }
}

#[tokio::test]
async fn every_path_also_works_with_the_partner_prefix_and_without_a_trailing_slash() {
    let simulator = TestSimulator::start().await;

    for path in [
        format!("/partner{}", insights_path(DOCUMENTED_CUSTOMER)),
        format!("/partner{COMMERCIAL}"),
        COMMERCIAL.trim_end_matches('/').to_owned(),
        "/partner/v1/customers".to_owned(),
        "/partner/v1/analytics/licenses/usage".to_owned(),
        "/partner/v1/analytics/licenses/deployment".to_owned(),
        format!("/partner/v1/customers/{DOCUMENTED_CUSTOMER}/analytics/licenses/deployment"),
    ] {
        assert_eq!(simulator.get(&path).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_dated_query_returns_only_that_date_and_an_unprocessed_date_has_no_rows() {
    let simulator = TestSimulator::start().await;
    let filter = customer_filter(customer_id(1, 0));
    let ask = async |date: &str| {
        let query = [("filter", filter.as_str()), ("processedDateTime", date)];
        json(simulator.commercial(&query).await).await
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
    let simulator = TestSimulator::start().await;

    for query in [
        ("filter", "colour eq 'red'"),
        ("groupby", "productName"),
        ("top", "0"),
        ("skip", "some"),
        ("processedDateTime", "yesterday"),
    ] {
        let answer = simulator.commercial(&[query]).await;

        assert_eq!(answer.status(), 400, "{query:?}");
    }
}

#[tokio::test]
async fn customers_are_listed_in_pages_that_a_continuation_token_joins() {
    let simulator = TestSimulator::start().await;
    let mut listed = Vec::new();
    let mut page = json(simulator.get("/v1/customers?size=10").await).await;

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
        let request = simulator
            .request(next["uri"].as_str().unwrap())
            .header("MS-ContinuationToken", repeated["value"].as_str().unwrap());
        page = json(request.send().await.unwrap()).await;
    }

    assert_eq!(listed.len(), 26);
    assert_eq!(listed, simulator.handle.customers());
}

#[tokio::test]
async fn a_delayed_customer_has_no_rows_of_the_newest_date() {
    let simulator = TestSimulator::start().await;
    let [on_time, delayed] = [customer_id(1, 0), customer_id(1, 1)];
    simulator.handle.delay_customers([delayed]);
    let dates = async |id: Uuid| {
        let filter = customer_filter(id);
        let newest = json(simulator.commercial(&[("filter", &filter)]).await).await;
        let newest = comparable_rows(&newest["Value"]);
        let insights = json(simulator.insights(id).await).await;
        assert_eq!(newest, comparable_rows(&insights["items"]));
        let dated = [
            ("filter", filter.as_str()),
            ("processedDateTime", "2026-11-17"),
        ];
        let dated = json(simulator.commercial(&dated).await).await;
        (newest[0]["processed"].clone(), dated["totalCount"] == 0)
    };

    assert_eq!(dates(on_time).await, ("2026-11-17T00:00:00".into(), false));
    assert_eq!(dates(delayed).await, ("2026-11-16T00:00:00".into(), true));
}

#[tokio::test]
async fn corrected_counts_change_every_row_of_that_date_and_no_other() {
    let simulator = TestSimulator::start().await;
    let qualified = async |date: &str| -> Vec<u64> {
        let page = json(simulator.commercial(&[("processedDateTime", date)]).await).await;
        let rows = page["Value"].as_array().unwrap().iter();
        rows.map(|row| row["licensesQualified"].as_u64().unwrap())
            .collect()
    };
    let [corrected, other] = ["2026-10-01", "2026-10-02"];
    let before = (qualified(corrected).await, qualified(other).await);

    simulator.handle.correct_counts(corrected.parse().unwrap());

    let one_more: Vec<_> = before.0.iter().map(|count| count + 1).collect();
    assert_eq!(qualified(corrected).await, one_more);
    assert_eq!(qualified(other).await, before.1);
}

#[tokio::test]
async fn dates_are_published_by_the_clock() {
    let clock = Arc::new(ManualClock::at("2026-11-20T00:00:00Z".parse().unwrap()));
    let simulator = TestSimulator::start_with(SimulatorOptions {
        clock: Arc::clone(&clock) as _,
        publication: Publication::Daily,
        ..SimulatorOptions::default()
    })
    .await;

    let dates: Vec<_> = (0..24 * 9)
        .map(|_| {
            clock.advance(Duration::from_secs(60 * 60));
            simulator.handle.newest_date()
        })
        .collect();

    assert!(dates.is_sorted());
    assert_eq!(dates.first(), Some(&date(2026, 11, 16)));
    assert_eq!(dates.last(), Some(&date(2026, 11, 25)));
}

#[tokio::test]
async fn pages_of_all_customers_checks_and_single_customers_are_counted_apart() {
    let simulator = TestSimulator::start_with(SimulatorOptions {
        page_size: 20,
        ..SimulatorOptions::default()
    })
    .await;
    let filter = customer_filter(customer_id(1, 0));

    let first = json(simulator.commercial(&[("top", "10000")]).await).await;
    let next = first.pointer("/links/next/uri").unwrap().as_str().unwrap();
    simulator.get(next).await;
    simulator.commercial(&[("top", "200")]).await;
    simulator
        .commercial(&[("filter", &filter), ("top", "10000")])
        .await;

    let count = |api| simulator.handle.request_count(api);
    assert_eq!(count(SimulatedApi::FleetPage), 2);
    assert_eq!(count(SimulatedApi::FleetCheck), 1);
    assert_eq!(count(SimulatedApi::Commercial), 1);
}
