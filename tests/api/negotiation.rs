//! The form and the coding that a caller gets (RFC 9110 §12.5).

use std::io::Read;

use crate::support::prelude::*;

/// Decodes a body that has this coding.
fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut plain),
        "zstd" => return zstd::decode_all(body).unwrap(),
        other => panic!("nobody asked for {other}"),
    };
    read.unwrap();
    plain
}

#[tokio::test]
async fn accept_selects_the_preferred_format() {
    const JSON: &str = "application/json";
    const CSV: &str = "text/csv; charset=utf-8; header=present";
    let app = TestApp::start().await;

    for (lines, expected) in [
        (&[][..], JSON),
        (&["*/*"], JSON),
        (&["application/*"], JSON),
        (&["application/json"], JSON),
        (&["text/html, application/xhtml+xml, */*;q=0.8"], JSON),
        (&["text/csv"], CSV),
        (&["Text/CSV;charset=utf-8"], CSV),
        (&["text/*"], CSV),
        (&["application/json;q=0.4, text/csv;q=0.5"], CSV),
        (&["text/csv;q=0.4, application/json;q=0.5"], JSON),
        (&["text/csv, application/json"], JSON),
        (&["*/*, application/json;q=0"], CSV),
        (&["text/csv;q=0.9", "application/json"], JSON),
        (&[""], JSON),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("accept", *line)).collect();

        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, 200, "{lines:?}");
        assert_eq!(reply.header("content-type"), expected, "{lines:?}");
        assert_eq!(reply.header("vary"), "Accept, Accept-Encoding", "{lines:?}");
    }
}

#[tokio::test]
async fn csv_has_a_header_and_a_line_for_each_product_and_workload() {
    let app = TestApp::start().await;

    let reply = app.usage_with(DOCUMENTED, &[("accept", "text/csv")]).await;

    let [archive, essentials] = [
        "EXCHANGE ONLINE ARCHIVING FOR EXCHANGE ONLINE",
        "OFFICE 365 BUSINESS ESSENTIALS",
    ];
    let mut expected = String::from(
        "customerId,customerName,processedDate,productName,productId,serviceName,serviceCode,\
         channel,workloadName,workloadCode,licensesActive,licensesQualified,usagePercent,\
         reportedUsagePercent,displayName\r\n",
    );
    for (product, workload, qualified) in [
        ("EXCHANGE ONLINE (PLAN 1)", "Exchange", 5),
        (archive, "Exchange", 2),
        (essentials, "Exchange", 1),
        (essentials, "SharePoint", 1),
        (essentials, "Skype For Business", 1),
    ] {
        expected += &format!(
            "{DOCUMENTED},DT DEMO CSP CUSTOMER 005,2017-03-09,{product},,o365,,\
             reseller,{workload},,0,{qualified},0.0,0.0,\r\n"
        );
    }
    assert_eq!(reply.text(), expected);
}

#[tokio::test]
async fn no_rows_are_data_in_every_form() {
    let app = TestApp::start().await;
    // The simulator's first customer that uses nothing.
    let customer = app.simulator.customers()[20];
    let path = usage_path(customer);

    let json = app.usage(customer).await;
    let csv = app.get_with(&path, &[("accept", "text/csv")]).await;
    let native = app.native(customer).await;

    assert_eq!((json.status, csv.status, native.status), (200, 200, 200));
    assert_eq!(json.json()["processedDate"], serde_json::Value::Null);
    for list in ["products", "workloads"] {
        assert_eq!(json.json()[list], serde_json::json!([]), "{list}");
    }
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    assert_eq!(csv.text().lines().count(), 1, "the header alone");
    assert_eq!(native.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn an_accept_header_without_a_known_format_gets_406_with_the_formats() {
    let app = TestApp::start().await;

    let both = &["application/json", "text/csv"][..];
    let usage = usage_path(DOCUMENTED);

    for (path, accept, offered) in [
        (&usage, "text/html", both),
        (&usage, "application/json;q=0", both),
        (&usage, "*/*;q=0", both),
        (&usage, "application/problem+json", both),
        (&native_path(DOCUMENTED), "text/csv", &both[..1]),
    ] {
        let reply = app.get_with(path, &[("accept", accept)]).await;

        reply.problem_with(406, "not-acceptable", offered);
    }
}

#[tokio::test]
async fn accept_encoding_selects_the_preferred_coding() {
    let app = TestApp::start().await;

    for (lines, expected) in [
        (&[][..], ""),
        (&[""], ""),
        (&["identity"], ""),
        (&["deflate"], ""),
        (&["gzip"], "gzip"),
        (&["GZIP"], "gzip"),
        (&["x-gzip"], "gzip"),
        (&["br"], "br"),
        (&["zstd"], "zstd"),
        // The headers of browsers, with and without zstd.
        (&["gzip, deflate, br, zstd"], "br"),
        (&["gzip, deflate"], "gzip"),
        (&["br;q=0.2, gzip;q=0.8"], "gzip"),
        (&["br;q=0.2", "zstd;q=0.9"], "zstd"),
        (&["gzip;q=0.5, identity"], ""),
        (&["gzip;q=0"], ""),
        (&["*;q=0, identity"], ""),
        (&["*"], "br"),
        (&["br;q=0, *"], "zstd"),
        (&["identity;q=0, gzip"], "gzip"),
        (&["identity;q=0, *"], "br"),
        (&["*;q=0, gzip"], "gzip"),
    ] {
        let headers: Vec<_> = lines
            .iter()
            .map(|line| ("accept-encoding", *line))
            .collect();

        let reply = app.usage_with(DOCUMENTED, &headers).await;

        assert_eq!(reply.status, 200, "{lines:?}");
        assert_eq!(reply.header("content-encoding"), expected, "{lines:?}");
        assert_eq!(reply.header("vary"), "Accept, Accept-Encoding", "{lines:?}");
    }
}

#[tokio::test]
async fn every_form_decodes_from_every_coding_to_the_same_bytes() {
    let app = TestApp::start().await;

    for (path, accept) in [
        (usage_path(DOCUMENTED), "application/json"),
        (usage_path(DOCUMENTED), "text/csv"),
        (native_path(DOCUMENTED), "application/json"),
    ] {
        let plain = app.get_with(&path, &[("accept", accept)]).await;
        for coding in ["gzip", "br", "zstd"] {
            let headers = [("accept", accept), ("accept-encoding", coding)];

            let reply = app.get_with(&path, &headers).await;

            assert_eq!(reply.header("content-encoding"), coding);
            assert_eq!(reply.header("content-type"), plain.header("content-type"));
            let case = format!("{path} as {accept} in {coding}");
            assert!(reply.body.len() < plain.body.len(), "{case} is smaller");
            assert_eq!(decoded(coding, &reply.body), plain.body, "{case}");
        }
    }
}

#[tokio::test]
async fn a_request_that_refuses_every_coding_gets_the_list_of_codings() {
    let app = TestApp::start().await;

    for line in ["identity;q=0", "*;q=0", "identity;q=0, deflate"] {
        let encoding = [("accept-encoding", line)];
        let reply = app.usage_with(DOCUMENTED, &encoding).await;

        reply.problem_with(406, "not-acceptable", &["gzip", "br", "zstd", "identity"]);
        assert_eq!(reply.header("content-encoding"), "", "{line}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_cached_with_their_entry() {
    let app = TestApp::start().await;
    let cached_bytes = async || {
        let cached = app
            .admin_get(&format!("/cache?customer={DOCUMENTED}"))
            .await;
        cached.json()["holdings"][0]["bytes"].as_u64().unwrap()
    };
    app.usage(DOCUMENTED).await;

    for coding in ["gzip", "br", "zstd"] {
        let before = cached_bytes().await;
        let headers = [("accept-encoding", coding)];
        let first = app.usage_with(DOCUMENTED, &headers).await;
        let once = cached_bytes().await;
        let again = app.usage_with(DOCUMENTED, &headers).await;
        let twice = cached_bytes().await;

        assert!(once > before, "{coding} is kept");
        assert_eq!(twice, once, "{coding} is not made again");
        assert_eq!(again.body, first.body, "{coding}");
    }
}
