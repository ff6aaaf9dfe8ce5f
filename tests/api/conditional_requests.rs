//! Headers that let a dashboard keep an answer: validators, dates and lifetimes (RFC 9110 §8.8, §13
//! and §15.4.5; RFC 9111 §4.2).

use std::collections::HashSet;

use http::HeaderMap;

use crate::support::prelude::*;

/// The second at which the stored answer was first seen: `START` as an HTTP date.
const FIRST_SEEN: &str = "Sun, 22 Nov 2026 12:00:00 GMT";
const A_SECOND_EARLIER: &str = "Sun, 22 Nov 2026 11:59:59 GMT";

/// Every form: a path and an `Accept`.
fn forms() -> [(String, &'static str); 4] {
    let usage = usage_path(DOCUMENTED);
    let native = native_path(DOCUMENTED);
    [
        (usage.clone(), "application/json"),
        (usage.clone(), "text/csv"),
        (native, "application/json"),
        (format!("{usage}/chart.svg"), "*/*"),
    ]
}

/// All headers but those that differ from one answer to the next.
fn lasting(reply: &Reply) -> HeaderMap {
    let mut headers = reply.headers.clone();
    headers.remove("date");
    headers.remove("x-request-id");
    headers
}

#[tokio::test]
async fn no_page_of_another_origin_embeds_data_but_the_chart() {
    let app = TestApp::start().await;
    let list = ("/v1/customers".to_owned(), "application/json");
    let forms = forms().into_iter().chain([list]);

    for (path, accept) in forms {
        let whole = app.get_with(&path, &[("accept", accept)]).await;
        let known = ("if-none-match", whole.header("etag"));
        let unchanged = app.get_with(&path, &[("accept", accept), known]).await;

        let policy = match path.ends_with("/chart.svg") {
            true => "cross-origin",
            false => "same-origin",
        };
        assert_eq!((whole.status, unchanged.status), (200, 304), "{path}");
        for reply in [whole, unchanged] {
            reply.assert_headers(&[
                ("x-content-type-options", "nosniff"),
                ("cross-origin-resource-policy", policy),
            ]);
        }
    }
}

#[tokio::test]
async fn an_answer_states_its_lifetime_and_is_private() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.advance(Duration::from_secs(60));

    for (path, accept) in forms() {
        let reply = app.get_with(&path, &[("accept", accept)]).await;

        assert_eq!(reply.status, 200, "{path} as {accept}");
        assert_eq!(reply.cache_status(), "hit; ttl=840");
        // The whole lifetime: the client takes `Age` from it.
        let lifetime = "private, max-age=900, stale-while-revalidate=3600";
        reply.assert_headers(&[
            ("age", "60"),
            ("cache-control", lifetime),
            ("last-modified", FIRST_SEEN),
            ("vary", "Accept, Accept-Encoding"),
        ]);
    }
}

#[tokio::test]
async fn every_form_and_coding_has_a_strong_validator_of_its_own() {
    let app = TestApp::start().await;
    let mut seen = HashSet::new();

    for (path, accept) in forms() {
        for coding in ["identity", "gzip", "br", "zstd"] {
            let case = format!("{path} as {accept} in {coding}");
            let headers = [("accept", accept), ("accept-encoding", coding)];
            let first = app.get_with(&path, &headers).await;
            let again = app.get_with(&path, &headers).await;

            let etag = first.header("etag").to_owned();
            let strong = etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"');
            assert!(strong, "{case}: {etag}");
            assert_eq!(again.header("etag"), etag, "{case}, asked again");
            assert!(seen.insert(etag), "{case}");
        }
    }
}

#[tokio::test]
async fn a_validator_that_matches_is_enough() {
    let app = TestApp::start().await;
    let etag = app.usage(DOCUMENTED).await.header("etag").to_owned();

    for (case, lines) in [
        ("the tag", vec![etag.clone()]),
        ("the tag made weak", vec![format!("W/{etag}")]),
        ("first of a list", vec![format!("{etag}, \"other\"")]),
        ("last of a list", vec![format!("\"other\",W/\"x\",{etag}")]),
        ("among empty members", vec![format!(", ,{etag} ,")]),
        ("on the second line", vec!["\"other\"".into(), etag.clone()]),
        ("any", vec!["*".into()]),
    ] {
        let headers: Vec<_> = lines
            .iter()
            .map(|line| ("if-none-match", line.as_str()))
            .collect();

        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, 304, "{case}: {lines:?}");
        assert_eq!(reply.header("etag"), etag, "{case}");
    }
}

#[tokio::test]
async fn a_validator_that_does_not_match_gets_200() {
    let app = TestApp::start().await;
    let whole = app.usage(DOCUMENTED).await;
    let etag = whole.header("etag").to_owned();
    let gzip = app
        .usage_with(DOCUMENTED, &[("accept-encoding", "gzip")])
        .await;
    let native = app.native(DOCUMENTED).await;

    for (case, line) in [
        ("another tag", "\"other\"".to_owned()),
        ("no quotes", etag.trim_matches('"').to_owned()),
        ("half a tag", etag[..etag.len() - 2].to_owned()),
        ("nothing", String::new()),
        ("the star as a tag", "\"*\"".to_owned()),
        ("the compressed one's", gzip.header("etag").to_owned()),
        ("the native form's", native.header("etag").to_owned()),
    ] {
        let reply = app
            .usage_with(DOCUMENTED, &[("if-none-match", &line)])
            .await;

        assert_eq!(reply.status, 200, "{case}: {line:?}");
        assert_eq!(reply.body, whole.body, "{case}");
    }
}

#[tokio::test]
async fn if_modified_since_counts_only_without_if_none_match() {
    let app = TestApp::start().await;
    let etag = app.usage(DOCUMENTED).await.header("etag").to_owned();

    for (since, tag, status) in [
        (FIRST_SEEN, None, 304),
        ("Sunday, 22-Nov-26 12:00:00 GMT", None, 304),
        ("Sun Nov 22 12:00:00 2026", None, 304),
        ("Mon, 23 Nov 2026 12:00:00 GMT", None, 304),
        (A_SECOND_EARLIER, None, 200),
        ("2026-11-22T12:00:00Z", None, 200),
        ("yesterday", None, 200),
        (FIRST_SEEN, Some("\"other\""), 200),
        (A_SECOND_EARLIER, Some(etag.as_str()), 304),
    ] {
        let mut headers = vec![("if-modified-since", since)];
        headers.extend(tag.map(|tag| ("if-none-match", tag)));

        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_304_has_the_headers_of_the_200_but_none_of_a_body() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.advance(Duration::from_secs(7));

    for coding in ["identity", "gzip"] {
        let whole = app
            .usage_with(DOCUMENTED, &[("accept-encoding", coding)])
            .await;
        let mut expected = lasting(&whole);
        for of_a_body in ["content-type", "content-length", "content-encoding"] {
            expected.remove(of_a_body);
        }

        let headers = [
            ("accept-encoding", coding),
            ("if-none-match", whole.header("etag")),
        ];
        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, 304, "{coding}");
        assert_eq!(lasting(&reply), expected, "{coding}");
        assert_eq!(reply.header("age"), "7", "{coding}");
        assert!(reply.headers.contains_key("date"), "RFC 9110 §15.4.5");
    }
}

#[tokio::test]
async fn a_304_has_no_body() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nConnection: close\r\n\r\n",
        usage_path(DOCUMENTED)
    );

    let answer = app.raw(request.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 304 "), "{answer}");
    let (_, after_the_head) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(after_the_head, "");
}

#[tokio::test]
async fn the_same_content_fetched_again_is_still_not_modified() {
    let app = TestApp::start().await;
    let first = app.usage(DOCUMENTED).await;
    app.advance(STALE);

    let reply = app
        .usage_with(DOCUMENTED, &[("if-none-match", first.header("etag"))])
        .await;

    assert_eq!(reply.status, 304);
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
    assert_eq!(reply.header("age"), "0", "freshness is renewed");
    assert_eq!(reply.header("last-modified"), FIRST_SEEN);
}

#[tokio::test]
async fn other_content_under_the_same_date_replaces_the_entry_and_its_validators() {
    let app = TestApp::start().await;
    let date = DOCUMENTED_DATE;
    let first = app.usage(DOCUMENTED).await;
    app.set_rows(usage_proxy::simulator::DOCUMENTED_CUSTOMER, seats(7, date));
    app.advance(STALE);

    let by_tag = [("if-none-match", first.header("etag"))];
    let by_tag = app.usage_with(DOCUMENTED, &by_tag).await;
    let by_date = [("if-modified-since", FIRST_SEEN)];
    let by_date = app.usage_with(DOCUMENTED, &by_date).await;

    assert_eq!((by_tag.status, by_date.status), (200, 200));
    assert_eq!(by_tag.cache_status(), STORED_AGAIN);
    assert_eq!(by_tag.json()["products"][0]["licensesQualified"], 7);
    assert_eq!(
        by_tag.json()["processedDate"],
        first.json()["processedDate"]
    );
    assert_ne!(by_tag.header("etag"), first.header("etag"));
    by_tag.assert_headers(&[("last-modified", "Sun, 22 Nov 2026 14:00:00 GMT")]);
    assert_eq!(app.entries().await, 1);
}

#[tokio::test]
async fn an_error_is_never_not_modified() {
    let app = TestApp::start().await;
    let conditions = [
        ("if-none-match", "*"),
        ("if-modified-since", "Mon, 23 Nov 2026 12:00:00 GMT"),
    ];

    let reply = app.usage_with(uuid::Uuid::nil(), &conditions).await;

    reply.problem(404, "unknown-customer");
    assert!(!reply.headers.contains_key("etag"));
}

#[tokio::test]
async fn head_says_what_get_says_and_sends_no_body() {
    let app = TestApp::start().await;
    let [(usage, _), (_, csv), (native, _), ..] = forms();
    app.get(&usage).await;
    app.advance(Duration::from_secs(60));

    for (path, headers) in [
        (usage.as_str(), vec![]),
        (&usage, vec![("accept", csv)]),
        (&usage, vec![("accept-encoding", "gzip")]),
        (&usage, vec![("accept-encoding", "br"), ("accept", csv)]),
        (&usage, vec![("if-none-match", "*")]),
        (&usage, vec![("accept", "text/html")]),
        (&native, vec![]),
        (&native, vec![("accept-encoding", "zstd")]),
        ("/v1/customers/x/usage", vec![]),
        ("/nowhere", vec![]),
    ] {
        let get = app.call(Method::GET, path, &headers).await;
        let head = app.call(Method::HEAD, path, &headers).await;

        assert_eq!(head.status, get.status, "{path} {headers:?}");
        assert_eq!(lasting(&head), lasting(&get), "{path} {headers:?}");
        assert!(head.body.is_empty(), "{path} {headers:?}");
        if get.status != 304 {
            let announced = get.body.len().to_string();
            assert_eq!(head.header("content-length"), announced, "{path}");
        }
    }
}

#[tokio::test]
async fn head_by_http_2_says_what_get_says_and_sends_no_body() {
    let app = TestApp::with("server.http2_cleartext", "true").await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .http2_prior_knowledge();
    let client = client.build().unwrap();
    app.usage(DOCUMENTED).await;

    for path in [
        &*usage_path(DOCUMENTED),
        "/v1/customers/x/usage",
        "/nowhere",
    ] {
        let url = format!("http://{}{path}", app.api);
        let get = client.get(&url).send().await.unwrap();
        let head = client.head(&url).send().await.unwrap();

        assert_eq!(head.status(), get.status(), "{path}");
        for name in ["content-length", "content-type", "etag"] {
            assert_eq!(head.headers().get(name), get.headers().get(name), "{path}");
        }
        assert!(get.content_length().is_some_and(|length| length > 0));
        // A client of HTTP/2 takes a body here for an error of the protocol.
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn head_alone_fetches_for_the_get_that_follows() {
    let app = TestApp::start().await;

    let head = app.call(Method::HEAD, &usage_path(DOCUMENTED), &[]).await;
    let get = app.usage(DOCUMENTED).await;

    assert_eq!(head.cache_status(), STORED);
    assert_eq!(get.cache_status(), HIT);
    assert_eq!(head.header("etag"), get.header("etag"));
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn a_range_request_gets_the_whole_body() {
    let app = TestApp::start().await;
    let whole = app.usage(DOCUMENTED).await;
    let etag = whole.header("etag");

    for headers in [
        vec![("range", "bytes=0-9")],
        vec![("range", "bytes=-5")],
        vec![("range", "bytes=999999-")],
        vec![("range", "lines=1")],
        vec![("range", "bytes=0-9"), ("if-range", etag)],
    ] {
        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, 200, "{headers:?}");
        assert_eq!(reply.body, whole.body, "{headers:?}");
        assert!(!reply.headers.contains_key("content-range"), "{headers:?}");
    }
}
