//! The log of requests and calls, and the settings of how much is logged.
//!
//! The tests of the built binary check its format, and that no secret is in it.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, Once},
};

use usage_proxy::{
    access_key::KeyHash,
    config::{LogConfig, LogFormat, RequestLog},
    observability::telemetry,
};

use crate::support::prelude::*;

thread_local! {
    /// The log of this thread. Each test has a thread, and its service runs on it.
    static LOG: RefCell<Option<Arc<Mutex<Vec<u8>>>>> = const { RefCell::new(None) };
}

/// The log of this test alone, though all of them share the process.
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Writes to the log of the thread that it is used on.
struct OfThisThread;

// === impl Log ===

impl Log {
    pub(crate) fn start() -> Self {
        // One subscriber for all: with one a test, the first to meet an event decides for the
        // others whether it is of interest.
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let config = LogConfig {
                format: Some(LogFormat::Json),
                filter: "info".to_owned(),
                requests: RequestLog::All,
            };
            let dispatch = telemetry::build_dispatch(&config, || OfThisThread).unwrap();
            tracing::dispatcher::set_global_default(dispatch).unwrap();
        });
        let lines = Arc::default();
        LOG.set(Some(Arc::clone(&lines)));
        Self(lines)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn requests(&self) -> Vec<Value> {
        self.with_message("request")
    }

    pub(crate) fn upstream_calls(&self) -> Vec<Value> {
        self.with_message("upstream call")
    }

    pub(crate) fn with_message(&self, message: &str) -> Vec<Value> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line["message"] == message).collect()
    }
}

/// These fields of each line; null where a line has none.
fn fields<const N: usize>(lines: &[Value], names: [&str; N]) -> Value {
    let of = |line: &Value| names.map(|name| line[name].clone());
    lines.iter().map(|line| json!(of(line).to_vec())).collect()
}

// === impl OfThisThread ===

impl io::Write for OfThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow(|log| {
            if let Some(log) = log {
                log.lock().unwrap().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn app(requests: RequestLog) -> TestApp {
    TestApp::builder()
        .config(move |config| config.log.requests = requests)
        .start()
        .await
}

#[tokio::test]
async fn every_request_is_logged_in_one_line_with_its_result() {
    let log = Log::start();
    let app = app(RequestLog::All).await;
    let path = usage_path(DOCUMENTED);
    let native = native_path(DOCUMENTED);
    let unknown = usage_path(Uuid::from_u128(1));

    for (path, id) in [
        (&*path, "first"),
        (&*path, "second"),
        (&*native, "third"),
        (&*unknown, "fourth"),
        (&*unknown, "fifth"),
        ("/v1/customers/me/usage", "sixth"),
        ("/nothing", "seventh"),
    ] {
        app.get_with(path, &[("x-request-id", id)]).await;
    }

    let simplified = "/v1/customers/{customer_id}/usage";
    let native = "/v1/customers/{customer_id}/analytics/licenses/usage";
    assert_eq!(
        fields(&log.requests(), ["request_id", "route", "status", "cache"]),
        json!([
            ["first", simplified, 200, "miss"],
            ["second", simplified, 200, "hit"],
            ["third", native, 200, "hit"],
            ["fourth", simplified, 404, "miss"],
            ["fifth", simplified, 404, "negative"],
            ["sixth", simplified, 400, "none"],
            ["seventh", "unmatched", 404, "none"],
        ])
    );
    for line in log.requests() {
        assert_eq!(line["method"], "GET", "{line}");
        assert_eq!(line["caller"], "anonymous", "{line}");
        assert_eq!(line["peer"], "127.0.0.1", "{line}");
        assert!(line["duration_seconds"].as_f64().is_some(), "{line}");
    }
}

#[tokio::test]
async fn a_line_names_its_caller_and_never_its_credential() {
    let log = Log::start();
    let callers = [
        TestCaller::named("grafana"),
        TestCaller::named("portal").with_rate("1/h"),
    ];
    let app = TestApp::with_callers(&callers).await;
    let canary = "Bearer up_canary";

    app.usage_for("grafana", DOCUMENTED).await;
    app.usage_for("portal", DOCUMENTED).await;
    app.usage_for("portal", DOCUMENTED).await;
    app.get_with("/", &[("authorization", canary)]).await;
    app.get("/").await;

    assert_eq!(
        fields(&log.requests(), ["caller", "problem"]),
        json!([
            ["grafana", null],
            ["portal", null],
            ["portal", "rate-limited"],
            ["-", "unauthenticated"],
            ["-", "unauthenticated"],
        ])
    );
    for secret in [key_of("grafana"), key_of("portal"), "up_canary".to_owned()] {
        for line in log.lines() {
            assert!(!line.to_string().contains(&secret), "{line}");
        }
    }
}

#[tokio::test]
async fn only_problems_and_slow_answers_are_logged_if_so_configured() {
    let log = Log::start();
    let app = app(RequestLog::Problems).await;
    let customers = app.simulator.customers();

    app.usage(customers[1]).await;
    app.usage(customers[1]).await;
    app.usage(Uuid::from_u128(1)).await;
    app.simulator.hold_calls();
    tokio::join!(app.usage(customers[2]), async {
        app.wait_for_calls(SimulatedApi::Insights, 3).await;
        app.advance(SECOND);
        app.simulator.release_calls();
    });

    let (unknown, slow) = (usage_path(Uuid::from_u128(1)), usage_path(customers[2]));
    assert_eq!(
        fields(&log.requests(), ["status", "path"]),
        json!([[404, unknown], [200, slow]])
    );
}

#[tokio::test]
async fn a_purge_is_logged_with_its_caller_scope_and_count() {
    let log = Log::start();
    let key_hash = KeyHash::of_key(b"up_operator").to_string();
    let app = TestApp::with("admin.key_sha256", &key_hash).await;
    let key = ("authorization", "Bearer up_operator");
    let purge = format!("/cache/purge?hard=true&customer={DOCUMENTED}&processedDate=2017-03-09");
    app.usage(DOCUMENTED).await;

    app.admin_call(Method::POST, "/cache/purge", &[]).await;
    app.admin_call(
        Method::POST,
        &purge,
        &[key, ("x-request-id", "of-the-purge")],
    )
    .await;
    app.admin_call(Method::POST, "/cache/purge", &[key]).await;

    let purges = log.with_message("the cache was purged");
    let [named, everything] = purges.as_slice() else {
        panic!("one line for each that was let in: {purges:?}");
    };
    assert_eq!(named["mode"], "hard");
    assert_eq!(named["purged"], 1);
    assert_eq!(named["customer.id"], DOCUMENTED);
    assert_eq!(named["processed_date"], "2017-03-09");
    assert_eq!(named["peer"], "127.0.0.1");
    assert_eq!(named["credential"], key_hash[..8]);
    assert_eq!(named["request_id"], "of-the-purge");
    assert_eq!(everything["mode"], "soft");
    assert_eq!(everything["purged"], 0);
    assert_eq!(everything.get("customer.id"), None);
    let refused = log.with_message("a request of the admin listener was refused");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["reason"], "missing");
    assert_eq!(refused[0]["path"], "/cache/purge");
    assert_eq!(refused[0]["peer"], "127.0.0.1");
    assert!(!log.text().contains("up_operator"), "{}", log.text());
}

#[tokio::test]
async fn with_request_logging_off_only_upstream_calls_are_logged() {
    let log = Log::start();
    let app = app(RequestLog::Off).await;

    app.usage(DOCUMENTED).await;
    app.usage(Uuid::from_u128(1)).await;

    assert_eq!(log.requests(), [Value::Null; 0]);
    assert_eq!(log.upstream_calls().len(), 2);
}

#[tokio::test]
async fn every_upstream_call_is_logged_in_one_line_with_the_ids_for_microsofts_support() {
    let log = Log::start();
    let app = app(RequestLog::All).await;
    app.set_faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        times: Some(2),
        ..Faults::default()
    });

    let reply = app.usage(DOCUMENTED).await;
    app.usage(DOCUMENTED).await;

    let calls = log.upstream_calls();
    assert_eq!(calls.len(), 1, "one, over all attempts: {calls:?}");
    let call = &calls[0];
    for (field, value) in [
        ("level", json!("INFO")),
        ("api", json!("insights")),
        ("outcome", json!("success")),
        ("attempts", json!(3)),
        ("status", json!(200)),
        ("customer.id", json!(DOCUMENTED)),
        ("ms.request_id", json!(reply.header("ms-requestid"))),
        ("ms.correlation_id", json!(reply.header("ms-correlationid"))),
    ] {
        assert_eq!(call[field], value, "{field}: {call}");
    }
    assert!(!call["ms.cv"].as_str().unwrap().is_empty(), "{call}");
    let requests = log.requests();
    assert_eq!(requests[0]["ms.request_id"], call["ms.request_id"]);
    assert_eq!(requests[1].get("ms.request_id"), None, "a hit made no call");
}

#[tokio::test]
async fn a_failed_call_is_logged_with_everything_that_microsofts_support_needs() {
    let log = Log::start();
    let app = TestApp::without_retries().await;
    app.advance(Duration::from_secs(60));
    for (faults, status, from_the_answer) in
        [(failing(502), Some(502), true), (broken_off(), None, false)]
    {
        app.set_faults(faults);
        app.admin_post("/cache/purge").await;

        let reply = app.usage(DOCUMENTED).await;

        let call = log.upstream_calls().pop().unwrap();
        assert_eq!(call.get("status"), status.map(Value::from).as_ref());
        for (field, header) in [
            ("ms.request_id", "ms-requestid"),
            ("ms.correlation_id", "ms-correlationid"),
        ] {
            assert_eq!(call[field], reply.header(header), "{call}");
        }
        assert_eq!(call["sent_at"], "2026-11-22T12:01:00Z", "{call}");
        for field in ["ms.cv", "ms.server_id", "ms.date"] {
            let present = call.get(field).is_some();
            assert_eq!(present, from_the_answer, "{field}: {call}");
        }
    }
}

#[tokio::test]
async fn a_call_without_data_is_no_warning_one_that_failed_is_and_one_for_a_person_an_error() {
    let log = Log::start();
    let app = app(RequestLog::All).await;
    let customers = app.simulator.customers();

    app.dated(customers[1], "2001-01-01").await;
    app.set_faults(failing(502));
    app.usage(customers[1]).await;
    app.set_faults(no_mfa());
    app.usage(customers[2]).await;

    assert_eq!(
        fields(&log.upstream_calls(), ["level", "outcome", "attempts"]),
        json!([
            ["INFO", "nothing-processed", 1],
            ["WARN", "unavailable", 4],
            ["ERROR", "credentials-refused", 1],
        ])
    );
    let advice = log.upstream_calls()[2]["error"].clone();
    assert!(advice.to_string().contains("consent again"), "{advice}");
}
