//! The replicas, their Partner Center and their database, and what holds of every answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{ToSpan, civil::Date};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use usage_proxy::simulator::{
    CustomerOverride, SimulatedApi, SimulatedRow, SimulatorHandle, SimulatorOptions,
};
use uuid::Uuid;

use crate::{
    process::{Account, PATIENCE, PartnerCenter, Service, usage_proxy},
    server::{DatabaseServer, Disk, signal},
};

/// The most that a request may wait for anything but upstream and another replica. The contract says 20 ms;
/// the rest is for a machine that does much else.
pub(crate) const BOUND: Duration = Duration::from_secs(2);

/// A lease of a process that died ends by then.
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(10);

/// Purges of one replica reach the others within 2 s.
const PURGE_TIME: Duration = Duration::from_secs(2);

/// The qualified seats of a customer are its number times this, and the day.
const SEATS_OF_CUSTOMER: i64 = 1_000_000;

/// A test may publish so many days.
const DAYS: i64 = 30;

const ENCRYPTION_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

/// Three replicas. They end before the server does.
pub(crate) struct Cluster {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) partner_center: PartnerCenter,
    pub(crate) server: DatabaseServer,
    world: Arc<World>,
    account: Account,
    settings: Vec<String>,
    circumstances: Circumstances,
}

/// What is wrong from the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Circumstances {
    /// The disk of the database.
    pub(crate) disk: Disk,
    /// The seconds by which the clock of each replica is ahead.
    pub(crate) clock_errors: [i32; 3],
}

/// A process that serves.
pub(crate) struct Replica {
    pub(crate) service: Service,
    number: usize,
    world: Arc<World>,
}

/// What is true of upstream, and what was seen of it.
pub(crate) struct World {
    client: reqwest::Client,
    upstream: SimulatorHandle,
    customers: Vec<Uuid>,
    first_day: Date,
    /// The newest date that each replica has served of each customer.
    served: Mutex<HashMap<(usize, usize), Date>>,
}

/// A request for the newest usage of a customer.
#[derive(Debug)]
pub(crate) struct Question {
    /// The URL of the replica.
    pub(crate) api: String,
    pub(crate) replica: usize,
    pub(crate) customer: usize,
    pub(crate) key: Option<String>,
    /// True for `Cache-Control: no-cache`.
    pub(crate) is_fresh: bool,
}

/// An answer about the customer that was asked for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) cache_status: String,
    pub(crate) body: String,
    /// The date of its usage, if it has any.
    pub(crate) date: Option<Date>,
    /// The time since it was fetched, in whole seconds; `None` for an error.
    pub(crate) age: Option<Duration>,
    pub(crate) took: Duration,
}

/// The time for which a process is stopped, or a server gone.
pub(crate) fn fault_time() -> Duration {
    let is_long = std::env::var("LONG").is_ok_and(|long| long == "1");
    Duration::from_secs(if is_long { 60 } else { 5 })
}

/// Waits until this holds, and fails if it never does.
pub(crate) async fn wait_until(what: &str, condition: impl AsyncFnMut() -> bool) {
    wait_at_most(PATIENCE, what, condition).await;
}

/// Waits until this holds, and fails if it does not in time.
pub(crate) async fn wait_at_most(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The environment of a process whose clock is ahead by so many seconds, by Debian's package `faketime`. Its
/// timers are right.
fn with_clock_error(seconds: i32) -> Vec<(&'static str, String)> {
    let libraries = std::fs::read_dir("/usr/lib").unwrap();
    let libraries = libraries.map(|folder| folder.unwrap().path().join("faketime"));
    let mut libraries = libraries.map(|folder| folder.join("libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists());
    let library = library.expect("the tests need Debian's package faketime");
    vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{seconds:+}")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // Times of files are those of the machine.
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

// === impl Cluster ===

impl Cluster {
    /// Starts three replicas, each with these settings.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::start_at(settings, |server| [server.port(); 3]).await
    }

    /// Starts replicas that reach the server at these ports.
    pub(crate) async fn start_at(
        settings: &[&str],
        ports: impl FnOnce(&DatabaseServer) -> [u16; 3],
    ) -> Self {
        Self::start_with(settings, ports, |_, _| Vec::new()).await
    }

    /// Starts replicas with settings that need files.
    pub(crate) async fn start_with(
        settings: &[&str],
        ports: impl FnOnce(&DatabaseServer) -> [u16; 3],
        more: impl FnOnce(&World, &Account) -> Vec<String>,
    ) -> Self {
        Self::start_all(Circumstances::default(), settings, ports, more).await
    }

    /// Starts three replicas in circumstances that are not good.
    pub(crate) async fn start_in(circumstances: Circumstances, settings: &[&str]) -> Self {
        let ports = |server: &DatabaseServer| [server.port(); 3];
        Self::start_all(circumstances, settings, ports, |_, _| Vec::new()).await
    }

    async fn start_all(
        circumstances: Circumstances,
        settings: &[&str],
        ports: impl FnOnce(&DatabaseServer) -> [u16; 3],
        more: impl FnOnce(&World, &Account) -> Vec<String>,
    ) -> Self {
        let server = DatabaseServer::start(circumstances.disk);
        let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
        let account = partner_center.account();
        account.write("encryption-key", ENCRYPTION_KEY);
        let store = format!(
            "[store]\nurl = \"{}\"\nencryption_key_file = \"{}\"\nflush_within = \"100ms\"\n[admin]",
            server.url_at(server.port()),
            account.path("encryption-key").display()
        );
        account.reconfigure("[admin]", &store);
        let upstream = partner_center.handle.clone();
        let world = Arc::new(World {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            customers: upstream.customers(),
            first_day: upstream.newest_date() - DAYS.days(),
            upstream,
            served: Mutex::default(),
        });
        world.publish(0);
        let mut all: Vec<_> = settings.iter().map(ToString::to_string).collect();
        all.extend(more(&world, &account));
        let mut cluster = Self {
            replicas: Vec::new(),
            partner_center,
            world,
            account,
            settings: all,
            circumstances,
            server,
        };
        for (number, port) in ports(&cluster.server).into_iter().enumerate() {
            let replica = cluster.serve(number, port).await;
            cluster.replicas.push(replica);
        }
        cluster
    }

    /// Starts replica `number`, with nothing in memory.
    pub(crate) async fn serve(&self, number: usize, port: u16) -> Replica {
        let mut command = self.account.command(usage_proxy(), "serve");
        let clock_error = self.circumstances.clock_errors[number];
        if clock_error != 0 {
            command.envs(with_clock_error(clock_error));
        }
        let url = format!("store.url={}", self.server.url_at(port));
        for setting in ["log.requests=off", &url] {
            command.args(["--set", setting]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        Replica {
            service: Service::start(&mut command).await,
            number,
            world: Arc::clone(&self.world),
        }
    }

    /// Replaces a replica that has died.
    pub(crate) async fn revive(&mut self, number: usize) {
        // The last that it served may not have been stored.
        self.world.forget_served(number);
        self.replicas[number] = self.serve(number, self.server.port()).await;
    }

    /// Lets every replica follow the purges of others, and ask for something, so that it has a token.
    pub(crate) async fn warm_up(&self, customer: usize) {
        for replica in &self.replicas {
            let reports = format!("{OPERATIONS}report-applied\",outcome=\"success\"}}");
            wait_until("it follows purges", async || {
                replica.service.metric(&reports).await > 0.0
            })
            .await;
            let answer = replica.ask(customer).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        self.wait_until_stored(customer).await;
    }

    /// Publishes usage of a later day.
    pub(crate) fn publish(&self, day: usize) -> Date {
        self.world.publish(day)
    }

    /// Publishes usage of a day, maybe again, with other counts.
    pub(crate) fn correct(&self, day: usize, licenses_active: u64) -> Date {
        self.world.publish_with(day, licenses_active)
    }

    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// Returns the calls upstream for usage of single customers.
    pub(crate) fn calls(&self) -> usize {
        self.count(SimulatedApi::Insights) + self.count(SimulatedApi::Commercial)
    }

    pub(crate) fn count(&self, api: SimulatedApi) -> usize {
        self.partner_center.handle.request_count(api)
    }

    /// Returns how often the store did not answer a question of a replica that then goes on by itself.
    pub(crate) async fn missed(&self) -> usize {
        let mut missed = 0;
        for replica in &self.replicas {
            missed += replica.missed().await;
        }
        missed
    }

    pub(crate) async fn wait_until_stored(&self, customer: usize) {
        let customer = self.world.customers[customer];
        let rows = format!(
            "SELECT count(*) > 0 FROM usage_proxy.snapshots WHERE customer_id = '{customer}'"
        );
        wait_until("the answer is stored", async || {
            self.server.psql(&rows) == "t"
        })
        .await;
    }

    /// Waits until all replicas use the store.
    pub(crate) async fn wait_until_recovered(&self) {
        for replica in &self.replicas {
            wait_until("the store is up", async || {
                replica.service.metric("usage_proxy_store_up").await == 1.0
            })
            .await;
        }
        self.wait_for_released_leases().await;
    }

    /// Waits until no replica holds the lease of a call.
    pub(crate) async fn wait_for_released_leases(&self) {
        const HELD: &str = "SELECT count(*) FROM usage_proxy.lease WHERE name LIKE 'call/%'
            AND expires_at > extract(epoch FROM clock_timestamp()) * 1000";
        wait_until("all leases have ended", async || {
            self.server.psql(HELD) == "0"
        })
        .await;
    }

    /// Publishes a later day, and asserts that a purge by one replica makes all of them serve it in time,
    /// with one call upstream.
    pub(crate) async fn assert_purges_reach_all(&self, customer: usize, day: usize) {
        self.assert_purge_reaches_all(0, customer, day).await;
    }

    /// As [`Cluster::assert_purges_reach_all`], by any replica.
    pub(crate) async fn assert_purge_reaches_all(&self, by: usize, customer: usize, day: usize) {
        for replica in &self.replicas {
            let answer = replica.ask(customer).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        self.wait_for_released_leases().await;
        let date = self.publish(day);
        let (calls, missed) = (self.calls(), self.missed().await);

        let purged_at = Instant::now();
        self.replicas[by].purge(customer).await;

        for replica in &self.replicas {
            wait_at_most(PURGE_TIME + BOUND, "the purge is seen", async || {
                replica.ask(customer).await.date == Some(date)
            })
            .await;
        }
        let took = purged_at.elapsed();
        assert!(took < PURGE_TIME + 2 * BOUND, "{took:?}");
        self.assert_calls(calls, missed, 1).await;
    }

    /// Asserts that there were no more calls than these, and those of replicas that the store did not
    /// answer.
    pub(crate) async fn assert_calls(&self, before: usize, missed_before: usize, expected: usize) {
        let calls = self.calls() - before;
        let missed = self.missed().await.saturating_sub(missed_before);
        assert!(
            (expected..=expected + missed).contains(&calls),
            "{calls} calls, expected {expected}; {missed} questions to the store were missed"
        );
    }
}

// === impl Replica ===

impl Replica {
    /// Asks for the newest usage of a customer, and asserts that it is that customer's, and no older than
    /// what this replica has served before.
    pub(crate) async fn ask(&self, customer: usize) -> Answer {
        self.question(customer).await
    }

    /// As [`Replica::ask`], within [`BOUND`].
    pub(crate) async fn ask_in_time(&self, customer: usize) -> Answer {
        let answer = self.ask(customer).await;
        assert!(answer.took < BOUND, "{answer:?}");
        answer
    }

    /// As [`Replica::ask`], for a task of its own.
    pub(crate) fn question(&self, customer: usize) -> impl Future<Output = Answer> + Send + use<> {
        let world = Arc::clone(&self.world);
        let question = Question {
            api: self.service.api.clone(),
            replica: self.number,
            customer,
            key: None,
            is_fresh: false,
        };
        async move { world.ask(question).await.unwrap() }
    }

    /// Purges a customer everywhere, so that its data is stale.
    pub(crate) async fn purge(&self, customer: usize) {
        self.purge_with(customer, "").await;
    }

    /// Purges a customer everywhere, so that its data is gone.
    pub(crate) async fn purge_hard(&self, customer: usize) {
        self.purge_with(customer, "&hard=true").await;
    }

    async fn purge_with(&self, customer: usize, mode: &str) {
        let customer = self.world.customers[customer];
        let url = format!(
            "{}/cache/purge?customer={customer}{mode}",
            self.service.admin
        );
        let purge = self.world.client.post(url).timeout(PATIENCE).send();
        assert_eq!(purge.await.unwrap().status(), 200);
    }

    /// Stops the process where it is.
    pub(crate) fn stop(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Lets the process go on.
    pub(crate) fn go_on(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Kills the process. [`Cluster::revive`] starts another one.
    pub(crate) fn kill(&self) {
        signal(self.pid(), Signal::KILL);
    }

    /// Returns how many attempts to take a lease have ended.
    pub(crate) async fn lease_attempts(&self) -> f64 {
        let of = |outcome| format!("{OPERATIONS}acquire-lease\",outcome=\"{outcome}\"}}");
        self.service.metric(&of("success")).await
    }

    /// Returns how often the store did not answer a question.
    pub(crate) async fn missed(&self) -> usize {
        let scrape = self.service.admin_get("/metrics").await.body;
        let samples = scrape.lines().filter(|line| {
            let waits = ["acquire-lease\"", "snapshot\""];
            waits.iter().any(|operation| {
                let rest = line.strip_prefix(OPERATIONS);
                rest.is_some_and(|rest| rest.starts_with(operation))
            }) && !line.contains("\"success\"")
        });
        let values = samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        {
            values.sum::<f64>() as usize
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.service.running.id().try_into().unwrap()).unwrap()
    }
}

const OPERATIONS: &str = "usage_proxy_store_operations_total{operation=\"";

// === impl World ===

impl World {
    pub(crate) fn id(&self, customer: usize) -> Uuid {
        self.customers[customer]
    }

    /// Asserts that an answer is of the customer, and no older than what the replica has served before.
    pub(crate) async fn ask(&self, question: Question) -> reqwest::Result<Answer> {
        let (replica, customer) = (question.replica, question.customer);
        let before = self.last_served(replica, customer);
        let answer = self.ask_any_date(question).await?;
        if let Some(date) = answer.date {
            assert!(Some(date) >= before, "{before:?}: {answer:?}");
            self.record_served(replica, customer, date);
        }
        Ok(answer)
    }

    /// Asserts that an answer is of the customer.
    pub(crate) async fn ask_any_date(&self, question: Question) -> reqwest::Result<Answer> {
        let Question {
            api,
            customer,
            key,
            is_fresh,
            ..
        } = question;
        let url = format!("{api}/v1/customers/{}/usage", self.customers[customer]);
        let mut request = self.client.get(url).timeout(PATIENCE);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if is_fresh {
            request = request.header("cache-control", "no-cache");
        }
        let begun = Instant::now();
        let reply = request.send().await?;
        let header = reply.headers().get("cache-status");
        let cache_status = header.map(|value| value.to_str().unwrap().to_owned());
        let age = reply.headers().get("age");
        let age = age.map(|age| Duration::from_secs(age.to_str().unwrap().parse().unwrap()));
        let status = reply.status().as_u16();
        let body = reply.text().await?;
        let took = begun.elapsed();
        let date = (status == 200).then(|| self.date_of(customer, &body));
        Ok(Answer {
            status,
            cache_status: cache_status.unwrap_or_default(),
            body,
            date,
            age,
            took,
        })
    }

    fn publish(&self, day: usize) -> Date {
        self.publish_with(day, 0)
    }

    fn publish_with(&self, day: usize, licenses_active: u64) -> Date {
        let day = i64::try_from(day).unwrap();
        let date = self.first_day + day.days();
        for (number, customer) in (1..).zip(&self.customers) {
            let seats = SEATS_OF_CUSTOMER * number + day;
            let row = SimulatedRow::new(
                "EXCHANGE ONLINE (PLAN 1)",
                "Exchange",
                seats.unsigned_abs(),
                date,
            );
            let row = SimulatedRow {
                licenses_active,
                ..row
            };
            let rows = CustomerOverride::Rows(vec![row]);
            self.upstream.override_customer(*customer, rows);
        }
        date
    }

    /// Returns the date of an answer; its usage must be that of the customer and the date.
    fn date_of(&self, customer: usize, body: &str) -> Date {
        let usage: Value = serde_json::from_str(body).unwrap();
        assert_eq!(usage["customerId"], self.customers[customer].to_string());
        let date: Date = usage["processedDate"].as_str().unwrap().parse().unwrap();
        let day = i64::from((date - self.first_day).get_days());
        let number = i64::try_from(customer).unwrap() + 1;
        let seats = &usage["products"][0]["licensesQualified"];
        assert_eq!(*seats, SEATS_OF_CUSTOMER * number + day, "{body}");
        date
    }

    fn last_served(&self, replica: usize, customer: usize) -> Option<Date> {
        let served = self.served.lock().unwrap();
        served.get(&(replica, customer)).copied()
    }

    fn forget_served(&self, replica: usize) {
        let mut served = self.served.lock().unwrap();
        served.retain(|(number, _), _| *number != replica);
    }

    fn record_served(&self, replica: usize, customer: usize, date: Date) {
        let mut served = self.served.lock().unwrap();
        let newest = served.entry((replica, customer)).or_insert(date);
        *newest = date.max(*newest);
    }
}
