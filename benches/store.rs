//! What the store costs: bytes of a row, and the time of each question while it is written.
//!
//! `cargo bench --bench store` measures 1,000 customers × 400 dates × 8 rows, and
//! `cargo bench --bench store -- 5000` so many customers, in SQLite; `… -- 5000 postgres` in a PostgreSQL server
//! of its own, `… -- 5000 both` one after the other and side by side, and `… -- 5000 postgres://USER@HOST/DATABASE`
//! in an empty PostgreSQL database. Figures of one run are comparable with each other
//! and with no other run.

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

use std::{
    fs,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::ToSpan;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use usage_proxy::{
    app::{App, AppDeps},
    clock::{Clock, SharedClock, SystemClock},
    config::{Config, ConfigSources, StoreUrl},
    domain::{
        CustomerId, LicenseUsage, ProcessedAt, ProcessedDate, Resource, UpstreamApi, UsageRow,
    },
    shutdown::Shutdown,
    store::{
        AcceptedSnapshot, DateRange, FleetHistoryQuery, HistoryQuery, OldDates, ProductFilter,
        StoreWrite, UsageStore, postgres, sqlite,
    },
};

use self::postgres_server::TestDatabase;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DATES: i32 = 400;

/// Workloads of each product that a customer has.
const PRODUCTS: [&[&str]; 3] = [
    &["Exchange", "SharePoint", "Teams", "OneDrive"],
    &["Exchange", "Teams", "Yammer"],
    &["Sales"],
];

const ROWS: usize = 8;

/// Names that products have over all customers.
const PRODUCT_NAMES: usize = 50;

/// The key of tokens in a database.
const ENCRYPTION_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

/// The dates that are left after the deletion of old ones.
const KEPT_DATES: i32 = 35;

/// Figures of an engine, by name.
struct Figures {
    engine: &'static str,
    figures: Vec<(String, String)>,
}

/// The counts of one customer, which change from date to date.
struct Customer {
    id: CustomerId,
    name: String,
    products: [usize; PRODUCTS.len()],
    counts: [(u64, u64); ROWS],
}

fn main() {
    let customers = std::env::args().find_map(|argument| argument.parse().ok());
    let place = std::env::args().find(|argument| {
        ["both", "sqlite"].contains(&&**argument) || argument.starts_with("postgres")
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(
        customers.unwrap_or(1_000),
        place.as_deref().unwrap_or("sqlite"),
    ));
}

async fn run(customers: usize, place: &str) {
    println!("{customers} customers × {DATES} dates × {ROWS} rows");
    let mut all = Vec::new();
    if ["both", "sqlite"].contains(&place) {
        let mut figures = Figures::new("SQLite");
        measure(customers, None, &mut figures).await;
        all.push(figures);
    }
    if place != "sqlite" {
        let url = match place {
            "both" | "postgres" => TestDatabase::create().url(),
            url => url.to_owned(),
        };
        let mut figures = Figures::new("PostgreSQL");
        measure(customers, Some(url), &mut figures).await;
        all.push(figures);
    }
    if let [sqlite, postgres] = &*all {
        println!(
            "\n| | {} | {} |\n|---|---|---|",
            sqlite.engine, postgres.engine
        );
        for ((name, of_sqlite), (_, of_postgres)) in sqlite.figures.iter().zip(&postgres.figures) {
            println!("| {name} | {of_sqlite} | {of_postgres} |");
        }
    }
}

async fn measure(customers: usize, database: Option<String>, figures: &mut Figures) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.db");
    let url = database.unwrap_or_else(|| format!("sqlite:{}", file.display()));
    let config = config(folder.path(), &url);
    let store = open(&config).await;
    let mut random = StdRng::seed_from_u64(1);
    let mut fleet: Vec<_> = (0..customers)
        .map(|number| Customer::new(number, &mut random))
        .collect();

    let started = now();
    for number in 0..DATES {
        for batch in fleet.chunks_mut(1_000) {
            store
                .write(of_date(batch, number, &mut random))
                .await
                .unwrap();
        }
    }
    let took = now() - started;
    let rows = customers * DATES as usize * ROWS;
    let per_snapshot = took / u32::try_from(rows / ROWS).unwrap();
    figures.add("all written", format!("{took:.1?}"));
    figures.add("a snapshot written", format!("{per_snapshot:.1?}"));
    let started = now();
    while !store.maintain().await.unwrap().is_done {}
    let took = now() - started;
    figures.add("totals of all dates computed", format!("{took:.1?}"));
    let bytes = store.maintain().await.unwrap().stored_bytes;
    store.close().await.unwrap();
    let bytes = fs::metadata(&file).map_or(bytes, |file| file.len());
    let per_row = bytes as f64 / rows as f64;
    figures.add("megabytes", (bytes / 1_000_000).to_string());
    figures.add("bytes a row", format!("{per_row:.1}"));
    let per_year = bytes * 365 / (u64::try_from(customers).unwrap() * DATES as u64) / 1_000;
    figures.add("kilobytes a customer and year", per_year.to_string());
    drop(store);

    let store = open(&config).await;
    let started = now();
    let found = store.newest_of_all().await.unwrap().len();
    figures.add_time("warm start: the newest of all", started, found);
    let started = now();
    let found = store.newest_of_all().await.unwrap().len();
    figures.add_time("again", started, found);
    let started = now();
    let found = store.all_of_date(date(100)).await.unwrap().snapshots.len();
    figures.add_time("all of one past date", started, found);
    fleet_questions(&*store, &fleet, figures).await;
    while_idle_and_written(&store, &config, &mut fleet, figures).await;
    while_old_dates_are_deleted(&store, &fleet, figures).await;
    store.close().await.unwrap();
    figures.add(
        "memory of the process, MB",
        resident_megabytes().to_string(),
    );
}

async fn fleet_questions(store: &dyn UsageStore, fleet: &[Customer], figures: &mut Figures) {
    let year = |customers: Option<Vec<CustomerId>>, excluded: &[&str], constant_cohort| {
        let products = ProductFilter {
            excluded: excluded.iter().map(|name| (*name).to_owned()).collect(),
            ..ProductFilter::default()
        };
        FleetHistoryQuery {
            range: DateRange {
                from: date(DATES - 365),
                to: date(DATES - 1),
            },
            customers,
            products,
            constant_cohort,
        }
    };
    let some = |count: usize| Some(fleet.iter().take(count).map(|of| of.id).collect());
    for (name, query) in [
        ("fleet, a year", year(None, &[], false)),
        (
            "fleet, a year, one product excluded",
            year(None, &["Product 7"], false),
        ),
        ("fleet, a year, constant cohort", year(None, &[], true)),
        ("100 customers, a year", year(some(100), &[], false)),
        (
            "half of the customers, a year",
            year(some(fleet.len() / 2), &[], false),
        ),
    ] {
        let started = now();
        let found = store.fleet_history(query).await.unwrap().len();
        figures.add_time(name, started, found);
    }
}

/// Measures look-ups and history alone, and while dates are written one after another.
async fn while_idle_and_written(
    store: &Arc<dyn UsageStore>,
    config: &Config,
    fleet: &mut [Customer],
    figures: &mut Figures,
) {
    let ids: Vec<_> = fleet.iter().map(|customer| customer.id).collect();
    let (service, shutdown) = start_service(config).await;
    questions("idle", &**store, &ids, figures).await;
    http_questions("idle", &service, &ids, figures).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (store, is_over) = (Arc::clone(store), Arc::clone(&is_over));
        let mut figures = Figures::new(figures.engine);
        async move {
            questions("written", &*store, &ids, &mut figures).await;
            http_questions("written", &service, &ids, &mut figures).await;
            is_over.store(true, Ordering::Relaxed);
            figures.figures
        }
    });
    let mut random = StdRng::seed_from_u64(2);
    let (mut written, started) = (0, now());
    for number in DATES.. {
        for batch in fleet.chunks_mut(1_000) {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            written += batch.len();
            store
                .write(of_date(batch, number, &mut random))
                .await
                .unwrap();
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    figures.figures.extend(asking.await.unwrap());
    let per_second = written as f64 / (now() - started).as_secs_f64();
    figures.add(
        "snapshots a second, written meanwhile",
        format!("{per_second:.0}"),
    );
    shutdown.drain();
}

/// Measures the deletion of all dates but the last, and history of these in the meantime.
async fn while_old_dates_are_deleted(
    store: &Arc<dyn UsageStore>,
    fleet: &[Customer],
    figures: &mut Figures,
) {
    const BATCH: NonZeroUsize = NonZeroUsize::new(500).unwrap();

    let ids: Vec<_> = fleet.iter().map(|customer| customer.id).collect();
    let idle = histories_of_kept_dates(&**store, &ids, |asked| asked < 1_000).await;
    figures.add_percentiles("history of the kept dates, idle", idle);
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (store, is_over) = (Arc::clone(store), Arc::clone(&is_over));
        async move { histories_of_kept_dates(&*store, &ids, |_| !is_over.load(Ordering::Relaxed)).await }
    });
    let old = OldDates {
        before: date(DATES - KEPT_DATES),
        days_before_newest: KEPT_DATES.into(),
    };
    let (mut batches, started) = (Vec::new(), now());
    loop {
        let begun = now();
        let deleted = store.delete_old(old, BATCH).await.unwrap();
        batches.push(now() - begun);
        if deleted < BATCH.get() {
            break;
        }
    }
    let took = now() - started;
    is_over.store(true, Ordering::Relaxed);
    figures.add_percentiles(
        "history of the kept dates, while others are deleted",
        asking.await.unwrap(),
    );
    figures.add("365 dates deleted", format!("{took:.1?}"));
    figures.add_percentiles("500 snapshots deleted", batches);
}

async fn histories_of_kept_dates(
    store: &dyn UsageStore,
    ids: &[CustomerId],
    goes_on: impl Fn(usize) -> bool,
) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(5);
    let mut times = Vec::new();
    while goes_on(times.len()) {
        let query = HistoryQuery {
            customer: ids[random.random_range(0..ids.len())],
            range: DateRange {
                from: date(DATES - KEPT_DATES),
                to: date(DATES - 1),
            },
            products: Vec::new(),
            workload: None,
            after: None,
            limit: 10_000.try_into().unwrap(),
        };
        let started = now();
        let rows = store.history(query).await.unwrap();
        times.push(now() - started);
        assert_eq!(rows.len(), KEPT_DATES as usize * ROWS);
    }
    times
}

async fn questions(state: &str, store: &dyn UsageStore, ids: &[CustomerId], figures: &mut Figures) {
    let mut random = StdRng::seed_from_u64(3);
    let mut look_ups = Vec::new();
    let mut histories = Vec::new();
    for _ in 0..1_000 {
        let customer = ids[random.random_range(0..ids.len())];
        let started = now();
        let found = store
            .snapshot(Resource::CommercialUsage(customer, None))
            .await;
        assert!(found.unwrap().is_some());
        look_ups.push(now() - started);

        let customer = ids[random.random_range(0..ids.len())];
        let query = HistoryQuery {
            customer,
            range: DateRange {
                from: date(0),
                to: date(DATES - 1),
            },
            products: Vec::new(),
            workload: None,
            after: None,
            limit: 10_000.try_into().unwrap(),
        };
        let started = now();
        let rows = store.history(query).await.unwrap();
        assert_eq!(rows.len(), DATES as usize * ROWS);
        histories.push(now() - started);
    }
    figures.add_percentiles(&format!("look-up of one customer, {state}"), look_ups);
    let name = format!("history of one customer, 3,200 rows, {state}");
    figures.add_percentiles(&name, histories);
}

/// Starts a service on the same store, whose upstream does not exist. Returns its address and its end.
async fn start_service(config: &Config) -> (String, Shutdown) {
    let app = App::build(config, AppDeps::default()).await.unwrap();
    let (address, shutdown) = (app.api_address(), app.shutdown());
    tokio::spawn(app.run());
    (format!("http://{address}"), shutdown)
}

fn config(folder: &Path, store_url: &str) -> Config {
    let secret = |name: &str, content: &str| {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    };
    let sources = [
        ("server.listen", "127.0.0.1:0".to_owned()),
        ("admin.listen", "127.0.0.1:0".to_owned()),
        ("upstream.base_url", "http://127.0.0.1:1".to_owned()),
        ("upstream.source", "commercial".to_owned()),
        ("fleet.refresh", "false".to_owned()),
        ("upstream.auth.kind", "refresh_token".to_owned()),
        (
            "upstream.auth.token_url",
            "http://127.0.0.1:1/tenant/oauth2/v2.0/token".to_owned(),
        ),
        ("upstream.auth.client_id", "bench".to_owned()),
        (
            "upstream.auth.client_secret_file",
            secret("client-secret", "secret"),
        ),
        (
            "upstream.auth.refresh_token_file",
            secret("refresh-token", "secret"),
        ),
        ("store.url", store_url.to_owned()),
    ];
    let key = ("store.encryption_key_file", secret("key", ENCRYPTION_KEY));
    let key = store_url.starts_with("postgres").then_some(key);
    let sources = sources
        .into_iter()
        .chain(key)
        .fold(ConfigSources::default(), |sources, (key, value)| {
            sources.with_flag("bench", key, value)
        });
    Config::load(sources).unwrap()
}

/// Measures history as a client gets it.
async fn http_questions(state: &str, service: &str, ids: &[CustomerId], figures: &mut Figures) {
    let mut random = StdRng::seed_from_u64(4);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let range = format!("from={}&to={}", date(0), date(DATES - 1));
    for (name, resource) in [
        ("history", "usage/history"),
        ("trend chart", "usage/history/chart.svg"),
        ("changes", "usage/changes"),
    ] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..300 {
            let customer = ids[random.random_range(0..ids.len())];
            let url = format!("{service}/v1/customers/{customer}/{resource}?{range}");
            let started = now();
            let answer = client.get(url).send().await.unwrap();
            let body = answer.error_for_status().unwrap().bytes().await.unwrap();
            times.push(now() - started);
            bytes = body.len();
        }
        let name = format!("{name} of one customer over HTTP, {bytes} bytes, {state}");
        figures.add_percentiles(&name, times);
    }
}

// === impl Figures ===

impl Figures {
    fn new(engine: &'static str) -> Self {
        Self {
            engine,
            figures: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, figure: String) {
        println!("{}: {name}: {figure}", self.engine);
        self.figures.push((name.to_owned(), figure));
    }

    fn add_time(&mut self, name: &str, started: Instant, answers: usize) {
        let took = now() - started;
        self.add(
            &format!("{name} ({answers} answers)"),
            format!("{took:.1?}"),
        );
    }

    fn add_percentiles(&mut self, name: &str, mut times: Vec<Duration>) {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let (median, p99, max) = (at(0.5), at(0.99), at(1.0));
        self.add(
            &format!("{name}: p50, p99, max"),
            format!("{median:.2?}, {p99:.2?}, {max:.2?}"),
        );
    }
}

// === impl Customer ===

impl Customer {
    fn new(number: usize, random: &mut StdRng) -> Self {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        Self {
            id: CustomerId::parse(&id).unwrap(),
            name: format!("Customer {number}"),
            products: std::array::from_fn(|index| {
                let of_kind = PRODUCT_NAMES / PRODUCTS.len();
                index * of_kind + random.random_range(0..of_kind)
            }),
            counts: std::array::from_fn(|_| {
                let qualified = random.random_range(1..300);
                (random.random_range(0..=qualified), qualified)
            }),
        }
    }

    /// Changes one row in seven, and returns all of them.
    fn next(&mut self, number: i32, random: &mut StdRng) -> Arc<LicenseUsage> {
        for (active, qualified) in &mut self.counts {
            if random.random_range(0..7) == 0 {
                *active = random.random_range(0..=*qualified);
            }
        }
        let processed_at = ProcessedAt(date(number).start());
        let rows = PRODUCTS
            .iter()
            .zip(self.products)
            .flat_map(|(workloads, product)| {
                workloads.iter().map(move |workload| (product, *workload))
            });
        let rows = rows
            .zip(self.counts)
            .map(|((product, workload), (active, qualified))| UsageRow {
                service_code: Some("O365".into()),
                service_name: "o365".into(),
                product_id: Some(format!("00000000-0000-0000-0000-{product:012}").into()),
                product_name: format!("Product {product}").into(),
                channel: Some("reseller".into()),
                workload_code: None,
                workload_name: workload.into(),
                licenses_active: active,
                licenses_qualified: qualified,
                reported_usage_percent: None,
                processed_at,
            });
        let usage = LicenseUsage::new(self.id, Some(self.name.clone()), rows.collect());
        Arc::new(usage.unwrap())
    }
}

fn of_date(customers: &mut [Customer], number: i32, random: &mut StdRng) -> Vec<StoreWrite> {
    let fetched_at = date(number).start() + 30.hours();
    let snapshots = customers.iter_mut().map(|customer| {
        StoreWrite::Snapshot(AcceptedSnapshot {
            api: UpstreamApi::Commercial,
            usage: customer.next(number, random),
            native: None,
            asked_date: None,
            fetched_at,
            purge_generation: None,
            lease: None,
            is_of_refresh: false,
        })
    });
    snapshots.collect()
}

async fn open(config: &Config) -> Arc<dyn UsageStore> {
    let clock: SharedClock = Arc::new(SystemClock);
    let store = match (&config.store.url, config.store.postgres()) {
        (_, Some(database)) => {
            postgres::open(database, UpstreamApi::Commercial, clock, Shutdown::new()).await
        }
        (Some(StoreUrl::Sqlite(file)), _) => {
            sqlite::open(file.clone(), UpstreamApi::Commercial, clock).await
        }
        _ => unreachable!("the store has a URL"),
    };
    let store = store.unwrap();
    store.probe().await.unwrap();
    store
}

fn date(number: i32) -> ProcessedDate {
    let first = ProcessedDate::parse("2025-10-01").unwrap();
    first.plus_days(number).unwrap()
}

fn now() -> Instant {
    SystemClock.now()
}

fn resident_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() / 1_000
}
