use serde_json::{Value, json};

use super::*;
use crate::domain::{LicenseUsage, SharedTexts};

pub(super) const CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

pub(super) fn customer() -> CustomerId {
    CustomerId::parse(CUSTOMER).unwrap()
}

pub(super) fn row() -> Value {
    json!({
        "customerId": CUSTOMER,
        "customerName": "DT DEMO CSP CUSTOMER 005",
        "productName": "EXCHANGE ONLINE (PLAN 1)",
        "serviceName": "o365",
        "channel": "reseller",
        "workloadName": "Exchange",
        "licensesActive": 0,
        "licensesQualified": 5,
        "usagePercent": 0,
        "processedDateTime": "2017-03-09T00:00:00+00:00",
        "attributes": { "objectType": "CustomerLicensesUsageInsights" }
    })
}

pub(super) fn row_with(field: &str, value: Value) -> Value {
    let mut row = row();
    row[field] = value;
    row
}

fn row_without(field: &str) -> Value {
    let mut row = row();
    row.as_object_mut().unwrap().remove(field);
    row
}

pub(super) fn insights(rows: Vec<Value>) -> Result<LicenseUsage, MalformedResponse> {
    let body = json!({ "totalCount": rows.len(), "items": rows });
    decode_insights(body.to_string().as_bytes(), customer())
}

pub(super) fn commercial(body: &Value) -> Result<DecodedPage<CustomerRow>, MalformedResponse> {
    decode_commercial(
        body.to_string().as_bytes(),
        customer(),
        &mut SharedTexts::default(),
    )
}

pub(super) fn commercial_row() -> Value {
    json!({
        "processedDateTime": "2018-10-14T00:00:00",
        "workloadCode": "EXCHANGE",
        "workloadName": "Exchange",
        "serviceCode": "O365",
        "serviceName": "o365",
        "channel": "Reseller",
        "customerTenantId": CUSTOMER.to_uppercase(),
        "customerName": "Contoso",
        "productId": "4B9405B0-7788-4568-ADD1-99614E613B69",
        "productName": "Exchange Online (Plan 1)",
        "licenseActive": 3,
        "licensesQualified": 4
    })
}

#[test]
fn the_documented_row_is_decoded() {
    let snapshot = insights(vec![row()]).unwrap();

    assert_eq!(snapshot.customer_name(), Some("DT DEMO CSP CUSTOMER 005"));
    let row = &snapshot.rows()[0];
    assert_eq!((row.licenses_active, row.licenses_qualified), (0, 5));
    assert_eq!(row.reported_usage_percent, Some(0.0));
    assert_eq!(row.processed_at.date().to_string(), "2017-03-09");
}

#[test]
fn optional_fields_may_be_missing() {
    for field in [
        "customerId",
        "customerName",
        "channel",
        "usagePercent",
        "attributes",
    ] {
        assert!(insights(vec![row_without(field)]).is_ok(), "{field}");
        assert!(
            insights(vec![row_with(field, Value::Null)]).is_ok(),
            "{field}"
        );
    }
}

#[test]
fn a_missing_field_is_named_with_its_row() {
    for field in [
        "productName",
        "serviceName",
        "workloadName",
        "licensesActive",
        "licensesQualified",
        "processedDateTime",
    ] {
        for bad in [row_without(field), row_with(field, Value::Null)] {
            let detail = insights(vec![row(), bad]).unwrap_err().to_string();

            assert!(detail.contains("items[1]"), "{field}: {detail}");
            assert!(
                detail.contains(field) || detail.contains("null"),
                "{field}: {detail}"
            );
        }
    }
}

#[test]
fn an_error_says_what_was_expected_and_quotes_nothing() {
    for (body, expected) in [
        (
            json!({ "totalCount": "s3cr3t", "items": [] }),
            "totalCount: expected u64",
        ),
        (
            json!({ "items": "s3cr3t, expected s3cr3t" }),
            "items: expected a sequence",
        ),
        (
            json!({ "items": [{ "productName": ["s3cr3t"] }] }),
            "items[0].productName: expected a string",
        ),
    ] {
        let detail = decode_insights(body.to_string().as_bytes(), customer())
            .unwrap_err()
            .to_string();

        assert!(detail.starts_with(expected), "{detail}");
        assert!(!detail.contains("s3cr3t"), "{detail}");
    }
}

#[test]
fn an_html_page_is_recognized() {
    let detail = decode_insights(b" <html>s3cr3t</html>", customer())
        .unwrap_err()
        .to_string();

    assert!(
        detail.contains("base_url") && !detail.contains("s3cr3t"),
        "{detail}"
    );
}

#[test]
fn values_that_are_no_counts_are_rejected() {
    for bad in [
        json!(-1),
        json!(1.0),
        json!("1"),
        json!(9_223_372_036_854_775_808_u64),
        json!(1e30),
        json!([]),
    ] {
        for field in ["licensesActive", "licensesQualified"] {
            let detail = insights(vec![row_with(field, bad.clone())])
                .unwrap_err()
                .to_string();

            assert!(
                detail.contains(&format!("items[0].{field}")),
                "{bad}: {detail}"
            );
        }
    }
}

#[test]
fn a_percentage_out_of_range_is_rejected() {
    let body = json!({ "items": [row_with("usagePercent", json!(1.5))] }).to_string();

    let fault = decode_insights(body.replace("1.5", "1e999").as_bytes(), customer());

    assert!(fault.unwrap_err().to_string().contains("usagePercent"));
}

#[test]
fn a_percentage_of_negative_zero_is_zero() {
    let body = json!({ "items": [row_with("usagePercent", json!(-0.0))] });

    let usage = decode_insights(body.to_string().as_bytes(), customer()).unwrap();

    let percent = usage.rows()[0].reported_usage_percent.unwrap();
    assert_eq!(percent.to_bits(), 0.0_f64.to_bits());
}

#[test]
fn every_documented_date_format_is_parsed() {
    for (text, instant) in [
        ("2017-03-09T00:00:00+00:00", "2017-03-09T00:00:00Z"),
        ("2017-03-14T03:25:16.36+00:00", "2017-03-14T03:25:16.36Z"),
        ("2017-03-10T00:00:00+14:00", "2017-03-09T10:00:00Z"),
        ("2018-10-14T00:00:00", "2018-10-14T00:00:00Z"),
        (
            "2018-10-14T00:00:00.1234567",
            "2018-10-14T00:00:00.1234567Z",
        ),
        ("2018-10-14", "2018-10-14T00:00:00Z"),
    ] {
        assert_eq!(
            processed_at(text).map(|at| at.0),
            Ok(instant.parse().unwrap()),
            "{text}"
        );
    }
    for text in ["", "yesterday", "2018-02-30T00:00:00", "0"] {
        assert!(processed_at(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_row_of_another_customer_rejects_the_answer() {
    let other = json!("11111111-70f4-4e1e-9ff1-b2bfce8d9f04");

    for field in ["customerId", "customerTenantId"] {
        let detail = insights(vec![row_with(field, other.clone())])
            .unwrap_err()
            .to_string();

        assert!(detail.contains(field) && !detail.contains("11111111"));
    }
    assert!(insights(vec![row_with("customerId", json!(CUSTOMER.to_uppercase()))]).is_ok());
}

#[test]
fn an_empty_collection_is_an_answer_but_no_collection_is_an_error() {
    assert_eq!(insights(Vec::new()).unwrap().rows(), []);
    for body in [
        "",
        "{}",
        "null",
        "[]",
        "{\"items\":null}",
        "<html><body>Sign in</body></html>",
        "{\"items\":[",
        "{\"items\":[]} {}",
    ] {
        assert!(
            decode_insights(body.as_bytes(), customer()).is_err(),
            "{body}"
        );
    }
}

#[test]
fn a_part_of_a_collection_is_rejected() {
    let short = json!({ "totalCount": 2, "items": [row()] });
    let split = json!({ "items": [row()], "links": { "next": { "uri": "/x", "method": "GET" } } });
    let mut both = split.clone();
    both["totalCount"] = json!(1);
    let mut other_spelling = json!({ "items": [row()], "totalCount": 1 });
    other_spelling["@odata.nextLink"] = json!("/x");

    for body in [short, split, both, other_spelling] {
        assert!(decode_insights(body.to_string().as_bytes(), customer()).is_err());
    }
}

#[test]
fn the_number_of_rows_is_bounded() {
    let items = |rows: usize| format!("{{\"items\":[{}]}}", vec!["{}"; rows].join(","));

    assert!(decode_document(items(MAX_ROWS).as_bytes(), None).is_ok());
    let too_many = items(MAX_ROWS + 1);
    for fault in [
        decode_document(too_many.as_bytes(), None)
            .unwrap_err()
            .to_string(),
        decode_customers(too_many.as_bytes())
            .unwrap_err()
            .to_string(),
    ] {
        assert!(
            fault.starts_with("items: expected at most 100000 rows"),
            "{fault}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let body = format!("\u{feff}{}", json!({ "totalCount": 0, "items": [] }));

    assert!(decode_insights(body.as_bytes(), customer()).is_ok());
}

#[test]
fn commercial_rows_are_decoded_under_all_their_names() {
    for name in ["Value", "value", "items"] {
        let page = commercial(&json!({ name: [commercial_row()] })).unwrap();

        let row = &page.items[0].row;
        assert_eq!((row.licenses_active, row.licenses_qualified), (3, 4));
        assert_eq!(row.reported_usage_percent, None);
        assert_eq!(row.processed_at.date().to_string(), "2018-10-14");
        assert_eq!(page.next, None);
    }
    assert!(commercial(&json!({})).is_err());
    assert!(commercial(&json!({ "Value": [], "items": [] })).is_err());
}

#[test]
fn both_spellings_of_the_active_count_must_agree() {
    let mut row = commercial_row();
    row["licensesActive"] = json!(3);
    assert!(commercial(&json!({ "Value": [row] })).is_ok());

    row["licensesActive"] = json!(4);
    let detail = commercial(&json!({ "Value": [row] }))
        .unwrap_err()
        .to_string();
    assert!(detail.contains("Value[0].licenseActive"), "{detail}");
}

#[test]
fn a_commercial_row_without_a_customer_is_rejected() {
    let mut row = commercial_row();
    row.as_object_mut().unwrap().remove("customerTenantId");

    let detail = commercial(&json!({ "Value": [row] }))
        .unwrap_err()
        .to_string();

    assert!(detail.contains("Value[0].customerTenantId"), "{detail}");
}

#[test]
fn a_next_link_is_found_in_every_spelling() {
    for name in ["nextLink", "@odata.nextLink", "@nextLink"] {
        let page = commercial(&json!({ "Value": [], name: "/next" })).unwrap();
        assert_eq!(page.next.unwrap().uri, "/next", "{name}");
    }
    let headers = json!([{ "key": "X-Other", "value": "1" },
                         { "key": "ms-continuationtoken", "value": "abc" }]);
    let link = json!({ "uri": "/next", "method": "GET", "headers": headers });

    let page = commercial(&json!({ "Value": [], "links": { "next": link } })).unwrap();

    let next = page.next.unwrap();
    assert_eq!(next.uri, "/next");
    assert_eq!(next.continuation_token.as_deref(), Some("abc"));
}

/// A row of this customer, processed at this time.
fn fleet_row(customer: &str, name: Option<&str>, workload: &str, processed: &str) -> Value {
    let mut row = commercial_row();
    row["customerTenantId"] = json!(customer);
    row["customerName"] = json!(name);
    row["workloadName"] = json!(workload);
    row["processedDateTime"] = json!(processed);
    row
}

fn fleet(rows: Vec<Value>) -> Result<Vec<LicenseUsage>, MalformedResponse> {
    let body = json!({ "Value": rows }).to_string();
    let page = decode_fleet(body.as_bytes(), &mut SharedTexts::default())?;
    group_by_customer(page.items)
}

#[test]
fn fleet_rows_are_grouped_by_customer_in_the_order_of_their_ids() {
    const OTHER: &str = "00000000-0000-4000-8000-000000000001";
    let (own, upper_case) = (CUSTOMER, CUSTOMER.to_uppercase());

    let usages = fleet(vec![
        fleet_row(own, Some("Renamed"), "Exchange", "2018-10-14T00:00:00"),
        fleet_row(OTHER, Some("Fabrikam"), "Exchange", "2018-10-13T00:00:00"),
        fleet_row(&upper_case, Some("Contoso"), "Teams", "2018-10-12T00:00:00"),
        fleet_row(OTHER, None, "Teams", "2018-10-14T00:00:00"),
    ])
    .unwrap();

    let described = usages.iter().map(|usage| {
        let (name, rows) = (usage.customer_name(), usage.rows().len());
        (usage.customer_id().to_string(), name, rows)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            (OTHER.to_owned(), Some("Fabrikam"), 2),
            (CUSTOMER.to_owned(), Some("Renamed"), 2),
        ]
    );
    let newest = LicenseUsage::newest_date(&usages).unwrap();
    assert_eq!(newest.to_string(), "2018-10-14");
    assert_eq!(fleet(Vec::new()), Ok(Vec::new()));
}

#[test]
fn a_fleet_row_needs_one_customer() {
    let with_ids = |id: Value, tenant_id: Value| {
        let mut row = commercial_row();
        row["customerId"] = id;
        row["customerTenantId"] = tenant_id;
        fleet(vec![commercial_row(), row]).map_err(|error| error.to_string())
    };
    let other = json!("00000000-0000-4000-8000-000000000001");

    assert!(with_ids(json!(CUSTOMER), Value::Null).is_ok());
    assert!(with_ids(json!(CUSTOMER), json!(CUSTOMER.to_uppercase())).is_ok());
    for (id, tenant_id, expected) in [
        (Value::Null, Value::Null, "customerTenantId: is missing"),
        (
            Value::Null,
            json!("s3cr3t"),
            "customerTenantId: expected a GUID",
        ),
        (json!(""), json!(CUSTOMER), "customerId: expected a GUID"),
        (json!(CUSTOMER), other, "customerTenantId: differs"),
    ] {
        let detail = with_ids(id, tenant_id).unwrap_err();

        let place = format!("Value[1].{expected}");
        assert!(detail.starts_with(&place), "{detail}");
        assert!(!detail.contains("s3cr3t"), "{detail}");
    }
}

#[test]
fn the_texts_of_all_pages_are_in_memory_once() {
    let mut texts = SharedTexts::default();
    let body = json!({ "Value": [commercial_row()] }).to_string();
    let mut row = || {
        let page = decode_fleet(body.as_bytes(), &mut texts).unwrap();
        page.items.into_iter().next().unwrap().row
    };

    let (first, second) = (row(), row());

    assert!(std::sync::Arc::ptr_eq(
        &first.product_name,
        &second.product_name
    ));
}
