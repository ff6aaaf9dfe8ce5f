use http::Method;

use super::*;

async fn send_control(
    simulator: &TestSimulator,
    method: Method,
    path: &str,
    body: &'static str,
) -> Response {
    let url = simulator.url(&format!("/_simulator{path}"));
    let request = simulator.client.request(method, url).body(body);
    request.send().await.unwrap()
}

#[tokio::test]
async fn faults_are_replaced_patched_and_cleared_over_http() {
    let simulator = TestSimulator::start().await;

    let put = send_control(
        &simulator,
        Method::PUT,
        "/faults",
        r#"{"latency": 7, "status": 500}"#,
    )
    .await;
    assert_eq!(json(put).await["status"], 500);
    let patch = send_control(
        &simulator,
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
        *simulator.handle.simulation.faults(),
        Faults {
            latency: Duration::from_millis(7),
            bom: true,
            ..Faults::default()
        }
    );
    assert_eq!(
        json(send_control(&simulator, Method::GET, "/faults", "").await).await,
        shown
    );

    send_control(&simulator, Method::DELETE, "/faults", "").await;

    assert_eq!(*simulator.handle.simulation.faults(), Faults::default());
}

#[tokio::test]
async fn requests_are_recorded_in_order() {
    let simulator = TestSimulator::start().await;
    simulator.commercial(&[("top", "1")]).await;
    simulator.get("/v2/nothing").await;

    let requests = simulator.handle.requests();

    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].api, SimulatedApi::FleetCheck);
    assert_eq!(requests[0].path, COMMERCIAL);
    assert_eq!(requests[0].query.as_deref(), Some("top=1"));
    assert_eq!(requests[0].status, Some(StatusCode::OK));
    let authorization = format!("Bearer {}", simulator.token);
    assert_eq!(
        requests[0].header("Authorization"),
        Some(authorization.as_str())
    );
    assert_eq!(requests[1].api, SimulatedApi::Other);
    assert_eq!(requests[1].status, Some(StatusCode::NOT_FOUND));
    assert_eq!(simulator.handle.request_count(SimulatedApi::FleetCheck), 1);

    simulator.handle.clear_requests();

    assert!(simulator.handle.requests().is_empty());
    assert_eq!(simulator.handle.request_count(SimulatedApi::FleetCheck), 0);
}

#[tokio::test]
async fn a_held_call_sees_the_state_at_its_release() {
    let simulator = TestSimulator::start().await;
    simulator.handle.hold_calls();
    let id = customer_id(1, 0);
    let change = async {
        simulator
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        simulator
            .handle
            .override_customer(id, CustomerOverride::Body("changed".into()));
        simulator.handle.release_calls();
    };

    let (answer, ()) = tokio::join!(simulator.insights(id), change);

    assert_eq!(answer.text().await.unwrap(), "changed");
}
