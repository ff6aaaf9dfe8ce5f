use std::io::Read;

use super::*;

async fn start_with_faults(pairs: &[(&str, &str)]) -> TestSimulator {
    let simulator = TestSimulator::start().await;
    let mut faults = Faults::default();
    for (key, value) in pairs {
        faults.set(key, value).unwrap();
    }
    simulator.handle.set_faults(faults);
    simulator
}

/// The body of an insights call for a customer of the fleet.
async fn insights_body(simulator: &TestSimulator) -> Vec<u8> {
    let answer = simulator.insights(customer_id(1, 0)).await;
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn invalid_json_bodies_are_sent_with_status_200() {
    for fault in ["truncated", "html", "empty", "garbage"] {
        let simulator = start_with_faults(&[("body", fault)]).await;

        let answer = simulator.insights(customer_id(1, 0)).await;

        assert_eq!(answer.status(), 200, "{fault}");
        let body = answer.bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&body).is_err(), "{fault}");
        assert_eq!(body.is_empty(), fault == "empty");
    }
}

#[tokio::test]
async fn row_faults_change_only_the_rows() {
    let first = |body: &[u8]| -> Value {
        let body: Value = serde_json::from_slice(body).unwrap();
        body["items"][0].clone()
    };
    let honest = insights_body(&TestSimulator::start().await).await;
    let rows = serde_json::from_slice::<Value>(&honest).unwrap()["totalCount"].clone();
    let rows = rows.as_u64().unwrap();

    for (fault, totals) in [
        ("missing_fields", (rows, rows)),
        ("negative_counts", (rows, rows)),
        ("huge_counts", (rows, rows)),
        ("foreign_customer", (rows + 1, rows + 1)),
        ("wrong_total", (rows + 1, rows)),
    ] {
        let simulator = start_with_faults(&[("body", fault)]).await;
        let body = insights_body(&simulator).await;

        let changed: Value = serde_json::from_slice(&body).unwrap();
        let items = changed["items"].as_array().unwrap();
        assert_eq!(changed["totalCount"], totals.0, "{fault}");
        assert_eq!(items.len() as u64, totals.1, "{fault}");
        match fault {
            "missing_fields" => assert_eq!(first(&body).get("licensesActive"), None),
            "negative_counts" => assert_eq!(first(&body)["licensesActive"], -1),
            "huge_counts" => assert_eq!(first(&body)["licensesQualified"], u64::MAX),
            "foreign_customer" => {
                assert_ne!(
                    items.last().unwrap()["customerId"],
                    first(&body)["customerId"]
                );
            }
            _ => assert_eq!(first(&body), first(&honest)),
        }
    }
}

#[tokio::test]
async fn a_gzip_bomb_is_small_until_it_is_inflated() {
    let simulator = start_with_faults(&[("body", "gzip_bomb"), ("body_bytes", "3000000")]).await;
    let client = Client::builder().no_proxy().no_gzip().build().unwrap();
    let url = simulator.url(&insights_path(DOCUMENTED_CUSTOMER));
    let ask = |coding| {
        let request = client.get(url.clone()).bearer_auth(&simulator.token);
        request.header("accept-encoding", coding).send()
    };

    let bomb = ask("gzip, deflate").await.unwrap();
    let plain = ask("identity").await.unwrap();

    assert_eq!(header(&bomb, "content-encoding"), "gzip");
    let bomb = bomb.bytes().await.unwrap();
    assert!(bomb.len() < 30_000, "{} bytes", bomb.len());
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&bomb[..]);
    decoder.read_to_end(&mut inflated).unwrap();
    assert_eq!(inflated.len(), 46 * 64 * 1024);
    assert_eq!(plain.bytes().await.unwrap(), documented_body());
}

#[tokio::test]
async fn an_oversized_body_is_the_normal_one_padded_with_spaces() {
    let simulator = start_with_faults(&[("body", "oversized"), ("body_bytes", "100000")]).await;

    let body = insights_body(&simulator).await;

    assert_eq!(body.len(), 100_000);
    assert!(serde_json::from_slice::<Value>(&body).is_ok());
}

#[tokio::test]
async fn a_connection_closes_mid_body() {
    let simulator = start_with_faults(&[("close_mid_body", "true"), ("times", "1")]).await;

    let mut answer = simulator.insights(DOCUMENTED_CUSTOMER).await;

    let announced = answer.content_length().unwrap();
    let mut received = 0;
    let end = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => received += chunk.len() as u64,
            end => break end,
        }
    };
    assert!(end.is_err(), "the connection broke off");
    assert_eq!(announced, documented_body().len() as u64);
    assert_eq!(received, announced / 2);
    assert_eq!(simulator.insights(DOCUMENTED_CUSTOMER).await.status(), 200);
}

#[tokio::test]
async fn a_byte_order_mark_is_added_once() {
    let simulator = start_with_faults(&[("bom", "true")]).await;

    let fleet = insights_body(&simulator).await;
    let documented = simulator.insights(DOCUMENTED_CUSTOMER).await;

    assert!(fleet.starts_with(b"\xef\xbb\xbf{"));
    assert_eq!(documented.bytes().await.unwrap(), documented_body());
}

#[tokio::test]
async fn the_next_link_can_be_replaced() {
    let simulator = start_with_faults(&[("next_link", "https://elsewhere.example/v1/")]).await;

    let page = json(simulator.commercial(&[("top", "1")]).await).await;

    assert_eq!(
        page["links"]["next"]["uri"],
        "https://elsewhere.example/v1/"
    );
}

#[tokio::test]
async fn faults_of_a_page_leave_the_other_pages_alone() {
    let simulator = TestSimulator::start_with(SimulatorOptions {
        page_size: 20,
        ..SimulatorOptions::default()
    })
    .await;
    let page = async |number: usize| {
        let skip = ((number - 1) * 20).to_string();
        let page = simulator
            .commercial(&[("top", "20"), ("skip", &skip)])
            .await;
        json(page).await
    };
    let honest = [page(1).await, page(2).await, page(3).await];
    let rows = |page: &Value| page["Value"].as_array().unwrap().clone();
    let next = |page: &Value| page.pointer("/links/next").cloned();

    let page_with = async |body: BodyFault| {
        simulator.handle.set_faults(Faults {
            page: Some(2),
            body: Some(body),
            ..Faults::default()
        });
        let others = [page(1).await, page(3).await];
        assert_eq!(others, [honest[0].clone(), honest[2].clone()], "{body:?}");
        page(2).await
    };

    let repeated = page_with(BodyFault::RepeatedPage).await;
    assert_eq!(rows(&repeated), rows(&honest[0]));
    let shifted = page_with(BodyFault::ShiftedRows).await;
    assert_eq!(rows(&shifted)[0], rows(&honest[0])[19]);
    assert_eq!(rows(&shifted)[1..], rows(&honest[1])[..19]);
    let shrunk = page_with(BodyFault::ShrunkTotal).await;
    let total = honest[1]["totalCount"].as_u64().unwrap();
    assert_eq!(shrunk["totalCount"], total - 1);
    assert_eq!(rows(&shrunk), rows(&honest[1]));
    let short = page_with(BodyFault::CutShort).await;
    assert_eq!(rows(&short), rows(&honest[1])[..10]);
    assert_eq!(
        (next(&short), short["totalCount"].as_u64()),
        (None, Some(total))
    );
}
