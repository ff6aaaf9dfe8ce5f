//! What Partner Center gets to see: the headers, the pages, and nothing for anybody else.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use usage_proxy::simulator::{
    BodyFault, CustomerOverride, Faults, RecordedRequest, SimulatedApi, WIDE_CUSTOMER,
};
use uuid::Uuid;

use crate::support::{DOCUMENTED, TestApp};

const COMMERCIAL: &str = "/v1/analytics/commercial/usage/license/";

/// A host that no token is meant for. It answers whatever is asked, so that who asks goes on, and
/// remembers it.
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

fn requests(app: &TestApp, api: SimulatedApi) -> Vec<RecordedRequest> {
    let all = app.simulator.requests().into_iter();
    all.filter(|request| request.api == api).collect()
}

#[track_caller]
fn guid(request: &RecordedRequest, name: &str) -> Uuid {
    let text = request.header(name).unwrap_or_default();
    Uuid::try_parse(text).unwrap_or_else(|_| panic!("{name}: {text:?} is no GUID"))
}

#[tokio::test]
async fn both_calls_say_who_asks_and_how_to_trace_it_and_nothing_of_the_caller() {
    for (source, api, path) in [
        (
            "insights",
            SimulatedApi::Insights,
            format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage"),
        ),
        (
            "commercial",
            SimulatedApi::Commercial,
            COMMERCIAL.to_owned(),
        ),
    ] {
        let app = TestApp::builder()
            .set("upstream.source", source)
            .set("upstream.locale", "de-DE")
            .set("upstream.application", "seat-report")
            .start()
            .await;
        let own = [
            ("authorization", "Bearer of-the-caller"),
            ("cookie", "session=of-the-caller"),
            ("x-forwarded-for", "192.0.2.7"),
            ("ms-requestid", "7b3f1cf0-9a0e-4b1c-8a52-3f6b0d8c1e11"),
        ];

        let reply = app
            .get_with(&format!("/v1/customers/{DOCUMENTED}/usage"), &own)
            .await;

        assert_eq!(reply.status, 200, "{source}");
        let sent = requests(&app, api);
        assert_eq!(sent.len(), 1, "{source}");
        let sent = &sent[0];
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("GET", &*path));
        for (name, value) in [
            ("accept", "application/json"),
            ("x-locale", "de-DE"),
            ("ms-contract-version", "v1"),
            ("ms-partnercenter-application", "seat-report"),
            (
                "ms-partnercenter-client",
                concat!("usage-proxy/", env!("CARGO_PKG_VERSION")),
            ),
        ] {
            assert_eq!(sent.header(name), Some(value), "{source}: {name}");
        }
        let bearer = sent.header("authorization").unwrap();
        assert!(bearer.starts_with("Bearer ") && !bearer.contains("caller"));
        assert_ne!(
            guid(sent, "ms-requestid").to_string(),
            own[3].1,
            "{source}: a request id is ours, or two callers could share one"
        );
        assert_ne!(
            guid(sent, "ms-correlationid"),
            guid(sent, "ms-requestid"),
            "{source}"
        );
        let names: BTreeSet<_> = sent.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = BTreeSet::from([
            "accept",
            "accept-encoding",
            "authorization",
            "host",
            "ms-contract-version",
            "ms-correlationid",
            "ms-partnercenter-application",
            "ms-partnercenter-client",
            "ms-requestid",
            "user-agent",
            "x-locale",
        ]);
        assert_eq!(names, expected, "{source}");
    }
}

#[tokio::test]
async fn the_commercial_call_asks_for_one_customer_and_the_date_wanted() {
    let app = TestApp::start().await;

    let reply = app
        .get(&format!(
            "/v1/customers/{DOCUMENTED}/usage?processedDate=2017-03-09"
        ))
        .await;

    assert_eq!(reply.status, 200);
    let sent = requests(&app, SimulatedApi::Commercial);
    let query = sent[0].query.as_deref().unwrap_or_default();
    let asked: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let filter = format!("customerTenantId eq '{DOCUMENTED}'");
    for wanted in [("filter", &*filter), ("processedDateTime", "2017-03-09")] {
        assert!(
            asked.contains(&(wanted.0.into(), wanted.1.into())),
            "{wanted:?} in {query}"
        );
    }
}

#[tokio::test]
async fn one_request_id_lasts_over_the_retries_of_a_call_and_no_longer() {
    let app = TestApp::start().await;
    app.simulator.set_faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        times: Some(2),
        ..Faults::default()
    });
    let next = app.simulator.customers()[1];

    let reply = app.usage(DOCUMENTED).await;
    app.usage(next).await;

    let sent = requests(&app, SimulatedApi::Insights);
    assert_eq!(sent.len(), 4);
    for name in ["ms-requestid", "ms-correlationid"] {
        let ids: Vec<_> = sent.iter().map(|sent| guid(sent, name)).collect();
        assert_eq!(ids[..3], [ids[0]; 3], "{name}");
        assert_ne!(ids[3], ids[0], "{name}");
        assert_eq!(reply.header(name), ids[0].to_string(), "{name}");
    }
}

#[tokio::test]
async fn what_a_caller_traces_by_is_passed_on() {
    const ID: &str = "c0ffee00-1111-4222-8333-444455556666";
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let app = TestApp::start().await;
    let customers = app.simulator.customers();
    let cases = [
        ("ms-correlationid", ID, "ms-correlationid", Some(ID)),
        ("x-correlation-id", ID, "ms-correlationid", Some(ID)),
        ("traceparent", TRACE, "traceparent", Some(TRACE)),
        ("traceparent", "00-zz-yy-01", "traceparent", None),
    ];

    for (customer, (name, value, passed_as, passed)) in customers.iter().zip(cases) {
        app.simulator.clear_requests();

        let path = format!("/v1/customers/{customer}/usage");
        let reply = app.get_with(&path, &[(name, value)]).await;

        assert_eq!(reply.status, 200, "{name}: {value}");
        let sent = requests(&app, SimulatedApi::Insights);
        assert_eq!(sent[0].header(passed_as), passed, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_correlation_id_that_is_no_guid_is_replaced() {
    let app = TestApp::start().await;
    let path = format!("/v1/customers/{DOCUMENTED}/usage");

    app.get_with(&path, &[("ms-correlationid", "ticket 4711")])
        .await;

    let sent = requests(&app, SimulatedApi::Insights);
    guid(&sent[0], "ms-correlationid");
}

#[tokio::test]
async fn the_commercial_call_is_read_to_its_last_page() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .simulator(|options| {
            options.wide_rows = 10;
            options.page_size = 3;
        })
        .start()
        .await;

    let reply = app.usage(WIDE_CUSTOMER).await;

    assert_eq!(reply.status, 200);
    let usage = reply.json();
    let products = usage["products"].as_array().unwrap();
    let rows: usize = products
        .iter()
        .map(|product| product["workloads"].as_array().unwrap().len())
        .sum();
    assert_eq!(rows, 10, "{usage}");
    let pages = requests(&app, SimulatedApi::Commercial);
    let skips: Vec<_> = pages
        .iter()
        .map(|page| {
            let query = page.query.as_deref().unwrap_or_default();
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == "skip")
                .map(|(_, skip)| skip.into_owned())
        })
        .collect();
    assert_eq!(
        skips,
        [None, Some("3"), Some("6"), Some("9")].map(|skip| skip.map(str::to_owned))
    );
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
        .simulator(|options| {
            options.wide_rows = 10;
            options.page_size = 5;
        })
        .start()
        .await;
    app.simulator.hold_calls();

    let (reply, ()) = tokio::join!(app.usage(WIDE_CUSTOMER), async {
        app.upstream_asked(SimulatedApi::Commercial, 1).await;
        app.simulator.set_faults(Faults {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            ..Faults::default()
        });
        app.simulator.release_calls();
    });

    reply.problem(503, "unavailable");
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 2);
    assert_eq!(app.held().await, 0, "half an answer is none");
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .simulator(|options| {
            options.wide_rows = 250;
            options.page_size = 1;
        })
        .start()
        .await;

    let reply = app.usage(WIDE_CUSTOMER).await;

    reply.problem(502, "malformed");
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 200);
}

#[tokio::test]
async fn a_page_that_was_read_is_not_read_again() {
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .start()
        .await;
    app.simulator.set_faults(Faults {
        next_link: Some(format!("{COMMERCIAL}?skip=1")),
        ..Faults::default()
    });

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(502, "malformed");
    assert_eq!(app.simulator.request_count(SimulatedApi::Commercial), 2);
}

#[tokio::test]
async fn a_next_link_that_leads_elsewhere_is_not_followed() {
    let elsewhere = Elsewhere::start().await;
    let app = TestApp::builder()
        .set("upstream.source", "commercial")
        .start()
        .await;
    let (away, here) = (elsewhere.address, app.simulator_address);
    let customers = app.simulator.customers();
    let cases = [
        ("another host", format!("http://{away}{COMMERCIAL}?skip=1")),
        (
            "another host, scheme left out",
            format!("//{away}{COMMERCIAL}?skip=1"),
        ),
        (
            "our host as a user name",
            format!("http://{here}@{away}{COMMERCIAL}?skip=1"),
        ),
        (
            "another scheme",
            format!("https://{here}{COMMERCIAL}?skip=1"),
        ),
        ("another path", format!("http://{here}/v1/customers?size=1")),
        (
            "a longer name",
            format!("http://{here}/v1/analytics/commercial/usage/licenses"),
        ),
        ("climbing", "../../../../customers?size=1".to_owned()),
        (
            "climbing unseen",
            format!("{COMMERCIAL}..%2f..%2f..%2f..%2fcustomers"),
        ),
    ];

    for (customer, (case, link)) in customers.iter().zip(cases) {
        app.simulator.clear_requests();
        app.simulator.set_faults(Faults {
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
        let asked: Vec<_> = app.simulator.requests();
        let asked: Vec<_> = asked.iter().map(|request| request.api).collect();
        assert_eq!(asked, [SimulatedApi::Commercial], "{case}");
    }
    assert_eq!(app.held().await, 0);
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
            let app = TestApp::builder()
                .set("upstream.source", source)
                .start()
                .await;
            let location = format!("http://{}/", elsewhere.address);
            let location = HeaderValue::try_from(location).unwrap();
            app.simulator.override_customer(
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
            assert_eq!(app.simulator.request_count(api), 1, "{source}, {status}");
        }
    }
}

#[tokio::test]
async fn a_row_of_another_customer_spoils_the_whole_answer() {
    for source in ["insights", "commercial"] {
        let app = TestApp::builder()
            .set("upstream.source", source)
            .start()
            .await;
        app.simulator.set_faults(Faults {
            body: Some(BodyFault::ForeignCustomer),
            ..Faults::default()
        });

        let reply = app.usage(DOCUMENTED).await;

        let problem = reply.problem(502, "malformed").to_string();
        assert!(problem.contains(DOCUMENTED), "{source}: {problem}");
        assert!(
            !problem.to_lowercase().contains("f0e1a0f0"),
            "{source}: whose row it was is nobody's business: {problem}"
        );
        assert_eq!(app.held().await, 0, "{source}");
    }
}
