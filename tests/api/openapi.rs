//! The description of the API: it is served, and its examples and schemas match real answers.

use std::collections::BTreeMap;

use usage_proxy::api::OPENAPI_DOCUMENT;

use crate::support::{
    described::{DOCUMENT, assert_matches_schema},
    prelude::*,
};

/// The `X-Request-Id` of every request of an example.
const REQUEST_ID: &str = "build-7/step-3";
const CORRELATION_ID: &str = "8b6de8b5-6dcd-4c57-9a27-5a0fb1a3c9d2";

/// Replaces the random id of an upstream call.
const CALL_ID: &str = "c2a4a7a9-7e06-4d2e-b7f2-0c3f7a4f1b6d";

#[tokio::test]
async fn the_document_is_served_as_it_is_checked_in() {
    let app = TestApp::start().await;

    let served = app.get("/openapi.json").await.text();

    assert_eq!(served, OPENAPI_DOCUMENT);
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
    assert_eq!(DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(DOCUMENT["info"]["license"]["identifier"], "MIT");
}

#[tokio::test]
async fn the_document_requires_a_credential_if_there_are_callers() {
    let app = TestApp::with_callers(&[TestCaller::named("grafana")]).await;

    let document = app.get("/openapi.json").await.json();

    let security = document["security"].as_array().unwrap();
    assert!(!security.is_empty() && !security.contains(&json!({})));
}

#[tokio::test]
async fn the_examples_and_schemas_match_real_answers() {
    let app = TestApp::builder().with_own_store().start().await;
    app.usage(DOCUMENTED).await;
    app.wait_until_stored().await;
    let mut examples = 0;

    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        let target = path.replace("{customer_id}", DOCUMENTED);
        let target = match path.as_str() {
            "/v1/customers" => target + "?size=2",
            // Others are not fetched yet.
            "/v1/usage" | "/v1/usage/customers" | "/v1/usage/unused" => {
                format!("{target}?customer={DOCUMENTED}")
            }
            "/v1/customers/{customer_id}/usage/history" => {
                target + "?from=2017-03-09&to=2017-03-09&limit=1"
            }
            "/v1/usage/history" => target + "?from=2017-03-09&to=2017-03-09",
            _ => target,
        };
        let contents = item["get"]["responses"]["200"]["content"].as_object();
        for (media_type, content) in contents.unwrap() {
            let Some(example) = content.get("example") else {
                continue;
            };
            let reply = app.get_with(&target, &[("accept", media_type)]).await;

            examples += 1;
            let text = reply.text();
            let text = text.trim_start_matches('\u{feff}');
            if media_type == "application/json" {
                let answer = serde_json::from_str(text).unwrap();
                assert_example(path, &answer, example);
                assert_matches_schema(path, &answer, &content["schema"]);
            } else {
                assert_example(path, &json!(text), example);
            }
        }
    }
    assert_eq!(examples, 14);
}

#[tokio::test]
async fn the_examples_of_problems_are_real_ones() {
    let described = DOCUMENT["components"]["examples"].as_object().unwrap();
    let mut problems = BTreeMap::new();

    for reply in wrong_requests().await.into_iter().chain(failures().await) {
        let mut problem = reply.json();
        if let Some(id) = problem.pointer_mut("/upstream/requestId") {
            *id = json!(CALL_ID);
        }
        assert_eq!(problem["requestId"], REQUEST_ID, "{problem}");
        let uri = problem["type"].as_str().unwrap();
        let name = uri.strip_prefix("urn:usage-proxy:problem:").unwrap();
        problems.insert(name.to_owned(), problem);
    }

    assert!(
        problems.keys().eq(described.keys()),
        "{:?}",
        problems.keys()
    );
    let mut wrong = String::new();
    for (name, problem) in &problems {
        if described[name]["value"] != *problem {
            wrong += &format!("{name}: {problem:#}\n");
        }
        assert_eq!(described[name]["summary"], problem["title"]);
        assert_matches_schema(name, problem, &DOCUMENT["components"]["schemas"]["Problem"]);
    }
    assert!(wrong.is_empty(), "the examples should be:\n{wrong}");
}

/// Returns the answers to requests that are wrong, or whose caller is.
async fn wrong_requests() -> Vec<Reply> {
    let usage = usage_path(DOCUMENTED);
    let app = TestApp::start().await;
    let mut replies = Vec::new();
    for path in [
        "/docs/nothing",
        "/v1/customers/contoso/usage",
        "USAGE?processedDate=2017-02-30",
        "USAGE?top=10",
        "USAGE?processedDate=2017-03-09&processedDate=2017-03-08",
        "USAGE/chart.svg?theme=sepia",
        "/v1/customers?size=many",
        "/v1/customers?filter=Contoso",
        "/v1/customers?seekOperation=Previous",
        "/v1/customers?seekOperation=Next",
        "/v1/usage/unused?limit=0",
        "/v1/usage/unused?cursor=next",
        &format!("USAGE?{}", "x".repeat(9_000)),
    ] {
        replies.push(ask(&app, &path.replace("USAGE", &usage), &[]).await);
    }
    for header in [
        ("accept", "text/html"),
        ("cache-control", "only-if-cached"),
        ("x-filler", &"x".repeat(20_000)),
    ] {
        replies.push(ask(&app, &usage, &[header]).await);
    }
    replies.push(app.call(Method::DELETE, &usage, &named(&[])).await);

    let guarded = TestApp::with_callers(&[
        TestCaller::named("grafana").with_customers(&[customer(0)]),
        TestCaller::named("script").with_rate("1/m"),
    ])
    .await;
    guarded.usage_for("script", DOCUMENTED).await;
    let (grafana, script) = (key_of("grafana"), key_of("script"));
    let grafana = ("x-api-key", &*grafana);
    let other = ("authorization", "Bearer other");
    for headers in [
        &[][..],
        &[grafana, other],
        &[grafana],
        &[("x-api-key", &script)],
    ] {
        replies.push(ask(&guarded, &usage, headers).await);
    }
    replies
}

/// Answers to requests for customers that Partner Center does not know, and while it fails.
async fn failures() -> Vec<Reply> {
    let app = TestApp::start().await;
    let mut replies = Vec::new();
    for path in [
        usage_path("00000000-0000-4000-8000-000000000000"),
        usage_path(NO_RELATIONSHIP_CUSTOMER),
        dated_path(DOCUMENTED, "2016-01-01"),
    ] {
        replies.push(ask(&app, &path, &[]).await);
    }
    for faults in [
        failing(429),
        failing(500),
        refusing(401, "900421"),
        failing(400),
        bad_body(BodyFault::Html),
    ] {
        let app = TestApp::without_retries().await;
        app.set_faults(faults);
        replies.push(ask(&app, &usage_path(DOCUMENTED), &[]).await);
    }
    replies
}

async fn ask(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Reply {
    app.get_with(path, &named(headers)).await
}

fn named<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let ids = [
        ("x-request-id", REQUEST_ID),
        ("ms-correlationid", CORRELATION_ID),
    ];
    headers.iter().copied().chain(ids).collect()
}

/// Asserts that an example is this answer; the failure shows what to write into the document.
#[track_caller]
fn assert_example(name: &str, answer: &Value, example: &Value) {
    assert_eq!(answer, example, "{name}: the example should be {answer:#}");
}
