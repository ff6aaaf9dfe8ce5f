//! The requests that Partner Center receives: their headers, their pages, and none to other hosts.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue, header::LOCATION};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use usage_proxy::simulator::customer_id;

use crate::support::prelude::*;

const COMMERCIAL: &str = "/v1/analytics/commercial/usage/license/";

/// A host that no token is meant for. It answers and remembers every request.
struct Elsewhere {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

// === impl Elsewhere ===

impl Elsewhere {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while stream.read_line(&mut head).await.unwrap_or(0) > 2 {}
                heard.lock().unwrap().push(head);
                let body = r#"{"totalCount":0,"Value":[],"items":[]}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

#[track_caller]
fn guid(request: &RecordedRequest, name: &str) -> Uuid {
    let text = request.header(name).unwrap_or_default();
    Uuid::try_parse(text).unwrap_or_else(|_| panic!("{name}: {text:?} is no GUID"))
}

#[tokio::test]
async fn calls_identify_the_service_and_the_request_but_not_the_caller() {
    let client = concat!("usage-proxy/", env!("CARGO_PKG_VERSION"));
    let native = native_path(DOCUMENTED);
    let key = key_of("grafana");
    let authorization = format!("Bearer {key}");
    for (source, api, path) in [
        ("insights", SimulatedApi::Insights, &*native),
        ("commercial", SimulatedApi::Commercial, COMMERCIAL),
    ] {
        let app = TestApp::builder()
            .callers(&[TestCaller::named("grafana")])
            .set("upstream.source", source)
            .set("upstream.locale", "de-DE")
            .set("upstream.application", "seat-report")
            .start()
            .await;
        let own = [
            ("ms-requestid", "7b3f1cf0-9a0e-4b1c-8a52-3f6b0d8c1e11"),
            ("authorization", &*authorization),
            ("x-api-key", &*key),
            ("cookie", "session=of-the-caller"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-locale", "en-US"),
        ];

        let reply = app.usage_with(DOCUMENTED, &own).await;

        assert_eq!(reply.status, 200, "{source}");
        let calls = app.calls_made(api);
        let [call] = calls.as_slice() else {
            panic!("one call of {source}: {calls:?}");
        };
        assert_eq!((call.method.as_str(), &*call.path), ("GET", path));
        for (name, value) in [
            ("accept", "application/json"),
            ("x-locale", "de-DE"),
            ("ms-contract-version", "v1"),
            ("ms-partnercenter-application", "seat-report"),
            ("ms-partnercenter-client", client),
        ] {
            assert_eq!(call.header(name), Some(value), "{source}: {name}");
        }
        let bearer = call.header("authorization").unwrap();
        assert!(bearer.starts_with("Bearer ") && !bearer.contains(&key));
        let [request, correlation] = ["ms-requestid", "ms-correlationid"].map(|id| guid(call, id));
        // A request id of the caller could be that of two callers.
        assert_ne!(request.to_string(), own[0].1, "{source}");
        assert_ne!(correlation, request, "{source}");
        let names: BTreeSet<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = "accept accept-encoding authorization host ms-contract-version \
                        ms-correlationid ms-partnercenter-application ms-partnercenter-client \
                        ms-requestid user-agent x-locale";
        assert_eq!(names, expected.split(' ').collect(), "{source}");
    }
}

#[tokio::test]
async fn the_commercial_call_is_for_one_customer_and_date() {
    let app = TestApp::start().await;

    let reply = app.dated(DOCUMENTED, "2017-03-09").await;

    assert_eq!(reply.status, 200);
    let filter = format!("customerTenantId eq '{DOCUMENTED}'");
    for (name, value) in [("filter", &*filter), ("processedDateTime", "2017-03-09")] {
        let call = &app.calls_made(SimulatedApi::Commercial)[0];
        assert_eq!(parameter(call, name).as_deref(), Some(value), "{name}");
    }
}

fn parameter(call: &RecordedRequest, name: &str) -> Option<String> {
    let query = call.query.as_deref().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

#[tokio::test]
async fn one_request_id_lasts_over_the_retries_of_a_call_and_no_longer() {
    let app = TestApp::start().await;
    app.set_faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        times: Some(2),
        ..Faults::default()
    });
    let next = app.simulator.customers()[1];

    let reply = app.usage(DOCUMENTED).await;
    app.usage(next).await;

    let sent = app.calls_made(SimulatedApi::Insights);
    assert_eq!(sent.len(), 4);
    for name in ["ms-requestid", "ms-correlationid"] {
        let ids: Vec<_> = sent.iter().map(|sent| guid(sent, name)).collect();
        assert_eq!(ids[..3], [ids[0]; 3], "{name}");
        assert_ne!(ids[3], ids[0], "{name}");
        assert_eq!(reply.header(name), ids[0].to_string(), "{name}");
    }
}

#[tokio::test]
async fn a_valid_traceparent_is_passed_on() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, passed) in [(TRACE, Some(TRACE)), ("00-zz-yy-01", None)] {
        let app = TestApp::start().await;

        app.usage_with(DOCUMENTED, &[("traceparent", sent)]).await;

        let calls = app.calls_made(SimulatedApi::Insights);
        assert_eq!(calls[0].header("traceparent"), passed, "{sent}");
    }
}

/// Gives a customer this many products.
fn customer_with_products(app: &TestApp, products: usize) -> Uuid {
    let customer = customer_id(1, 0);
    let date = app.simulator.newest_date();
    let row = |number| SimulatedRow::new(&format!("PRODUCT {number}"), "Exchange", 5, date);
    let rows = CustomerOverride::Rows((0..products).map(row).collect());
    app.simulator.override_customer(customer, rows);
    customer
}

#[tokio::test]
async fn the_commercial_call_is_read_to_its_last_page() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .simulator(|options| options.page_size = 3)
        .start()
        .await;
    let customer = customer_with_products(&app, 10);

    let reply = app.usage(customer).await;

    assert_eq!(reply.status, 200);
    let usage = reply.json();
    let products = usage["products"].as_array().unwrap();
    let rows: usize = products
        .iter()
        .map(|product| product["workloads"].as_array().unwrap().len())
        .sum();
    assert_eq!(rows, 10, "{usage}");
    let pages = app.calls_made(SimulatedApi::Commercial);
    let skips: Vec<_> = pages.iter().map(|page| parameter(page, "skip")).collect();
    let expected = [None, Some("3"), Some("6"), Some("9")];
    assert_eq!(skips, expected.map(|skip| skip.map(str::to_owned)));
    for page in &pages {
        assert_eq!(
            guid(page, "ms-correlationid"),
            guid(&pages[0], "ms-correlationid"),
            "all pages are one call"
        );
        assert_eq!(
            page.header("authorization"),
            pages[0].header("authorization")
        );
    }
}

#[tokio::test]
async fn a_page_that_fails_fails_the_whole_answer() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .set("upstream.retries", "0")
        .simulator(|options| options.page_size = 5)
        .start()
        .await;
    let customer = customer_with_products(&app, 10);
    app.simulator.hold_calls();

    let (reply, ()) = tokio::join!(app.usage(customer), async {
        app.wait_for_calls(SimulatedApi::Commercial, 1).await;
        app.set_faults(failing(503));
        app.simulator.release_calls();
    });

    reply.problem(503, "unavailable");
    assert_eq!(app.calls(SimulatedApi::Commercial), 2);
    assert_eq!(app.entries().await, 0, "half an answer is none");
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .simulator(|options| options.page_size = 1)
        .start()
        .await;
    let customer = customer_with_products(&app, 250);

    let reply = app.usage(customer).await;

    reply.problem(502, "malformed");
    assert_eq!(app.calls(SimulatedApi::Commercial), 200);
}

#[tokio::test]
async fn a_page_that_was_read_is_not_read_again() {
    let app = TestApp::with("upstream.source", "commercial").await;
    app.set_faults(Faults {
        next_link: Some(format!(
            "{COMMERCIAL}?filter=customerTenantId%20eq%20%27{DOCUMENTED}%27&skip=1"
        )),
        ..Faults::default()
    });

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(502, "malformed");
    assert_eq!(app.calls(SimulatedApi::Commercial), 2);
}

#[tokio::test]
async fn a_next_link_that_leads_elsewhere_is_not_followed() {
    let elsewhere = Elsewhere::start().await;
    let app = TestApp::with("upstream.source", "commercial").await;
    let (away, here) = (elsewhere.address, app.simulator_address);
    let customers = app.simulator.customers();
    let cases = rows(
        "another host                  | http://AWAYPATH?skip=1
         another host, without scheme  | //AWAYPATH?skip=1
         our host as a user name       | http://HERE@AWAYPATH?skip=1
         another scheme                | https://HEREPATH?skip=1
         another path                  | http://HERE/v1/customers?size=1
         a longer name                 | http://HERE/v1/analytics/commercial/usage/licenses
         a way up                      | ../../../../customers?size=1
         an encoded way up             | PATH..%2f..%2f..%2f..%2fcustomers",
    );

    for (customer, [case, link]) in customers.iter().zip(cases) {
        let link = link
            .replace("AWAY", &away.to_string())
            .replace("HERE", &here.to_string())
            .replace("PATH", COMMERCIAL);
        app.simulator.clear_requests();
        app.set_faults(Faults {
            next_link: Some(link),
            ..Faults::default()
        });

        let reply = app.usage(customer).await;

        let problem = reply.problem(502, "malformed");
        assert!(
            !problem.to_string().contains(&away.to_string()),
            "{case}: {problem}"
        );
        assert_eq!(elsewhere.heads(), [""; 0], "{case}");
        let requests: Vec<_> = app.simulator.requests();
        let requests: Vec<_> = requests.iter().map(|request| request.api).collect();
        assert_eq!(requests, [SimulatedApi::Commercial], "{case}");
    }
    assert_eq!(app.entries().await, 0);
    // It would have been noticed.
    reqwest::get(format!("http://{away}/")).await.unwrap();
    assert_eq!(elsewhere.heads().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Elsewhere::start().await;
    for (source, api) in [
        ("insights", SimulatedApi::Insights),
        ("commercial", SimulatedApi::Commercial),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let app = TestApp::with("upstream.source", source).await;
            let location = format!("http://{}/", elsewhere.address);
            let location = HeaderValue::try_from(location).unwrap();
            app.set_answer(
                Uuid::parse_str(DOCUMENTED).unwrap(),
                CustomerOverride::Status {
                    status: StatusCode::from_u16(status).unwrap(),
                    body: "{}".into(),
                    headers: HeaderMap::from_iter([(LOCATION, location)]),
                },
            );

            let reply = app.usage(DOCUMENTED).await;

            let problem = reply.problem(502, "rejected");
            assert_eq!(problem["upstream"]["status"], status, "{source}");
            assert_eq!(elsewhere.heads(), [""; 0], "{source}, {status}");
            assert_eq!(app.calls(api), 1, "{source}, {status}");
        }
    }
}
