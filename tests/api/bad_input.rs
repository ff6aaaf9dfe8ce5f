//! Requests that are wrong, odd or hostile: each gets its own answer, and none reaches another
//! customer, another path or the next request.

use usage_proxy::simulator::{DOCUMENTED_DATE, SimulatedApi};
use uuid::Uuid;

use crate::support::{DOCUMENTED, TestApp};

/// A customer that nobody asks for on purpose.
const OTHER: &str = "99999999-9999-4999-8999-999999999999";

const A_GUID: &str = "11111111-2222-4333-8444-555555555555";
const ANOTHER_GUID: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";

fn usage_path() -> String {
    format!("/v1/customers/{DOCUMENTED}/usage")
}

/// What Partner Center was asked: paths and queries, but for tokens.
fn asked(app: &TestApp) -> Vec<String> {
    let requests = app.simulator.requests();
    let calls = requests
        .iter()
        .filter(|request| request.api != SimulatedApi::Token);
    calls
        .map(|call| match &call.query {
            Some(query) => format!("{}?{query}", call.path),
            None => call.path.clone(),
        })
        .collect()
}

/// Sends a request target byte for byte, which no client library does.
async fn get_target(app: &TestApp, target: &str) -> String {
    app.raw(
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .await
}

/// The statuses of the answers on a connection, in their order.
fn statuses(answers: &str) -> Vec<u16> {
    // A body of ours never has this text.
    answers
        .split("HTTP/1.")
        .skip(1)
        .map(|answer| answer[2..5].parse().unwrap())
        .collect()
}

// === Customer ids ===

#[tokio::test]
async fn every_spelling_of_a_customer_id_is_one_customer() {
    let app = TestApp::start().await;

    for spelling in [
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        "4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04",
        "{4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04}",
        "%7B4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04%7d",
        "4d3cf48770f44e1e9ff1b2bfce8d9f04",
        "%34d3cf487%2D70f4-4e1e-9ff1-b2bfce8d9f04",
    ] {
        let answer = get_target(&app, &format!("/v1/customers/{spelling}/usage")).await;

        assert_eq!(statuses(&answer), [200], "{spelling}: {answer}");
        assert!(answer.contains(DOCUMENTED), "{spelling}: {answer}");
    }
    let once = format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage");
    assert_eq!(asked(&app), [once], "one key, one call");
}

#[tokio::test]
async fn what_is_no_customer_id_is_refused_and_goes_no_further() {
    let app = TestApp::start().await;
    let encoded_slash = format!("{OTHER}%2f..%2f{DOCUMENTED}");

    for id in [
        "",
        "x",
        "..",
        "%2e%2e",
        "%",
        "%zz",
        "%ff%fe",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f0",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f044",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%00",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%0d%0aX-Injected:%20yes",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%2f",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%2F..",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%3fa=b",
        "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04;a=b",
        "%20d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        // Encoded twice.
        "%257B4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04%257D",
        "{4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        "urn:uuid:4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        // A digit four of another script, encoded and bare.
        "%EF%BC%94d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        "４d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        &encoded_slash,
    ] {
        for rest in ["usage", "analytics/licenses/usage"] {
            let answer = get_target(&app, &format!("/v1/customers/{id}/{rest}")).await;

            assert_eq!(statuses(&answer), [400], "{id}: {answer}");
            for part in [
                "urn:usage-proxy:problem:customer-id",
                "the customer id is ",
                "expected a GUID such as",
            ] {
                assert!(answer.contains(part), "{part}: {answer}");
            }
        }
    }
    assert_eq!(asked(&app), [""; 0]);
}

#[tokio::test]
async fn a_path_is_taken_as_it_was_sent() {
    let app = TestApp::start().await;

    for (case, target) in [
        (
            "an encoded slash",
            format!("/v1/customers/{DOCUMENTED}%2fusage"),
        ),
        ("one earlier", format!("/v1/customers%2F{DOCUMENTED}/usage")),
        (
            "one within",
            format!("/v1/customers/{DOCUMENTED}/analytics/licenses%2fusage"),
        ),
        (
            "an encoded letter",
            format!("/v1/customers/{DOCUMENTED}/%75sage"),
        ),
        (
            "a way back",
            format!("/v1/customers/{OTHER}/../{DOCUMENTED}/usage"),
        ),
        (
            "an encoded way back",
            format!("/v1/customers/{OTHER}/%2e%2e/{DOCUMENTED}/usage"),
        ),
        ("a dot", format!("/v1/./customers/{DOCUMENTED}/usage")),
        ("two slashes", format!("//v1/customers/{DOCUMENTED}/usage")),
    ] {
        let answer = get_target(&app, &target).await;

        assert_eq!(statuses(&answer), [404], "{case}: {answer}");
        assert!(
            answer.contains("urn:usage-proxy:problem:not-found"),
            "{case}"
        );
    }
    assert_eq!(asked(&app), [""; 0]);
}

// === Queries ===

#[tokio::test]
async fn a_date_is_a_day_of_the_calendar_up_to_today() {
    let app = TestApp::start().await;

    for (date, said, expected) in [
        ("2026-02-30", "2026-02-30", "YYYY-MM-DD"),
        ("2026-13-01", "2026-13-01", "YYYY-MM-DD"),
        ("2025-02-29", "2025-02-29", "YYYY-MM-DD"),
        ("", "\\\"\\\"", "YYYY-MM-DD"),
        ("today", "today", "YYYY-MM-DD"),
        ("2026-1-2", "2026-1-2", "YYYY-MM-DD"),
        ("20260102", "20260102", "YYYY-MM-DD"),
        ("22.11.2026", "22.11.2026", "YYYY-MM-DD"),
        ("%202026-01-02", " 2026-01-02", "YYYY-MM-DD"),
        ("-2026-01-02", "-2026-01-02", "YYYY-MM-DD"),
        ("2026-01-02%00", "2026-01-02", "YYYY-MM-DD"),
        ("%D9%A2026-01-02", "026-01-02", "YYYY-MM-DD"),
        ("2026-11-22T00:00:00%2B14:00", "+14:00", "YYYY-MM-DD"),
        ("2026-11-22T00:00:00+14:00", "14:00", "YYYY-MM-DD"),
        ("2026-11-22T00:00:00Z", "00:00:00Z", "YYYY-MM-DD"),
        // Tomorrow in UTC, though it is today already somewhere.
        ("2026-11-23", "2026-11-23", "up to today, 2026-11-22 in UTC"),
        ("9999-12-31", "9999-12-31", "up to today, 2026-11-22 in UTC"),
    ] {
        let path = format!("{}?processedDate={date}", usage_path());

        let reply = app.get(&path).await;

        reply.problem(400, "processed-date");
        let text = reply.text();
        for part in ["processedDate", said, expected] {
            assert!(text.contains(part), "{part} for {date}: {text}");
        }
    }
    assert_eq!(asked(&app), [""; 0]);
}

#[tokio::test]
async fn a_date_that_can_be_is_asked_for() {
    let app = TestApp::start().await;

    for (date, status) in [
        (DOCUMENTED_DATE.to_string(), 200),
        (DOCUMENTED_DATE.to_string().replace('-', "%2D"), 200),
        // A leap day, and today.
        ("2024-02-29".to_owned(), 404),
        ("2026-11-22".to_owned(), 404),
    ] {
        let path = format!("{}?processedDate={date}", usage_path());

        let reply = app.get(&path).await;

        assert_eq!(reply.status, status, "{date}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused() {
    let app = TestApp::start().await;
    let usage = usage_path();
    let native = format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage");

    for (path, query, kind, said) in [
        (
            &usage,
            "processedDate=2017-03-09&processedDate=2017-03-09",
            "duplicate-parameter",
            "processedDate more than once",
        ),
        (
            &usage,
            "processedDate=2017-03-09&processed%44ate=2017-03-08",
            "duplicate-parameter",
            "expected it once",
        ),
        (
            &usage,
            "processeddate=2017-03-09",
            "unknown-parameter",
            "processeddate",
        ),
        (
            &usage,
            "top=1",
            "unknown-parameter",
            "expected processedDate=YYYY-MM-DD or none",
        ),
        (
            &usage,
            "processedDate=2017-03-09&top=1",
            "unknown-parameter",
            "top",
        ),
        (
            &usage,
            "processedDate[]=2017-03-09",
            "unknown-parameter",
            "processedDate[]",
        ),
        (
            &usage,
            "=2017-03-09",
            "unknown-parameter",
            "expected processedDate",
        ),
        (&usage, "2017-03-09", "unknown-parameter", "2017-03-09"),
        (
            &native,
            "processedDate=2017-03-09",
            "unknown-parameter",
            "newest date only",
        ),
        (&native, "top=1", "unknown-parameter", "takes no parameters"),
    ] {
        let reply = app.get(&format!("{path}?{query}")).await;

        let problem = reply.problem(400, kind);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{query}: {detail}");
    }
    assert_eq!(asked(&app), [""; 0]);
}

#[tokio::test]
async fn an_empty_query_is_none() {
    let app = TestApp::start().await;

    for path in [
        format!("{}?", usage_path()),
        format!("{}?&", usage_path()),
        format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage?"),
    ] {
        assert_eq!(app.get(&path).await.status, 200, "{path}");
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Insights), 1);
}

// === Ids of requests and calls ===

#[tokio::test]
async fn a_sane_request_id_comes_back() {
    let app = TestApp::start().await;
    let longest = "x".repeat(128);

    for id in ["7", "build-7/step:3", A_GUID, "!~", &longest] {
        let data = app.get_with(&usage_path(), &[("x-request-id", id)]).await;
        let problem = app.get_with("/nowhere", &[("x-request-id", id)]).await;

        assert_eq!(data.header("x-request-id"), id);
        assert_eq!(problem.header("x-request-id"), id);
        assert_eq!(problem.json()["requestId"], id);
    }
}

#[tokio::test]
async fn any_other_request_id_is_replaced_by_a_new_one() {
    let app = TestApp::start().await;
    let too_long = "x".repeat(129);

    for (case, headers) in [
        ("none", vec![]),
        ("empty", vec![("x-request-id", "")]),
        ("two words", vec![("x-request-id", "two words")]),
        ("not ASCII", vec![("x-request-id", "zażółć")]),
        ("a tab", vec![("x-request-id", "a\tb")]),
        ("too long", vec![("x-request-id", too_long.as_str())]),
    ] {
        let first = app.get_with(&usage_path(), &headers).await;
        let second = app.get_with("/nowhere", &headers).await;

        let minted = first.header("x-request-id");
        assert!(Uuid::try_parse(minted).is_ok(), "{case}: {minted}");
        assert_ne!(second.header("x-request-id"), minted, "{case}");
        assert_eq!(
            second.json()["requestId"],
            second.header("x-request-id"),
            "{case}"
        );
    }
}

#[tokio::test]
async fn a_correlation_id_goes_upstream_and_comes_back_if_it_is_a_guid() {
    for (case, headers, passed_on) in [
        ("ours", vec![("x-correlation-id", A_GUID)], true),
        ("Microsoft's", vec![("ms-correlationid", A_GUID)], true),
        (
            "both",
            vec![
                ("x-correlation-id", ANOTHER_GUID),
                ("ms-correlationid", A_GUID),
            ],
            true,
        ),
        (
            "one good",
            vec![("x-correlation-id", A_GUID), ("ms-correlationid", "x")],
            true,
        ),
        ("none", vec![], false),
        ("no GUID", vec![("x-correlation-id", "trace-7")], false),
        (
            "too much",
            vec![(
                "ms-correlationid",
                "11111111-2222-4333-8444-555555555555, x",
            )],
            false,
        ),
    ] {
        let app = TestApp::start().await;

        let reply = app.get_with(&usage_path(), &headers).await;

        let requests = app.simulator.requests();
        let call = requests.last().unwrap();
        let sent = call.header("ms-correlationid").unwrap();
        assert_eq!(sent == A_GUID, passed_on, "{case}: {sent}");
        assert!(Uuid::try_parse(sent).is_ok(), "{case}: {sent}");
        assert_eq!(reply.header("ms-correlationid"), sent, "{case}");
        assert_eq!(
            Some(reply.header("ms-requestid")),
            call.header("ms-requestid"),
            "{case}"
        );
        assert_eq!(call.header("x-correlation-id"), None, "{case}");
    }
}

#[tokio::test]
async fn a_hit_replays_nobodys_ids() {
    let app = TestApp::start().await;
    app.get_with(&usage_path(), &[("x-correlation-id", A_GUID)])
        .await;

    let hit = app
        .get_with(&usage_path(), &[("x-correlation-id", ANOTHER_GUID)])
        .await;

    assert_eq!(hit.header("cache-status"), "usage-proxy; hit; ttl=900");
    assert!(!hit.headers.contains_key("ms-requestid"));
    assert!(!hit.headers.contains_key("ms-correlationid"));
}

#[tokio::test]
async fn a_callers_headers_stay_with_us() {
    let app = TestApp::start().await;

    app.get_with(
        &usage_path(),
        &[
            ("authorization", "Bearer of-the-caller"),
            ("cookie", "session=of-the-caller"),
            ("x-forwarded-for", "192.0.2.1"),
            ("ms-requestid", ANOTHER_GUID),
            ("x-locale", "de-DE"),
        ],
    )
    .await;

    let requests = app.simulator.requests();
    let call = requests.last().unwrap();
    assert_eq!(call.header("cookie"), None);
    assert_eq!(call.header("x-forwarded-for"), None);
    assert_eq!(call.header("x-locale"), Some("en-US"));
    assert_ne!(call.header("ms-requestid"), Some(ANOTHER_GUID));
    let bearer = call.header("authorization").unwrap();
    assert!(!bearer.contains("of-the-caller"), "{bearer}");
}

// === Connections ===

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let app = TestApp::start().await;
    let usage = usage_path();

    let answers = app
        .raw(
            format!(
                "GET {usage} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: first\r\n\r\n\
                 GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: second\r\n\r\n\
                 HEAD {usage} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: third\r\n\r\n\
                 GET {usage} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: fourth\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        )
        .await;

    assert_eq!(statuses(&answers), [200, 404, 200, 200]);
    let places: Vec<_> = ["first", "second", "third", "fourth"]
        .iter()
        .map(|id| answers.find(&format!("x-request-id: {id}")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{answers}");
}

#[tokio::test]
async fn the_body_of_a_request_is_refused_and_is_not_the_next_request() {
    let app = TestApp::start().await;
    let usage = usage_path();
    let smuggled = format!("GET /v1/customers/{OTHER}/usage HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let length = smuggled.len();
    let next = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    for (case, framing, body) in [
        (
            "counted",
            format!("Content-Length: {length}"),
            smuggled.clone(),
        ),
        (
            "chunked",
            "Transfer-Encoding: chunked".to_owned(),
            format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n"),
        ),
    ] {
        for (method, status) in [("GET", 400), ("HEAD", 400), ("POST", 405)] {
            let request = format!(
                "{method} {usage} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{body}{next}"
            );

            let answers = app.raw(request.as_bytes()).await;

            assert_eq!(statuses(&answers), [status], "{method} {case}: {answers}");
            assert!(answers.contains("problem+json"), "{answers}");
        }
    }
    assert_eq!(asked(&app), [""; 0]);
}

#[tokio::test]
async fn a_request_of_two_lengths_is_refused_whole() {
    let app = TestApp::start().await;
    let usage = usage_path();
    let smuggled = format!("GET /v1/customers/{OTHER}/usage HTTP/1.1\r\nHost: localhost\r\n\r\n");

    for (case, framing) in [
        ("unlike lengths", "Content-Length: 0\r\nContent-Length: 5"),
        ("a list of lengths", "Content-Length: 0, 5"),
        ("a negative length", "Content-Length: -1"),
        ("a signed length", "Content-Length: +0"),
        (
            "another coding last",
            "Transfer-Encoding: chunked, identity",
        ),
        ("a space before the colon", "Content-Length : 0"),
    ] {
        let request =
            format!("GET {usage} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{smuggled}");

        let answers = app.raw(request.as_bytes()).await;

        assert_eq!(statuses(&answers), [400], "{case}: {answers}");
    }
    assert_eq!(asked(&app), [""; 0]);
}

#[tokio::test]
async fn http_1_0_is_answered_and_the_connection_closed() {
    let app = TestApp::start().await;

    let data = app
        .raw(format!("GET {} HTTP/1.0\r\n\r\n", usage_path()).as_bytes())
        .await;
    let problem = app.raw(b"GET /nowhere HTTP/1.0\r\n\r\n").await;

    assert_eq!(statuses(&data), [200], "{data}");
    assert!(data.contains("content-length: "), "{data}");
    assert!(!data.contains("transfer-encoding"), "{data}");
    let (_, body) = data.split_once("\r\n\r\n").unwrap();
    let usage: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(usage["customerId"], DOCUMENTED);
    assert_eq!(statuses(&problem), [404], "{problem}");
}

#[tokio::test]
async fn what_is_not_http_is_answered_400_and_the_connection_closed() {
    let app = TestApp::start().await;

    for (case, bytes) in [
        (
            "noise",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"[..],
        ),
        ("no version", b"GET /nowhere\r\n\r\n"),
        ("a version to come", b"GET /nowhere HTTP/9.9\r\n\r\n"),
        (
            "a bare line feed in a name",
            b"GET / HTTP/1.1\r\nHo\nst: x\r\n\r\n",
        ),
        ("a null in a value", b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n"),
        (
            "not UTF-8",
            b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
    ] {
        let answer = app.raw(bytes).await;

        assert_eq!(statuses(&answer), [400], "{case}: {answer}");
    }
}

#[tokio::test]
async fn an_absolute_target_is_read_as_its_path_and_names_no_other_host() {
    let app = TestApp::start().await;

    let ours = get_target(&app, &format!("http://localhost{}", usage_path())).await;
    let foreign = get_target(&app, &format!("http://elsewhere.example{}", usage_path())).await;

    assert_eq!(statuses(&ours), [200], "{ours}");
    assert_eq!(statuses(&foreign), [400], "{foreign}");
    assert_eq!(asked(&app).len(), 1);
}
