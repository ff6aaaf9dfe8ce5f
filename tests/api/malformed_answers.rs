//! Answers that are no usage: refused whole, never stored, never read as a zero.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_ENCODING};
use usage_proxy::simulator::{BodyFault, CustomerOverride, Faults, SimulatedApi, SimulatedRow};
use uuid::Uuid;

use crate::support::{DOCUMENTED, TestApp, customer};

/// What the service accepts in these tests, and the stand-in goes beyond.
const MAX_BODY: usize = 256 * 1024;

const FAULTS: [BodyFault; 11] = [
    BodyFault::Html,
    BodyFault::Truncated,
    BodyFault::Empty,
    BodyFault::Garbage,
    BodyFault::Oversized,
    BodyFault::GzipBomb,
    BodyFault::NegativeCounts,
    BodyFault::HugeCounts,
    BodyFault::MissingFields,
    BodyFault::ForeignCustomer,
    BodyFault::WrongTotal,
];

fn spoiled(body: BodyFault) -> Faults {
    Faults {
        body: Some(body),
        body_bytes: 64 * MAX_BODY,
        ..Faults::default()
    }
}

async fn app(source: &str) -> TestApp {
    TestApp::builder()
        .set("upstream.source", source)
        .set("upstream.max_body", &format!("{}KiB", MAX_BODY / 1024))
        .start()
        .await
}

/// Every fault with every call that it is a fault of.
fn cases() -> impl Iterator<Item = (&'static str, SimulatedApi, BodyFault)> {
    FAULTS.into_iter().flat_map(|fault| {
        [
            ("insights", SimulatedApi::Insights, fault),
            ("commercial", SimulatedApi::Commercial, fault),
        ]
    })
}

#[tokio::test]
async fn with_nothing_held_it_is_a_502_and_the_next_answer_is_as_good_as_ever() {
    for (source, api, fault) in cases() {
        let app = app(source).await;
        app.simulator.set_faults(spoiled(fault));

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(502, "malformed");
        assert!(problem.get("products").is_none(), "{source}, {fault:?}");
        assert_eq!(app.held().await, 0, "{source}, {fault:?}: nothing is kept");
        assert_eq!(app.simulator.request_count(api), 1, "{source}, {fault:?}");
        app.simulator.set_faults(Faults::default());
        app.advance(Duration::from_secs(1));
        let next = app.usage(DOCUMENTED).await;
        assert_eq!(next.status, 200, "{source}, {fault:?}");
        assert!(!app.running.is_finished(), "{source}, {fault:?}");
    }
}

#[tokio::test]
async fn the_native_form_is_not_passed_through_unread() {
    for fault in FAULTS {
        let app = app("insights").await;
        app.simulator.set_faults(spoiled(fault));

        let reply = app.native(DOCUMENTED).await;

        reply.problem(502, "malformed");
        assert_eq!(app.held().await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_held_is_served_stale_and_stays_as_it_was() {
    for (source, api, fault) in cases() {
        let app = app(source).await;
        let before = app.usage(DOCUMENTED).await;
        // Past freshness and past the time in which a refresh happens behind the caller's back.
        app.advance(Duration::from_secs(2 * 60 * 60));
        app.simulator.set_faults(spoiled(fault));

        let stale = app.usage(DOCUMENTED).await;

        assert_eq!(before.status, 200, "{source}, {fault:?}");
        assert_eq!(stale.status, 200, "{source}, {fault:?}");
        assert_eq!(stale.body, before.body, "{source}, {fault:?}");
        for header in ["etag", "last-modified"] {
            assert_eq!(
                stale.header(header),
                before.header(header),
                "{source}, {fault:?}: {header}"
            );
        }
        let status = stale.header("cache-status");
        assert!(
            status.contains("fwd=stale") && status.contains("stale-if-error"),
            "{source}, {fault:?}: {status}"
        );
        assert_eq!(app.simulator.request_count(api), 2, "{source}, {fault:?}");
        assert_eq!(app.held().await, 1, "{source}, {fault:?}");
    }
}

#[tokio::test]
async fn json_that_is_no_usage_is_refused() {
    let row = |field: &str, value: &str| {
        let mut row = serde_json::json!({
            "productName": "A", "workloadName": "Exchange", "serviceName": "o365",
            "channel": "reseller", "licensesActive": 1, "licensesQualified": 2,
            "processedDateTime": "2026-11-20T00:00:00+00:00",
        });
        row[field] = serde_json::json!("PLACE");
        let row = row.to_string().replace("\"PLACE\"", value);
        format!(r#"{{"totalCount":1,"items":[{row}]}}"#)
    };
    let app = app("insights").await;
    let cases = [
        ("null", "null".to_owned()),
        ("a number", "4711".to_owned()),
        ("an array", "[]".to_owned()),
        ("an object of nothing", "{}".to_owned()),
        (
            "items of null",
            r#"{"totalCount":0,"items":null}"#.to_owned(),
        ),
        (
            "items of an object",
            r#"{"totalCount":1,"items":{}}"#.to_owned(),
        ),
        (
            "a row of null",
            r#"{"totalCount":1,"items":[null]}"#.to_owned(),
        ),
        ("nested without end", "[".repeat(100_000)),
        ("objects without end", r#"{"items":"#.repeat(50_000)),
        ("two values", r#"{"totalCount":0,"items":[]}{}"#.to_owned()),
        (
            "an error under 200",
            r#"{"code":"2000","description":"no"}"#.to_owned(),
        ),
        ("a fraction of a seat", row("licensesActive", "0.5")),
        ("seats as text", row("licensesActive", "\"1\"")),
        ("seats of null", row("licensesQualified", "null")),
        ("seats beyond any number", row("licensesQualified", "1e999")),
        (
            "a date of nothing",
            row("processedDateTime", "\"0000-00-00\""),
        ),
        (
            "a date far off",
            row("processedDateTime", "\"99999-01-01T00:00:00Z\""),
        ),
        ("half a character", row("productName", r#""\ud800""#)),
        ("a name of null", row("workloadName", "null")),
    ];
    let sane = row("licensesActive", "1");

    for (index, (case, body)) in cases.into_iter().enumerate() {
        let customer = Uuid::from_u128(index as u128 + 1);
        app.simulator
            .override_customer(customer, CustomerOverride::Body(Bytes::from(body)));

        let reply = app.usage(customer).await;

        assert_eq!(reply.status, 502, "{case}: {}", reply.text());
        reply.problem(502, "malformed");
        assert_eq!(app.held().await, 0, "{case}");
    }
    // The cases differ from usage in what their name says alone.
    let customer = Uuid::from_u128(4711);
    app.simulator
        .override_customer(customer, CustomerOverride::Body(sane.into()));
    assert_eq!(app.usage(customer).await.status, 200);
}

#[tokio::test]
async fn a_success_that_is_not_200_or_not_what_it_says_is_refused() {
    let app = app("insights").await;
    let body = Bytes::from_static(br#"{"totalCount":0,"items":[]}"#);
    let gzip = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let cases = [
        (StatusCode::ACCEPTED, HeaderMap::new()),
        (StatusCode::PARTIAL_CONTENT, HeaderMap::new()),
        (StatusCode::OK, HeaderMap::from_iter([gzip])),
    ];

    for (index, (status, headers)) in cases.into_iter().enumerate() {
        let customer = Uuid::from_u128(index as u128 + 1);
        let case = format!("{status}, {headers:?}");
        let body = body.clone();
        let told = CustomerOverride::Status {
            status,
            body,
            headers,
        };
        app.simulator.override_customer(customer, told);

        let reply = app.usage(customer).await;

        assert_eq!(reply.status, 502, "{case}");
        reply.problem(502, "malformed");
        assert_eq!(app.held().await, 0, "{case}");
    }
}

#[tokio::test]
async fn pages_that_shift_while_they_are_read_are_no_answer() {
    // The second page is read after the order of the rows, or their number, has changed.
    for (case, then) in [
        ("another order", &["C", "A", "B", "D"][..]),
        ("a row more", &["Z", "A", "B", "C", "D"]),
        ("a row less", &["B", "C", "D"]),
    ] {
        let app = TestApp::builder()
            .set("upstream.source", "commercial")
            .simulator(|options| options.page_size = 2)
            .start()
            .await;
        let products = |names: &[&str]| {
            let processed = app.simulator.newest_date();
            let row = |name: &&str| SimulatedRow::new(name, "Exchange", 5, processed);
            CustomerOverride::Rows(names.iter().map(row).collect())
        };
        let customer = customer(0);
        app.simulator
            .override_customer(customer, products(&["A", "B", "C", "D"]));
        app.simulator.hold_calls();

        let (shifted, ()) = tokio::join!(app.usage(customer), async {
            app.upstream_asked(SimulatedApi::Commercial, 1).await;
            app.simulator.release_calls();
            app.simulator.hold_calls();
            app.upstream_asked(SimulatedApi::Commercial, 2).await;
            app.simulator.override_customer(customer, products(then));
            app.simulator.release_calls();
        });
        app.advance(Duration::from_secs(1));
        let whole = app.usage(customer).await;

        assert_eq!(shifted.status, 502, "{case}: {}", shifted.text());
        shifted.problem(502, "malformed");
        let products = whole.json()["products"].as_array().unwrap().len();
        assert_eq!(products, then.len(), "{case}");
    }
}

#[tokio::test]
async fn a_collection_that_goes_on_elsewhere_is_not_the_whole_though_its_total_fits() {
    let app = app("insights").await;
    let customer = customer(0);
    let body = r#"{"totalCount":0,"items":[],"links":{"next":{"uri":"?page=2","method":"GET"}}}"#;
    app.simulator
        .override_customer(customer, CustomerOverride::Body(body.into()));

    for path in ["usage", "analytics/licenses/deployment"] {
        let reply = app.get(&format!("/v1/customers/{customer}/{path}")).await;

        assert_eq!(reply.status, 502, "{path}: {}", reply.text());
        reply.problem(502, "malformed");
    }
}

#[tokio::test]
async fn rows_of_another_customer_are_counted_and_never_stored() {
    for source in ["insights", "commercial"] {
        let app = app(source).await;
        app.simulator
            .set_faults(spoiled(BodyFault::ForeignCustomer));

        app.usage(DOCUMENTED).await.problem(502, "malformed");

        let mismatches = app.metric("usage_proxy_tenant_mismatch_total").await;
        assert!((mismatches - 1.0).abs() < f64::EPSILON, "{source}");
        assert_eq!(app.held().await, 0, "{source}");
    }
}
