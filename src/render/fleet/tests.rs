use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{
        CustomerId, FleetEntry, FleetStatus, FleetUsage, LicensePrice, LicenseUsage, Portfolio,
        ProcessedAt, ProductRule, ProductSelector, UsageRow, samples::usage_row as row,
    },
    render::{ContentCoding, CsvReader, CsvSeparator},
};

mod proptests;

fn numbered_id(number: usize) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

fn dated(date: &str, row: UsageRow) -> UsageRow {
    let processed_at = ProcessedAt(format!("{date}T00:00:00Z").parse().unwrap());
    UsageRow {
        processed_at,
        ..row
    }
}

/// A customer with rows; `None` for one that was not fetched.
fn entry(number: usize, name: &str, rows: Option<Vec<UsageRow>>) -> FleetEntry {
    let id = numbered_id(number);
    let usage = rows.map(|rows| LicenseUsage::new(id, None, rows).unwrap());
    let status = match &usage {
        None => FleetStatus::NotFetched,
        Some(usage) if usage.rows().is_empty() => FleetStatus::Empty,
        Some(_) => FleetStatus::Current,
    };
    FleetEntry {
        customer_id: id,
        customer_name: name.into(),
        status,
        fetched_at: usage.as_ref().map(|_| seen_at()),
        usage: usage.map(Arc::new),
        failure: None,
    }
}

fn fleet(entries: Vec<FleetEntry>) -> FleetUsage {
    let usages = entries.iter().filter_map(|entry| entry.usage.as_deref());
    FleetUsage {
        processed_date: usages.filter_map(LicenseUsage::processed_date).max(),
        entries: entries.into_iter().map(Arc::new).collect(),
    }
}

/// Four customers: two with rows, of which one product is in two channels; one that failed, with
/// older rows; one that was not fetched.
fn small_fleet() -> FleetUsage {
    let direct = UsageRow {
        channel: Some("direct".into()),
        ..row("E3", "Exchange", 5, 10)
    };
    let failed = FleetEntry {
        status: FleetStatus::Failed,
        failure: Some("no-relationship"),
        ..entry(
            3,
            "Fabrikam",
            Some(vec![dated("2017-02-01", row("E5", "Teams", 1, 1))]),
        )
    };
    fleet(vec![
        entry(
            1,
            "Adatum",
            Some(vec![
                row("E3", "Exchange", 3, 9),
                row("E3", "Teams", 7, 8),
                direct,
            ]),
        ),
        entry(
            2,
            "",
            Some(vec![
                row("FREE", "Teams", 0, 1_000),
                row("E5", "Teams", 4, 5),
            ]),
        ),
        failed,
        entry(4, "=Litware", None),
    ])
}

fn rule(name: Option<&str>, price: Option<(&str, u64)>, exclude: bool) -> ProductRule {
    ProductRule {
        display_name: name.map(Into::into),
        price: price.map(|(currency, ten_thousandths)| LicensePrice {
            currency: currency.into(),
            ten_thousandths,
        }),
        exclude,
    }
}

fn small_portfolio() -> Portfolio {
    let mut portfolio = Portfolio::default();
    let e3 = rule(Some("Office E3"), Some(("EUR", 125_000)), false);
    portfolio.add_rule(ProductSelector::Name("e3"), e3);
    let e5 = rule(None, Some(("USD", 500_125)), false);
    portfolio.add_rule(ProductSelector::Name("E5"), e5);
    portfolio.add_rule(ProductSelector::Name("FREE"), rule(None, None, true));
    let north = HashSet::from([numbered_id(1), numbered_id(4)]);
    portfolio.add_group("North".into(), north);
    portfolio
}

/// A request of a caller that may read everything.
fn request(query: FleetQuery, format: FleetFormat) -> FleetDocumentRequest {
    let fleet = small_fleet();
    FleetDocumentRequest {
        scope: FleetScope::new(&fleet, |_| true, None, None),
        fleet: Arc::new(fleet),
        portfolio: Arc::new(small_portfolio()),
        query,
        format,
    }
}

fn seen_at() -> Timestamp {
    "2017-03-10T05:00:00.9Z".parse().unwrap()
}

fn render(request: &FleetDocumentRequest) -> Result<String, FleetRenderError> {
    let document = FleetDocuments::new().render(request, ContentCoding::Identity, seen_at())?;
    Ok(String::from_utf8(document.identity.body().to_vec()).unwrap())
}

fn json_of(request: &FleetDocumentRequest) -> Value {
    serde_json::from_str(&render(request).unwrap()).unwrap()
}

fn csv_of(query: FleetQuery, reader: CsvReader) -> String {
    render(&request(query, FleetFormat::Csv(reader))).unwrap()
}

/// Returns a field of each item.
fn column(answer: &Value, list: &str, field: &str) -> Vec<Value> {
    let items = answer[list].as_array().unwrap().iter();
    items.map(|item| item[field].clone()).collect()
}

#[test]
fn totals_say_what_is_missing_and_what_is_left_out() {
    let answer = json_of(&request(
        FleetQuery::all(FleetView::Products),
        FleetFormat::Json,
    ));

    assert_eq!(
        answer,
        json!({
            "processedDate": "2017-03-09",
            "oldestProcessedDate": "2017-02-01",
            "complete": false,
            "customers": { "total": 4, "current": 2, "stale": 0, "empty": 0, "failed": 1, "notFetched": 1 },
            "failed": [{
                "customerId": numbered_id(3).to_string(), "customerName": "Fabrikam",
                "reason": "no-relationship",
            }],
            "excluded": 1,
            "totals": {
                "licensesQualified": 25, "licensesActive": 17, "licensesUnused": 8,
                "unusedCost": [
                    { "currency": "EUR", "perMonth": 87.5, "licensesPriced": 7 },
                    { "currency": "USD", "perMonth": 50.0125, "licensesPriced": 1 },
                ],
            },
            "services": [{
                "serviceName": "o365", "customers": 3, "licensesQualified": 25, "licensesActive": 17,
                "licensesUnused": 8, "usagePercent": 68.0,
                "unusedCost": [
                    { "currency": "EUR", "perMonth": 87.5, "licensesPriced": 7 },
                    { "currency": "USD", "perMonth": 50.0125, "licensesPriced": 1 },
                ],
            }],
            "products": [
                {
                    "productName": "E3", "displayName": "Office E3", "customers": 1,
                    "licensesQualified": 19, "licensesActive": 12, "licensesUnused": 7,
                    "usagePercent": 63.2,
                    "unusedCost": [{ "currency": "EUR", "perMonth": 87.5, "licensesPriced": 7 }],
                },
                {
                    "productName": "E5", "displayName": "E5", "customers": 2,
                    "licensesQualified": 6, "licensesActive": 5, "licensesUnused": 1,
                    "usagePercent": 83.3,
                    "unusedCost": [{ "currency": "USD", "perMonth": 50.0125, "licensesPriced": 1 }],
                },
            ],
            "workloads": [
                {
                    "workloadName": "Exchange", "customers": 1, "licensesQualified": 19,
                    "licensesActive": 8, "usagePercent": 42.1,
                },
                {
                    "workloadName": "Teams", "customers": 3, "licensesQualified": 14,
                    "licensesActive": 12, "usagePercent": 85.7,
                },
            ],
        })
    );
}

#[test]
fn only_totals_over_several_dates_have_the_oldest() {
    let of_one = |number| {
        let all = request(FleetQuery::all(FleetView::Products), FleetFormat::Json);
        let scope = FleetScope::new(&all.fleet, |id| id == numbered_id(number), None, None);
        json_of(&FleetDocumentRequest { scope, ..all })
    };

    assert_eq!(of_one(1).get("oldestProcessedDate"), None);
    assert_eq!(of_one(3)["oldestProcessedDate"], "2017-02-01");
    assert_eq!(of_one(4).get("oldestProcessedDate"), None);
}

#[test]
fn a_customer_that_was_not_fetched_has_no_numbers() {
    let answer = json_of(&request(
        FleetQuery::all(FleetView::Customers),
        FleetFormat::Json,
    ));

    let items = &answer["items"];
    assert_eq!(
        items[0],
        json!({
            "customerId": numbered_id(1).to_string(), "customerName": "Adatum", "groups": ["North"],
            "processedDate": "2017-03-09", "status": "current",
            "fetchedAt": "2017-03-10T05:00:00Z", "products": 2, "licensesQualified": 19,
            "licensesActive": 12, "licensesUnused": 7, "usagePercent": 63.2,
            "unusedCost": [{ "currency": "EUR", "perMonth": 87.5, "licensesPriced": 7 }],
        })
    );
    assert_eq!(items[1]["customerName"], Value::Null);
    assert_eq!(items[2]["status"], "failed");
    assert_eq!(
        items[3],
        json!({
            "customerId": numbered_id(4).to_string(), "customerName": "=Litware", "groups": ["North"],
            "processedDate": null, "status": "notFetched", "fetchedAt": null, "products": null,
            "licensesQualified": null, "licensesActive": null, "licensesUnused": null,
            "usagePercent": null,
        })
    );
    assert_eq!(answer["nextCursor"], Value::Null);
}

#[test]
fn a_customer_without_rows_has_zeros() {
    let fleet = fleet(vec![entry(1, "Adatum", Some(Vec::new()))]);
    let request = FleetDocumentRequest {
        scope: FleetScope::new(&fleet, |_| true, None, None),
        fleet: Arc::new(fleet),
        ..request(FleetQuery::all(FleetView::Customers), FleetFormat::Json)
    };

    let answer = json_of(&request);

    assert_eq!(answer["complete"], true);
    assert_eq!(answer["processedDate"], Value::Null);
    assert_eq!(column(&answer, "items", "licensesUnused"), [0]);
    assert_eq!(column(&answer, "items", "usagePercent"), [Value::Null]);
}

#[test]
fn a_row_of_a_product_names_its_busiest_workload() {
    let answer = json_of(&request(
        FleetQuery::all(FleetView::Unused),
        FleetFormat::Json,
    ));

    assert_eq!(
        answer["items"][0],
        json!({
            "customerId": numbered_id(1).to_string(), "customerName": "Adatum",
            "productName": "E3", "displayName": "Office E3", "busiestWorkload": "Exchange",
            "licensesQualified": 10, "licensesActive": 5, "licensesUnused": 5, "usagePercent": 50.0,
            "processedDate": "2017-03-09",
            "unusedCost": [{ "currency": "EUR", "perMonth": 62.5, "licensesPriced": 5 }],
        })
    );
    assert_eq!(column(&answer, "items", "busiestWorkload")[1], "Teams");
    assert_eq!(column(&answer, "items", "licensesUnused"), [5, 2, 1, 0]);
}

#[test]
fn a_requested_customer_that_does_not_exist_is_reported() {
    let fleet = small_fleet();
    let wanted = HashSet::from([numbered_id(1), numbered_id(8), numbered_id(9)]);
    let scope = FleetScope::new(&fleet, |id| id != numbered_id(9), Some(&wanted), None);
    let query = FleetQuery::all(FleetView::Customers);
    let request = FleetDocumentRequest {
        scope,
        ..request(query, FleetFormat::Json)
    };

    let answer = json_of(&request);

    assert_eq!(answer["customers"]["total"], 2);
    assert_eq!(answer["complete"], false);
    assert_eq!(
        answer["failed"],
        json!([{ "customerId": numbered_id(8).to_string(), "reason": "unknown-customer" }])
    );
}

#[test]
fn rows_are_sorted_by_each_field_and_those_without_it_come_last() {
    let by = |sort: &str, currency: Option<&str>| {
        let query = FleetQuery {
            sort: FleetSort::parse(sort).unwrap(),
            currency: currency.map(Into::into),
            ..FleetQuery::all(FleetView::Customers)
        };
        let answer = json_of(&request(query, FleetFormat::Json));
        let ids = column(&answer, "items", "customerId").into_iter();
        ids.map(|id| id.as_str().unwrap()[35..].to_owned())
            .collect::<String>()
    };

    for (sort, currency, expected) in [
        ("name", None, "1234"),
        ("-name", None, "4321"),
        // 7, 1, 0 and unknown.
        ("unused", None, "1234"),
        ("-unused", None, "3214"),
        // 63.2 %, 80 %, 100 % and unknown.
        ("percent", None, "1234"),
        ("-percent", None, "3214"),
        // 87.50 EUR, 50.0125 USD, 0.00 USD and none.
        ("cost", None, "1234"),
        ("-cost", None, "3214"),
        ("cost", Some("USD"), "2314"),
        ("-cost", Some("USD"), "3214"),
        ("cost", Some("PLN"), "1234"),
        ("date", None, "1234"),
        ("-date", None, "3124"),
    ] {
        assert_eq!(by(sort, currency), expected, "{sort} {currency:?}");
    }
}

#[test]
fn only_customers_with_a_filtered_product_are_listed() {
    let query = FleetQuery {
        products: FleetProductFilter::new(None, Some("office e3"), Some("DIRECT")),
        ..FleetQuery::all(FleetView::Customers)
    };
    let answer = json_of(&request(query, FleetFormat::Json));

    assert_eq!(column(&answer, "items", "licensesQualified"), [10]);
    assert_eq!(answer["customers"]["total"], 4);
    assert_eq!(answer["excluded"], 0);
}

#[test]
fn unknown_numbers_pass_no_condition() {
    for query in [
        FleetQuery {
            min_unused: 1,
            ..FleetQuery::all(FleetView::Customers)
        },
        FleetQuery {
            below: Some(PercentBound::parse("99.9").unwrap()),
            ..FleetQuery::all(FleetView::Customers)
        },
    ] {
        let answer = json_of(&request(query, FleetFormat::Json));

        assert_eq!(column(&answer, "items", "licensesUnused"), [7, 1]);
    }
}

#[test]
fn a_table_has_a_column_for_each_currency() {
    let query = || FleetQuery::all(FleetView::Products);

    assert_eq!(
        csv_of(query(), CsvReader::Program),
        "productName,displayName,customers,licensesQualified,licensesActive,licensesUnused,\
         usagePercent,unusedCost_EUR,unusedCost_USD\r\n\
         E3,Office E3,1,19,12,7,63.2,87.50,\r\n\
         E5,E5,2,6,5,1,83.3,,50.0125\r\n"
    );
    assert!(
        csv_of(query(), CsvReader::Spreadsheet(CsvSeparator::Semicolon))
            .ends_with("\r\nE3;Office E3;1;19;12;7;63,2;87,50;\r\nE5;E5;2;6;5;1;83,3;;50,0125\r\n")
    );
    let customers = FleetQuery::all(FleetView::Customers);
    let customers = csv_of(customers, CsvReader::Spreadsheet(CsvSeparator::Comma));
    assert!(
        customers.contains(",'=Litware,North,,notFetched,,,,,,,,\r\n"),
        "{customers}"
    );
}

#[test]
fn a_filter_changes_no_columns() {
    for view in [FleetView::Products, FleetView::Customers, FleetView::Unused] {
        let header = |product| {
            let query = FleetQuery {
                products: FleetProductFilter::new(None, product, None),
                ..FleetQuery::all(view)
            };
            let csv = csv_of(query, CsvReader::Program);
            csv.lines().next().unwrap().to_owned()
        };

        let all = header(None);

        assert!(all.ends_with(",unusedCost_EUR,unusedCost_USD"), "{all}");
        for product in ["E3", "none"] {
            assert_eq!(header(Some(product)), all, "{product}");
        }
    }
}

#[test]
fn a_file_is_named_after_answer_and_date() {
    let table = FleetFormat::Csv(CsvReader::Spreadsheet(CsvSeparator::Comma));
    let name = |view, format| {
        let disposition = request(FleetQuery::all(view), format).disposition()?;
        Some(disposition.to_str().unwrap().to_owned())
    };

    let of_products = name(FleetView::Products, table).unwrap();
    assert!(of_products.starts_with("attachment; filename=\"usage-products-2017-03-09.csv\""));
    let of_unused = name(FleetView::Unused, table).unwrap();
    assert!(of_unused.starts_with("attachment; filename=\"usage-unused-2017-03-09.csv\""));
    assert_eq!(
        name(FleetView::Unused, FleetFormat::Csv(CsvReader::Program)),
        None
    );
    assert_eq!(name(FleetView::Unused, FleetFormat::Json), None);
}

#[test]
fn a_cursor_expires_with_any_change_of_its_answer() {
    let first = request(
        FleetQuery {
            limit: NonZeroUsize::new(1),
            ..FleetQuery::all(FleetView::Unused)
        },
        FleetFormat::Json,
    );
    let cursor = json_of(&first)["nextCursor"].as_str().unwrap().to_owned();
    let cursor = FleetCursor::parse(&cursor).unwrap();
    let next = FleetDocumentRequest {
        query: FleetQuery {
            cursor: Some(cursor),
            ..first.query.clone()
        },
        ..first
    };
    assert_eq!(column(&json_of(&next), "items", "licensesUnused"), [2]);

    let with_query = |query: FleetQuery| FleetDocumentRequest {
        query,
        ..next.clone()
    };
    let mut later = small_fleet();
    later.entries[0] = Arc::new(entry(1, "Adatum", Some(vec![row("E3", "Exchange", 4, 9)])));
    for changed in [
        FleetDocumentRequest {
            fleet: Arc::new(later),
            ..next.clone()
        },
        FleetDocumentRequest {
            portfolio: Arc::new(Portfolio::default()),
            ..next.clone()
        },
        FleetDocumentRequest {
            scope: FleetScope::new(&next.fleet, |id| id != numbered_id(4), None, None),
            ..next.clone()
        },
        with_query(FleetQuery {
            view: FleetView::Customers,
            ..next.query.clone()
        }),
        with_query(FleetQuery {
            sort: FleetSort::parse("name").unwrap(),
            ..next.query.clone()
        }),
        with_query(FleetQuery {
            min_unused: 1,
            ..next.query.clone()
        }),
    ] {
        let expired = render(&changed);
        assert!(
            matches!(expired, Err(FleetRenderError::CursorExpired(_))),
            "{expired:?}"
        );
    }
    // A page of another size goes on where the first ended.
    let rest = with_query(FleetQuery {
        limit: None,
        ..next.query.clone()
    });
    assert_eq!(
        column(&json_of(&rest), "items", "licensesUnused"),
        [2, 1, 0]
    );
}

#[test]
fn a_new_arrival_of_the_same_rows_changes_only_the_rows_of_customers() {
    let body = |view, entry: FleetEntry| {
        let fleet = fleet(vec![entry]);
        let request = FleetDocumentRequest {
            scope: FleetScope::new(&fleet, |_| true, None, None),
            fleet: Arc::new(fleet),
            ..request(
                FleetQuery {
                    limit: NonZeroUsize::new(1),
                    ..FleetQuery::all(view)
                },
                FleetFormat::Json,
            )
        };
        render(&request).unwrap()
    };
    let first = entry(
        1,
        "Adatum",
        Some(vec![row("E3", "Exchange", 4, 9), row("E5", "Teams", 1, 1)]),
    );
    let later = FleetEntry {
        fetched_at: Some("2017-03-11T05:00:00Z".parse().unwrap()),
        ..first.clone()
    };

    for view in [FleetView::Products, FleetView::Unused] {
        assert_eq!(body(view, first.clone()), body(view, later.clone()));
    }
    assert_ne!(
        body(FleetView::Customers, first),
        body(FleetView::Customers, later)
    );
}

#[test]
fn a_document_is_rendered_and_compressed_once() {
    let documents = FleetDocuments::new();
    let request = request(FleetQuery::all(FleetView::Unused), FleetFormat::Json);
    assert!(documents.ready(&request, ContentCoding::Gzip).is_none());

    let first = documents
        .render(&request, ContentCoding::Gzip, seen_at())
        .unwrap();

    let again = documents.ready(&request, ContentCoding::Gzip).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(documents.ready(&request, ContentCoding::Brotli).is_none());
    let brotli = documents
        .render(&request, ContentCoding::Brotli, seen_at())
        .unwrap();
    assert!(Arc::ptr_eq(&first, &brotli));
}
