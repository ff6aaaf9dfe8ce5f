//! Updates that no client notices: two processes in turn on one listening socket, and replicas on one
//! database behind a load balancer.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{RwLock, watch},
    task::JoinSet,
};
use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::{
    postgres::with_database,
    postgres_server::TestDatabase,
    support::{
        Account, PATIENCE, PartnerCenter, Running, Service, get, usage_proxy, usage_proxy_after,
    },
};

/// Passes what the child has as its standard input on as systemd passes sockets.
const PASS_ON: &str = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";

/// Dashboards of two kinds: some keep their connection, some make a new one for every request.
struct Load {
    answered: watch::Receiver<usize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    is_finishing: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// A dashboard, which asks nothing twice: a request that is lost is a failure.
struct Dashboard {
    balancer: Arc<LoadBalancer>,
    paths: Vec<String>,
    connections: Connections,
}

/// Sends new connections to the processes that are ready, in turn.
struct LoadBalancer {
    /// Read while a request is on a new connection, so that a process that is removed has accepted all
    /// of its connections.
    ready: RwLock<Vec<SocketAddr>>,
    next: AtomicUsize,
}

enum Connections {
    /// One, until an answer says that it closes.
    Kept(Option<TcpStream>),
    /// Another one for every request.
    Fresh,
}

// === impl Load ===

impl Load {
    /// Starts dashboards, which ask for one path after the other, with a pause after each answer.
    fn start(balancer: &Arc<LoadBalancer>, paths: &[String], pause: Duration) -> Self {
        let failures = Arc::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let is_finishing = Arc::new(AtomicBool::new(false));
        let (sender, answered) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for keeps in [true, true, true, false, false, false] {
            let (begun, is_finishing) = (Arc::clone(&begun), Arc::clone(&is_finishing));
            let (failures, sender) = (Arc::clone(&failures), sender.clone());
            let mut dashboard = Dashboard::new(Arc::clone(balancer), paths.to_vec(), keeps);
            tasks.spawn(async move {
                while !is_finishing.load(Relaxed) {
                    let number = begun.fetch_add(1, Relaxed);
                    if let Err(failure) = dashboard.ask(number).await {
                        let failures: &std::sync::Mutex<Vec<String>> = &failures;
                        failures.lock().unwrap().push(failure);
                    }
                    sender.send_modify(|answered| *answered += 1);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self {
            answered,
            failures,
            is_finishing,
            tasks,
        }
    }

    /// Waits until so many more requests are answered.
    async fn goes_on(&mut self, requests: usize) {
        let enough = *self.answered.borrow() + requests;
        let waiting = self.answered.wait_for(|answered| *answered >= enough);
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.expect("requests are answered").unwrap();
    }

    /// Ends when all requests are answered, as they should be.
    async fn finish(self) {
        self.is_finishing.store(true, Relaxed);
        self.tasks.join_all().await;
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{}: {:#?}",
            failures.len(),
            failures.first()
        );
    }
}

// === impl LoadBalancer ===

impl LoadBalancer {
    fn to(ready: impl Into<Vec<SocketAddr>>) -> Arc<Self> {
        Arc::new(Self {
            ready: RwLock::new(ready.into()),
            next: AtomicUsize::new(0),
        })
    }

    async fn add(&self, service: &Service) {
        self.ready.write().await.push(address(service));
    }

    async fn remove(&self, service: &Service) {
        let removed = address(service);
        self.ready.write().await.retain(|ready| *ready != removed);
    }
}

// === impl Dashboard ===

impl Dashboard {
    fn new(balancer: Arc<LoadBalancer>, paths: Vec<String>, keeps: bool) -> Self {
        Self {
            balancer,
            paths,
            connections: if keeps {
                Connections::Kept(None)
            } else {
                Connections::Fresh
            },
        }
    }

    async fn ask(&mut self, number: usize) -> Result<(), String> {
        let mut stream = match &mut self.connections {
            Connections::Kept(connection) => connection.take(),
            Connections::Fresh => None,
        };
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange(number, &mut stream)).await;
        let answer = match exchanged {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer came".to_owned()),
        };
        if let Connections::Kept(connection) = &mut self.connections
            && !answer.contains("\r\nconnection: close\r\n")
        {
            *connection = stream;
        }
        let is_right = answer.starts_with("HTTP/1.1 200 ") && answer.contains("workloads");
        if is_right { Ok(()) } else { Err(answer) }
    }

    async fn exchange(
        &self,
        number: usize,
        connection: &mut Option<TcpStream>,
    ) -> io::Result<String> {
        let mut _ready = None;
        let stream = match connection {
            Some(stream) => stream,
            None => {
                let ready = _ready.insert(self.balancer.ready.read().await);
                let next = self.balancer.next.fetch_add(1, Relaxed) % ready.len();
                connection.insert(TcpStream::connect(ready[next]).await?)
            }
        };
        let path = &self.paths[number % self.paths.len()];
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                let what = format!("closed after {} bytes of an answer", answer.len());
                return Err(io::Error::other(what));
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Checks that an answer has a head, and as much of a body as the head promises.
fn is_whole(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    answer.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let mut lines = head.lines();
        let promised = lines.find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= promised.map_or(0, |length| length.parse().unwrap())
    })
}

fn address(service: &Service) -> SocketAddr {
    service
        .api
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap()
}

/// Starts a service, with an account of its own, on a socket that is open already.
async fn serve_on(socket: &TcpListener, partner_center: &PartnerCenter) -> (Account, Service) {
    let account = partner_center.account();
    let mut command: Command = account.command(usage_proxy_after(PASS_ON), "serve");
    command.args(["--set", "log.requests=off"]);
    let input = Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    let running = Running::start_with_input(&mut command, input);
    (account, Service::listening(running).await)
}

async fn wait_until_ready(service: &Service) {
    let ready = async {
        while service.admin_get("/readyz").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("ready");
}

#[tokio::test]
async fn no_request_is_lost_when_one_process_takes_over_from_another() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let customer = partner_center.handle.customers()[1];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (_first_account, mut first) = serve_on(&socket, &partner_center).await;
    wait_until_ready(&first).await;
    assert_eq!(first.api, format!("http://{address}"));

    let path = format!("/v1/customers/{customer}/usage");
    let mut load = Load::start(&LoadBalancer::to([address]), &[path], Duration::ZERO);
    load.goes_on(2_500).await;
    let (_second_account, second) = serve_on(&socket, &partner_center).await;
    wait_until_ready(&second).await;
    first.running.signal("TERM");
    let ended = first.running.ended().await;
    load.goes_on(2_500).await;
    load.finish().await;

    assert_eq!(ended.code(), Some(0), "{}", first.running.transcript());
    let by_second = second
        .metric("usage_proxy_cache_requests_total{result=\"hit\"}")
        .await;
    assert!(by_second > 0.0, "the second process has served");
}

#[tokio::test]
async fn while_no_process_runs_connections_wait_at_the_socket() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let customer = partner_center.handle.customers()[1];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/v1/customers/{customer}/usage",
        socket.local_addr().unwrap()
    );
    let (_first_account, mut first) = serve_on(&socket, &partner_center).await;
    first.running.signal("TERM");
    first.running.ended().await;

    let early = get(&url, &[]);
    let (early, second) = tokio::join!(early, serve_on(&socket, &partner_center));

    assert_eq!(early.status, 200, "{}", early.body);
    assert_eq!(
        second.1.api,
        format!("http://{}", socket.local_addr().unwrap())
    );
}

/// Starts a replica, and waits until it is ready.
async fn ready_replica(account: &Account) -> Service {
    let mut command = account.command(usage_proxy(), "serve");
    command.args(["--set", "log.requests=off"]);
    let replica = Service::start(&mut command).await;
    wait_until_ready(&replica).await;
    replica
}

/// Returns how often the database did not answer in time, so that the replica asked upstream by itself.
async fn missed_look_ups(replica: &Service) -> usize {
    let scrape = replica.admin_get("/metrics").await.body;
    let missed = scrape.lines().filter_map(|line| {
        let labels = line.strip_prefix("usage_proxy_store_operations_total")?;
        let is_for_calls = labels.contains("\"snapshot\"") || labels.contains("\"acquire-lease\"");
        let (labels, count) = labels.rsplit_once(' ')?;
        let is_missed = is_for_calls && !labels.contains("\"success\"");
        is_missed.then(|| count.parse::<usize>().unwrap())
    });
    missed.sum()
}

#[tokio::test]
async fn a_rolling_update_of_replicas_loses_no_request_and_asks_upstream_nothing_again() {
    const CUSTOMERS: usize = 8;
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");
    let customers = &partner_center.handle.customers()[..CUSTOMERS];
    let paths: Vec<_> = customers
        .iter()
        .map(|customer| format!("/v1/customers/{customer}/usage"))
        .collect();
    let mut replicas = [ready_replica(&account).await, ready_replica(&account).await];
    let balancer = LoadBalancer::to(replicas.each_ref().map(address));
    let mut missed = 0;

    // The database needs time too: what it does not answer in time, a replica asks upstream.
    let mut load = Load::start(&balancer, &paths, Duration::from_millis(20));
    for old in &mut replicas {
        load.goes_on(500).await;
        let new = ready_replica(&account).await;
        balancer.add(&new).await;
        balancer.remove(old).await;
        missed += missed_look_ups(old).await;
        std::mem::replace(old, new).end().await;
    }
    load.goes_on(500).await;
    load.finish().await;

    for new in &replicas {
        let hits = new.metric("usage_proxy_cache_requests_total{result=\"hit\"}");
        assert!(hits.await > 0.0, "{} has served", new.api);
        missed += missed_look_ups(new).await;
    }
    let calls = partner_center.handle.request_count(SimulatedApi::Insights);
    assert!(
        (CUSTOMERS..=CUSTOMERS + missed).contains(&calls),
        "{calls} calls, {missed} missed look-ups"
    );
    for new in replicas {
        new.end().await;
    }
}
