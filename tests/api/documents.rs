//! What has the native form alone: a customer's deployment, and what is told of all customers.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use usage_proxy::simulator::{
    BodyFault, CustomerOverride, FaultScope, Faults, SimulatedApi, SimulatedRow,
    documented_deployment_body,
};
use uuid::Uuid;

use crate::support::{DOCUMENTED, TestApp, TestCaller, callers_file, customer, key_of};

const PARTNER_USAGE: &str = "/v1/analytics/licenses/usage";
const PARTNER_DEPLOYMENT: &str = "/v1/analytics/licenses/deployment";
const HIT: &str = "usage-proxy; hit; ttl=900";

/// Past `fresh_for + stale_while_revalidate`: the next request asks, and waits.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

fn deployment(customer: impl std::fmt::Display) -> String {
    format!("/v1/customers/{customer}/analytics/licenses/deployment")
}

/// Each document, the call that tells it, and what its items are.
fn documents() -> [(String, SimulatedApi, FaultScope, &'static str); 3] {
    [
        (
            deployment(customer(0)),
            SimulatedApi::Deployment,
            FaultScope::Deployment,
            "CustomerLicensesDeploymentInsights",
        ),
        (
            PARTNER_USAGE.to_owned(),
            SimulatedApi::PartnerUsage,
            FaultScope::PartnerUsage,
            "PartnerLicensesUsageInsights",
        ),
        (
            PARTNER_DEPLOYMENT.to_owned(),
            SimulatedApi::PartnerDeployment,
            FaultScope::PartnerDeployment,
            "PartnerLicensesDeploymentInsights",
        ),
    ]
}

#[tokio::test]
async fn each_is_asked_for_once_and_held() {
    let app = TestApp::start().await;

    for (path, api, _, kind) in documents() {
        let first = app.get(&path).await;
        let second = app.get_with(&path, &[("accept-encoding", "gzip")]).await;
        let unchanged = [("if-none-match", first.header("etag"))];
        let unchanged = app.get_with(&path, &unchanged).await;
        let head = app.call(Method::HEAD, &path, &[]).await;

        assert_eq!(first.status, 200, "{path}");
        assert_eq!(
            first.header("content-type"),
            "application/json; charset=utf-8"
        );
        assert_eq!(first.header("vary"), "Accept, Accept-Encoding");
        assert_ne!(first.header("last-modified"), "");
        let body = first.json();
        assert_eq!(body["totalCount"], body["items"].as_array().unwrap().len());
        assert_eq!(body["items"][0]["attributes"]["objectType"], kind);
        assert_eq!(second.header("cache-status"), HIT);
        assert_eq!(second.header("content-encoding"), "gzip");
        assert_eq!((unchanged.status, head.status), (304, 200));
        let asked: Vec<_> = app
            .simulator
            .requests()
            .into_iter()
            .filter(|request| request.api == api)
            .collect();
        assert_eq!(asked.len(), 1, "{path}");
        assert_eq!(
            (asked[0].path.as_str(), &asked[0].query),
            (path.as_str(), &None)
        );
        assert_eq!(
            first.header("ms-requestid"),
            asked[0].header("ms-requestid").unwrap()
        );
        assert_eq!(second.header("ms-requestid"), "");
    }
}

#[tokio::test]
async fn bodies_come_byte_for_byte() {
    let app = TestApp::start().await;

    let documented = app.get(&deployment(DOCUMENTED)).await;

    assert_eq!(documented.body, documented_deployment_body());
    let odd = "\u{feff}{ \"items\" : [ {\"new\":1.50} ],\n\"more\": [] }";
    app.simulator
        .override_customer(customer(3), CustomerOverride::Body(odd.into()));
    assert_eq!(app.get(&deployment(customer(3))).await.text(), odd);
    app.simulator.set_faults(Faults {
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
async fn what_is_told_of_all_customers_is_for_who_may_read_all_of_them() {
    let nearly_all: Vec<_> = (0..25).map(customer).collect();
    let app = TestApp::builder()
        .callers(callers_file(&[
            TestCaller::named("portal").with_customers(&nearly_all),
            TestCaller::named("refresher").with_scopes(&["cache:refresh"]),
            TestCaller::named("grafana"),
        ]))
        .start()
        .await;

    for path in [PARTNER_USAGE, PARTNER_DEPLOYMENT] {
        for held in [false, true] {
            for caller in ["portal", "refresher"] {
                let refused = app.get_as(&key_of(caller), path).await;
                let problem = refused.problem(403, "not-allowed");
                assert_eq!(
                    problem["detail"],
                    "this caller may not read every customer's usage"
                );
                assert_eq!(
                    refused.header("cache-status"),
                    "usage-proxy; detail=not-consulted"
                );
            }
            if !held {
                let asked = app.simulator.request_count(SimulatedApi::PartnerUsage)
                    + app.simulator.request_count(SimulatedApi::PartnerDeployment);
                assert_eq!(app.get_as(&key_of("grafana"), path).await.status, 200);
                let now = app.simulator.request_count(SimulatedApi::PartnerUsage)
                    + app.simulator.request_count(SimulatedApi::PartnerDeployment);
                assert_eq!(now, asked + 1, "only for who may have it");
            }
        }
    }
    let own = app
        .get_as(&key_of("portal"), &deployment(customer(0)))
        .await;
    assert_eq!(own.status, 200);
    let other = app.get_as(&key_of("portal"), &deployment(DOCUMENTED)).await;
    other.problem(403, "not-allowed");
    assert_eq!(
        app.metric("usage_proxy_authorization_denied_total").await,
        9.0
    );
}

#[tokio::test]
async fn what_is_asked_wrong_is_told_what_was_expected() {
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
    assert_eq!(
        app.simulator
            .requests()
            .iter()
            .filter(|request| request.api != SimulatedApi::Token)
            .count(),
        0
    );
    let unknown = app.get(&deployment(Uuid::from_u128(7))).await;
    unknown.problem(404, "unknown-customer");
}

#[tokio::test]
async fn what_is_held_stands_in_for_a_failure_of_its_own_call_alone() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    for (path, ..) in documents() {
        app.get(&path).await;
    }

    for (path, _, scope, _) in documents() {
        app.advance(STALE);
        app.simulator.set_faults(Faults {
            api: scope,
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            ..Faults::default()
        });

        for (other, ..) in documents() {
            let reply = app.get(&other).await;

            let status = reply.header("cache-status");
            assert_eq!(reply.status, 200);
            assert_eq!(
                status.ends_with("detail=stale-if-error"),
                other == path,
                "{other}: {status}"
            );
        }
        app.admin_post("/cache/purge?hard=true").await;
        app.get(&path).await.problem(503, "unavailable");
        app.simulator.set_faults(Faults::default());
        app.advance(STALE);
        for (other, ..) in documents() {
            assert_eq!(app.get(&other).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_newer_answer_takes_the_place_of_the_older() {
    let app = TestApp::start().await;
    for (path, ..) in documents() {
        app.get(&path).await;
    }
    let gauge = "usage_proxy_newest_processed_timestamp_seconds";
    assert_eq!(app.metric(gauge).await, 0.0, "it tells of usage alone");
    assert_eq!(app.held().await, 3);
    app.simulator.advance_day();
    app.advance(STALE);

    for (path, ..) in documents() {
        let newer = app.get(&path).await;
        assert!(newer.header("cache-status").contains("stored"), "{path}");
    }

    assert_eq!(app.held().await, 3, "nobody could ask for the older ones");
    let held = app
        .admin_get(&format!("/cache?customer={}", customer(0)))
        .await
        .json();
    let holding = &held["holdings"][0];
    assert_eq!(holding["source"], "deployment");
    assert_eq!(
        holding["processedDate"],
        app.simulator.newest_date().to_string()
    );
    assert_eq!(holding["newest"], true);
}

#[tokio::test]
async fn an_older_or_a_shrunken_answer_is_doubted() {
    let app = TestApp::start().await;
    let today = app.simulator.newest_date();
    let products = |count: usize, day| {
        let row = |number| SimulatedRow::new(&format!("PRODUCT {number}"), "Exchange", 5, day);
        CustomerOverride::Rows((0..count).map(row).collect())
    };
    app.simulator
        .override_customer(customer(0), products(20, today));
    let good = app.get(&deployment(customer(0))).await;

    for doubtful in [
        products(1, today),
        products(0, today),
        products(20, today.yesterday().unwrap()),
    ] {
        app.simulator.override_customer(customer(0), doubtful);
        app.advance(STALE);
        let reply = app.get(&deployment(customer(0))).await;
        assert!(reply.header("cache-status").ends_with("detail=suspect"));
        assert_eq!(reply.body, good.body);
    }
    assert_eq!(app.held().await, 1, "the older one is kept for nobody");
}

#[tokio::test]
async fn another_customers_row_refuses_the_whole() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    for (path, _, scope, _) in documents() {
        for body in [
            BodyFault::Truncated,
            BodyFault::Html,
            BodyFault::Empty,
            BodyFault::Garbage,
            BodyFault::WrongTotal,
        ] {
            app.simulator.set_faults(Faults {
                api: scope,
                body: Some(body),
                ..Faults::default()
            });
            app.get(&path).await.problem(502, "malformed");
            app.advance(Duration::from_secs(60));
        }
    }
    app.simulator.set_faults(Faults {
        body: Some(BodyFault::ForeignCustomer),
        ..Faults::default()
    });

    let reply = app.get(&deployment(customer(0))).await;

    reply.problem(502, "malformed");
    assert!(
        !reply.text().to_lowercase().contains("f0e1a0f0"),
        "whose it was"
    );
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
    assert_eq!(purged.json(), json!({ "purged": 2, "mode": "hard" }));
    assert_eq!(app.held().await, 0);
}
