//! One listening socket, two processes in turn: a restart that no client notices.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{sync::watch, task::JoinSet};
use usage_proxy::simulator::SimulatorOptions;

use crate::support::{Account, PATIENCE, PartnerCenter, Running, Service, get, usage_proxy_after};

const REQUESTS: usize = 10_000;

/// Passes what the child has as its standard input on as systemd passes sockets.
const PASS_ON: &str = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";

/// Dashboards of two kinds: some keep their connections, some make a new one for every request.
struct Load {
    answered: watch::Receiver<usize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    tasks: JoinSet<()>,
}

// === impl Load ===

impl Load {
    fn start(url: String) -> Self {
        let failures = Arc::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (told, answered) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for idle_connections in [usize::MAX, usize::MAX, usize::MAX, 0, 0, 0] {
            let client = reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(idle_connections)
                .timeout(PATIENCE)
                .build()
                .unwrap();
            let (begun, failures, told) = (Arc::clone(&begun), Arc::clone(&failures), told.clone());
            let url = url.clone();
            tasks.spawn(async move {
                while begun.fetch_add(1, Relaxed) < REQUESTS {
                    if let Err(failure) = ask(&client, &url).await {
                        let failures: &std::sync::Mutex<Vec<String>> = &failures;
                        failures.lock().unwrap().push(failure);
                    }
                    told.send_modify(|answered| *answered += 1);
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

async fn ask(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let told = |error: reqwest::Error| format!("{error:?}");
    let answer = client.get(url).send().await.map_err(told)?;
    let status = answer.status();
    let body = answer.text().await.map_err(told)?;
    if status == 200 && body.contains("workloads") {
        Ok(())
    } else {
        Err(format!("{status}: {body}"))
    }
}

/// Starts a service, with an account of its own, on a socket that is open already.
async fn serve_on(socket: &TcpListener, partner_center: &PartnerCenter) -> (Account, Service) {
    let refresh_token = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &refresh_token);
    let mut command: Command = account.command(usage_proxy_after(PASS_ON), "serve");
    command.args(["--set", "log.requests=off"]);
    let input = Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    let running = Running::start_with_input(&mut command, input);
    (account, Service::listening(running).await)
}

async fn wait_until_ready(service: &Service) {
    let ready = async {
        while get(&format!("{}/readyz", service.admin), &[]).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("ready");
}

#[tokio::test]
async fn no_request_is_lost_when_one_process_takes_over_from_another() {
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
    let customer = partner_center.handle.customers()[1];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (_first_account, mut first) = serve_on(&socket, &partner_center).await;
    wait_until_ready(&first).await;
    assert_eq!(first.api, format!("http://{address}"));

    let mut load = Load::start(format!("http://{address}/v1/customers/{customer}/usage"));
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
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
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
