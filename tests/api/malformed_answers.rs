//! Answers that are no usage: refused whole, never stored, never read as a zero.

use http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING};

use crate::support::prelude::*;

/// The longest body that the service accepts in these tests. The simulator exceeds it.
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
        body_bytes: Some(64 * MAX_BODY),
        ..bad_body(body)
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
async fn a_malformed_answer_is_502_and_the_next_answer_is_served() {
    for (source, api, fault) in cases() {
        let case = format!("{source}, {fault:?}");
        let app = app(source).await;
        app.set_faults(spoiled(fault));

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(502, "malformed");
        assert!(problem.get("upstream").is_none(), "{case}: no refusal");
        assert!(!reply.text().contains("<html"), "{case}: {problem}");
        assert_eq!(app.entries().await, 0, "{case}: nothing is kept");
        assert_eq!(app.calls(api), 1, "{case}: it is not repeated");
        app.clear_faults();
        app.advance(SECOND);
        assert_eq!(app.usage(DOCUMENTED).await.status, 200, "{case}");
    }
}

#[tokio::test]
async fn the_native_form_is_not_passed_through_unread() {
    for fault in FAULTS {
        let app = app("insights").await;
        app.set_faults(spoiled(fault));

        let reply = app.native(DOCUMENTED).await;

        reply.problem(502, "malformed");
        assert_eq!(app.entries().await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn cached_data_is_served_stale_and_stays_as_it_was() {
    for (source, api, fault) in cases() {
        let case = format!("{source}, {fault:?}");
        let app = app(source).await;
        let before = app.usage(DOCUMENTED).await;
        app.advance(STALE);
        app.set_faults(spoiled(fault));

        let stale = app.usage(DOCUMENTED).await;

        assert_eq!((before.status, stale.status), (200, 200), "{case}");
        assert_eq!(stale.body, before.body, "{case}");
        for name in ["etag", "last-modified"] {
            assert_eq!(stale.header(name), before.header(name), "{case}: {name}");
        }
        let status = stale.cache_status();
        let covered = status.contains("fwd=stale") && status.contains("stale-if-error");
        assert!(covered, "{case}: {status}");
        assert_eq!(app.calls(api), 2, "{case}");
        assert_eq!(app.entries().await, 1, "{case}");
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
    let documents = rows(
        r#"null                   | null
           a number               | 4711
           an array               | []
           an object of nothing   | {}
           items of null          | {"totalCount":0,"items":null}
           items of an object     | {"totalCount":1,"items":{}}
           a row of null          | {"totalCount":1,"items":[null]}
           two values             | {"totalCount":0,"items":[]}{}
           an error under 200     | {"code":"2000","description":"no"}"#,
    );
    let fields = rows(
        r#"a fraction of a seat    | licensesActive    | 0.5
           seats as text           | licensesActive    | "1"
           seats of null           | licensesQualified | null
           seats beyond any number | licensesQualified | 1e999
           a date of nothing       | processedDateTime | "0000-00-00"
           a date far off          | processedDateTime | "99999-01-01T00:00:00Z"
           half a character        | productName       | "\ud800"
           a name of null          | workloadName      | null"#,
    );
    let without_end = [
        ("nested without end", "[".repeat(100_000)),
        ("objects without end", r#"{"items":"#.repeat(50_000)),
    ];
    let cases = documents
        .map(|[case, body]| (case, body.to_owned()))
        .chain(fields.map(|[case, field, value]| (case, row(field, value))))
        .chain(without_end);

    for (case, body) in cases {
        app.set_body(customer(1), body);
        app.admin_post("/cache/purge?hard=true").await;

        let reply = app.usage(customer(1)).await;

        reply.problem(502, "malformed");
        assert_eq!(app.entries().await, 0, "{case}");
    }
    // The cases differ from usage in what their name says alone.
    app.set_body(customer(0), row("licensesActive", "1"));
    assert_eq!(app.usage(customer(0)).await.status, 200);
}

#[tokio::test]
async fn a_success_that_is_not_200_or_not_what_it_says_is_refused() {
    let app = app("insights").await;
    let gzip = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));

    for (index, (status, headers)) in [
        (StatusCode::ACCEPTED, HeaderMap::new()),
        (StatusCode::PARTIAL_CONTENT, HeaderMap::new()),
        (StatusCode::OK, HeaderMap::from_iter([gzip])),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = CustomerOverride::Status {
            status,
            body: r#"{"totalCount":0,"items":[]}"#.into(),
            headers,
        };
        app.set_answer(customer(index), answer);

        let reply = app.usage(customer(index)).await;

        reply.problem(502, "malformed");
        assert_eq!(app.entries().await, 0, "{status}");
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
        app.set_answer(customer, products(&["A", "B", "C", "D"]));
        app.simulator.hold_calls();

        let (shifted, ()) = tokio::join!(app.usage(customer), async {
            app.wait_for_calls(SimulatedApi::Commercial, 1).await;
            app.simulator.release_calls();
            app.simulator.hold_calls();
            app.wait_for_calls(SimulatedApi::Commercial, 2).await;
            app.set_answer(customer, products(then));
            app.simulator.release_calls();
        });
        app.advance(SECOND);
        let whole = app.usage(customer).await;

        shifted.problem(502, "malformed");
        let products = whole.json()["products"].as_array().unwrap().len();
        assert_eq!(products, then.len(), "{case}");
    }
}

#[tokio::test]
async fn a_collection_with_a_next_link_elsewhere_is_malformed_although_its_total_fits() {
    let app = app("insights").await;
    let customer = customer(0);
    let body = r#"{"totalCount":0,"items":[],"links":{"next":{"uri":"?page=2","method":"GET"}}}"#;
    app.set_body(customer, body);

    for path in ["usage", "analytics/licenses/deployment"] {
        let reply = app.get(&format!("/v1/customers/{customer}/{path}")).await;

        reply.problem(502, "malformed");
    }
}

#[tokio::test]
async fn rows_of_another_customer_are_counted_never_stored_and_not_shown() {
    for source in ["insights", "commercial"] {
        let app = app(source).await;
        app.set_faults(spoiled(BodyFault::ForeignCustomer));

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(502, "malformed").to_string();
        assert!(problem.contains(DOCUMENTED), "{source}: {problem}");
        let other = problem.to_lowercase().contains("f0e1a0f0");
        assert!(!other, "{source}: the other customer is named: {problem}");
        let mismatches = app.metric("usage_proxy_tenant_mismatch_total").await;
        assert_eq!(mismatches, 1.0, "{source}");
        assert_eq!(app.entries().await, 0, "{source}");
    }
}
