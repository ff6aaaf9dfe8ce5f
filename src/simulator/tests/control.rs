use std::collections::HashSet;

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
    let told = json(patch).await;
    assert_eq!(
        (&told["latency"], &told["status"]),
        (&7.into(), &Value::Null)
    );
    assert_eq!(
        stand.handle.faults(),
        Faults {
            latency: Duration::from_millis(7),
            bom: true,
            ..Faults::default()
        }
    );
    assert_eq!(
        json(send_control(&stand, Method::GET, "/faults", "").await).await,
        told
    );

    send_control(&stand, Method::DELETE, "/faults", "").await;

    assert_eq!(stand.handle.faults(), Faults::default());
}

#[tokio::test]
async fn retry_after_is_text_or_a_number_of_seconds() {
    let stand = TestSimulator::start().await;

    for (body, sent) in [
        (r#"{"retry_after": 7}"#, "7"),
        (r#"{"retry_after": "8"}"#, "8"),
    ] {
        let answer = send_control(&stand, Method::PATCH, "/faults", body).await;

        assert_eq!(json(answer).await["retry_after"], sent, "{body}");
    }
    for body in [r#"{"retry_after": -7}"#, r#"{"retry_after": 1.5}"#] {
        let answer = send_control(&stand, Method::PATCH, "/faults", body).await;

        let error = json(answer).await["error"].to_string();
        let expected = "expected a whole number of seconds, or text";
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_bad_fault_is_named_and_changes_nothing() {
    let stand = TestSimulator::start().await;

    for (method, body, named) in [
        (Method::PUT, r#"{"latncy": 7}"#, "latncy"),
        (Method::PATCH, r#"{"latncy": null}"#, "latncy"),
        (
            Method::PATCH,
            r#"{"latency": "soon"}"#,
            "latency: invalid type",
        ),
        (Method::PUT, "latency=7", "expected value"),
    ] {
        let answer = send_control(&stand, method, "/faults", body).await;

        assert_eq!(answer.status(), 400);
        let error = json(answer).await["error"].to_string();
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(stand.handle.faults(), Faults::default());
}

#[tokio::test]
async fn requests_are_recorded_in_order() {
    let stand = TestSimulator::start().await;
    stand.commercial(&[("top", "1")]).await;
    stand.get("/v2/nothing").await;

    let requests = stand.handle.requests();
    let told = json(send_control(&stand, Method::GET, "/requests", "").await).await;

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
    assert_eq!(told[0]["api"], "commercial");
    assert!(!told.to_string().contains(&stand.token));
    assert_eq!(stand.handle.request_count(SimulatedApi::Commercial), 1);

    send_control(&stand, Method::DELETE, "/requests", "").await;

    assert!(stand.handle.requests().is_empty());
    assert_eq!(stand.handle.request_count(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn a_held_call_sees_the_state_at_its_release() {
    let stand = TestSimulator::start().await;
    send_control(&stand, Method::POST, "/hold", "").await;
    let id = customer_id(1, 0);
    let change = async {
        stand
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        stand
            .handle
            .override_customer(id, CustomerOverride::Body("changed".into()));
        send_control(&stand, Method::POST, "/release", "").await;
    };

    let (answer, ()) = tokio::join!(stand.insights(id), change);

    assert_eq!(answer.text().await.unwrap(), "changed");
}

#[tokio::test]
async fn today_can_be_set() {
    let stand = TestSimulator::start().await;

    let good = send_control(&stand, Method::PUT, "/today?date=2026-12-24", "").await;
    let bad = send_control(&stand, Method::PUT, "/today?date=soon", "").await;

    assert_eq!(
        (good.status(), bad.status()),
        (StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST)
    );
    assert_eq!(stand.handle.newest_date(), date(2026, 12, 21));
}

#[tokio::test]
async fn the_index_lists_the_endpoints() {
    let stand = TestSimulator::start().await;

    let index = json(send_control(&stand, Method::GET, "", "").await).await;

    assert_eq!(index["newestProcessedDate"], NEWEST.to_string());
    assert_eq!(index["customers"]["count"], 26);
    assert_eq!(
        index["customers"]["first"][0],
        DOCUMENTED_CUSTOMER.to_string()
    );
    assert!(index["control"].is_array() && index["api"].is_array());
}

#[tokio::test]
async fn the_index_lists_a_request_line_for_every_api() {
    let stand = TestSimulator::start().await;
    let index = json(send_control(&stand, Method::GET, "", "").await).await;
    let asked = index["api"].as_array().unwrap();

    for request in asked.iter().map(|request| request.as_str().unwrap()) {
        let (method, path) = request.split_once(' ').unwrap();
        let path = path.replace("{id}", &Uuid::from_u128(7).to_string());
        let url = stand.url(&path.replace("{tenant}", "contoso"));
        let request = stand.client.request(method.parse().unwrap(), url);
        request.send().await.unwrap();
    }

    let requests = stand.handle.requests();
    let met: HashSet<_> = requests.iter().map(|request| request.api).collect();
    let all = HashSet::from(SimulatedApi::ALL);
    let missing: Vec<_> = all.difference(&met).collect();
    assert_eq!(missing, [&SimulatedApi::Other]);
}
