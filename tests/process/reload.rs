//! SIGHUP: files are read again at once, whether they have changed or not.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use usage_proxy::simulator::SimulatorOptions;

use crate::support::{Account, PartnerCenter, Service, get, usage_proxy};

#[tokio::test]
async fn told_to_hang_up_it_reads_its_files_again_and_serves_on() {
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
    let refresh_token = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &refresh_token);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    account.write("certificate", &cert.pem());
    account.write("key", &signing_key.serialize_pem());
    let mut command = account.command(usage_proxy(), "serve");
    for (key, file) in [("certificate_file", "certificate"), ("key_file", "key")] {
        let file = account.path(file);
        command.args(["--set", &format!("server.tls.{key}={}", file.display())]);
    }
    let mut service = Service::start(&mut command).await;

    service.running.signal("HUP");

    // The files are as they were, so looking at them every few seconds would find nothing to read.
    let stderr = &service.running.stderr;
    stderr.line_with("reading files again").await;
    stderr.line_with("a certificate that was read again").await;
    let alive = get(&format!("{}/healthz", service.admin), &[]).await;
    assert_eq!(alive.status, 200);
    service.running.signal("TERM");
    assert_eq!(service.running.ended().await.code(), Some(0));
}
