//! TLS on the API listener, as it is configured.

use std::fs;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::support::{DOCUMENTED, TestApp};

#[tokio::test]
async fn with_a_certificate_the_api_speaks_tls_and_http_2_and_no_plain_http() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("certificate"), cert.pem()).unwrap();
    fs::write(path("key"), signing_key.serialize_pem()).unwrap();
    let app = TestApp::builder()
        .set("server.tls.certificate_file", &path("certificate"))
        .set("server.tls.key_file", &path("key"))
        .start()
        .await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(cert.pem().as_bytes()).unwrap()])
        .resolve("localhost", app.api)
        .build()
        .unwrap();

    let url = format!(
        "https://localhost:{}/v1/customers/{DOCUMENTED}/usage",
        app.api.port()
    );
    let answer = client.get(url).send().await.unwrap();
    let plain = app.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;

    assert_eq!(answer.status(), 200);
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert!(!plain.contains("HTTP/1."), "{plain}");
    let expiry = app
        .metric("usage_proxy_tls_certificate_expiry_timestamp_seconds{listener=\"api\"}")
        .await;
    assert!(expiry > 1e9, "{expiry}");
}
