//! `usage-proxy healthcheck`: one question to a running proxy, an exit code and a line.

use std::{
    net::TcpListener,
    process::Output,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use usage_proxy::simulator::{Faults, SimulatorOptions};

use crate::support::{Account, PartnerCenter, Service, Stub, usage_proxy};

/// A proxy that runs, and the account whose configuration says where.
struct Proxy {
    account: Account,
    service: Service,
    _partner_center: PartnerCenter,
}

impl Proxy {
    /// Started with these flags besides, before a Partner Center with these faults.
    async fn start(flags: &[&str], faults: Faults) -> Self {
        let options = SimulatorOptions {
            faults,
            ..SimulatorOptions::default()
        };
        let partner_center = PartnerCenter::start(options).await;
        let refresh_token = partner_center.handle.issue_refresh_token();
        let account = Account::new(partner_center.address, "secret", &refresh_token);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        account.write("certificate.pem", &cert.pem());
        account.write("key.pem", &signing_key.serialize_pem());
        let mut serve = account.command(usage_proxy(), "serve");
        serve.args(flags).current_dir(account.folder());
        let service = Service::start(&mut serve).await;
        Self {
            account,
            service,
            _partner_center: partner_center,
        }
    }

    /// Port 0 of the configuration became this one.
    fn port(&self) -> &str {
        self.service.admin.rsplit(':').next().unwrap()
    }

    fn asked(&self, flags: &[&str]) -> Output {
        let listen = format!("127.0.0.1:{}", self.port());
        let mut healthcheck = self.account.command(usage_proxy(), "healthcheck");
        healthcheck.args(["--admin-listen", &listen]).args(flags);
        healthcheck.current_dir(self.account.folder());
        healthcheck.output().unwrap()
    }
}

/// Asks with these flags and nothing else.
fn asked(flags: &[&str]) -> Output {
    let mut healthcheck = usage_proxy();
    healthcheck.arg("healthcheck").args(flags);
    healthcheck.output().unwrap()
}

#[track_caller]
fn assert_healthy(output: &Output, said: &str) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{said}\n"));
}

/// Says why in one line, with everything that is expected of it.
#[track_caller]
fn assert_unhealthy(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(why.lines().count(), 1, "{why}");
    for part in parts {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn a_proxy_that_can_answer_is_healthy_and_ready() {
    let proxy = Proxy::start(&[], Faults::default()).await;
    let usage = proxy.service.usage("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04");
    assert_eq!(usage.await.status, 200);

    assert_healthy(&proxy.asked(&[]), "healthy");
    assert_healthy(&proxy.asked(&["--ready"]), "ready");
}

#[tokio::test]
async fn a_proxy_without_a_token_lives_and_says_what_it_waits_for() {
    let revoked = Faults {
        token_error: Some("invalid_grant".to_owned()),
        ..Faults::default()
    };
    let proxy = Proxy::start(&[], revoked).await;
    let usage = proxy.service.usage("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04");
    assert_eq!(usage.await.status, 502);

    assert_healthy(&proxy.asked(&[]), "healthy");
    assert_unhealthy(
        &proxy.asked(&["--ready"]),
        &["/readyz: ", " waits for ", "a person must consent again"],
    );
}

#[tokio::test]
async fn an_address_that_means_all_is_asked_on_the_loopback_and_without_a_key() {
    let hash = format!("admin.key_sha256={}", "0b".repeat(32));
    let proxy = Proxy::start(
        &["--admin-listen", "0.0.0.0:0", "--set", &hash],
        Faults::default(),
    )
    .await;
    let listen = format!("0.0.0.0:{}", proxy.port());

    let output = proxy.asked(&["--set", &hash, "--set", &format!("admin.listen={listen}")]);

    assert_healthy(&output, "healthy");
}

#[tokio::test]
async fn a_listener_with_tls_is_asked_by_tls_whoever_signed_its_certificate() {
    let tls = [
        "--set",
        "admin.tls.certificate_file=./certificate.pem",
        "--set",
        "admin.tls.key_file=./key.pem",
    ];
    let proxy = Proxy::start(&tls, Faults::default()).await;

    assert_healthy(&proxy.asked(&tls), "healthy");
    assert_eq!(proxy.asked(&[]).status.code(), Some(1), "without TLS");
}

#[test]
fn where_nobody_listens_nobody_is_healthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);

    let output = asked(&["--admin-listen", &address]);

    assert_unhealthy(&output, &[&address, "refused"]);
}

#[test]
fn a_proxy_that_hangs_is_not_healthy() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hanging.local_addr().unwrap().to_string();

    let output = asked(&["--admin-listen", &address]);

    assert_unhealthy(&output, &[&address, "no answer within"]);
}

#[test]
fn what_cannot_be_asked_is_no_wrong_use_for_which_docker_has_no_exit_code() {
    let nowhere = [
        "--set",
        "admin.listen=nowhere",
        "--set",
        "cache.fresh_fro=1s",
    ];

    let missing = asked(&["--config", "/nonexistent/usage-proxy.toml"]);
    let faulty = asked(&nowhere);
    let any_port = asked(&["--admin-listen", "127.0.0.1:0"]);

    assert_unhealthy(&missing, &["/nonexistent/usage-proxy.toml"]);
    assert_unhealthy(&faulty, &["admin.listen", "cache.fresh_for"]);
    assert_unhealthy(&any_port, &["admin.listen has port 0"]);
}

#[tokio::test]
async fn whoever_waits_is_told_when_it_is_so_and_in_one_line_where_it_never_is() {
    let proxy = Proxy::start(&[], Faults::default()).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);

    // The first access token may be on its way yet.
    assert_healthy(&proxy.asked(&["--ready", "--wait", "60s"]), "ready");
    assert_unhealthy(
        &asked(&["--admin-listen", &nobody, "--ready", "--wait", "600ms"]),
        &["/readyz: ", "refused"],
    );
    let wrong_use = asked(&["--wait", "30"]);
    assert_eq!(wrong_use.status.code(), Some(2), "{wrong_use:?}");
}

#[tokio::test]
async fn a_proxy_that_is_not_ready_yet_is_asked_again() {
    let asked_before = AtomicUsize::new(0);
    let url = Stub::start(move |_| {
        let is_ready = asked_before.fetch_add(1, Ordering::Relaxed) >= 2;
        Stub::json(if is_ready { 200 } else { 503 }, &json!({}))
    })
    .await;
    let listen = url.trim_start_matches("http://").to_owned();
    let flags = ["--ready", "--wait", "60s", "--admin-listen"].map(str::to_owned);

    let output = tokio::task::spawn_blocking(move || {
        let mut healthcheck = usage_proxy();
        healthcheck.arg("healthcheck").args(flags).arg(listen);
        healthcheck.output().unwrap()
    });

    assert_healthy(&output.await.unwrap(), "ready");
}
