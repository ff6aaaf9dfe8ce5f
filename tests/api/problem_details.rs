//! Everything that can go wrong, as whoever called is told of it (RFC 9457; `design.md`, Errors).

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use usage_proxy::simulator::{BodyFault, Faults, NO_RELATIONSHIP_CUSTOMER, SimulatedApi};
use uuid::Uuid;

use crate::support::{CLIENT_SECRET, DOCUMENTED, Reply, TestApp};

/// A customer that nobody has.
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

const CORRELATION_ID: &str = "11111111-2222-4333-8444-555555555555";

fn usage_path() -> String {
    format!("/v1/customers/{DOCUMENTED}/usage")
}

fn failing_with(status: StatusCode) -> Faults {
    Faults {
        status: Some(status),
        ..Faults::default()
    }
}

fn bad_body(fault: BodyFault) -> Faults {
    Faults {
        body: Some(fault),
        ..Faults::default()
    }
}

/// `Retry-After`, which must be whole seconds and at least one.
#[track_caller]
fn retry_after(reply: &Reply) -> u64 {
    let text = reply.header("retry-after");
    let seconds = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
    assert!(seconds >= 1, "{seconds}");
    seconds
}

// === Partner Center refuses ===

#[tokio::test]
async fn a_refusal_is_told_in_partner_centers_own_words() {
    let no_relationship = NO_RELATIONSHIP_CUSTOMER.to_string();
    let refusing = |status, code: &str| Faults {
        status: Some(StatusCode::from_u16(status).unwrap()),
        code: Some(code.into()),
        ..Faults::default()
    };

    for (customer, faults, status, kind, told) in [
        (
            UNKNOWN,
            Faults::default(),
            404,
            "unknown-customer",
            (404, "1000"),
        ),
        (
            &no_relationship,
            Faults::default(),
            403,
            "no-relationship",
            (403, "2032"),
        ),
        (
            DOCUMENTED,
            refusing(400, "2100"),
            502,
            "rejected",
            (400, "2100"),
        ),
        (
            DOCUMENTED,
            refusing(302, "302"),
            502,
            "rejected",
            (302, "302"),
        ),
        (
            DOCUMENTED,
            refusing(401, "800001"),
            502,
            "credentials-refused",
            (401, "800001"),
        ),
        (
            DOCUMENTED,
            refusing(401, "900421"),
            502,
            "credentials-refused",
            (401, "900421"),
        ),
        (
            DOCUMENTED,
            refusing(500, "500"),
            503,
            "unavailable",
            (500, "500"),
        ),
        (
            DOCUMENTED,
            refusing(501, "501"),
            503,
            "unavailable",
            (501, "501"),
        ),
        (
            DOCUMENTED,
            refusing(503, "503"),
            503,
            "unavailable",
            (503, "503"),
        ),
    ] {
        let app = TestApp::start().await;
        app.simulator.set_faults(faults);

        let reply = app
            .get_with(
                &format!("/v1/customers/{customer}/usage"),
                &[("x-correlation-id", CORRELATION_ID)],
            )
            .await;

        let problem = reply.problem(status, kind);
        let requests = app.simulator.requests();
        let call = requests.last().unwrap();
        let description = problem["upstream"]["description"].as_str().unwrap();
        assert!(!description.is_empty(), "{kind}");
        assert_eq!(
            problem["upstream"],
            json!({
                "status": told.0,
                "code": told.1,
                "description": description,
                "requestId": call.header("ms-requestid").unwrap(),
                "correlationId": CORRELATION_ID,
            }),
            "{kind}"
        );
        assert_eq!(
            reply.header("cache-status"),
            format!(
                "usage-proxy; fwd=uri-miss; fwd-status={}; detail={kind}",
                told.0
            )
        );
    }
}

#[tokio::test]
async fn nothing_processed_on_a_date_is_404_and_names_the_date() {
    let app = TestApp::start().await;

    let reply = app
        .get(&format!("{}?processedDate=2017-03-08", usage_path()))
        .await;

    let problem = reply.problem(404, "nothing-processed");
    assert!(
        problem["detail"].as_str().unwrap().contains("2017-03-08"),
        "{problem}"
    );
    assert!(problem.get("upstream").is_none(), "nobody refused");
}

#[tokio::test]
async fn missing_multi_factor_proof_says_what_a_person_must_do() {
    let app = TestApp::start().await;
    app.simulator.set_faults(Faults {
        mfa_required: true,
        ..Faults::default()
    });

    let reply = app.usage(DOCUMENTED).await;

    let problem = reply.problem(502, "credentials-refused");
    let detail = problem["detail"].as_str().unwrap();
    for word in ["900421", "a person must", "multi-factor", "consent"] {
        assert!(detail.contains(word), "{word}: {detail}");
    }
    assert_eq!(problem["upstream"]["code"], "900421");
    let readiness = app.admin_get("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains(detail), "{}", readiness.text());
}

#[tokio::test]
async fn a_spent_refresh_token_says_what_a_person_must_do() {
    let app = TestApp::builder()
        .simulator(|options| options.faults.token_error = Some("invalid_grant".into()))
        .start_without_waiting()
        .await;

    let reply = app.usage(DOCUMENTED).await;

    let problem = reply.problem(502, "credentials-refused");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("a person must"), "{detail}");
    assert!(!reply.headers.contains_key("retry-after"), "no use waiting");
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);
}

// === Partner Center throttles, is down, or says nothing ===

#[tokio::test]
async fn a_throttle_is_503_until_it_is_over() {
    let app = TestApp::start().await;
    app.simulator.set_faults(Faults {
        retry_after: Some("57".into()),
        ..failing_with(StatusCode::TOO_MANY_REQUESTS)
    });

    let first = app.usage(DOCUMENTED).await;
    app.advance(Duration::from_millis(10_500));
    let later = app.usage(DOCUMENTED).await;

    let problem = first.problem(503, "throttled");
    assert_eq!(problem["upstream"]["status"], 429);
    assert_eq!(retry_after(&first), 57);
    later.problem(503, "throttled");
    assert_eq!(retry_after(&later), 47, "46.5 s, rounded up");
    assert_eq!(
        later.header("cache-status"),
        "usage-proxy; hit; ttl=46; detail=throttled"
    );
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn a_wait_of_no_seconds_is_told_as_one() {
    // No pause is asked for, and none is configured.
    let app = TestApp::builder()
        .set("cache.min_refresh_interval", "0s")
        .start()
        .await;
    app.simulator
        .set_faults(failing_with(StatusCode::SERVICE_UNAVAILABLE));

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(503, "unavailable");
    assert_eq!(retry_after(&reply), 1);
}

#[tokio::test]
async fn being_down_is_503_and_tells_no_address() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let app = TestApp::builder()
        .set("upstream.base_url", &format!("http://{nobody}"))
        .start()
        .await;

    let reply = app.usage(DOCUMENTED).await;

    let problem = reply.problem(503, "unavailable");
    retry_after(&reply);
    assert!(problem.get("upstream").is_none(), "nobody answered");
    assert!(!reply.text().contains("127.0.0.1"), "{problem}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_answer_is_503() {
    let app = TestApp::start().await;
    app.simulator.set_faults(Faults {
        close_mid_body: true,
        ..Faults::default()
    });

    let reply = app.usage(DOCUMENTED).await;

    reply.problem(503, "unavailable");
    retry_after(&reply);
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_503() {
    let app = TestApp::builder()
        .simulator(|options| options.faults.token_status = Some(StatusCode::SERVICE_UNAVAILABLE))
        .start_without_waiting()
        .await;

    let reply = app.usage(DOCUMENTED).await;

    let problem = reply.problem(503, "unavailable");
    retry_after(&reply);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("token"), "{detail}");
}

#[tokio::test]
async fn silence_is_504_once_the_deadline_has_passed() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();
    let path = usage_path();
    let asking = app.get(&path);

    let (reply, ()) = tokio::join!(asking, async {
        app.simulator
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        app.advance(Duration::from_secs(25));
    });

    let problem = reply.problem(504, "timed-out");
    retry_after(&reply);
    assert!(problem.get("upstream").is_none(), "nobody answered");
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn silence_is_504_once_every_attempt_has_had_its_time() {
    let app = TestApp::builder()
        .config(|config| {
            config.upstream.attempt_timeout = Duration::from_secs(2);
            config.upstream.retries = 1;
        })
        .start()
        .await;
    app.simulator.hold_calls();
    let path = usage_path();
    let asking = app.get(&path);

    let (reply, ()) = tokio::join!(asking, async {
        for attempt in 1..=2 {
            app.simulator
                .wait_for_requests(SimulatedApi::Insights, attempt)
                .await;
            app.advance(Duration::from_secs(2));
        }
    });

    reply.problem(504, "timed-out");
    retry_after(&reply);
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn what_is_not_its_schema_is_502_and_is_not_repeated() {
    for fault in [
        BodyFault::Html,
        BodyFault::Truncated,
        BodyFault::Empty,
        BodyFault::Garbage,
        BodyFault::ForeignCustomer,
        BodyFault::WrongTotal,
    ] {
        let app = TestApp::start().await;
        app.simulator.set_faults(bad_body(fault));

        let reply = app.usage(app.simulator.customers()[1]).await;

        let problem = reply.problem(502, "malformed");
        assert!(problem.get("upstream").is_none(), "{fault:?}: no refusal");
        assert!(!reply.text().contains("<html"), "{fault:?}: {problem}");
        assert_eq!(
            app.simulator.request_count(SimulatedApi::Insights),
            1,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn only_if_cached_asks_nobody() {
    let app = TestApp::start().await;

    let reply = app
        .get_with(&usage_path(), &[("cache-control", "only-if-cached")])
        .await;

    reply.problem(504, "not-held");
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);
}

// === Nothing to do with Partner Center ===

#[tokio::test]
async fn what_there_is_not_is_404() {
    let app = TestApp::start().await;

    for path in [
        "//",
        "/v1",
        &format!("/v1/customers/{DOCUMENTED}"),
        &format!("/v1/customers/{DOCUMENTED}/usage/"),
        &format!("/v1/customers/{DOCUMENTED}/Usage"),
        &format!("/v2/customers/{DOCUMENTED}/usage"),
        "/v1/customers/",
        "/v1/analytics/licenses",
        &format!("/v1/customers/{DOCUMENTED}/analytics/licenses"),
        // The admin listener's, and the stand-in's own.
        "/metrics",
        "/healthz",
        "/readyz",
        "/cache",
        "/_simulator/faults",
    ] {
        let reply = app.get(path).await;

        let problem = reply.problem(404, "not-found");
        assert_eq!(problem["instance"], path);
    }
}

#[tokio::test]
async fn a_method_that_there_is_not_is_405_and_says_which_there_are() {
    let app = TestApp::start().await;
    let native = format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage");

    for path in [&usage_path(), &native] {
        for method in [
            "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE",
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();

            let reply = app.call(method.clone(), path, &[]).await;

            let problem = reply.problem(405, "method-not-allowed");
            assert_eq!(reply.header("allow"), "GET, HEAD", "{method} {path}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(method.as_str()), "{detail}");
        }
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn more_than_is_read_of_a_request_is_refused() {
    let app = TestApp::start().await;
    let usage = usage_path();
    let query_of = |bytes: usize| format!("{usage}?{}", "x".repeat(bytes - usage.len() - 1));
    let value = "x".repeat(16 * 1024);

    let longest = app.get(&query_of(8 * 1024)).await;
    let longer = app.get(&query_of(8 * 1024 + 1)).await;
    let long_elsewhere = app.get(&format!("/{}", "x".repeat(8 * 1024))).await;
    let heavy = app.get_with(&usage, &[("x-heavy", &value)]).await;
    let administration = app.admin_get(&query_of(8 * 1024 + 1)).await;

    longest.problem(400, "unknown-parameter");
    let problem = longer.problem(414, "uri-too-long");
    assert!(problem["detail"].as_str().unwrap().contains("8192"));
    administration.problem(414, "uri-too-long");
    let problem = long_elsewhere.problem(414, "uri-too-long");
    assert!(problem["instance"].as_str().unwrap().len() < 1024);
    let problem = heavy.problem(431, "headers-too-large");
    assert!(problem["detail"].as_str().unwrap().contains("16384"));
}

// === What every problem document says, and never says ===

#[tokio::test]
async fn every_problem_says_which_request_it_was() {
    let app = TestApp::start().await;
    let usage = usage_path();
    let unknown = format!("/v1/customers/{UNKNOWN}/usage");

    for (path, query) in [
        (usage.as_str(), "?processedDate=2017-03-08"),
        (&usage, "?processedDate=tomorrow"),
        (&unknown, ""),
        ("/v1/customers/x/usage", ""),
        ("/nowhere", "?a=b"),
    ] {
        let reply = app
            .get_with(
                &format!("{path}{query}"),
                &[
                    ("x-request-id", "dashboard-7"),
                    ("x-correlation-id", CORRELATION_ID),
                ],
            )
            .await;

        let problem = reply.json();
        assert_eq!(problem["instance"], path);
        assert_eq!(problem["requestId"], "dashboard-7", "{path}{query}");
        assert_eq!(problem["correlationId"], CORRELATION_ID, "{path}{query}");
        assert_eq!(reply.header("x-request-id"), "dashboard-7");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.header("cache-status").starts_with("usage-proxy; "));
    }
}

#[tokio::test]
async fn an_error_names_the_call_that_it_made_and_a_remembered_one_none() {
    let app = TestApp::start().await;

    let first = app.usage(UNKNOWN).await;
    let again = app.usage(UNKNOWN).await;

    let requests = app.simulator.requests();
    let call = requests.last().unwrap();
    assert_eq!(
        Some(first.header("ms-requestid")),
        call.header("ms-requestid")
    );
    assert_eq!(
        first.json()["correlationId"].as_str(),
        call.header("ms-correlationid")
    );
    again.problem(404, "unknown-customer");
    assert!(!again.headers.contains_key("ms-requestid"));
    assert!(!again.headers.contains_key("ms-correlationid"));
}

#[tokio::test]
async fn no_problem_tells_a_secret() {
    let app = TestApp::start().await;
    app.native(DOCUMENTED).await;
    let mut replies = Vec::new();
    for faults in [
        failing_with(StatusCode::BAD_REQUEST),
        failing_with(StatusCode::UNAUTHORIZED),
        failing_with(StatusCode::FORBIDDEN),
        failing_with(StatusCode::INTERNAL_SERVER_ERROR),
        bad_body(BodyFault::Html),
        Faults {
            mfa_required: true,
            ..Faults::default()
        },
        Faults {
            token_error: Some("invalid_grant".into()),
            ..failing_with(StatusCode::UNAUTHORIZED)
        },
        Faults {
            retry_after: Some("57".into()),
            ..failing_with(StatusCode::TOO_MANY_REQUESTS)
        },
    ] {
        app.simulator.set_faults(faults);
        // What failed is remembered: each fault has a customer of its own.
        let customer = app.simulator.customers()[replies.len() + 1];
        replies.push(app.usage(customer).await);
    }

    let mut secrets = app.simulator.live_refresh_tokens();
    secrets.push(CLIENT_SECRET.into());
    secrets.push(std::fs::read_to_string(app.refresh_token_file()).unwrap());
    for request in app.simulator.requests() {
        let bearer = request.header("authorization");
        secrets.extend(bearer.and_then(|value| Some(value.split_once(' ')?.1.to_owned())));
    }
    assert!(secrets.len() > replies.len(), "every call bore a token");
    for reply in &replies {
        assert!(reply.status >= 400, "{reply:?}");
        let told = format!("{:?} {}", reply.headers, reply.text());
        for secret in &secrets {
            assert!(!told.contains(secret.trim()), "{secret} in {told}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_echoed_in_a_refusal_goes_no_further() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    let requests = app.simulator.requests();
    let bearer = requests.last().unwrap().header("authorization").unwrap();
    let token = bearer.strip_prefix("Bearer ").unwrap();
    // The second is cut to a readable length in the middle of the token.
    for (customer, echo) in [
        (1, format!("The header '{bearer}' is refused.")),
        (2, format!("{}{token}", "x".repeat(290))),
    ] {
        app.simulator.set_faults(Faults {
            code: Some(token.into()),
            description: Some(echo),
            ..failing_with(StatusCode::FORBIDDEN)
        });

        let reply = app.usage(app.simulator.customers()[customer]).await;

        let problem = reply.problem(502, "rejected");
        assert_eq!(problem["upstream"]["code"], "[redacted]");
        let description = problem["upstream"]["description"].as_str().unwrap();
        assert!(description.contains("[redacted"), "{description}");
        assert!(!reply.text().contains(&token[..8]), "{problem}");
    }
}

// === The admin listener ===

#[tokio::test]
async fn the_admin_listener_answers_problems_too() {
    let app = TestApp::start().await;
    let get = Method::GET;

    for (method, path, status, kind, allow) in [
        (get.clone(), "/nowhere", 404, "not-found", ""),
        (get.clone(), &usage_path(), 404, "not-found", ""),
        (
            Method::POST,
            "/metrics",
            405,
            "method-not-allowed",
            "GET, HEAD",
        ),
        (
            Method::DELETE,
            "/cache",
            405,
            "method-not-allowed",
            "GET, HEAD",
        ),
        (
            get.clone(),
            "/cache/purge",
            405,
            "method-not-allowed",
            "POST",
        ),
        (get.clone(), "/cache?customer=x", 400, "bad-request", ""),
        (get.clone(), "/cache?top=1", 400, "bad-request", ""),
        (
            Method::POST,
            "/cache/purge?hard=yes",
            400,
            "bad-request",
            "",
        ),
        (
            Method::POST,
            "/cache/purge?hard=true&hard=true",
            400,
            "bad-request",
            "",
        ),
        (
            Method::POST,
            "/cache/purge?processedDate=2026-02-30",
            400,
            "bad-request",
            "",
        ),
    ] {
        let reply = app.admin_call(method.clone(), path, &[]).await;

        let problem = reply.problem(status, kind);
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
        let instance = path.split('?').next().unwrap();
        assert_eq!(problem["instance"], instance, "{method} {path}");
    }
}

#[tokio::test]
async fn a_problem_of_the_admin_listener_bears_the_id_of_its_answer() {
    let app = TestApp::start().await;

    for path in ["/nowhere", "/cache/purge", "/cache?customer=x"] {
        let minted = app.admin_get(path).await;
        let echoed = app
            .admin_call(Method::GET, path, &[("x-request-id", "probe-7")])
            .await;

        let request_id = minted.header("x-request-id");
        assert!(Uuid::try_parse(request_id).is_ok(), "{path}: {request_id}");
        assert_eq!(minted.json()["requestId"], request_id, "{path}");
        assert_eq!(echoed.header("x-request-id"), "probe-7", "{path}");
        assert_eq!(echoed.json()["requestId"], "probe-7", "{path}");
    }
}

#[tokio::test]
async fn a_bad_purge_says_what_was_expected_and_purges_nothing() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;

    for (query, named) in [
        ("customer=x", &["customer", "\"x\"", "GUID"][..]),
        (
            "custmer=x",
            &["\"custmer\"", "customer", "processedDate", "hard"],
        ),
        ("hard=yes", &["hard", "\"yes\"", "true or false"]),
        (
            "processedDate=today",
            &["processedDate", "\"today\"", "YYYY-MM-DD"],
        ),
        ("hard=true&hard=false", &["hard", "more than once"]),
    ] {
        let reply = app.admin_post(&format!("/cache/purge?{query}")).await;

        let problem = reply.problem(400, "bad-request");
        let detail = problem["detail"].as_str().unwrap();
        for word in named {
            assert!(detail.contains(word), "{word} for {query}: {detail}");
        }
    }
    let still = app.usage(DOCUMENTED).await;
    assert_eq!(still.header("cache-status"), "usage-proxy; hit; ttl=900");
}
