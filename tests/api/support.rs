//! The service under test, and what a test does with it.

mod callers;
pub(crate) mod collector;
pub(crate) mod described;
mod upstream;

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use usage_proxy::{
    app::{App, AppDeps},
    clock::{Clock, ManualClock, SharedClock},
    config::{Config, ConfigSources},
    jitter::Jitter,
    reload::Reload,
    shutdown::Shutdown,
    simulator::{Simulator, SimulatorHandle, SimulatorOptions},
};
use uuid::Uuid;

use self::{
    callers::{TestCaller, callers_file},
    described::assert_described,
};

/// The imports that nearly every test needs.
pub(crate) mod prelude {
    pub(crate) use std::{fmt::Display, time::Duration};

    pub(crate) use http::{Method, StatusCode};
    pub(crate) use serde_json::{Value, json};
    pub(crate) use usage_proxy::simulator::{
        BodyFault, CustomerOverride, DOCUMENTED_DATE, FaultScope, Faults, NO_RELATIONSHIP_CUSTOMER,
        RecordedRequest, SimulatedApi, SimulatedRow, documented_body,
    };
    pub(crate) use uuid::Uuid;

    pub(crate) use super::{
        Builder, CLIENT_SECRET, DOCUMENTED, HIT, Reply, SECOND, STALE, START, STORED, STORED_AGAIN,
        TestApp,
        callers::{TestCaller, basic, callers_file, key_of},
        customer, dated_path, in_time, native_path, rows,
        upstream::{bad_body, broken_off, failing, no_mfa, refusing, seats, throttling},
        usage_path, wait_until,
    };
}

/// The customer of Microsoft's own example.
pub(crate) const DOCUMENTED: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

/// `Cache-Status` of an answer that has just been stored, and of the same when it is asked for again.
pub(crate) const STORED: &str = "fwd=uri-miss; fwd-status=200; stored; ttl=900";
pub(crate) const STORED_AGAIN: &str = "fwd=stale; fwd-status=200; stored; ttl=900";
pub(crate) const HIT: &str = "hit; ttl=900";

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Longer than `cache.fresh_for` and `cache.stale_while_revalidate` together: the next request waits
/// for Partner Center.
pub(crate) const STALE: Duration = Duration::from_secs(2 * 60 * 60);

/// The wall time at which every test begins.
pub(crate) const START: &str = "2026-11-22T12:00:00Z";

/// The application's secret, as the simulator knows it.
pub(crate) const CLIENT_SECRET: &str = "canary-client-secret";

/// The key of tokens in a database.
pub(crate) const ENCRYPTION_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

/// The name of the callers file.
const CALLERS_FILE: &str = "callers.toml";

/// The name of the portfolio file.
const PORTFOLIO_FILE: &str = "portfolio.toml";

/// Longer than anything that is waited for takes, so that a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// The customer at this index of the simulator's fleet.
pub(crate) fn customer(index: usize) -> Uuid {
    usage_proxy::simulator::customer_id(SimulatorOptions::default().seed, index)
}

/// The path of a customer's simplified usage.
pub(crate) fn usage_path(customer: impl Display) -> String {
    format!("/v1/customers/{customer}/usage")
}

/// The path of a customer's simplified usage of a date.
pub(crate) fn dated_path(customer: impl Display, date: impl Display) -> String {
    format!("/v1/customers/{customer}/usage?processedDate={date}")
}

/// The path of a customer's native usage.
pub(crate) fn native_path(customer: impl Display) -> String {
    format!("/v1/customers/{customer}/analytics/licenses/usage")
}

/// Waits for something that never takes long, and fails if it does.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it is over in time")
}

/// Asks again and again until this holds, and fails if it never does.
pub(crate) async fn wait_until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            // Whoever is waited for gets the processor.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, wait).await;
    assert!(in_time.is_ok(), "waited in vain until {what}");
}

/// The rows of a table that is written as text: a line each, with `|` between its cells.
pub(crate) fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("not {N} cells: {line}"))
    })
}

/// The service before its simulator, both running; it ends with the test.
pub(crate) struct TestApp {
    /// Moves the time of both.
    pub(crate) clock: Arc<ManualClock>,
    /// The simulator.
    pub(crate) simulator: SimulatorHandle,
    /// The address of the simulator.
    pub(crate) simulator_address: SocketAddr,
    /// The address of the API listener, for dashboards.
    pub(crate) api: SocketAddr,
    /// The address of the admin listener, for operators.
    pub(crate) admin: SocketAddr,
    /// Ends the service.
    pub(crate) shutdown: Shutdown,
    /// Has files read again.
    pub(crate) reload: Reload,
    /// Completes when the service has ended.
    pub(crate) running: tokio::task::JoinHandle<()>,
    secrets: TempDir,
    client: reqwest::Client,
}

/// Changes something before the start.
type Change<T> = Box<dyn FnOnce(&mut T)>;

/// The settings of a [`TestApp`].
#[derive(Default)]
pub(crate) struct Builder {
    config: Vec<Change<Config>>,
    flags: Vec<(String, String)>,
    callers: Option<String>,
    portfolio: Option<String>,
    simulator: Option<Change<SimulatorOptions>>,
    clock: Option<Box<dyn FnOnce(SharedClock) -> SharedClock>>,
    /// The time of both at the start; `None`: `START`.
    started_at: Option<&'static str>,
    has_store: bool,
    /// The simulator of another service, its address and the clock of both.
    beside: Option<(SimulatorHandle, SocketAddr, Arc<ManualClock>)>,
    /// The refresh token in the file; `None`: a new one.
    refresh_token: Option<String>,
    /// Files beside the other secrets: the key that names each, its name, what it holds.
    proof: Vec<(&'static str, &'static str, String)>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// Method and path of the request, which failures of a test name.
    pub(crate) request: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// The body as it was sent, compressed or not.
    pub(crate) body: Vec<u8>,
}

impl TestApp {
    /// With the defaults.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// With one key of the configuration set.
    pub(crate) async fn with(key: &str, value: &str) -> Self {
        Self::builder().set(key, value).start().await
    }

    /// Without retries, which would wait for the clock.
    pub(crate) async fn without_retries() -> Self {
        Self::with("upstream.retries", "0").await
    }

    /// Before a token endpoint that refuses our credentials with this error.
    pub(crate) async fn with_token_error(error: &str) -> Self {
        let error = error.to_owned();
        Self::builder()
            .simulator(|options| options.faults.token_error = Some(error))
            .start_without_waiting()
            .await
    }

    /// With these callers.
    pub(crate) async fn with_callers(callers: &[TestCaller]) -> Self {
        Self::builder().callers(callers).start().await
    }

    /// With other than the defaults.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// With everything configured that has metrics of its own: callers, an issuer and a
    /// collector that do not answer, TLS on the API listener.
    pub(crate) fn with_every_metric() -> Builder {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self::builder()
            .callers(&[TestCaller::named("grafana")])
            .portfolio("[[product]]\nproduct = \"E3\"\nname = \"Office\"\n")
            .set("callers.jwt.issuer", "https://issuer.example")
            .set("callers.jwt.audience", "api://usage-proxy")
            .set("callers.jwt.jwks_url", "http://127.0.0.1:9/keys")
            .set("tracing.otlp_endpoint", "http://127.0.0.1:9")
            .with_own_store()
            .prove_by(&[
                (
                    "upstream.auth.client_secret_file",
                    "client-secret",
                    CLIENT_SECRET,
                ),
                ("server.tls.certificate_file", "certificate", &cert.pem()),
                (
                    "server.tls.key_file",
                    "certificate-key",
                    &signing_key.serialize_pem(),
                ),
            ])
    }

    /// `GET` of the API.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    /// `GET` of the API with headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.request(Method::GET, self.api, path, headers).await
    }

    /// Any request to the API.
    pub(crate) async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.request(method, self.api, path, headers).await
    }

    /// The simplified usage of a customer.
    pub(crate) async fn usage(&self, customer: impl Display) -> Reply {
        self.get(&usage_path(customer)).await
    }

    /// The simplified usage of a customer, asked for with headers.
    pub(crate) async fn usage_with(
        &self,
        customer: impl Display,
        headers: &[(&str, &str)],
    ) -> Reply {
        self.get_with(&usage_path(customer), headers).await
    }

    /// The simplified usage of a customer and date.
    pub(crate) async fn dated(&self, customer: impl Display, date: impl Display) -> Reply {
        self.get(&dated_path(customer, date)).await
    }

    /// The native usage of a customer.
    pub(crate) async fn native(&self, customer: impl Display) -> Reply {
        self.get(&native_path(customer)).await
    }

    /// `GET` of the admin listener.
    pub(crate) async fn admin_get(&self, path: &str) -> Reply {
        self.request(Method::GET, self.admin, path, &[]).await
    }

    /// `POST` to the admin listener.
    pub(crate) async fn admin_post(&self, path: &str) -> Reply {
        self.request(Method::POST, self.admin, path, &[]).await
    }

    /// Any request to the admin listener.
    pub(crate) async fn admin_call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        self.request(method, self.admin, path, headers).await
    }

    /// One sample of a scrape, by its name and labels as they are written:
    /// `usage_proxy_collapsed_total` or `usage_proxy_cache_requests_total{result="hit"}`.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let scrape = self.admin_get("/metrics").await.text();
        scrape
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no sample {sample} in:\n{scrape}"))
            .parse()
            .unwrap()
    }

    /// Waits until a sample of a scrape has this value.
    pub(crate) async fn wait_for_metric(&self, sample: &str, value: f64) {
        let reached = async || (self.metric(sample).await - value).abs() < f64::EPSILON;
        wait_until(&format!("{sample} is {value}"), reached).await;
    }

    /// Waits until no upstream call is under way any more: what it brought is stored.
    pub(crate) async fn wait_until_filled(&self) {
        self.wait_for_metric("usage_proxy_fills_in_flight", 0.0)
            .await;
    }

    /// Waits until all that was accepted can be read from the store.
    pub(crate) async fn wait_until_stored(&self) {
        self.wait_until_filled().await;
        wait_until("all is stored", async || {
            self.advance(Duration::from_millis(500));
            self.metric("usage_proxy_store_pending_writes").await == 0.0
        })
        .await;
    }

    /// Moves the time of the service and of its simulator.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Waits until the service has a token or knows that it will get none.
    pub(crate) async fn wait_until_ready(&self) {
        let ready = async || self.admin_get("/readyz").await.status == 200;
        wait_until("the service is ready", ready).await;
    }

    /// Returns the folder of the secret files.
    pub(crate) fn secrets(&self) -> &Path {
        self.secrets.path()
    }

    /// Replaces the portfolio file, and has it read.
    pub(crate) fn write_portfolio(&self, content: &str) {
        std::fs::write(self.secrets.path().join(PORTFOLIO_FILE), content).unwrap();
        self.reload.trigger();
    }

    /// Replaces the portfolio, and waits until the file is read.
    pub(crate) async fn reload_portfolio(&self, content: &str) {
        const READ_AT: &str = "usage_proxy_portfolio_last_reload_success_timestamp_seconds";
        let read_at = self.metric(READ_AT).await;
        self.advance(SECOND);
        self.write_portfolio(content);
        self.wait_for_metric(READ_AT, read_at + 1.0).await;
    }

    /// Returns true if the service can answer, as `/readyz` says, and the reason if it cannot or soon
    /// will not.
    pub(crate) async fn readiness(&self) -> (bool, String) {
        let report = self.admin_get("/readyz").await;
        let gates = report.json()["gates"].clone();
        let mut gates = gates.as_array().unwrap().iter();
        let gate = gates.find(|gate| gate["name"] == "can-answer").unwrap();
        let ready = report.status == 200;
        assert_eq!(gate["ready"], ready, "{gate}");
        let reason = gate[if ready { "note" } else { "waitsFor" }].as_str();
        (ready, reason.unwrap_or_default().to_owned())
    }

    /// Writes a new refresh token, as a person does after consent.
    pub(crate) fn renew_refresh_token(&self) {
        let token = self.simulator.issue_refresh_token();
        std::fs::write(self.refresh_token_file(), token).unwrap();
    }

    pub(crate) fn refresh_token_file(&self) -> PathBuf {
        self.secrets.path().join("refresh-token")
    }

    /// Sends bytes to the API as they are and reads until the other side closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let mut answer = Vec::new();
        in_time(async {
            stream.write_all(request).await.unwrap();
            stream.read_to_end(&mut answer).await.unwrap();
        })
        .await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a request. Checks that the description of the API has its answer, in every test.
    async fn request(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = self
            .client
            .request(method.clone(), format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let reply = Reply {
            request: format!("{method} {path}"),
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap().to_vec(),
        };
        if address == self.api {
            assert_described(&method, path, &reply);
        }
        reply
    }
}

impl Builder {
    /// Changes the configuration, after it was loaded.
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config) + 'static) -> Self {
        self.config.push(Box::new(change));
        self
    }

    /// States a key, before the configuration is loaded.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Identifies these callers by their keys.
    pub(crate) fn callers(self, callers: &[TestCaller]) -> Self {
        self.callers_file(callers_file(callers))
    }

    /// Identifies callers by a file of this content.
    pub(crate) fn callers_file(mut self, content: impl Into<String>) -> Self {
        self.callers = Some(content.into());
        self
    }

    /// Has a portfolio file of this content.
    pub(crate) fn portfolio(mut self, content: &str) -> Self {
        self.portfolio = Some(content.to_owned());
        self
    }

    /// Changes the simulator.
    pub(crate) fn simulator(
        mut self,
        change: impl FnOnce(&mut SimulatorOptions) + 'static,
    ) -> Self {
        self.simulator = Some(Box::new(change));
        self
    }

    /// Uses the simulator of another service, and its clock.
    pub(crate) fn beside(mut self, other: &TestApp) -> Self {
        let clock = Arc::clone(&other.clock);
        self.beside = Some((other.simulator.clone(), other.simulator_address, clock));
        self
    }

    /// Has this refresh token in the file.
    pub(crate) fn refresh_token(mut self, token: impl Into<String>) -> Self {
        self.refresh_token = Some(token.into());
        self
    }

    /// Gives the service another clock than its simulator, made of the one that both would have.
    pub(crate) fn clock(mut self, of: impl FnOnce(SharedClock) -> SharedClock + 'static) -> Self {
        self.clock = Some(Box::new(of));
        self
    }

    /// Starts both at another time.
    pub(crate) fn started_at(mut self, time: &'static str) -> Self {
        self.started_at = Some(time);
        self
    }

    /// Keeps a store beside the secrets.
    pub(crate) fn with_own_store(mut self) -> Self {
        self.has_store = true;
        self
    }

    /// Puts files beside the other secrets, which prove the application in place of a client secret.
    pub(crate) fn prove_by(mut self, files: &[(&'static str, &'static str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(key, name, content)| (*key, *name, (*content).to_owned()));
        self.proof.extend(files);
        self
    }

    /// Starts both, and waits until the service has its first token.
    pub(crate) async fn start(self) -> TestApp {
        let app = self.start_without_waiting().await;
        app.wait_until_ready().await;
        app
    }

    /// Starts both.
    pub(crate) async fn start_without_waiting(self) -> TestApp {
        let (handle, simulator_address, clock) = match self.beside {
            Some(shared) => shared,
            None => start_simulator(self.started_at, self.simulator).await,
        };

        let secrets = tempfile::tempdir().unwrap();
        write_secret(&secrets.path().join("client-secret"), CLIENT_SECRET);
        let refresh_token = self.refresh_token;
        write_secret(
            &secrets.path().join("refresh-token"),
            &refresh_token.unwrap_or_else(|| handle.issue_refresh_token()),
        );
        let mut sources = defaults(simulator_address, secrets.path());
        if let Some(content) = self.callers {
            let path = secrets.path().join(CALLERS_FILE);
            std::fs::write(&path, content).unwrap();
            sources = sources.with_flag("test", "callers.file", path.to_string_lossy());
        }
        if let Some(content) = self.portfolio {
            let path = secrets.path().join(PORTFOLIO_FILE);
            std::fs::write(&path, content).unwrap();
            sources = sources.with_flag("test", "portfolio.file", path.to_string_lossy());
        }
        if self.proof.is_empty() {
            let file = secrets.path().join("client-secret");
            let file = file.to_string_lossy().into_owned();
            sources = sources.with_flag("test", "upstream.auth.client_secret_file", file);
        }
        if self.has_store {
            let url = format!("sqlite:{}", secrets.path().join("usage.db").display());
            sources = sources.with_flag("test", "store.url", url);
        }
        for (key, name, content) in self.proof {
            let file = secrets.path().join(name);
            write_secret(&file, &content);
            sources = sources.with_flag("test", key, file.to_string_lossy());
        }
        if self
            .flags
            .iter()
            .any(|(_, url)| url.starts_with("postgres:"))
        {
            let file = secrets.path().join("encryption-key");
            write_secret(&file, ENCRYPTION_KEY);
            let file = file.to_string_lossy().into_owned();
            sources = sources.with_flag("test", "store.encryption_key_file", file);
        }
        for (key, value) in self.flags {
            sources = sources.with_flag("test", key, value);
        }
        let mut config = Config::load(sources).unwrap_or_else(|faults| panic!("{faults}"));
        for change in self.config {
            change(&mut config);
        }
        let shared = Arc::clone(&clock) as SharedClock;
        let deps = AppDeps {
            clock: match self.clock {
                Some(of) => of(shared),
                None => shared,
            },
            freshness_jitter: Jitter::Fixed(0.5),
            upstream_jitter: Jitter::Fixed(0.0),
            ..AppDeps::default()
        };
        let app = App::build(&config, deps).await.unwrap();
        let (api, admin) = (app.api_address(), app.admin_address());
        let (shutdown, reload) = (app.shutdown(), app.reload());
        TestApp {
            clock,
            simulator: handle,
            simulator_address,
            api,
            admin,
            shutdown,
            reload,
            running: tokio::spawn(app.run()),
            secrets,
            client: reqwest::Client::builder()
                .no_gzip()
                .no_proxy()
                .timeout(2 * PATIENCE)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        }
    }
}

impl Reply {
    /// A header's value; the empty text where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the part of `Cache-Status` that is about this cache.
    #[track_caller]
    pub(crate) fn cache_status(&self) -> &str {
        let status = self.header("cache-status").strip_prefix("usage-proxy; ");
        status.unwrap_or_else(|| panic!("no Cache-Status in {self:?}"))
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the values of headers; the empty text is for one that is absent.
    #[track_caller]
    pub(crate) fn assert_headers(&self, headers: &[(&str, &str)]) {
        for (name, value) in headers {
            assert_eq!(self.header(name), *value, "{name} of {}", self.request);
        }
    }

    /// Asserts that this is a problem document of this status and kind, which Microsoft's SDK does
    /// not take for an error of Partner Center's, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        let uri = format!("urn:usage-proxy:problem:{kind}");
        assert_eq!(problem["type"], uri, "{}", self.request);
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        for name in problem.as_object().unwrap().keys() {
            // The SDK ignores case.
            let of_the_sdk = ["code", "description", "data", "source"];
            assert!(!of_the_sdk.contains(&&*name.to_lowercase()), "{problem}");
        }
        if [429, 503].contains(&status) {
            let seconds = self.header("retry-after").parse::<u32>();
            assert!(seconds.is_ok_and(|seconds| seconds >= 1), "{self:?}");
        }
        problem
    }

    /// Asserts that this is a problem document whose detail has all of these words.
    #[track_caller]
    pub(crate) fn problem_with(&self, status: u16, kind: &str, words: &[&str]) -> Value {
        let problem = self.problem(status, kind);
        let detail = problem["detail"].as_str().unwrap();
        for word in words {
            assert!(
                detail.contains(word),
                "{word} in {detail}: {}",
                self.request
            );
        }
        problem
    }
}

async fn start_simulator(
    started_at: Option<&'static str>,
    change: Option<Change<SimulatorOptions>>,
) -> (SimulatorHandle, SocketAddr, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(
        started_at.unwrap_or(START).parse().unwrap(),
    ));
    let mut options = SimulatorOptions {
        client_secret: Some(CLIENT_SECRET.into()),
        clock: Arc::clone(&clock) as _,
        today: jiff::tz::Offset::UTC.to_datetime(clock.wall_time()).date(),
        ..SimulatorOptions::default()
    };
    if let Some(change) = change {
        change(&mut options);
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::bind(anywhere, options).await.unwrap();
    let (handle, address) = (simulator.handle(), simulator.local_addr());
    tokio::spawn(simulator.run(Shutdown::new()));
    (handle, address, clock)
}

fn defaults(simulator: SocketAddr, secrets: &Path) -> ConfigSources {
    let file = |name: &str| secrets.join(name).to_string_lossy().into_owned();
    [
        ("server.listen", "127.0.0.1:0".to_owned()),
        ("admin.listen", "127.0.0.1:0".to_owned()),
        ("upstream.base_url", format!("http://{simulator}")),
        ("fleet.refresh", "false".to_owned()),
        ("upstream.auth.kind", "refresh_token".to_owned()),
        (
            "upstream.auth.token_url",
            format!("http://{simulator}/tenant/oauth2/v2.0/token"),
        ),
        ("upstream.auth.client_id", "usage-proxy-test".to_owned()),
        ("upstream.auth.refresh_token_file", file("refresh-token")),
    ]
    .into_iter()
    .fold(ConfigSources::default(), |sources, (key, value)| {
        sources.with_flag("test", key, value)
    })
}

fn write_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt;

    std::fs::write(path, secret).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
