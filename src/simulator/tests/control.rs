use http::Method;

use super::*;

async fn send_control(
    stand: &TestSimulator,
    method: Method,
    path: &str,
    body: &'static str,
) -> Response {
    let url = stand.url(&format!("/_simulator{path}"));
    let request = stand.client.request(method, url).body(body);
    request.send().await.unwrap()
}

#[tokio::test]
async fn faults_are_replaced_patched_and_cleared_over_http() {
    let stand = TestSimulator::start().await;

    let put = send_control(
        &stand,
        Method::PUT,
        "/faults",
        r#"{"latency": 7, "status": 500}"#,
    )
    .await;
    assert_eq!(json(put).await["status"], 500);
    let patch = send_control(
        &stand,
        Method::PATCH,
        "/faults",
        r#"{"status": null, "bom": true}"#,
    )
    .await;
    let shown = json(patch).await;
    assert_eq!(
        (&shown["latency"], &shown["status"]),
        (&7.into(), &Value::Null)
    );
    assert_eq!(
        *stand.handle.simulation.faults(),
        Faults {
            latency: Duration::from_millis(7),
            bom: true,
            ..Faults::default()
        }
    );
    assert_eq!(
        json(send_control(&stand, Method::GET, "/faults", "").await).await,
        shown
    );

    send_control(&stand, Method::DELETE, "/faults", "").await;

    assert_eq!(*stand.handle.simulation.faults(), Faults::default());
}

#[tokio::test]
async fn requests_are_recorded_in_order() {
    let stand = TestSimulator::start().await;
    stand.commercial(&[("top", "1")]).await;
    stand.get("/v2/nothing").await;

    let requests = stand.handle.requests();

    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].api, SimulatedApi::Commercial);
    assert_eq!(requests[0].path, COMMERCIAL);
    assert_eq!(requests[0].query.as_deref(), Some("top=1"));
    assert_eq!(requests[0].status, Some(StatusCode::OK));
    let authorization = format!("Bearer {}", stand.token);
    assert_eq!(
        requests[0].header("Authorization"),
        Some(authorization.as_str())
    );
    assert_eq!(requests[1].api, SimulatedApi::Other);
    assert_eq!(requests[1].status, Some(StatusCode::NOT_FOUND));
    assert_eq!(stand.handle.request_count(SimulatedApi::Commercial), 1);

    stand.handle.clear_requests();

    assert!(stand.handle.requests().is_empty());
    assert_eq!(stand.handle.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn a_held_call_sees_the_state_at_its_release() {
    let stand = TestSimulator::start().await;
    stand.handle.hold_calls();
    let id = customer_id(1, 0);
    let change = async {
        stand
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        stand
            .handle
            .override_customer(id, CustomerOverride::Body("changed".into()));
        stand.handle.release_calls();
    };

    let (answer, ()) = tokio::join!(stand.insights(id), change);

    assert_eq!(answer.text().await.unwrap(), "changed");
}
