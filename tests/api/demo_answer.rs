//! What a newcomer reads first: the documented customer in its three forms.

use serde_json::json;

use crate::support::{DOCUMENTED, TestApp};

#[tokio::test]
async fn the_documented_customer_reads_as_documented() {
    let app = TestApp::start().await;

    let reply = app.get(&format!("/v1/customers/{DOCUMENTED}/usage")).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/json");
    let usage = reply.json();
    assert_eq!(usage["customerId"], DOCUMENTED);
    assert_eq!(usage["customerName"], "DT DEMO CSP CUSTOMER 005");
    assert_eq!(usage["processedDate"], "2017-03-09");
    assert_eq!(usage["products"].as_array().unwrap().len(), 3);
    assert_eq!(
        usage["products"][0],
        json!({
            "productName": "EXCHANGE ONLINE (PLAN 1)",
            "serviceName": "o365",
            "channel": "reseller",
            "licensesQualified": 5,
            "workloads": [{
                "workloadName": "Exchange",
                "licensesActive": 0,
                "licensesQualified": 5,
                "usagePercent": 0.0,
                "reportedUsagePercent": 0.0,
                "processedDate": "2017-03-09",
            }],
        })
    );
    assert_eq!(
        usage["workloads"][0],
        json!({"workloadName": "Exchange", "licensesActive": 0, "licensesQualified": 8, "usagePercent": 0.0})
    );
}

#[tokio::test]
async fn the_native_form_is_partner_centers_own_bytes_from_the_same_call() {
    let app = TestApp::start().await;
    app.get(&format!("/v1/customers/{DOCUMENTED}/usage")).await;

    let reply = app
        .get(&format!(
            "/v1/customers/{DOCUMENTED}/analytics/licenses/usage"
        ))
        .await;

    assert_eq!(reply.body, usage_proxy::simulator::documented_body());
    assert!(
        reply.body.starts_with(b"\xef\xbb\xbf"),
        "the byte-order mark is kept"
    );
    assert_eq!(reply.header("cache-status"), "usage-proxy; hit; ttl=900");
    assert_eq!(
        app.simulator
            .request_count(usage_proxy::simulator::SimulatedApi::Insights),
        1
    );
}
