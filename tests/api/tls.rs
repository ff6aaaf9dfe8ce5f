//! TLS on both listeners, as it is configured, and callers that show a certificate.

use std::{fs, net::SocketAddr};

use http::Version;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::prelude::*;

/// Signs certificates, and keeps those of the service.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

// === impl Authority ===

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn sign(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A file that holds this.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Configures a certificate for the listener of this table.
    fn on(&self, table: &str, builder: Builder) -> Builder {
        let Pair { certificate, key } = self.sign("usage-proxy");
        let certificate = self.file("certificate", &certificate);
        builder
            .set(&format!("{table}.tls.certificate_file"), &certificate)
            .set(&format!("{table}.tls.key_file"), &self.file("key", &key))
    }

    /// A client that trusts this authority alone, and may show a certificate.
    fn client(&self, listener: SocketAddr, shown: Option<&Pair>) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .resolve("localhost", listener);
        if let Some(Pair { certificate, key }) = shown {
            let both = format!("{certificate}{key}");
            client = client.identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap());
        }
        client.build().unwrap()
    }
}

fn url(listener: SocketAddr, path: &str) -> String {
    format!("https://localhost:{}{path}", listener.port())
}

fn usage(customer: impl std::fmt::Display) -> String {
    usage_path(customer)
}

/// Sends plain HTTP to a listener. Returns its answer up to the end of the connection.
async fn plain(listener: SocketAddr) -> String {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    in_time(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn with_a_certificate_the_api_speaks_tls_and_http_2_and_no_plain_http() {
    let authority = Authority::new();
    let app = authority.on("server", TestApp::builder()).start().await;
    let client = authority.client(app.api, None);

    let answer = client.get(url(app.api, &usage(DOCUMENTED))).send().await;
    let plain = plain(app.api).await;

    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.version(), Version::HTTP_2);
    assert!(!plain.contains("HTTP/1."), "{plain}");
    let expiry = app
        .metric("usage_proxy_tls_certificate_expiry_timestamp_seconds{listener=\"api\"}")
        .await;
    assert!(expiry > 1e9, "{expiry}");
}

#[tokio::test]
async fn with_a_certificate_the_admin_listener_speaks_tls_and_no_plain_http() {
    let authority = Authority::new();
    let app = authority.on("admin", TestApp::builder());
    let app = app.start_without_waiting().await;
    let client = authority.client(app.admin, None);

    let answer = client.get(url(app.admin, "/metrics")).send().await;
    let plain = plain(app.admin).await;

    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!plain.contains("HTTP/1."), "{plain}");
    let scrape = answer.text().await.unwrap();
    let sample = "usage_proxy_tls_certificate_expiry_timestamp_seconds{listener=\"admin\"} ";
    let expiry = scrape.lines().find_map(|line| line.strip_prefix(sample));
    assert!(expiry.unwrap().parse::<f64>().unwrap() > 1e9, "{expiry:?}");
    assert_eq!(
        app.get("/nowhere").await.status,
        404,
        "the API has no certificate"
    );
}

#[tokio::test]
async fn a_client_certificate_admits_its_caller_to_its_own_customers_only() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let ca = authority.file("ca", &authority.issuer.pem());
    let app = authority
        .on("server", TestApp::builder())
        .set("server.tls.client_ca_file", &ca)
        .callers_file(format!(
            "[[caller]]\nname = \"the-portal\"\nclient_certificate = \"portal\"\n\
             customers = [{DOCUMENTED:?}]\nscopes = [\"usage:read\"]\n"
        ))
        .start()
        .await;
    let (portal, stranger) = (authority.sign("portal"), authority.sign("the-portal"));
    let impostor = foreign.sign("portal");
    let ask = async |shown, path: &str| {
        let client = authority.client(app.api, shown);
        client.get(url(app.api, path)).send().await
    };
    let other = usage(customer(0));

    for (what, shown, path, status) in [
        ("its own", Some(&portal), &*usage(DOCUMENTED), 200),
        ("another's", Some(&portal), &*other, 403),
        ("nobody's certificate", Some(&stranger), &*other, 401),
        ("none", None, &*other, 401),
    ] {
        let answer = ask(shown, path).await.unwrap();

        assert_eq!(answer.status(), status, "{what}");
    }
    let refused = ask(Some(&impostor), &usage(DOCUMENTED)).await;
    refused.expect_err("of another authority");
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
    let unknown = "usage_proxy_authentication_failures_total{reason=\"unknown-certificate\"}";
    assert_eq!(app.metric(unknown).await, 1.0);
}
