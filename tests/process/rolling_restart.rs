//! One listening socket, two processes in turn: a restart that no client notices.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};
use usage_proxy::simulator::Faults;

use crate::support::{Account, PATIENCE, PartnerCenter, Running, Service, get, usage_proxy_after};

const REQUESTS: usize = 10_000;

/// Passes what the child has as its standard input on as systemd passes sockets.
const PASS_ON: &str = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";

/// Dashboards of two kinds: some keep their connection, some make a new one for every request.
struct Load {
    answered: watch::Receiver<usize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    tasks: JoinSet<()>,
}

/// A dashboard, which asks nothing twice: a request that is lost is a failure.
struct Dashboard {
    address: SocketAddr,
    request: String,
    connections: Connections,
}

enum Connections {
    /// One, until an answer says that it closes.
    Kept(Option<TcpStream>),
    /// Another one for every request.
    Fresh,
}

// === impl Load ===

impl Load {
    fn start(address: SocketAddr, path: &str) -> Self {
        let failures = Arc::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (sender, answered) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for keeps in [true, true, true, false, false, false] {
            let (begun, failures, sender) =
                (Arc::clone(&begun), Arc::clone(&failures), sender.clone());
            let mut dashboard = Dashboard::new(address, path, keeps);
            tasks.spawn(async move {
                while begun.fetch_add(1, Relaxed) < REQUESTS {
                    if let Err(failure) = dashboard.ask().await {
                        let failures: &std::sync::Mutex<Vec<String>> = &failures;
                        failures.lock().unwrap().push(failure);
                    }
                    sender.send_modify(|answered| *answered += 1);
                }
            });
        }
        Self {
            answered,
            failures,
            tasks,
        }
    }

    async fn answered(&mut self, count: usize) {
        let waiting = self.answered.wait_for(|answered| *answered >= count);
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.expect("requests are answered").unwrap();
    }
}

// === impl Dashboard ===

impl Dashboard {
    fn new(address: SocketAddr, path: &str, keeps: bool) -> Self {
        Self {
            address,
            request: format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
            connections: if keeps {
                Connections::Kept(None)
            } else {
                Connections::Fresh
            },
        }
    }

    async fn ask(&mut self) -> Result<(), String> {
        let mut stream = match &mut self.connections {
            Connections::Kept(connection) => connection.take(),
            Connections::Fresh => None,
        };
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange(&mut stream)).await;
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

    async fn exchange(&self, connection: &mut Option<TcpStream>) -> io::Result<String> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(TcpStream::connect(self.address).await?),
        };
        stream.write_all(self.request.as_bytes()).await?;
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

    let mut load = Load::start(address, &format!("/v1/customers/{customer}/usage"));
    load.answered(REQUESTS / 4).await;
    let (_second_account, second) = serve_on(&socket, &partner_center).await;
    wait_until_ready(&second).await;
    first.running.signal("TERM");
    let ended = first.running.ended().await;
    load.answered(REQUESTS).await;
    while load.tasks.join_next().await.is_some() {}

    let failures = std::mem::take(&mut *load.failures.lock().unwrap());
    assert!(
        failures.is_empty(),
        "{}: {:#?}",
        failures.len(),
        failures.first()
    );
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
