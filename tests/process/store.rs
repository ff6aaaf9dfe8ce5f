//! The store's file, through kills and faults of the disk.
//!
//! `CRASH_ROUNDS` and `CRASH_SEED` are as in `crashes`; a kill of this kind takes longer, so that there are
//! fewer.

use std::{
    fmt::Display,
    ops::Range,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    time::{Duration, Instant},
};

use http::StatusCode;
use jiff::{ToSpan, civil::Date};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};
use usage_proxy::simulator::Faults;
use uuid::Uuid;

use crate::{
    crashes::variable,
    support::{
        Account, PATIENCE, PartnerCenter, Service, assert_has, get, run, try_get, usage_proxy,
        usage_proxy_after,
    },
};

const ROUNDS: usize = 200;

/// Services that are killed side by side, each with a simulator and a store of its own.
const LANES: usize = 4;

const FLUSH_WITHIN: Duration = Duration::from_millis(100);

/// A machine that does much else at once is late by less.
const DELAY: Duration = Duration::from_millis(400);

/// Requests of one service at the same time.
const CLIENTS: u64 = 4;

/// An answer with usage that arrived.
#[derive(Clone, Debug)]
struct Accepted {
    at: Instant,
    customer: String,
    date: String,
    licenses_active: i64,
}

/// A service that is killed again and again, its simulator, and what it has accepted.
struct Lane {
    partner_center: PartnerCenter,
    account: Account,
    random: StdRng,
    accepted: watch::Sender<Vec<Accepted>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_that_was_accepted_before_flush_within_whenever_it_is_killed() {
    let rounds = variable::<usize>("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds / 5);
    let seed = variable("CRASH_SEED").unwrap_or_else(rand::random::<u64>);
    println!("CRASH_SEED={seed} rounds={rounds}");

    let lanes = (0..LANES).map(|lane| {
        tokio::spawn(async move {
            let mut lane = Lane::start(seed.wrapping_add(lane as u64)).await;
            for _ in 0..rounds / LANES {
                lane.kill_once().await;
            }
            lane.accepted.borrow().len()
        })
    });
    let mut accepted = 0;
    for lane in lanes.collect::<Vec<_>>() {
        accepted += lane.await.unwrap();
    }

    println!("{accepted} answers were accepted and stayed");
    assert!(accepted > rounds, "{accepted} in {rounds} rounds");
}

#[tokio::test]
async fn a_full_disk_delays_and_fails_no_request_and_what_waits_is_written_later() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_store(partner_center.account());
    // A write beyond the limit is then an error and not a signal.
    let mut command = account.command(usage_proxy_after("trap '' XFSZ"), "serve");
    let service = Service::start(&mut command).await;
    let customers = partner_center.handle.customers();
    assert_eq!(service.usage(customers[0]).await.status, 200);
    wait_until_stored(&account, 1).await;

    limit_file_size(&service, Some(64 * 1024));
    for customer in &customers[1..20] {
        assert_eq!(service.usage(customer).await.status, 200);
    }
    wait_for_metric(&service, "usage_proxy_store_up", 0.0).await;
    let ready = service.admin_get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_has(&ready.body, &["changes wait to be stored"]);
    assert_eq!(service.usage(customers[0]).await.status, 200);
    assert_eq!(stored_customers(&account), 1);

    limit_file_size(&service, None);
    wait_until_stored(&account, 20).await;
    wait_for_metric(&service, "usage_proxy_store_up", 1.0).await;
    service.end().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_read() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_store(partner_center.account());
    let [stored, other] = [0, 1].map(|number| partner_center.handle.customers()[number]);
    let service = account.serve().await;
    let before = service.usage(stored).await;
    service.end().await;

    // Root may write everything, so the service is nobody.
    let mut command = account.command(usage_proxy(), "serve");
    if geteuid().is_root() {
        give_to_nobody(account.folder());
        command.uid(NOBODY).gid(NOBODY);
    }
    set_mode(&store_folder(&account).join("usage.db"), 0o444);
    set_mode(&store_folder(&account), 0o555);
    let service = Service::start(&mut command).await;

    assert_eq!(
        answer_without_upstream(&partner_center, &service, stored).await,
        before.body
    );
    assert_eq!(service.usage(other).await.status, 200);
    wait_for_metric(&service, "usage_proxy_store_up", 0.0).await;

    set_mode(&store_folder(&account), 0o755);
    set_mode(&store_folder(&account).join("usage.db"), 0o644);
    wait_for_metric(&service, "usage_proxy_store_up", 1.0).await;
    wait_until_stored(&account, 2).await;
    service.end().await;
}

#[tokio::test]
async fn a_service_reads_what_the_one_that_it_replaces_stores() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_store(partner_center.account());
    let customer = partner_center.handle.customers()[0];
    let old = account.serve().await;
    let new = account.serve().await;

    let by_old = old.usage(customer).await;
    wait_until_stored(&account, 1).await;
    let by_new = answer_without_upstream(&partner_center, &new, customer).await;

    assert_eq!(by_new, by_old.body);
    old.end().await;
    new.end().await;
}

#[tokio::test]
async fn two_services_fill_one_file_while_one_replaces_the_other() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_store(partner_center.account());
    let customers = partner_center.handle.customers();
    let newest = partner_center.handle.newest_date();
    let (old, new) = tokio::join!(account.serve(), account.serve());
    // Returns how many of them have usage.
    let ask = async |service: &Service, customers: &[Uuid], days: Range<i32>| {
        let mut with_usage = 0;
        for customer in customers {
            for day in days.clone() {
                let date = newest - day.days();
                let path = format!("v1/customers/{customer}/usage?processedDate={date}");
                let reply = get(&format!("{}/{path}", service.api), &[]).await;
                let is_answer = matches!(reply.status, 200 | 404);
                assert!(is_answer, "{}: {}", reply.status, reply.body);
                with_usage += i64::from(reply.status == 200);
            }
        }
        with_usage
    };

    // Each writes other customers of the same dates, then both write the same ones.
    let (odd, even) = customers.split_at(customers.len() / 2);
    let (by_old, by_new) = tokio::join!(ask(&old, odd, 0..3), ask(&new, even, 0..3));
    let (of_both, _) = tokio::join!(ask(&old, even, 3..5), ask(&new, even, 3..5));
    let ((), at_the_end) = tokio::join!(old.end(), ask(&new, odd, 3..5));
    new.end().await;

    let file = open(&account);
    assert_is_intact(&file);
    let statement = "SELECT count(DISTINCT customer_id || processed_date) FROM usage_rows";
    let stored: i64 = file.query_row(statement, [], |row| row.get(0)).unwrap();
    assert_eq!(stored, by_old + by_new + of_both + at_the_end);
    assert!(at_the_end > 0);
}

#[tokio::test]
async fn a_store_of_a_newer_release_stops_the_start() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_store(partner_center.account());
    account.serve().await.end().await;
    let file = open(&account);
    file.execute("INSERT INTO schema_version VALUES (999, 0)", [])
        .unwrap();
    drop(file);

    let ended = run(account.command(usage_proxy(), "serve")).await;

    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_has(&ended.stderr, &["store.url", "999", "newer release"]);
}

// === impl Lane ===

impl Lane {
    async fn start(seed: u64) -> Self {
        let partner_center = PartnerCenter::with(Faults::default()).await;
        Self {
            account: with_store(partner_center.account()),
            partner_center,
            random: StdRng::seed_from_u64(seed),
            accepted: watch::Sender::default(),
        }
    }

    /// Has a service store answers, kills it at any moment, and looks at the file.
    async fn kill_once(&mut self) {
        let service = self.account.serve().await;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask_for_ever(
                service.api.clone(),
                self.partner_center
                    .handle
                    .customers()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                self.partner_center.handle.newest_date(),
                StdRng::seed_from_u64(self.random.random()),
                self.accepted.clone(),
            ));
        }
        let before = self.accepted.borrow().len();
        // Some are killed as they start.
        if self.random.random::<f64>() < 0.8 {
            let mut accepted = self.accepted.subscribe();
            let more = accepted.wait_for(|all| all.len() > before);
            drop(tokio::time::timeout(PATIENCE, more).await.unwrap());
        }
        let longest = FLUSH_WITHIN + 2 * DELAY;
        tokio::time::sleep(longest.mul_f64(self.random.random::<f64>())).await;
        let killed = Instant::now();
        service.running.kill();
        clients.join_all().await;
        self.assert_stored(killed);
    }

    fn assert_stored(&self, killed: Instant) {
        let file = open(&self.account);
        assert_is_intact(&file);
        let mut sum = file
            .prepare(
                "SELECT sum(licenses_active) FROM usage_rows \
                 WHERE customer_id = ?1 AND processed_date = ?2",
            )
            .unwrap();
        self.accepted.send_modify(|all| {
            all.retain(|one| {
                let found: Option<i64> = sum
                    .query_row([&one.customer, &one.date], |row| row.get(0))
                    .unwrap();
                let must_be_there = killed.saturating_duration_since(one.at) > FLUSH_WITHIN + DELAY;
                assert!(
                    found.is_some() || !must_be_there,
                    "{one:?}, killed at {killed:?}"
                );
                assert!(
                    found.is_none_or(|found| found == one.licenses_active),
                    "{one:?}, {found:?}"
                );
                // What was accepted just before it was killed may be lost.
                found.is_some()
            })
        });
    }
}

/// Asks for any customer and date, until the service is gone.
async fn ask_for_ever(
    api: String,
    customers: Vec<String>,
    newest: Date,
    mut random: StdRng,
    accepted: watch::Sender<Vec<Accepted>>,
) {
    loop {
        let customer = customers[random.random_range(0..customers.len())].clone();
        let date = newest - random.random_range(0..300).days();
        let url = format!("{api}/v1/customers/{customer}/usage?processedDate={date}");
        let Ok(reply) = try_get(&url, &[]).await else {
            return;
        };
        let at = Instant::now();
        let Ok(body) = serde_json::from_str::<Value>(&reply.body) else {
            continue;
        };
        let Some(workloads) = body["workloads"].as_array().filter(|_| reply.status == 200) else {
            continue;
        };
        let actives = workloads
            .iter()
            .map(|workload| workload["licensesActive"].as_i64().unwrap());
        let one = Accepted {
            at,
            customer,
            date: body["processedDate"].as_str().unwrap().to_owned(),
            licenses_active: actives.sum(),
        };
        accepted.send_modify(|all| all.push(one));
    }
}

/// Asks until the store answers, which is given little time, while upstream is down.
pub(crate) async fn answer_without_upstream(
    partner_center: &PartnerCenter,
    service: &Service,
    customer: impl Display,
) -> String {
    partner_center.handle.set_faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        ..Faults::default()
    });
    let mut body = None;
    wait_until(async || {
        let reply = service.usage(&customer).await;
        body = Some(reply.body).filter(|_| reply.status == 200);
        body.is_some()
    })
    .await;
    partner_center.handle.set_faults(Faults::default());
    body.unwrap()
}

pub(crate) fn with_store(account: Account) -> Account {
    std::fs::create_dir(store_folder(&account)).unwrap();
    let url = store_folder(&account)
        .join("usage.db")
        .display()
        .to_string();
    let flush_within = humantime::format_duration(FLUSH_WITHIN);
    let store =
        format!("[store]\nurl = \"sqlite:{url}\"\nflush_within = \"{flush_within}\"\n[admin]");
    account.reconfigure("[admin]", &store);
    account
}

fn store_folder(account: &Account) -> std::path::PathBuf {
    account.path("store")
}

pub(crate) fn open(account: &Account) -> Connection {
    let file = Connection::open(store_folder(account).join("usage.db")).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    file
}

fn assert_is_intact(file: &Connection) {
    let state: String = file
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(state, "ok");
}

fn stored_customers(account: &Account) -> i64 {
    open(account)
        .query_row(
            "SELECT count(DISTINCT customer_id) FROM newest_usage",
            [],
            |row| row.get(0),
        )
        .unwrap()
}

async fn wait_until_stored(account: &Account, customers: i64) {
    wait_until(async || stored_customers(account) == customers).await;
}

pub(crate) async fn wait_for_metric(service: &Service, sample: &str, value: f64) {
    wait_until(async || service.metric(sample).await == value).await;
}

pub(crate) async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// Limits the size that files of the service can grow to.
fn limit_file_size(service: &Service, bytes: Option<u64>) {
    let pid = Pid::from_raw(service.running.id().try_into().unwrap());
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

fn give_to_nobody(folder: &Path) {
    let entries = std::fs::read_dir(folder).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            give_to_nobody(&path);
        }
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
