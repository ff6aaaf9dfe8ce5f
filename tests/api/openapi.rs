//! The description of the API: its examples are real answers.
//!
//! `UPDATE_EXAMPLES=1 cargo test --test api openapi` writes them anew.

use std::{collections::BTreeMap, fs, path::PathBuf};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use usage_proxy::simulator::{BodyFault, Faults, NO_RELATIONSHIP_CUSTOMER};

use crate::support::{DOCUMENTED, Reply, TestApp, TestCaller, callers_file, customer, key_of};

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
    let app = TestApp::builder()
        .callers(callers_file(&[TestCaller::named("grafana")]))
        .start()
        .await;

    let document = app.get("/openapi.json").await.json();

    let security = document["security"].as_array().unwrap();
    assert!(!security.is_empty() && !security.contains(&json!({})));
}

#[tokio::test]
async fn the_examples_of_answers_are_real_ones() {
    let app = TestApp::start().await;
    let of_customer = |rest: &str| format!("/v1/customers/{DOCUMENTED}/{rest}");

    for (name, path) in [
        ("usage.json", of_customer("usage")),
        ("native.json", of_customer("analytics/licenses/usage")),
        (
            "deployment.json",
            of_customer("analytics/licenses/deployment"),
        ),
        ("customers.json", "/v1/customers?size=2".to_owned()),
        (
            "partner_usage.json",
            "/v1/analytics/licenses/usage".to_owned(),
        ),
        (
            "partner_deployment.json",
            "/v1/analytics/licenses/deployment".to_owned(),
        ),
    ] {
        let text = app.get(&path).await.text();
        let json = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        assert_example(name, &pretty(&json));
    }
    for (name, path) in [
        ("usage.csv", of_customer("usage/table.csv")),
        ("chart.svg", of_customer("usage/chart.svg")),
    ] {
        let text = app.get(&path).await.text();
        assert_example(name, text.trim_start_matches('\u{feff}'));
    }
}

#[tokio::test]
async fn every_member_of_a_collection_is_described() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json();
    let of_customer = |rest: &str| format!("/v1/customers/{DOCUMENTED}/analytics/licenses/{rest}");

    for (schema, path) in [
        ("NativeUsage", of_customer("usage")),
        ("NativeDeployment", of_customer("deployment")),
        (
            "NativePartnerUsage",
            "/v1/analytics/licenses/usage".to_owned(),
        ),
        (
            "NativePartnerDeployment",
            "/v1/analytics/licenses/deployment".to_owned(),
        ),
        ("NativeCustomers", "/v1/customers?size=2".to_owned()),
    ] {
        let text = app.get(&path).await.text();
        let collection: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        let described = &document["components"]["schemas"][schema]["properties"];

        for name in collection.as_object().unwrap().keys() {
            assert!(described[name].is_object(), "{schema}: {name}");
        }
        for name in ["links", "attributes"] {
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

/// What is wrong with a request, or with who sent it.
async fn wrong_requests() -> Vec<Reply> {
    let usage = format!("/v1/customers/{DOCUMENTED}/usage");
    let with = |query: &str| format!("{usage}?{query}");
    let app = TestApp::start().await;
    let guarded = TestApp::builder()
        .callers(callers_file(&[
            TestCaller::named("grafana").with_customers(&[customer(0)]),
            TestCaller::named("script").with_rate("1/m"),
        ]))
        .start()
        .await;
    let (grafana, script) = (key_of("grafana"), key_of("script"));
    ask(&guarded, &usage, &[("x-api-key", &script)]).await;
    vec![
        ask(&app, "/docs/nothing", &[]).await,
        ask(&app, "/v1/customers/contoso/usage", &[]).await,
        ask(&app, &with("processedDate=2017-02-30"), &[]).await,
        ask(&app, &with("top=10"), &[]).await,
        ask(
            &app,
            &with("processedDate=2017-03-09&processedDate=2017-03-08"),
            &[],
        )
        .await,
        ask(&app, &format!("{usage}/chart.svg?theme=sepia"), &[]).await,
        ask(&app, "/v1/customers?size=many", &[]).await,
        ask(&app, "/v1/customers?filter=Contoso", &[]).await,
        ask(&app, "/v1/customers?seekOperation=Previous", &[]).await,
        ask(&app, "/v1/customers?seekOperation=Next", &[]).await,
        ask(&app, &usage, &[("accept", "text/html")]).await,
        ask(&app, &usage, &[("cache-control", "only-if-cached")]).await,
        app.call(Method::DELETE, &usage, &named(&[])).await,
        ask(&app, &with(&"x".repeat(9_000)), &[]).await,
        ask(&app, &usage, &[("x-filler", &"x".repeat(20_000))]).await,
        ask(&guarded, &usage, &[]).await,
        ask(
            &guarded,
            &usage,
            &[("x-api-key", &grafana), ("authorization", "Bearer other")],
        )
        .await,
        ask(&guarded, &usage, &[("x-api-key", &grafana)]).await,
        ask(&guarded, &usage, &[("x-api-key", &script)]).await,
    ]
}

/// What Partner Center does not know, and what goes wrong on the way there.
async fn failures() -> Vec<Reply> {
    let app = TestApp::start().await;
    let mut replies = vec![
        ask(&app, &usage("00000000-0000-4000-8000-000000000000"), &[]).await,
        ask(&app, &usage(&NO_RELATIONSHIP_CUSTOMER.to_string()), &[]).await,
        ask(
            &app,
            &format!("{}?processedDate=2016-01-01", usage(DOCUMENTED)),
            &[],
        )
        .await,
    ];
    let status = |status| Faults {
        status: Some(status),
        retry_after: None,
        ..Faults::default()
    };
    let body = |body| Faults {
        body: Some(body),
        ..Faults::default()
    };
    for faults in [
        status(StatusCode::TOO_MANY_REQUESTS),
        status(StatusCode::INTERNAL_SERVER_ERROR),
        Faults {
            code: Some("900421".into()),
            ..status(StatusCode::UNAUTHORIZED)
        },
        status(StatusCode::BAD_REQUEST),
        body(BodyFault::Html),
    ] {
        let app = TestApp::builder()
            .set("upstream.retries", "0")
            .start()
            .await;
        app.simulator.set_faults(faults);
        replies.push(ask(&app, &usage(DOCUMENTED), &[]).await);
    }
    replies
}

fn usage(customer: &str) -> String {
    format!("/v1/customers/{customer}/usage")
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
