//! What replicas cost that share a PostgreSQL server, which the benchmark starts.
//!
//! `cargo bench --bench replicas` measures all of it in some 15 minutes, and `cargo bench --bench replicas -- calls`,
//! `… misses`, `… leases` and `… partition` one part; `… -- calls 5000` over so many customers. Figures of one run
//! are comparable with each other and with no other run.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a benchmark may fail in any way"
)]

#[path = "../tests/postgres/server.rs"]
mod postgres_server;
#[allow(dead_code, reason = "tests have more networks")]
#[path = "../tests/cluster/relay.rs"]
mod relay;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::ToSpan;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{interval, sleep, sleep_until},
};
use tokio_postgres::NoTls;
use usage_proxy::{
    app::{App, AppDeps},
    clock::{Clock, SharedClock, SystemClock},
    config::{Config, ConfigSources},
    domain::{CustomerId, LicenseUsage, ProcessedAt, ProcessedDate, UpstreamApi, UsageRow},
    shutdown::Shutdown,
    simulator::{SimulatedApi, Simulator, SimulatorHandle, SimulatorOptions, customer_id},
    store::{
        AcceptedSnapshot, LeaseAttempt, LeaseEnd, StoreWrite, UsageStore, WantedLease, postgres,
    },
};
use uuid::Uuid;

use self::{
    postgres_server::TestDatabase,
    relay::{Network, Relay},
};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The key of tokens in a database.
const ENCRYPTION_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

/// A replica of the service.
struct Replica {
    api: String,
    admin: String,
    client: reqwest::Client,
    shutdown: Shutdown,
    _secrets: TempDir,
}

/// Partner Center, and the database that replicas share.
struct World {
    simulator: SimulatorHandle,
    address: SocketAddr,
    customers: Vec<Uuid>,
    database: TestDatabase,
}

fn main() {
    let customers = std::env::args().find_map(|argument| argument.parse().ok());
    let is_wanted = |part: &str| {
        let parts = ["calls", "misses", "leases", "partition"];
        let mut named = std::env::args().filter(|argument| parts.contains(&&**argument));
        named.any(|named| named == part)
            || !std::env::args().any(|argument| parts.contains(&&*argument))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if is_wanted("misses") {
            misses(customers.unwrap_or(1_000)).await;
        }
        if is_wanted("leases") {
            leases().await;
        }
        if is_wanted("partition") {
            partition().await;
        }
        if is_wanted("calls") {
            for replicas in [1, 2, 5, 20] {
                calls(replicas, customers.unwrap_or(1_000)).await;
            }
        }
    });
}

/// Counts the calls upstream of an hour in which each customer is asked for again and again, of any replica.
///
/// A minute stands for half an hour: the freshness lifetime is 30 s in place of 15 minutes.
async fn calls(replicas: usize, customers: usize) {
    const FRESH_FOR: u32 = 30;
    const HOUR: Duration = Duration::from_secs(4 * FRESH_FOR as u64);
    /// Each customer is asked for so often in a freshness lifetime.
    const QUESTIONS: u32 = 10;

    let world = World::new(customers).await;
    let fresh_for = format!("{FRESH_FOR}s");
    let settings = [("cache.fresh_for", &*fresh_for)];
    let start = |_| world.start_replica(&settings);
    let services = Arc::new(join_all((0..replicas).map(start)).await);
    let mut random = StdRng::seed_from_u64(1);
    let gap = Duration::from_secs(FRESH_FOR.into()) / QUESTIONS / u32::try_from(customers).unwrap();
    let (begun, failed) = (tokio::time::Instant::now(), Arc::new(AtomicUsize::new(0)));
    let measured_from = begun + 2 * HOUR / 4;
    let (mut number, mut before, mut asking) = (0, 0, JoinSet::new());
    loop {
        let at = begun + gap * number;
        if at >= measured_from + HOUR {
            break;
        }
        if before == 0 && at >= measured_from {
            before = world.calls();
        }
        sleep_until(at).await;
        let customer = world.customers[random.random_range(0..customers)];
        let replica = random.random_range(0..replicas);
        let (services, failed) = (Arc::clone(&services), Arc::clone(&failed));
        asking.spawn(async move {
            if services[replica].usage(customer).await.0 != 200 {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
        while asking.try_join_next().is_some() {}
        number += 1;
    }
    let calls = world.calls() - before;
    while asking.join_next().await.is_some() {}
    println!(
        "{replicas} replicas, {customers} customers: {calls} calls an hour, {:.3} a customer and freshness \
         lifetime ({} of {number} requests failed)",
        calls as f64 / customers as f64 / 4.0,
        failed.load(Ordering::Relaxed),
    );
    for replica in &*services {
        replica.shutdown.drain();
    }
}

/// Measures answers that a replica takes from the store, and from memory, also while another client reads
/// history.
async fn misses(customers: usize) {
    let world = World::new(customers).await;
    let first = world.start_replica(&[]).await;
    for some in world.customers.chunks(8) {
        join_all(some.iter().map(|customer| first.usage(customer))).await;
    }
    first.wait_until_stored().await;
    let calls = world.calls();
    assert_eq!(calls, customers, "one call each");
    for round in 1..=3 {
        println!("round {round}");
        world.measure_misses_and_hits("alone").await;
    }
    world.add_history().await;
    world.measure_misses_and_hits("with history").await;
    let reading = world.read_history(500);
    sleep(Duration::from_secs(2)).await;
    for round in 1..=3 {
        println!("round {round}");
        world
            .measure_misses_and_hits("beside history for others")
            .await;
    }
    reading.await.unwrap();
    println!("{} calls upstream meanwhile", world.calls() - calls);
    first.shutdown.drain();
}

/// Measures requests for one lease by 16 processes at once.
async fn leases() {
    const CONTENDERS: usize = 16;
    const LENGTH: Duration = Duration::from_secs(5);
    const HOLD: Duration = Duration::from_millis(20);

    let world = World::new(1).await;
    let folder = tempfile::tempdir().unwrap();
    let config = world.config(folder.path(), &world.database.url(), &[]);
    // Makes the schema.
    let store = world.open_store().await;
    for (name, pause) in [
        ("without pauses", Duration::ZERO),
        ("with pauses of 50 ms", Duration::from_millis(50)),
    ] {
        let until = now() + LENGTH;
        let mut contenders = JoinSet::new();
        for _ in 0..CONTENDERS {
            let database = config.store.postgres().unwrap();
            let coordination = postgres::coordinate(database, Shutdown::new())
                .await
                .unwrap();
            contenders.spawn(async move {
                let (mut won, mut lost, mut fences) = (Vec::new(), Vec::new(), Vec::new());
                while now() < until {
                    let wanted = WantedLease {
                        name: name.into(),
                        unknown_since: Duration::ZERO,
                        is_urgent: true,
                    };
                    let started = now();
                    let attempt = coordination.acquire_lease(wanted).await.unwrap();
                    let took = now() - started;
                    match attempt {
                        LeaseAttempt::Granted(lease) => {
                            won.push(took);
                            fences.push(lease.fence);
                            sleep(HOLD).await;
                            let end = LeaseEnd::Abandoned;
                            coordination.release_lease(lease, end).await.unwrap();
                        }
                        _ => lost.push(took),
                    }
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
                (won, lost, fences)
            });
        }
        let (mut won, mut lost, mut fences) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(ended) = contenders.join_next().await {
            let ended = ended.unwrap();
            won.extend(ended.0);
            lost.extend(ended.1);
            fences.extend(ended.2);
        }
        let grants = fences.len();
        fences.sort_unstable();
        fences.dedup();
        println!(
            "lease, {CONTENDERS} contenders {name}: {grants} grants, {} fences, {} attempts lost",
            fences.len(),
            lost.len()
        );
        percentiles("won", won);
        percentiles("lost", lost);
    }
    store.close().await.unwrap();
}

/// Measures how soon a replica that had no database for a minute applies what it missed, and stores what it
/// fetched.
async fn partition() {
    const LENGTH: Duration = Duration::from_secs(60);
    const CUSTOMERS: usize = 1_000;
    const PURGES: usize = 50;

    let world = World::new(2 * CUSTOMERS).await;
    let (known, new) = world.customers.split_at(CUSTOMERS);
    let port = postgres_server::address();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    let relay = Relay::start(port).await;
    let one = world.start_replica(&[]).await;
    let url = world.database.url_at(relay.port());
    let other = world.start_replica_on(&url, &[]).await;
    for replica in [&one, &other] {
        for some in known.chunks(8) {
            join_all(some.iter().map(|customer| replica.usage(customer))).await;
        }
        replica.wait_until_stored().await;
    }

    relay.set(Network::Cut);
    let back = now() + LENGTH;
    let purge = async {
        for customer in &known[..PURGES] {
            one.purge(customer).await;
        }
    };
    let fetch = async {
        for customer in new {
            assert_eq!(other.usage(customer).await.0, 200);
        }
    };
    tokio::join!(purge, fetch);
    sleep_until(back.into()).await;
    let client = world.connect().await;
    let stored = "SELECT count(*) FROM usage_proxy.snapshot";
    let applied = "SELECT count(*) FROM usage_proxy.replica, usage_proxy.store_state s \
        WHERE replica.generation = s.generation";
    let count = async |statement| -> i64 { client.query_one(statement, &[]).await.unwrap().get(0) };
    assert_eq!(count(stored).await, CUSTOMERS as i64);
    assert_eq!(count(applied).await, 1);

    relay.set(Network::Good);
    let started = now();
    let took = async |statement, wanted: i64| {
        while count(statement).await < wanted {
            sleep(Duration::from_millis(5)).await;
        }
        now() - started
    };
    let (applied, stored) = tokio::join!(took(applied, 2), took(stored, 2 * CUSTOMERS as i64));
    println!(
        "after 60 s without the database: {PURGES} purges applied after {applied:.2?}, {CUSTOMERS} answers \
         stored after {stored:.2?}"
    );
    for replica in [&one, &other] {
        replica.shutdown.drain();
    }
}

// === impl World ===

impl World {
    async fn new(customers: usize) -> Self {
        let options = SimulatorOptions {
            customers,
            ..SimulatorOptions::default()
        };
        let seed = options.seed;
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::bind(anywhere, options).await.unwrap();
        let (handle, address) = (simulator.handle(), simulator.local_addr());
        tokio::spawn(simulator.run(Shutdown::new()));
        Self {
            simulator: handle,
            address,
            customers: (0..customers)
                .map(|index| customer_id(seed, index))
                .collect(),
            database: TestDatabase::create(),
        }
    }

    fn calls(&self) -> usize {
        self.simulator.request_count(SimulatedApi::Insights)
    }

    async fn start_replica(&self, settings: &[(&str, &str)]) -> Replica {
        self.start_replica_on(&self.database.url(), settings).await
    }

    async fn start_replica_on(&self, store_url: &str, settings: &[(&str, &str)]) -> Replica {
        let secrets = tempfile::tempdir().unwrap();
        let config = self.config(secrets.path(), store_url, settings);
        let app = App::build(&config, AppDeps::default()).await.unwrap();
        let replica = Replica {
            api: format!("http://{}", app.api_address()),
            admin: format!("http://{}", app.admin_address()),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            shutdown: app.shutdown(),
            _secrets: secrets,
        };
        tokio::spawn(app.run());
        let ready = format!("{}/readyz", replica.admin);
        while replica.get(&ready).await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
        replica
    }

    fn config(&self, folder: &Path, store_url: &str, settings: &[(&str, &str)]) -> Config {
        let secret = |name: &str, content: &str| {
            let file = folder.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            file.display().to_string()
        };
        let address = self.address;
        let own = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("admin.listen", "127.0.0.1:0".to_owned()),
            ("upstream.base_url", format!("http://{address}")),
            ("fleet.refresh", "false".to_owned()),
            ("upstream.auth.kind", "refresh_token".to_owned()),
            (
                "upstream.auth.token_url",
                format!("http://{address}/tenant/oauth2/v2.0/token"),
            ),
            ("upstream.auth.client_id", "bench".to_owned()),
            (
                "upstream.auth.client_secret_file",
                secret("client-secret", "secret"),
            ),
            (
                "upstream.auth.refresh_token_file",
                secret("refresh-token", &self.simulator.issue_refresh_token()),
            ),
            ("store.url", store_url.to_owned()),
            ("store.encryption_key_file", secret("key", ENCRYPTION_KEY)),
        ];
        let own = own.iter().map(|(key, value)| (*key, &**value));
        let sources = own
            .chain(settings.iter().copied())
            .fold(ConfigSources::default(), |sources, (key, value)| {
                sources.with_flag("bench", key, value)
            });
        Config::load(sources).unwrap()
    }

    async fn open_store(&self) -> Arc<dyn UsageStore> {
        let folder = tempfile::tempdir().unwrap();
        let config = self.config(folder.path(), &self.database.url(), &[]);
        let database = config.store.postgres().unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let store = postgres::open(database, UpstreamApi::Insights, clock, Shutdown::new());
        let store = store.await.unwrap();
        store.probe().await.unwrap();
        store
    }

    /// Asks a new replica for all customers, and again.
    async fn measure_misses_and_hits(&self, state: &str) {
        let replica = self.start_replica(&[]).await;
        for place in ["the store", "memory"] {
            let mut times = Vec::with_capacity(self.customers.len());
            for customer in &self.customers {
                let started = now();
                let (status, cache_status) = replica.usage(customer).await;
                assert_eq!(status, 200);
                // On a busy machine, the store may miss its time, and upstream is asked.
                if cache_status.starts_with("hit") {
                    times.push(now() - started);
                }
            }
            let others = self.customers.len() - times.len();
            percentiles(
                &format!("from {place}, {state} ({others} from elsewhere)"),
                times,
            );
        }
        replica.shutdown.drain();
    }

    /// Writes rows of 60 dates before today of all customers.
    async fn add_history(&self) {
        let store = self.open_store().await;
        let today = ProcessedDate::from_timestamp(SystemClock.wall_time());
        for days in 0..60 {
            let date = today.plus_days(-days).unwrap();
            let snapshots = self.customers.iter().map(|customer| {
                let id = CustomerId::parse(&customer.to_string()).unwrap();
                let rows = (0..8).map(|row| UsageRow {
                    service_code: Some("O365".into()),
                    service_name: "o365".into(),
                    product_id: None,
                    product_name: format!("Product {}", row / 3).into(),
                    channel: Some("reseller".into()),
                    workload_code: None,
                    workload_name: format!("Workload {}", row % 3).into(),
                    licenses_active: row,
                    licenses_qualified: 100,
                    reported_usage_percent: None,
                    processed_at: ProcessedAt(date.start()),
                });
                let usage = LicenseUsage::new(id, None, rows.collect()).unwrap();
                StoreWrite::Snapshot(AcceptedSnapshot {
                    api: UpstreamApi::Commercial,
                    usage: Arc::new(usage),
                    native: None,
                    asked_date: Some(date),
                    fetched_at: date.start() + 30.hours(),
                    purge_generation: None,
                    lease: None,
                    is_of_refresh: false,
                })
            });
            store.write(snapshots.collect()).await.unwrap();
        }
        store.close().await.unwrap();
        self.database.psql("ANALYZE");
    }

    /// Asks for a month of a customer's history so many times a second, as Grafana does with its role, for half
    /// a minute.
    fn read_history(&self, per_second: u32) -> tokio::task::JoinHandle<()> {
        const CONNECTIONS: u32 = 4;
        const LENGTH: Duration = Duration::from_secs(30);

        self.database.psql(
            "CREATE ROLE usage_reader LOGIN; GRANT USAGE ON SCHEMA usage_proxy TO usage_reader; \
             GRANT SELECT ON usage_proxy.usage_rows TO usage_reader",
        );
        let url = self.database.url();
        let customers = self.customers.clone();
        tokio::spawn(async move {
            let mut readers = JoinSet::new();
            for number in 0..CONNECTIONS {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                tokio::spawn(connection);
                let role = "SET ROLE usage_reader; SET join_collapse_limit = 1";
                client.batch_execute(role).await.unwrap();
                let customers = customers.clone();
                readers.spawn(async move {
                    let mut random = StdRng::seed_from_u64(number.into());
                    let mut times = Vec::new();
                    let mut ticks = interval(Duration::from_secs(1) * CONNECTIONS / per_second);
                    let until = now() + LENGTH;
                    while now() < until {
                        ticks.tick().await;
                        let customer = customers[random.random_range(0..customers.len())];
                        let query = format!(
                            "SELECT processed_date, product_name, workload_name, licenses_active, \
                             licenses_qualified FROM usage_proxy.usage_rows \
                             WHERE customer_id = '{customer}' AND processed_date > current_date - 30 \
                             ORDER BY 1"
                        );
                        let started = now();
                        let rows = client.query(&query, &[]).await.unwrap();
                        times.push(now() - started);
                        assert!(rows.len() >= 200, "{}", rows.len());
                    }
                    times
                });
            }
            let times: Vec<_> = readers.join_all().await.into_iter().flatten().collect();
            println!(
                "{:.0} queries a second of a month's history",
                times.len() as f64 / LENGTH.as_secs_f64()
            );
            percentiles("a month's history of one customer, by SQL", times);
        })
    }

    async fn connect(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.database.url(), NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(connection);
        client
    }
}

// === impl Replica ===

impl Replica {
    /// Returns the status and `Cache-Status` of an answer, which is read to its end.
    async fn get(&self, url: &str) -> (u16, String) {
        let answer = self.client.get(url).send().await.unwrap();
        let status = answer.status().as_u16();
        let cache_status = answer.headers().get("cache-status");
        let cache_status = cache_status.map(|value| value.to_str().unwrap().to_owned());
        answer.bytes().await.unwrap();
        let cache_status = cache_status.unwrap_or_default();
        let cache_status = cache_status.trim_start_matches("usage-proxy; ").to_owned();
        (status, cache_status)
    }

    async fn usage(&self, customer: impl std::fmt::Display) -> (u16, String) {
        self.get(&format!("{}/v1/customers/{customer}/usage", self.api))
            .await
    }

    async fn purge(&self, customer: impl std::fmt::Display) {
        let url = format!("{}/cache/purge?customer={customer}", self.admin);
        let answer = self.client.post(url).send().await.unwrap();
        answer.error_for_status().unwrap();
    }

    async fn wait_until_stored(&self) {
        let url = format!("{}/metrics", self.admin);
        loop {
            let scrape = self
                .client
                .get(&url)
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            let is_idle = |name: &str| scrape.lines().any(|line| line == format!("{name} 0"));
            if is_idle("usage_proxy_store_pending_writes") && is_idle("usage_proxy_fills_in_flight")
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    if times.is_empty() {
        println!("{name}: none");
        return;
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{name}: p50 {:.2?}, p99 {:.2?}, max {:.2?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn now() -> Instant {
    SystemClock.now()
}
