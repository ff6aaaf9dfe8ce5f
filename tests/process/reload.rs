//! SIGHUP: files are read again at once, whether they have changed or not.

use usage_proxy::simulator::Faults;

use crate::support::{PartnerCenter, Service, usage_proxy};

#[tokio::test]
async fn sighup_reloads_files_while_the_service_keeps_serving() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    account.write_certificate("certificate", "key");
    let mut command = account.command(usage_proxy(), "serve");
    for (key, file) in [("certificate_file", "certificate"), ("key_file", "key")] {
        let file = account.path(file);
        command.args(["--set", &format!("server.tls.{key}={}", file.display())]);
    }
    let service = Service::start(&mut command).await;

    service.running.signal("HUP");

    // The files are as they were, so looking at them every few seconds would find nothing to read.
    let stderr = &service.running.stderr;
    stderr.line_with("reading files again").await;
    stderr.line_with("reloaded the TLS files").await;
    let alive = service.admin_get("/healthz").await;
    assert_eq!(alive.status, 200);
    service.end().await;
}
