//! The traces of requests and upstream calls, as a collector receives them.

mod outages;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    collector::{Collector, Traced},
    prelude::*,
};

const CALLERS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN: &str = "00f067aa0ba902b7";
const SERVED: &str = "GET /v1/customers/{customer_id}/usage";
const ATTEMPT: &str = "GET /v1/customers/{customer_id}/analytics/licenses/usage";

fn traced(collector: &Collector) -> Builder {
    TestApp::builder().set("tracing.otlp_endpoint", &collector.url)
}

async fn start() -> (Collector, TestApp) {
    let collector = Collector::start().await;
    let app = traced(&collector).start().await;
    (collector, app)
}

/// The trace of a span, and the span that it belongs to.
fn parent_of(span: &Traced) -> (&str, &str) {
    (&span.trace, &span.parent)
}

/// The trace of a span and its own id, as those that belong to it have them.
fn id_of(span: &Traced) -> (&str, &str) {
    (&span.trace, &span.id)
}

/// Ends the service, which exports the last spans.
async fn end(app: TestApp) {
    app.shutdown.drain();
    in_time(app.running).await.unwrap();
}

/// `traceparent` and `tracestate` of the calls that Partner Center had, in their order.
fn sent(app: &TestApp) -> Vec<(String, Option<String>)> {
    let calls = app.calls_made(SimulatedApi::Insights).into_iter();
    calls
        .map(|call| {
            let header = |name| call.header(name).map(str::to_owned);
            (header("traceparent").unwrap(), header("tracestate"))
        })
        .collect()
}

#[tokio::test]
async fn a_miss_is_one_trace_from_the_request_to_each_attempt() {
    let (collector, app) = start().await;
    app.set_faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        times: Some(1),
        ..Faults::default()
    });
    let headers = [("user-agent", "dashboard/1"), ("x-request-id", "first")];

    let reply = app.get_with(&usage_path(DOCUMENTED), &headers).await;
    let sent = sent(&app);
    let (api, upstream) = (app.api, app.simulator_address);
    end(app).await;

    let request = collector.span(SERVED);
    assert_eq!((request.kind, &*request.parent), (SpanKind::Server, ""));
    assert!(!request.failed);
    for (name, value) in [
        ("http.request.method", json!("GET")),
        ("http.route", json!("/v1/customers/{customer_id}/usage")),
        ("http.response.status_code", json!(200)),
        ("url.path", json!(usage_path(DOCUMENTED))),
        ("url.query", Value::Null),
        ("url.scheme", json!("http")),
        ("user_agent.original", json!("dashboard/1")),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(api.port())),
        ("client.address", json!("127.0.0.1")),
        ("request.id", json!("first")),
        ("caller.name", json!("anonymous")),
        ("customer.id", json!(DOCUMENTED)),
        ("cache.status", json!("miss")),
        ("cache.fwd", json!("uri-miss")),
        ("cache.fwd_status", json!(200)),
        ("cache.stored", json!(true)),
        ("cache.collapsed", Value::Null),
        ("error.type", Value::Null),
    ] {
        assert_eq!(request.get(name), value, "{name}");
    }
    let (event, decided) = &request.events[0];
    assert_eq!(event, "cache.decision");
    assert_eq!(decided["cache.decision"], "ask");
    assert_eq!(decided["cache.fwd"], "uri-miss");

    let call = collector.span("upstream call");
    assert_eq!(parent_of(&call), id_of(&request));
    assert_eq!(call.kind, SpanKind::Internal);
    assert_eq!(call.get("upstream.api"), "insights");
    assert_eq!(call.get("customer.id"), DOCUMENTED);
    assert_eq!(call.get("ms.request_id"), reply.header("ms-requestid"));
    let correlation_id = reply.header("ms-correlationid");
    assert_eq!(call.get("ms.correlation_id"), correlation_id);
    assert_eq!(call.events[0].1["error.type"], "server-fault");

    let attempts = collector.named(ATTEMPT);
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        assert_eq!(parent_of(attempt), id_of(&call));
        assert_eq!(attempt.kind, SpanKind::Client);
        assert_eq!(attempt.get("http.request.method"), "GET");
        assert_eq!(attempt.get("server.address"), "127.0.0.1");
        assert_eq!(attempt.get("server.port"), upstream.port());
        let url = format!("http://{upstream}/v1/customers/{DOCUMENTED}/analytics/licenses/usage");
        assert_eq!(attempt.get("url.full"), url);
    }
    let values = |name: &str| attempts.iter().map(|one| one.get(name)).collect::<Vec<_>>();
    assert_eq!(values("http.response.status_code"), [503, 200]);
    assert_eq!(values("http.request.resend_count"), [Value::Null, json!(1)]);
    assert_eq!(values("error.type"), [json!("server-fault"), Value::Null]);
    assert_eq!([attempts[0].failed, attempts[1].failed], [true, false]);
    let own_spans = attempts.iter().map(|one| (one.traceparent(), None));
    assert_eq!(sent, own_spans.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_that_misses_is_traced_to_each_call_and_names_its_customer() {
    let (collector, app) = start().await;

    app.get("/").await;
    app.get(&format!("/?customer={DOCUMENTED}")).await;
    end(app).await;

    let pages = collector.named("GET /");
    let [list, usage] = pages.as_slice() else {
        panic!("one for each page: {pages:#?}");
    };
    assert_eq!(list.get("customer.id"), Value::Null);
    assert_eq!(usage.get("customer.id"), DOCUMENTED);
    let mut calls = collector.named("upstream call");
    calls.sort_by_key(|call| call.get("upstream.api").to_string());
    let [customers, insights] = calls.as_slice() else {
        panic!("one for each page: {calls:#?}");
    };
    assert_eq!(parent_of(customers), id_of(list));
    assert_eq!(parent_of(insights), id_of(usage));
}

#[tokio::test]
async fn exported_spans_name_the_service() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .set("tracing.service_name", "usage-proxy-eu")
        .start()
        .await;

    app.usage(DOCUMENTED).await;
    end(app).await;

    let export = &collector.exports()[0];
    assert_eq!(export.path, "/v1/traces");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");
    let resource = collector.span(SERVED).resource;
    assert_eq!(resource["service.name"], "usage-proxy-eu");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let instance = resource["service.instance.id"].as_str().unwrap();
    assert!(Uuid::try_parse(instance).is_ok(), "{instance}");
}

#[tokio::test]
async fn a_hit_is_one_span_and_a_span_lasts_as_long_as_its_request() {
    let (collector, app) = start().await;

    app.simulator.hold_calls();
    tokio::join!(app.usage(DOCUMENTED), async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        app.advance(Duration::from_millis(700));
        app.simulator.release_calls();
    });
    let date = format!("{}?processedDate=2017-03-09", usage_path(DOCUMENTED));
    app.get(&date).await;
    end(app).await;

    let requests = collector.named(SERVED);
    let [miss, hit] = requests.as_slice() else {
        panic!("one for each request: {requests:#?}");
    };
    assert_eq!(miss.nanoseconds, 700_000_000);
    assert_eq!(collector.span(ATTEMPT).nanoseconds, 700_000_000);
    assert_eq!(hit.get("cache.status"), "hit");
    assert_eq!(hit.get("url.query"), "processedDate=2017-03-09");
    assert_eq!(hit.events, []);
    assert!(collector.spans().iter().all(|span| span.parent != hit.id));
}

#[tokio::test]
async fn a_callers_trace_continues_here_and_at_partner_center() {
    let (collector, app) = start().await;
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-01");
    let headers = [
        ("traceparent", &*parent),
        ("tracestate", "vendor=a,other=b"),
    ];

    app.get_with(&usage_path(DOCUMENTED), &headers).await;
    let sent = sent(&app);
    end(app).await;

    let request = collector.span(SERVED);
    assert_eq!(parent_of(&request), (CALLERS_TRACE, CALLERS_SPAN));
    let attempt = collector.span(ATTEMPT);
    assert_eq!(attempt.trace, CALLERS_TRACE);
    assert_eq!(sent, [(attempt.traceparent(), None)]);
}

#[tokio::test]
async fn a_caller_decides_whether_its_trace_is_sampled() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .set("tracing.sample_ratio", "0")
        .start()
        .await;
    let trace = |last| format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-{last}");

    for (index, parent) in [Some(trace("01")), Some(trace("00")), None]
        .iter()
        .enumerate()
    {
        let header = parent.as_deref().map(|parent| ("traceparent", parent));
        app.get_with(&usage_path(customer(index)), header.as_slice())
            .await;
    }
    let sent = sent(&app);
    end(app).await;

    let request = collector.span(SERVED);
    assert_eq!(request.get("customer.id"), customer(0).to_string());
    let flags: Vec<_> = sent.iter().map(|(parent, _)| &parent[52..]).collect();
    assert_eq!(flags, ["-01", "-00", "-00"]);
    assert!(sent[1].0.starts_with(&format!("00-{CALLERS_TRACE}-")));
    assert!(!sent[1].0.contains(CALLERS_SPAN), "the span is ours");
    assert!(!sent[2].0.contains(CALLERS_TRACE));
}

#[tokio::test]
async fn a_caller_that_is_not_authenticated_does_not_decide_whether_its_trace_is_sampled() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .callers(&[TestCaller::named("grafana")])
        .set("tracing.sample_ratio", "0")
        .start()
        .await;
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-01");
    let (usage, key) = (usage_path(DOCUMENTED), key_of("grafana"));

    for (path, key, status) in [
        (&*usage, "", 401),
        (&usage, "up_wrong", 401),
        ("/nowhere", "", 401),
        ("/docs", "", 200),
        (&usage, &key, 200),
    ] {
        let headers = [("traceparent", &*parent), ("x-api-key", key)];
        let headers = &headers[..if key.is_empty() { 1 } else { 2 }];
        assert_eq!(app.get_with(path, headers).await.status, status, "{path}");
    }
    end(app).await;

    let mut requests = collector.spans();
    requests.retain(|span| span.kind == SpanKind::Server);
    let [request] = requests.as_slice() else {
        panic!("only the last: {requests:#?}");
    };
    assert_eq!(request.get("caller.name"), "grafana");
    assert_eq!(parent_of(request), (CALLERS_TRACE, CALLERS_SPAN));
}

#[tokio::test]
async fn a_refused_request_is_a_trace_of_its_own_that_refers_to_its_callers() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .callers(&[TestCaller::named("grafana")])
        .start()
        .await;
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-00");

    app.get_with(&usage_path(DOCUMENTED), &[("traceparent", &parent)])
        .await;
    end(app).await;

    let request = collector.span(SERVED);
    assert_eq!(request.get("http.response.status_code"), 401);
    assert_eq!(request.parent, "");
    assert_ne!(request.trace, CALLERS_TRACE);
    let callers = (CALLERS_TRACE.to_owned(), CALLERS_SPAN.to_owned());
    assert_eq!(request.links, [callers]);
}

#[tokio::test]
async fn a_follower_refers_to_the_call_that_it_waits_for() {
    let (collector, app) = start().await;
    let path = usage_path(DOCUMENTED);
    let ask = |id: &'static str| {
        let (app, path) = (&app, &path);
        async move { app.get_with(path, &[("x-request-id", id)]).await }
    };

    app.simulator.hold_calls();
    tokio::join!(ask("leader"), async {
        app.wait_for_calls(SimulatedApi::Insights, 1).await;
        tokio::join!(ask("follower"), async {
            app.wait_for_metric("usage_proxy_collapsed_total", 1.0)
                .await;
            app.simulator.release_calls();
        });
    });
    end(app).await;

    let call = collector.span("upstream call");
    for request in collector.named(SERVED) {
        let id = request.get("request.id");
        let to_call = [(call.trace.clone(), call.id.clone())];
        if id == "leader" {
            assert_eq!(parent_of(&call), id_of(&request));
            assert_eq!(request.links, []);
        } else {
            assert_eq!(request.links, to_call, "{id}");
            assert_ne!(request.trace, call.trace);
            assert_eq!(request.get("cache.collapsed"), true);
        }
    }
}

#[tokio::test]
async fn a_refresh_is_a_trace_of_its_own_that_refers_to_its_cause() {
    let (collector, app) = start().await;
    app.usage(DOCUMENTED).await;
    app.wait_until_filled().await;
    app.advance(Duration::from_secs(20 * 60));

    let reply = app.usage(DOCUMENTED).await;
    app.wait_for_calls(SimulatedApi::Insights, 2).await;
    app.wait_until_filled().await;
    end(app).await;

    assert!(reply.cache_status().contains("stale-while-revalidate"));
    let requests = collector.named(SERVED);
    let cause = &requests[1];
    assert_eq!(cause.events[0].1["cache.decision"], "serve-and-refresh");
    let calls = collector.named("upstream call");
    let refresh = &calls[1];
    assert_eq!(refresh.parent, "");
    assert_ne!(refresh.trace, cause.trace);
    assert_eq!(refresh.links, [(cause.trace.clone(), cause.id.clone())]);
    assert_eq!(collector.named(ATTEMPT)[1].trace, refresh.trace);
}

#[tokio::test]
async fn our_failures_are_errors_and_those_of_the_caller_are_not() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .set("upstream.retries", "0")
        .start()
        .await;
    let unknown = Uuid::from_u128(1);

    app.usage(unknown).await;
    app.get("/v1/customers/me/usage").await;
    app.get("/nowhere").await;
    app.call(Method::from_bytes(b"BREW").unwrap(), "/nowhere", &[])
        .await;
    app.set_faults(failing(502));
    app.usage(DOCUMENTED).await;
    end(app).await;

    let mut requests = collector.spans();
    requests.retain(|span| span.kind == SpanKind::Server);
    let requests: Vec<_> = requests
        .iter()
        .map(|span| {
            let status = span.get("http.response.status_code");
            (&*span.name, status, span.failed, span.get("error.type"))
        })
        .collect();
    assert_eq!(
        requests,
        [
            (SERVED, json!(404), false, Value::Null),
            (SERVED, json!(400), false, Value::Null),
            ("GET", json!(404), false, Value::Null),
            ("HTTP", json!(404), false, Value::Null),
            (SERVED, json!(503), true, json!("unavailable")),
        ]
    );
    let calls = collector.named("upstream call");
    for (call, failed, kind) in [
        (&calls[0], false, "unknown-customer"),
        (&calls[1], true, "unavailable"),
    ] {
        assert_eq!((call.failed, call.get("error.type")), (failed, json!(kind)));
    }
    let attempts = collector.named(ATTEMPT);
    // A 4xx is an error of a client.
    assert!(attempts.iter().all(|attempt| attempt.failed));
    assert_eq!(attempts[0].get("upstream.code"), "1000");
}

#[tokio::test]
async fn a_caller_that_disconnects_ends_its_span_but_not_the_calls() {
    let (collector, app) = start().await;
    app.simulator.hold_calls();
    let mut caller = TcpStream::connect(app.api).await.unwrap();
    let path = usage_path(DOCUMENTED);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    app.wait_for_calls(SimulatedApi::Insights, 1).await;

    caller.set_zero_linger().unwrap();
    drop(caller);
    let gone = "usage_proxy_http_requests_total{method=\"GET\",\
                route=\"/v1/customers/{customer_id}/usage\",status=\"499\"}";
    app.wait_for_metric(gone, 1.0).await;
    app.simulator.release_calls();
    app.wait_until_filled().await;
    end(app).await;

    let request = collector.span(SERVED);
    assert_eq!(request.get("error.type"), "caller-went-away");
    assert_eq!(request.get("http.response.status_code"), Value::Null);
    assert!(!collector.span("upstream call").failed);
}

#[tokio::test]
async fn a_token_request_is_a_trace_of_its_own() {
    let (collector, app) = start().await;
    let upstream = app.simulator_address;
    end(app).await;

    let request = collector.span("POST /tenant/oauth2/v2.0/token");
    assert_eq!((request.kind, &*request.parent), (SpanKind::Client, ""));
    assert_eq!(request.get("http.request.method"), "POST");
    assert_eq!(request.get("http.response.status_code"), 200);
    assert_eq!(request.get("server.port"), upstream.port());
    let url = format!("http://{upstream}/tenant/oauth2/v2.0/token");
    assert_eq!(request.get("url.full"), url);
    assert!(!request.failed);
}

#[tokio::test]
async fn no_span_contains_a_secret_or_a_query() {
    let collector = Collector::start().await;
    let app = traced(&collector)
        .callers(&[TestCaller::named("grafana")])
        .set("upstream.source", "commercial")
        .start()
        .await;
    let key = key_of("grafana");

    app.usage_for("grafana", DOCUMENTED).await;
    for (path, key) in [
        (
            format!("{}?key=canary-query", usage_path(DOCUMENTED)),
            &*key,
        ),
        (usage_path(DOCUMENTED), "canary-key"),
    ] {
        app.get_with(&path, &[("x-api-key", key)]).await;
    }
    let refresh_token = std::fs::read_to_string(app.refresh_token_file()).unwrap();
    let requests = app.simulator.requests().into_iter();
    let tokens: Vec<_> = requests
        .filter_map(|request| Some(request.header("authorization")?.to_owned()))
        .collect();
    end(app).await;

    assert_eq!(collector.named(SERVED).len(), 3);
    assert_eq!(collector.named(SERVED)[0].get("caller.name"), "grafana");
    assert!(!tokens.is_empty());
    let token = tokens[0].strip_prefix("Bearer ").unwrap();
    for export in collector.exports() {
        let text = String::from_utf8_lossy(&export.body).into_owned();
        for secret in [
            &*key,
            "canary-key",
            "canary-query",
            CLIENT_SECRET,
            refresh_token.trim(),
            token,
            "customerTenantId",
        ] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn a_request_and_its_call_name_their_trace_in_the_log() {
    let log = crate::logs::Log::start();
    let (collector, app) = start().await;

    app.usage(DOCUMENTED).await;
    end(app).await;

    let trace = collector.span(SERVED).trace;
    assert_eq!(log.requests()[0]["trace_id"], trace);
    assert_eq!(log.upstream_calls()[0]["trace_id"], trace);
}
