//! What the tests of this module share: a server that follows a script, and a Partner Center that
//! asks it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

use super::{PartnerCenter, UpstreamDeps};
use crate::{
    clock::ManualClock,
    config::{AuthConfig, ClientAuthConfig, GrantConfig, TokenAudience, UpstreamConfig},
    domain::{CustomerId, Resource, UpstreamApi},
    jitter::Jitter,
    service::source::{CallTrace, SourceAnswer, SourceCall, SourceError, UsageSource},
    shutdown::Shutdown,
};

pub(super) const CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

// === TestServer ===

/// One answer of a script.
#[derive(Clone)]
pub(super) struct TestReply {
    bytes: Vec<u8>,
    held: Option<Arc<Notify>>,
}

impl TestReply {
    pub(super) fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status} Scripted\r\nconnection: close\r\n");
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        Self { bytes, held: None }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, &[], body.to_string().as_bytes())
    }

    pub(super) fn status(status: u16) -> Self {
        Self::new(status, &[], b"")
    }

    /// An access token, good for an hour, and perhaps a new refresh token.
    pub(super) fn token(access: &str, refresh: Option<&str>) -> Self {
        let mut answer = json!({
            "token_type": "Bearer", "expires_in": "3600", "access_token": access,
        });
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
        }
        Self::json(200, &answer)
    }

    /// Half of a body, and then the connection is closed.
    pub(super) fn broken_off() -> Self {
        let mut reply = Self::json(200, &usage(1));
        reply.bytes.truncate(reply.bytes.len() - 20);
        reply
    }

    pub(super) fn gzip(body: &[u8]) -> Self {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        coder.write_all(body).unwrap();
        let headers = [("content-encoding", "gzip")];
        Self::new(200, &headers, &coder.finish().unwrap())
    }

    /// Not before the test says so.
    pub(super) fn held(mut self, until: &Arc<Notify>) -> Self {
        self.held = Some(Arc::clone(until));
        self
    }
}

/// A request as it arrived; header names in lower case.
#[derive(Clone, Debug)]
pub(super) struct TestRequest {
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl TestRequest {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Answers requests in the order of a script, one to a connection, then with 599.
pub(super) struct TestServer {
    pub(super) url: String,
    script: Arc<Mutex<VecDeque<TestReply>>>,
    requests: watch::Sender<Vec<TestRequest>>,
}

impl TestServer {
    async fn start(shutdown: &Shutdown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::<Mutex<VecDeque<TestReply>>>::default();
        let requests = watch::Sender::default();
        let (replies, seen, connections) = (script.clone(), requests.clone(), shutdown.clone());
        shutdown.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, replies.clone(), seen.clone()));
            }
        });
        Self {
            url,
            script,
            requests,
        }
    }

    pub(super) fn replies(&self, replies: impl IntoIterator<Item = TestReply>) {
        self.script.lock().unwrap().extend(replies);
    }

    pub(super) fn requests(&self) -> Vec<TestRequest> {
        self.requests.borrow().clone()
    }

    /// Waits until that many requests have arrived.
    pub(super) async fn requested(&self, times: usize) {
        let mut requests = self.requests.subscribe();
        requests.wait_for(|all| all.len() >= times).await.unwrap();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<TestReply>>>,
    seen: watch::Sender<Vec<TestRequest>>,
) {
    let request = read_request(&mut stream).await;
    let reply = script.lock().unwrap().pop_front();
    let reply = reply.unwrap_or_else(|| TestReply::status(599));
    seen.send_modify(|all| all.push(request));
    if let Some(held) = &reply.held {
        held.notified().await;
    }
    // The client may have given up.
    drop(stream.write_all(&reply.bytes).await);
    drop(stream.shutdown().await);
}

async fn read_request(stream: &mut TcpStream) -> TestRequest {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off");
    }
    TestRequest {
        target,
        headers,
        body: String::from_utf8(bytes[end..].to_vec()).unwrap(),
    }
}

// === Fixture ===

/// How the fixture shows its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TestCredentials {
    RefreshToken,
    ClientCredentials,
    TokenFile,
}

/// Everything around one Partner Center client.
pub(super) struct UpstreamFixture {
    pub(super) api: TestServer,
    pub(super) login: TestServer,
    pub(super) clock: Arc<ManualClock>,
    pub(super) config: UpstreamConfig,
    pub(super) registry: prometheus::Registry,
    pub(super) shutdown: Shutdown,
    pub(super) jitter: Jitter,
    files: TempDir,
}

impl UpstreamFixture {
    pub(super) async fn new(auth: TestCredentials) -> Self {
        let shutdown = Shutdown::new();
        let api = TestServer::start(&shutdown).await;
        let login = TestServer::start(&shutdown).await;
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join("rotating")).unwrap();
        let fixture = Self {
            config: config(&api, &login, auth, files.path().to_owned()),
            api,
            login,
            clock: Arc::new(ManualClock::at("2026-03-15T12:00:00Z".parse().unwrap())),
            registry: prometheus::Registry::new(),
            shutdown,
            jitter: Jitter::Fixed(0.0),
            files,
        };
        fixture.write("secret", "s3cret");
        fixture.write("rotating/refresh", "refresh-1");
        fixture.write("token", "access-1");
        fixture
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Another proof of who asks than the client secret.
    pub(super) fn prove_by(&mut self, other: ClientAuthConfig) {
        let (AuthConfig::RefreshToken { grant, .. } | AuthConfig::ClientCredentials { grant }) =
            &mut self.config.auth
        else {
            panic!("nobody asks for tokens");
        };
        grant.client_auth = other;
    }

    pub(super) fn start(&self) -> PartnerCenter {
        let deps = UpstreamDeps {
            clock: self.clock.clone(),
            jitter: self.jitter,
            shutdown: self.shutdown.clone(),
            registry: &self.registry,
            tracer: None,
        };
        PartnerCenter::new(&self.config, deps).unwrap()
    }

    /// The value of a metric, summed over the children that bear all of `labels`.
    pub(super) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == format!("usage_proxy_{name}"));
        let children = family.unwrap().get_metric().iter().filter(|child| {
            labels.iter().all(|(name, value)| {
                let pairs = child.get_label();
                pairs
                    .iter()
                    .any(|pair| pair.name() == *name && pair.value() == *value)
            })
        });
        children
            .map(|child| child.get_counter().get_value() + child.get_gauge().get_value())
            .sum()
    }
}

impl fmt::Debug for UpstreamFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

fn config(
    api: &TestServer,
    login: &TestServer,
    auth: TestCredentials,
    files: PathBuf,
) -> UpstreamConfig {
    let grant = GrantConfig {
        token_url: format!("{}/tenant/oauth2/token", login.url)
            .parse()
            .unwrap(),
        client_id: "the-client".to_owned(),
        client_auth: ClientAuthConfig::Secret {
            client_secret_file: files.join("secret"),
        },
        audience: TokenAudience::Resource("https://api.partnercenter.microsoft.com".to_owned()),
    };
    UpstreamConfig {
        base_url: api.url.parse().unwrap(),
        source: UpstreamApi::Insights,
        commercial_path: "/v1/analytics/commercial/usage/license/".to_owned(),
        locale: "en-US".to_owned(),
        application: "tests".to_owned(),
        connect_timeout: Duration::from_secs(2),
        attempt_timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(25),
        max_concurrency: 16.try_into().unwrap(),
        retries: 3,
        max_body: 64 * 1024,
        validate_mfa: false,
        auth: match auth {
            TestCredentials::RefreshToken => AuthConfig::RefreshToken {
                grant,
                refresh_token_file: files.join("rotating/refresh"),
            },
            TestCredentials::ClientCredentials => AuthConfig::ClientCredentials { grant },
            TestCredentials::TokenFile => AuthConfig::TokenFile {
                token_file: files.join("token"),
            },
        },
    }
}

// === What is asked and answered ===

pub(super) fn customer() -> CustomerId {
    CustomerId::parse(CUSTOMER).unwrap()
}

pub(super) async fn ask(
    partner_center: &PartnerCenter,
    resource: Resource,
) -> Result<SourceAnswer, SourceError> {
    let call = SourceCall {
        resource,
        trace: CallTrace::default(),
        requested_at: partner_center.clock.now(),
    };
    partner_center.fetch(call).await
}

pub(super) async fn ask_insights(
    partner_center: &PartnerCenter,
) -> Result<SourceAnswer, SourceError> {
    ask(partner_center, Resource::InsightsUsage(customer())).await
}

pub(super) async fn ask_commercial(
    partner_center: &PartnerCenter,
) -> Result<SourceAnswer, SourceError> {
    ask(partner_center, Resource::CommercialUsage(customer(), None)).await
}

/// A valid answer that fits both calls.
pub(super) fn usage(rows: usize) -> Value {
    let row = json!({
        "customerTenantId": CUSTOMER, "customerName": "Contoso", "productName": "A",
        "serviceName": "o365", "channel": "reseller", "workloadName": "Exchange",
        "licensesActive": 1, "licensesQualified": 5,
        "processedDateTime": "2017-03-09T00:00:00+00:00",
    });
    json!({ "totalCount": rows, "items": vec![row; rows] })
}

pub(super) fn ok() -> TestReply {
    TestReply::json(200, &usage(1))
}
