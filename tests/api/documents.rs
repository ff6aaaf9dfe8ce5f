//! Documents that have only the native form: a customer's deployment, and the usage and deployment
//! of all customers.

use usage_proxy::simulator::documented_deployment_body;

use crate::support::prelude::*;

const PARTNER_USAGE: &str = "/v1/analytics/licenses/usage";
const PARTNER_DEPLOYMENT: &str = "/v1/analytics/licenses/deployment";

fn deployment(customer: impl std::fmt::Display) -> String {
    format!("/v1/customers/{customer}/analytics/licenses/deployment")
}

/// Each document, the call that fetches it, and the type of its items.
fn documents() -> [(String, SimulatedApi, FaultScope, &'static str); 3] {
    use SimulatedApi::{Deployment, PartnerDeployment, PartnerUsage};

    let of_customer = deployment(customer(0));
    [
        (
            of_customer,
            Deployment,
            FaultScope::Deployment,
            "CustomerLicensesDeploymentInsights",
        ),
        (
            PARTNER_USAGE.into(),
            PartnerUsage,
            FaultScope::PartnerUsage,
            "PartnerLicensesUsageInsights",
        ),
        (
            PARTNER_DEPLOYMENT.into(),
            PartnerDeployment,
            FaultScope::PartnerDeployment,
            "PartnerLicensesDeploymentInsights",
        ),
    ]
}

/// All that is cached and is no usage, and the scope of its faults.
fn collections() -> impl Iterator<Item = (String, FaultScope)> {
    let documents = documents()
        .into_iter()
        .map(|(path, _, scope, _)| (path, scope));
    documents.chain([("/v1/customers".to_owned(), FaultScope::Customers)])
}

#[tokio::test]
async fn each_is_fetched_once_and_cached() {
    let app = TestApp::start().await;

    for (path, api, _, kind) in documents() {
        let first = app.get(&path).await;
        let second = app.get_with(&path, &[("accept-encoding", "gzip")]).await;
        let unchanged = [("if-none-match", first.header("etag"))];
        let unchanged = app.get_with(&path, &unchanged).await;
        let head = app.call(Method::HEAD, &path, &[]).await;

        assert_eq!(first.status, 200, "{path}");
        first.assert_headers(&[
            ("content-type", "application/json; charset=utf-8"),
            ("vary", "Accept, Accept-Encoding"),
            ("last-modified", "Sun, 22 Nov 2026 12:00:00 GMT"),
        ]);
        let body = first.json();
        assert_eq!(body["totalCount"], body["items"].as_array().unwrap().len());
        assert_eq!(body["items"][0]["attributes"]["objectType"], kind);
        assert_eq!(second.cache_status(), HIT);
        second.assert_headers(&[("content-encoding", "gzip"), ("ms-requestid", "")]);
        assert_eq!((unchanged.status, head.status), (304, 200));
        let calls = app.calls_made(api);
        let [call] = calls.as_slice() else {
            panic!("one call for {path}: {calls:?}");
        };
        assert_eq!((&call.path, &call.query), (&path, &None));
        let request_id = call.header("ms-requestid");
        assert_eq!(Some(first.header("ms-requestid")), request_id);
    }
}

#[tokio::test]
async fn bodies_are_passed_through_byte_for_byte() {
    let app = TestApp::start().await;

    let documented = app.get(&deployment(DOCUMENTED)).await;

    assert_eq!(documented.body, documented_deployment_body());
    let odd = "\u{feff}{ \"items\" : [ {\"new\":1.50} ],\n\"more\": [] }";
    app.set_body(customer(3), odd);
    assert_eq!(app.get(&deployment(customer(3))).await.text(), odd);
    app.set_faults(Faults {
        bom: true,
        ..Faults::default()
    });
    for path in [PARTNER_USAGE, PARTNER_DEPLOYMENT] {
        assert!(
            app.get(path).await.text().starts_with("\u{feff}{"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn documents_about_all_customers_are_for_callers_who_may_read_all() {
    let nearly_all: Vec<_> = (0..25).map(customer).collect();
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&nearly_all),
        TestCaller::named("refresher").with_scopes(&["cache:refresh"]),
        TestCaller::named("grafana"),
    ])
    .await;

    for (path, api) in [
        (PARTNER_USAGE, SimulatedApi::PartnerUsage),
        (PARTNER_DEPLOYMENT, SimulatedApi::PartnerDeployment),
    ] {
        for cached in [false, true] {
            for caller in ["portal", "refresher"] {
                let refused = app.get_as(caller, path).await;
                let problem = refused.problem(403, "not-allowed");
                let detail = "this caller may not read every customer's usage";
                assert_eq!(problem["detail"], detail);
                assert_eq!(refused.cache_status(), "detail=not-consulted");
            }
            assert_eq!(app.calls(api), usize::from(cached), "{path}");
            assert_eq!(app.get_as("grafana", path).await.status, 200);
        }
    }
    let own = app.get_as("portal", &deployment(customer(0))).await;
    assert_eq!(own.status, 200);
    let other = app.get_as("portal", &deployment(DOCUMENTED)).await;
    other.problem(403, "not-allowed");
    let denied = app.metric("usage_proxy_authorization_denied_total").await;
    assert_eq!(denied, 9.0);
}

#[tokio::test]
async fn wrong_requests_for_documents_are_refused_without_a_call() {
    let app = TestApp::start().await;

    for (path, _, _, _) in documents() {
        let query = app.get(&format!("{path}?processedDate=2026-11-10")).await;
        query.problem(400, "unknown-parameter");
        let posted = app.call(Method::POST, &path, &[]).await;
        posted.problem(405, "method-not-allowed");
        let csv = app.get_with(&path, &[("accept", "text/csv")]).await;
        csv.problem(406, "not-acceptable");
        let cached = [("cache-control", "only-if-cached")];
        app.get_with(&path, &cached).await.problem(504, "not-held");
    }
    app.get(&deployment("x")).await.problem(400, "customer-id");
    let requests = app.simulator.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.api == SimulatedApi::Token)
    );
    let unknown = app.get(&deployment(Uuid::from_u128(7))).await;
    unknown.problem(404, "unknown-customer");
}

#[tokio::test]
async fn a_failed_call_is_answered_from_the_cache_and_does_not_affect_the_others() {
    let app = TestApp::without_retries().await;
    for (path, _) in collections() {
        app.get(&path).await;
    }

    for (path, scope) in collections() {
        app.advance(STALE);
        app.set_faults(Faults {
            api: scope,
            ..failing(503)
        });

        for (other, _) in collections() {
            let reply = app.get(&other).await;

            let covered = reply.cache_status().ends_with("detail=stale-if-error");
            assert_eq!(reply.status, 200);
            assert_eq!(covered, other == path, "{other}, while {path} fails");
        }
        app.admin_post("/cache/purge?hard=true").await;
        app.get(&path).await.problem(503, "unavailable");
        app.clear_faults();
        app.advance(STALE);
        for (other, _) in collections() {
            assert_eq!(app.get(&other).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_newer_answer_replaces_the_older() {
    let app = TestApp::start().await;
    for (path, ..) in documents() {
        app.get(&path).await;
    }
    let gauge = "usage_proxy_newest_processed_timestamp_seconds";
    assert_eq!(app.metric(gauge).await, 0.0, "it tells of usage alone");
    assert_eq!(app.entries().await, 3);
    app.simulator.advance_day();
    app.advance(STALE);

    for (path, ..) in documents() {
        let newer = app.get(&path).await;
        assert!(newer.cache_status().contains("stored"), "{path}");
    }

    assert_eq!(
        app.entries().await,
        3,
        "nobody could ask for the older ones"
    );
    let cached = app
        .admin_get(&format!("/cache?customer={}", customer(0)))
        .await
        .json();
    let holding = &cached["holdings"][0];
    assert_eq!(holding["source"], "deployment");
    assert_eq!(
        holding["processedDate"],
        app.simulator.newest_date().to_string()
    );
    assert_eq!(holding["newest"], true);
}

#[tokio::test]
async fn an_older_or_much_smaller_answer_is_suspect() {
    let app = TestApp::start().await;
    let today = app.simulator.newest_date();
    let products = |count: usize, day| {
        let row = |number| SimulatedRow::new(&format!("PRODUCT {number}"), "Exchange", 5, day);
        CustomerOverride::Rows((0..count).map(row).collect())
    };
    app.set_answer(customer(0), products(20, today));
    let good = app.get(&deployment(customer(0))).await;

    for doubtful in [
        products(1, today),
        products(0, today),
        products(20, today.yesterday().unwrap()),
    ] {
        app.set_answer(customer(0), doubtful);
        app.advance(STALE);
        let reply = app.get(&deployment(customer(0))).await;
        assert!(reply.cache_status().ends_with("detail=suspect"));
        assert_eq!(reply.body, good.body);
    }
    assert_eq!(app.entries().await, 1, "the older one is kept for nobody");
}

#[tokio::test]
async fn a_malformed_answer_is_refused() {
    let app = TestApp::without_retries().await;
    for (path, _) in collections() {
        for body in [
            BodyFault::Truncated,
            BodyFault::Html,
            BodyFault::Empty,
            BodyFault::Garbage,
            BodyFault::WrongTotal,
        ] {
            app.set_faults(bad_body(body));
            app.get(&path).await.problem(502, "malformed");
            app.advance(Duration::from_secs(60));
        }
    }
    app.set_faults(bad_body(BodyFault::ForeignCustomer));

    let reply = app.get(&deployment(customer(0))).await;

    reply.problem(502, "malformed");
    let text = reply.text().to_lowercase();
    assert!(!text.contains("f0e1a0f0"), "whose it was");
    assert_eq!(app.metric("usage_proxy_tenant_mismatch_total").await, 1.0);
}

#[tokio::test]
async fn usage_and_deployment_of_a_customer_share_nothing_but_its_purge() {
    let app = TestApp::start().await;
    let id = customer(0);
    let usage = app.native(id).await;
    let deployed = app.get(&deployment(id)).await;

    let purged = app
        .admin_post(&format!("/cache/purge?customer={id}&hard=true"))
        .await;

    assert_ne!(usage.header("etag"), deployed.header("etag"));
    assert_eq!(
        purged.json(),
        json!({ "purged": 2, "mode": "hard", "replicas": 1, "confirmed": 1 })
    );
    assert_eq!(app.entries().await, 0);
}
