use std::{fs, path::PathBuf};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    clock::ManualClock,
    config::TlsConfig,
    reload::Reload,
    server::tls::{ListenerTls, TlsMetrics, file_paths},
};

/// A CA, and a folder for what it signs.
struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A listener with TLS, and the handle that makes it read its files again.
struct TlsServer {
    server: ListenerFixture,
    tls: Arc<ListenerTls>,
    watched: Vec<PathBuf>,
    reload: Reload,
    registry: Registry,
}

/// The certificate and protocol of a client.
#[derive(Clone, Copy)]
struct DialOptions<'a> {
    version: &'static SupportedProtocolVersion,
    alpn: &'static [u8],
    certificate: Option<(&'a str, &'a str)>,
}

impl Default for DialOptions<'_> {
    fn default() -> Self {
        Self {
            version: &TLS13,
            alpn: b"http/1.1",
            certificate: None,
        }
    }
}

// === impl TestCa ===

impl TestCa {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate with this common name, valid until this year, and returns it in PEM with
    /// its key.
    fn sign(&self, name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Puts a pair where the listener looks for it.
    fn install(&self, (certificate, key): &(String, String)) -> TlsConfig {
        fs::write(self.path("certificate"), certificate).unwrap();
        fs::write(self.path("key"), key).unwrap();
        fs::write(self.path("ca"), self.issuer.pem()).unwrap();
        TlsConfig {
            certificate_file: self.path("certificate"),
            key_file: self.path("key"),
            client_ca_file: Some(self.path("ca")),
        }
    }

    /// Connects and agrees upon TLS.
    async fn dial(
        &self,
        server: &ListenerFixture,
        dial: DialOptions<'_>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[dial.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match dial.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![dial.alpn.to_vec()];
        let stream = TcpStream::connect(server.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

// === impl TlsServer ===

impl TlsServer {
    async fn start(files: TlsConfig) -> Self {
        let registry = Registry::new();
        let metrics = TlsMetrics::new(&registry).unwrap();
        let watched = file_paths(&files);
        let tls = ListenerTls::load_files(files, "api", &metrics).unwrap();
        let served = Arc::clone(&tls);
        Self {
            server: ListenerFixture::start_with(|config| config.tls = Some(served)).await,
            tls,
            watched,
            reload: Reload::default(),
            registry,
        }
    }

    /// Follows its files for as long as `meanwhile` takes.
    async fn with_reloading<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let watch = self.reload.watch(self.watched.clone(), clock).await;
        tokio::select! {
            () = Arc::clone(&self.tls).reload_on_change(watch) => unreachable!("it follows for ever"),
            done = meanwhile => done,
        }
    }

    fn gauge(&self, name: &str) -> i64 {
        let value = sample(&self.registry, &format!("{name}{{listener=\"api\"}}"));
        #[expect(clippy::cast_possible_truncation, reason = "timestamps and flags")]
        {
            value as i64
        }
    }

    async fn wait_for_expiry(&self, seconds: i64) {
        let reached = async {
            while self.gauge(EXPIRY) != seconds {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(TEST_TIMEOUT, reached).await;
        waited.expect("the new certificate is taken over");
    }
}

const EXPIRY: &str = "usage_proxy_tls_certificate_expiry_timestamp_seconds";
const RELOADED: &str = "usage_proxy_tls_last_reload_successful";

/// The beginnings of these years, in Unix time.
const Y2040: i64 = 2_208_988_800;
const Y2050: i64 = 2_524_608_000;

/// One request on a connection that stays open.
async fn send_request(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream
        .write_all(GET.replace("/path", path).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut space = [0; 1024];
        let read = stream.read(&mut space).await.unwrap();
        assert_ne!(read, 0, "closed after {answer}");
        answer.push_str(std::str::from_utf8(&space[..read]).unwrap());
    }
    answer
}

/// Everything that comes until the connection is closed.
async fn read_to_end(mut stream: TlsStream<TcpStream>) -> String {
    let mut rest = String::new();
    let reading = stream.read_to_string(&mut rest);
    let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;
    read.expect("the connection is closed").unwrap();
    rest
}

/// The serial number of what the server showed, which no two certificates share.
fn served_serial(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_answered() {
    let ca = TestCa::new("CA");
    let TlsServer { server, .. } = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;

    for (version, says_so) in [
        (&TLS12, true),
        (&TLS12, false),
        (&TLS13, true),
        (&TLS13, false),
    ] {
        let dial = DialOptions {
            version,
            ..DialOptions::default()
        };
        let mut stream = ca.dial(&server, dial).await.unwrap();
        let before = server.requests();
        let later = GET.replace("/path", "/later");
        stream.write_all(later.as_bytes()).await.unwrap();
        if says_so {
            // close_notify, and FIN.
            stream.shutdown().await.unwrap();
        } else {
            stream.flush().await.unwrap();
            stream.get_mut().0.shutdown().await.unwrap();
        }
        server.wait_for_requests(before + 1).await;
        server.release_later.notify_one();

        let answer = read_to_end(stream).await;
        assert!(answer.ends_with("ok /later"), "{says_so}: {answer:?}");
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_alpn_chooses_the_version_of_http() {
    let ca = TestCa::new("CA");
    let server = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;

    for version in [&TLS12, &TLS13] {
        let dial = DialOptions {
            version,
            ..DialOptions::default()
        };
        let mut stream = ca.dial(&server.server, dial).await.unwrap();

        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let answer = send_request(&mut stream, "/path").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let h2 = DialOptions {
        alpn: b"h2",
        ..DialOptions::default()
    };
    let mut stream = ca.dial(&server.server, h2).await.unwrap();
    let mut head = [0; 9];
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    stream.read_exact(&mut head).await.unwrap();

    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(head[3], 4, "a SETTINGS frame: {head:?}");
}

#[tokio::test]
async fn a_client_certificate_is_optional_but_must_be_of_the_client_ca() {
    let (ca, other) = (TestCa::new("CA"), TestCa::new("CA"));
    let server = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;
    let (certificate, key) = ca.sign("portal", 2040);
    let (foreign, foreign_key) = other.sign("portal", 2040);
    let showing = |certificate, version| DialOptions {
        certificate,
        version,
        ..DialOptions::default()
    };

    for version in [&TLS12, &TLS13] {
        let known = showing(Some((certificate.as_str(), key.as_str())), version);
        let mut known = ca.dial(&server.server, known).await.unwrap();
        let mut anonymous = ca
            .dial(&server.server, showing(None, version))
            .await
            .unwrap();

        assert!(
            send_request(&mut known, "/who")
                .await
                .ends_with("Some(\"portal\")")
        );
        assert!(send_request(&mut anonymous, "/who").await.ends_with("None"));
    }
    let before = server.server.requests();
    let foreign = showing(Some((foreign.as_str(), foreign_key.as_str())), &TLS12);
    let refused = ca.dial(&server.server, foreign).await;

    assert!(refused.is_err());
    assert_eq!(server.server.requests(), before);
    server.server.wait_for(&closed("tls-handshake"), 1.0).await;
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_only() {
    let ca = TestCa::new("CA");
    let server = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;
    assert_eq!(server.gauge(EXPIRY), Y2040);
    let mut old = ca
        .dial(&server.server, DialOptions::default())
        .await
        .unwrap();

    server
        .with_reloading(async {
            ca.install(&ca.sign("server", 2050));
            server.reload.trigger();
            server.wait_for_expiry(Y2050).await;
        })
        .await;
    let mut new = ca
        .dial(&server.server, DialOptions::default())
        .await
        .unwrap();

    assert_ne!(served_serial(&old), served_serial(&new));
    for stream in [&mut old, &mut new] {
        assert!(send_request(stream, "/path").await.ends_with("ok /path"));
    }
    assert_eq!(server.gauge(RELOADED), 1);
}

#[tokio::test]
async fn a_broken_new_certificate_keeps_the_old_one_active() {
    let ca = TestCa::new("CA");
    let (first, second) = (ca.sign("server", 2040), ca.sign("server", 2050));
    let server = TlsServer::start(ca.install(&first)).await;
    let before = ca
        .dial(&server.server, DialOptions::default())
        .await
        .unwrap();

    for broken in [
        (second.0.clone(), first.1.clone()),
        (String::new(), second.1.clone()),
        (second.0.clone(), "no key".to_owned()),
    ] {
        server
            .with_reloading(async {
                ca.install(&broken);
                server.reload.trigger();
                let reported = async {
                    while server.gauge(RELOADED) != 0 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(TEST_TIMEOUT, reported).await.unwrap();
            })
            .await;
        let after = ca
            .dial(&server.server, DialOptions::default())
            .await
            .unwrap();

        assert_eq!(served_serial(&after), served_serial(&before));
        assert_eq!(server.gauge(EXPIRY), Y2040);

        server
            .with_reloading(async {
                ca.install(&first);
                server.reload.trigger();
                while server.gauge(RELOADED) != 1 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
    }
}

#[tokio::test]
async fn an_invalid_key_pair_is_rejected_at_startup_with_its_file() {
    let ca = TestCa::new("CA");
    let (first, second) = (ca.sign("server", 2040), ca.sign("server", 2040));
    let metrics = TlsMetrics::new(&Registry::new()).unwrap();
    let load = |pair: (&String, &String)| {
        let files = ca.install(&(pair.0.clone(), pair.1.clone()));
        ListenerTls::load_files(files, "api", &metrics).unwrap_err()
    };

    let mismatch = load((&first.0, &second.1));
    let swapped = load((&first.1, &first.0));
    let mut files = ca.install(&first);
    files.key_file = ca.path("missing");
    let missing = ListenerTls::load_files(files, "api", &metrics).unwrap_err();

    assert!(mismatch.to_string().contains("make no pair"), "{mismatch}");
    assert!(swapped.to_string().contains("in PEM"), "{swapped}");
    assert!(missing.to_string().contains("missing"), "{missing}");
}

#[tokio::test]
async fn a_stalled_handshake_is_closed() {
    let ca = TestCa::new("CA");
    let files = ca.install(&ca.sign("server", 2040));
    let tls =
        ListenerTls::load_files(files, "api", &TlsMetrics::new(&Registry::new()).unwrap()).unwrap();
    let server = ListenerFixture::start_with(|config| {
        config.tls = Some(tls);
        config.limits.header_timeout = Duration::from_millis(50);
    })
    .await;

    let answer = server.send_raw(b"\x16\x03\x01").await;

    assert_eq!(answer, "");
    server.wait_for_close_reason("tls-handshake").await;
}

#[tokio::test]
async fn plain_http_on_a_tls_listener_is_no_handshake() {
    let ca = TestCa::new("CA");
    let server = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;

    server.server.send_raw(GET).await;

    assert_eq!(server.server.requests(), 0);
    server.server.wait_for_close_reason("tls-handshake").await;
}

#[tokio::test]
async fn removing_a_client_ca_closes_its_clients_connections() {
    let (ca, next) = (TestCa::new("CA"), TestCa::new("next CA"));
    let server = TlsServer::start(ca.install(&ca.sign("server", 2040))).await;
    let (certificate, key) = ca.sign("portal", 2040);
    let showing = DialOptions {
        certificate: Some((&certificate, &key)),
        ..DialOptions::default()
    };
    let mut idle = ca.dial(&server.server, showing).await.unwrap();
    let mut asking = ca.dial(&server.server, showing).await.unwrap();
    let mut anonymous = ca
        .dial(&server.server, DialOptions::default())
        .await
        .unwrap();
    let install = |client_ca: &str, until| {
        ca.install(&ca.sign("server", until));
        fs::write(ca.path("ca"), client_ca).unwrap();
        server.reload.trigger();
    };

    server
        .with_reloading(async {
            install(&(ca.issuer.pem() + &next.issuer.pem()), 2050);
            server.wait_for_expiry(Y2050).await;
            for known in [&mut idle, &mut asking] {
                assert!(
                    send_request(known, "/who")
                        .await
                        .ends_with("Some(\"portal\")")
                );
            }
            asking.write_all(b"GET /who HTTP/1.1\r\n").await.unwrap();
            let active = "usage_proxy_connections{state=\"active\"}";
            server.server.wait_for(active, 1.0).await;
            install(&next.issuer.pem(), 2040);
            server.wait_for_expiry(Y2040).await;
        })
        .await;
    asking.write_all(b"Host: x\r\n\r\n").await.unwrap();

    let last = read_to_end(asking).await;
    assert!(last.contains("connection: close\r\n"), "{last}");
    assert!(last.ends_with("None"), "{last}");
    assert_eq!(read_to_end(idle).await, "");
    assert!(
        send_request(&mut anonymous, "/path")
            .await
            .ends_with("ok /path")
    );
    server.server.wait_for(&closed("drained"), 2.0).await;
}
