//! `usage-proxy healthcheck`: one question to a running proxy, an exit code and a line.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use usage_proxy::simulator::Faults;

use crate::support::{
    Account, DOCUMENTED, Finished, PartnerCenter, Service, Stub, free_address, run, usage_proxy,
};

/// A proxy that runs, and the account whose configuration says where.
struct Proxy {
    account: Account,
    service: Service,
    _partner_center: PartnerCenter,
}

impl Proxy {
    /// Starts it with these flags, before a Partner Center with these faults.
    async fn start(flags: &[&str], faults: Faults) -> Self {
        let partner_center = PartnerCenter::with(faults).await;
        let account = partner_center.account();
        account.write_certificate("certificate.pem", "key.pem");
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

    async fn check(&self, flags: &[&str]) -> Finished {
        let listen = format!("127.0.0.1:{}", self.port());
        let mut healthcheck = self.account.command(usage_proxy(), "healthcheck");
        healthcheck.args(["--admin-listen", &listen]).args(flags);
        healthcheck.current_dir(self.account.folder());
        run(healthcheck).await
    }
}

/// Checks with these flags and nothing else.
async fn check(flags: &[&str]) -> Finished {
    let mut healthcheck = usage_proxy();
    healthcheck.arg("healthcheck").args(flags);
    run(healthcheck).await
}

#[track_caller]
fn assert_healthy(output: &Finished, word: &str) {
    output.assert_printed(&[]);
    assert_eq!(output.stdout, format!("{word}\n"));
}

#[tokio::test]
async fn a_proxy_that_can_answer_is_healthy_and_ready() {
    let proxy = Proxy::start(&[], Faults::default()).await;
    let usage = proxy.service.usage(DOCUMENTED);
    assert_eq!(usage.await.status, 200);

    assert_healthy(&proxy.check(&[]).await, "healthy");
    assert_healthy(&proxy.check(&["--ready"]).await, "ready");
}

#[tokio::test]
async fn a_proxy_without_a_token_is_alive_and_reports_what_it_waits_for() {
    let revoked = Faults {
        token_error: Some("invalid_grant".to_owned()),
        ..Faults::default()
    };
    let proxy = Proxy::start(&[], revoked).await;
    assert_eq!(proxy.service.usage(DOCUMENTED).await.status, 502);

    assert_healthy(&proxy.check(&[]).await, "healthy");
    let why = ["/readyz: ", " waits for ", "a person must consent again"];
    let ready = proxy.check(&["--ready"]).await;
    ready.assert_failed_in_one_line(1, &why);
}

#[tokio::test]
async fn an_unspecified_address_is_probed_on_loopback_without_a_key() {
    let hash = format!("admin.key_sha256={}", "0b".repeat(32));
    let flags = ["--admin-listen", "0.0.0.0:0", "--set", &hash];
    let proxy = Proxy::start(&flags, Faults::default()).await;
    let listen = format!("admin.listen=0.0.0.0:{}", proxy.port());

    let output = proxy.check(&["--set", &hash, "--set", &listen]).await;

    assert_healthy(&output, "healthy");
}

#[tokio::test]
async fn a_tls_listener_is_probed_by_tls_whatever_ca_signed_its_certificate() {
    let tls = [
        "--set",
        "admin.tls.certificate_file=./certificate.pem",
        "--set",
        "admin.tls.key_file=./key.pem",
    ];
    let proxy = Proxy::start(&tls, Faults::default()).await;

    assert_healthy(&proxy.check(&tls).await, "healthy");
    proxy.check(&[]).await.assert_failed(1, &[]);
}

#[tokio::test]
async fn an_unreachable_or_hanging_proxy_is_not_healthy() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = hanging.local_addr().unwrap().to_string();

    for (address, why) in [(free_address(), "refused"), (hangs, "no answer within")] {
        let output = check(&["--admin-listen", &address]).await;

        output.assert_failed_in_one_line(1, &[&address, why]);
    }
}

/// Docker has no exit code for wrong use.
#[tokio::test]
async fn an_invalid_configuration_is_reported_as_unhealthy() {
    let missing = ["--config", "/nonexistent/usage-proxy.toml"];
    let wrong = [
        "--set",
        "admin.listen=nowhere",
        "--set",
        "cache.fresh_fro=1s",
    ];
    let any_port = ["--admin-listen", "127.0.0.1:0"];

    for (flags, parts) in [
        (&missing[..], &["/nonexistent/usage-proxy.toml"][..]),
        (&wrong, &["admin.listen", "cache.fresh_for"]),
        (&any_port, &["admin.listen has port 0"]),
    ] {
        check(flags).await.assert_failed_in_one_line(1, parts);
    }
}

#[tokio::test]
async fn a_wait_ends_when_the_proxy_is_ready_and_in_one_line_where_it_never_is() {
    let proxy = Proxy::start(&[], Faults::default()).await;
    let never = [
        "--ready",
        "--wait",
        "600ms",
        "--admin-listen",
        &free_address(),
    ];

    // The first access token may be on its way yet.
    let ready = proxy.check(&["--ready", "--wait", "60s"]).await;
    let never = check(&never).await;
    let wrong_use = check(&["--wait", "30"]).await;

    assert_healthy(&ready, "ready");
    never.assert_failed_in_one_line(1, &["/readyz: ", "refused"]);
    wrong_use.assert_failed(2, &[]);
}

#[tokio::test]
async fn a_proxy_that_is_not_ready_yet_is_probed_again() {
    let asked_before = AtomicUsize::new(0);
    let url = Stub::start(move |_| {
        let is_ready = asked_before.fetch_add(1, Ordering::Relaxed) >= 2;
        Stub::json(if is_ready { 200 } else { 503 }, &json!({}))
    })
    .await;
    let listen = url.trim_start_matches("http://");

    let output = check(&["--ready", "--wait", "60s", "--admin-listen", listen]).await;

    assert_healthy(&output, "ready");
}
