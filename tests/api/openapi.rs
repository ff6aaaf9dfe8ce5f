//! The description of the API: its examples are real answers.
//!
//! `UPDATE_EXAMPLES=1 cargo test --test api openapi` writes them anew.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::support::prelude::*;

/// What every request of an example is called.
const REQUEST_ID: &str = "build-7/step-3";
const CORRELATION_ID: &str = "8b6de8b5-6dcd-4c57-9a27-5a0fb1a3c9d2";

/// What stands in the place of the id that an upstream call was given.
const CALL_ID: &str = "c2a4a7a9-7e06-4d2e-b7f2-0c3f7a4f1b6d";

#[tokio::test]
async fn the_document_is_the_same_from_the_service_and_from_the_command() {
    let app = TestApp::start().await;

    let served = app.get("/openapi.json").await.json();

    let printed: Value =
        serde_json::from_str(&usage_proxy::api::openapi_document().unwrap()).unwrap();
    assert_eq!(served, printed);
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(served["info"]["license"]["identifier"], "MIT");
}

#[tokio::test]
async fn where_there_are_callers_the_document_demands_a_credential() {
    let app = TestApp::with_callers(&[TestCaller::named("grafana")]).await;

    let document = app.get("/openapi.json").await.json();

    let security = document["security"].as_array().unwrap();
    assert!(!security.is_empty() && !security.contains(&json!({})));
}

#[tokio::test]
async fn the_examples_of_answers_are_real_ones() {
    let app = TestApp::start().await;

    for [name, path] in rows(
        "usage.json              | customers/ID/usage
         native.json             | customers/ID/analytics/licenses/usage
         deployment.json         | customers/ID/analytics/licenses/deployment
         customers.json          | customers?size=2
         partner_usage.json      | analytics/licenses/usage
         partner_deployment.json | analytics/licenses/deployment
         usage.csv               | customers/ID/usage/table.csv
         chart.svg               | customers/ID/usage/chart.svg",
    ) {
        let path = format!("/v1/{}", path.replace("ID", DOCUMENTED));
        let text = app.get(&path).await.text();
        let text = text.trim_start_matches('\u{feff}');
        if name.ends_with(".json") {
            assert_example(name, &pretty(&serde_json::from_str(text).unwrap()));
        } else {
            assert_example(name, text);
        }
    }
}

#[tokio::test]
async fn every_member_of_a_collection_is_described() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json();

    for [schema, path] in rows(
        "NativeUsage             | customers/ID/analytics/licenses/usage
         NativeDeployment        | customers/ID/analytics/licenses/deployment
         NativePartnerUsage      | analytics/licenses/usage
         NativePartnerDeployment | analytics/licenses/deployment
         NativeCustomers         | customers?size=2",
    ) {
        let path = format!("/v1/{}", path.replace("ID", DOCUMENTED));
        let text = app.get(&path).await.text();
        let collection: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        let described = &document["components"]["schemas"][schema]["properties"];

        let names = collection.as_object().unwrap().keys().map(String::as_str);
        for name in names.chain(["links", "attributes"]) {
            assert!(described[name].is_object(), "{schema}: {name}");
        }
    }
}

#[tokio::test]
async fn the_examples_of_problems_are_real_ones() {
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

    assert_eq!(problems.len(), 27, "{:?}", problems.keys());
    assert_example("problems.json", &pretty(&json!(problems)));
}

/// What is wrong with a request, or with its caller.
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

/// What Partner Center does not know, and what goes wrong on the way there.
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

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// Asserts that an answer is the example of this name; rewrites the example instead if so asked.
#[track_caller]
fn assert_example(name: &str, answer: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/api/schema/examples");
    let file = folder.join(name);
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        fs::write(&file, answer).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), answer, "{name}");
}
