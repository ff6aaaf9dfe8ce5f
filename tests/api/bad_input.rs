//! Requests that are wrong, odd or hostile: each gets its own answer, and none reaches another
//! customer, another path or the next request.

use crate::support::prelude::*;

/// A customer that no test asks for on purpose.
const OTHER: &str = "99999999-9999-4999-8999-999999999999";

const A_GUID: &str = "11111111-2222-4333-8444-555555555555";
const ANOTHER_GUID: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";

/// Returns the paths and queries of the calls to Partner Center, without those for tokens.
fn calls(app: &TestApp) -> Vec<String> {
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
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    app.raw(request.as_bytes()).await
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
        let answer = get_target(&app, &usage_path(spelling)).await;

        assert_eq!(statuses(&answer), [200], "{spelling}: {answer}");
        assert!(answer.contains(DOCUMENTED), "{spelling}: {answer}");
    }
    let once = native_path(DOCUMENTED);
    assert_eq!(calls(&app), [once], "one key, one call");
}

#[tokio::test]
async fn invalid_customer_ids_are_refused_and_not_sent_upstream() {
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
    assert_eq!(calls(&app), [""; 0]);
}

#[tokio::test]
async fn a_path_is_read_as_it_was_sent() {
    let app = TestApp::start().await;

    for (case, target) in [
        ("an encoded slash", "/v1/customers/ID%2fusage"),
        ("one earlier", "/v1/customers%2FID/usage"),
        ("one within", "/v1/customers/ID/analytics/licenses%2fusage"),
        ("an encoded letter", "/v1/customers/ID/%75sage"),
        ("a way back", "/v1/customers/OTHER/../ID/usage"),
        ("an encoded one", "/v1/customers/OTHER/%2e%2e/ID/usage"),
        ("a dot", "/v1/./customers/ID/usage"),
        ("two slashes", "//v1/customers/ID/usage"),
    ] {
        let target = target.replace("OTHER", OTHER).replace("ID", DOCUMENTED);

        let answer = get_target(&app, &target).await;

        assert_eq!(statuses(&answer), [404], "{case}: {answer}");
        assert!(answer.contains("problem:not-found"), "{case}");
    }
    assert_eq!(calls(&app), [""; 0]);
}

// === Queries ===

#[tokio::test]
async fn a_date_is_a_day_of_the_calendar_up_to_today() {
    let app = TestApp::start().await;

    for [date, said, expected] in rows(
        r#"2026-02-30                    | 2026-02-30  | YYYY-MM-DD
           2026-13-01                    | 2026-13-01  | YYYY-MM-DD
           2025-02-29                    | 2025-02-29  | YYYY-MM-DD
                                         | ""          | YYYY-MM-DD
           today                         | today       | YYYY-MM-DD
           2026-1-2                      | 2026-1-2    | YYYY-MM-DD
           20260102                      | 20260102    | YYYY-MM-DD
           22.11.2026                    | 22.11.2026  | YYYY-MM-DD
           %202026-01-02                 | " 2026-01   | YYYY-MM-DD
           -2026-01-02                   | -2026-01-02 | YYYY-MM-DD
           2026-01-02%00                 | 2026-01-02  | YYYY-MM-DD
           %D9%A2026-01-02               | 026-01-02   | YYYY-MM-DD
           2026-11-22T00:00:00%2B14:00   | +14:00      | YYYY-MM-DD
           2026-11-22T00:00:00+14:00     | 14:00       | YYYY-MM-DD
           2026-11-22T00:00:00Z          | 00:00:00Z   | YYYY-MM-DD
           2026-11-23                    | 2026-11-23  | up to today, 2026-11-22 in UTC
           9999-12-31                    | 9999-12-31  | up to today, 2026-11-22 in UTC"#,
    ) {
        let reply = app.dated(DOCUMENTED, date).await;

        reply.problem_with(400, "processed-date", &["processedDate", said, expected]);
    }
    assert_eq!(calls(&app), [""; 0]);
}

#[tokio::test]
async fn a_valid_date_up_to_today_is_accepted() {
    let app = TestApp::start().await;

    for (date, status) in [
        (DOCUMENTED_DATE.to_string(), 200),
        (DOCUMENTED_DATE.to_string().replace('-', "%2D"), 200),
        // A leap day, and today.
        ("2024-02-29".to_owned(), 404),
        ("2026-11-22".to_owned(), 404),
    ] {
        let reply = app.dated(DOCUMENTED, date).await;

        assert_eq!(reply.status, status, "{}", reply.request);
    }
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused() {
    let app = TestApp::start().await;
    let (usage, native) = (usage_path(DOCUMENTED), native_path(DOCUMENTED));

    for [form, query, kind, said] in rows(
        "usage  | processedDate=2017-03-09&processedDate=2017-03-09   | duplicate-parameter | processedDate more than once
         usage  | processedDate=2017-03-09&processed%44ate=2017-03-08 | duplicate-parameter | expected it once
         usage  | processeddate=2017-03-09                            | unknown-parameter   | processeddate
         usage  | top=1                                               | unknown-parameter   | expected processedDate=YYYY-MM-DD or none
         usage  | processedDate=2017-03-09&top=1                      | unknown-parameter   | top
         usage  | processedDate[]=2017-03-09                          | unknown-parameter   | processedDate[]
         usage  | =2017-03-09                                         | unknown-parameter   | expected processedDate
         usage  | 2017-03-09                                          | unknown-parameter   | 2017-03-09
         native | processedDate=2017-03-09                            | unknown-parameter   | newest date only
         native | top=1                                               | unknown-parameter   | takes no parameters",
    ) {
        let path = if form == "usage" { &usage } else { &native };

        let reply = app.get(&format!("{path}?{query}")).await;

        reply.problem_with(400, kind, &[said]);
    }
    assert_eq!(calls(&app), [""; 0]);
}

#[tokio::test]
async fn an_empty_query_is_none() {
    let app = TestApp::start().await;

    for path in [
        format!("{}?", usage_path(DOCUMENTED)),
        format!("{}?&", usage_path(DOCUMENTED)),
        format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage?"),
    ] {
        assert_eq!(app.get(&path).await.status, 200, "{path}");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

// === Ids of requests and calls ===

#[tokio::test]
async fn a_sane_request_id_comes_back() {
    let app = TestApp::start().await;
    let longest = "x".repeat(128);

    for id in ["7", "build-7/step:3", A_GUID, "!~", &longest] {
        let data = app.usage_with(DOCUMENTED, &[("x-request-id", id)]).await;
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
        ("none", &[][..]),
        ("empty", &[("x-request-id", "")]),
        ("two words", &[("x-request-id", "two words")]),
        ("not ASCII", &[("x-request-id", "zażółć")]),
        ("a tab", &[("x-request-id", "a\tb")]),
        ("too long", &[("x-request-id", &too_long)]),
    ] {
        let first = app.usage_with(DOCUMENTED, headers).await;
        let second = app.get_with("/nowhere", headers).await;

        let [first, id] = [&first, &second].map(|reply| reply.header("x-request-id"));
        assert!(Uuid::try_parse(first).is_ok(), "{case}: {first}");
        assert_ne!(id, first, "{case}");
        assert_eq!(second.json()["requestId"], id, "{case}");
    }
}

#[tokio::test]
async fn a_correlation_id_goes_upstream_and_comes_back_if_it_is_a_guid() {
    const OURS: &str = "x-correlation-id";
    const MICROSOFTS: &str = "ms-correlationid";
    let too_much = format!("{A_GUID}, x");

    for (case, headers, passed_on) in [
        ("ours", &[(OURS, A_GUID)][..], true),
        ("Microsoft's", &[(MICROSOFTS, A_GUID)], true),
        ("both", &[(OURS, ANOTHER_GUID), (MICROSOFTS, A_GUID)], true),
        ("one good", &[(OURS, A_GUID), (MICROSOFTS, "x")], true),
        ("none", &[], false),
        ("no GUID", &[(OURS, "trace-7")], false),
        ("too much", &[(MICROSOFTS, &too_much)], false),
    ] {
        let app = TestApp::start().await;

        let reply = app.usage_with(DOCUMENTED, headers).await;

        let calls = app.calls_made(SimulatedApi::Insights);
        let sent = calls[0].header(MICROSOFTS).unwrap();
        assert_eq!(sent == A_GUID, passed_on, "{case}: {sent}");
        assert!(Uuid::try_parse(sent).is_ok(), "{case}: {sent}");
        assert_eq!(reply.header(MICROSOFTS), sent, "{case}");
        let request_id = calls[0].header("ms-requestid");
        assert_eq!(Some(reply.header("ms-requestid")), request_id, "{case}");
        assert_eq!(calls[0].header(OURS), None, "{case}");
    }
}

// === Connections ===

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let app = TestApp::start().await;
    let usage = usage_path(DOCUMENTED);
    let request = |line: &str, id: &str| {
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\n")
    };
    let requests = [
        request(&format!("GET {usage}"), "first"),
        request("GET /nowhere", "second"),
        request(&format!("HEAD {usage}"), "third"),
        request(&format!("GET {usage}"), "fourth") + "Connection: close\r\n\r\n",
    ];

    let answers = app.raw(requests.join("\r\n").as_bytes()).await;

    assert_eq!(statuses(&answers), [200, 404, 200, 200]);
    let places = ["first", "second", "third", "fourth"]
        .map(|id| answers.find(&format!("x-request-id: {id}")).unwrap());
    assert!(places.is_sorted(), "{answers}");
}

#[tokio::test]
async fn the_body_of_a_request_is_refused_and_is_not_the_next_request() {
    let app = TestApp::start().await;
    let usage = usage_path(DOCUMENTED);
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
    assert_eq!(calls(&app), [""; 0]);
}

#[tokio::test]
async fn a_request_with_two_lengths_is_refused() {
    let app = TestApp::start().await;
    let usage = usage_path(DOCUMENTED);
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
    assert_eq!(calls(&app), [""; 0]);
}

#[tokio::test]
async fn http_1_0_is_answered_and_the_connection_closed() {
    let app = TestApp::start().await;

    let data = app
        .raw(format!("GET {} HTTP/1.0\r\n\r\n", usage_path(DOCUMENTED)).as_bytes())
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
async fn input_that_is_not_http_gets_400_and_the_connection_is_closed() {
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

    let ours = get_target(&app, &format!("http://localhost{}", usage_path(DOCUMENTED))).await;
    let foreign = get_target(
        &app,
        &format!("http://elsewhere.example{}", usage_path(DOCUMENTED)),
    )
    .await;

    assert_eq!(statuses(&ours), [200], "{ours}");
    assert_eq!(statuses(&foreign), [400], "{foreign}");
    assert_eq!(calls(&app).len(), 1);
}
