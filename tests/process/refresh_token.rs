//! The rotated refresh token over the life of a process.

use usage_proxy::simulator::{Faults, SimulatorOptions};

use crate::support::{Account, PartnerCenter, Service, usage_proxy, usage_proxy_after};

#[tokio::test]
async fn a_restart_goes_on_with_the_token_that_rotated_last() {
    let partner_center = PartnerCenter::start(SimulatorOptions {
        faults: Faults {
            strict_rotation: true,
            ..Faults::default()
        },
        ..SimulatorOptions::default()
    })
    .await;
    let first = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &first);

    for start in 1..=3 {
        let mut service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
        let customer = partner_center.handle.customers()[start];
        let reply = service.usage(customer).await;
        service.running.signal("TERM");

        assert_eq!(reply.status, 200, "start {start}: {}", reply.body);
        assert_eq!(service.running.ended().await.code(), Some(0));
    }
    assert_eq!(partner_center.handle.reused_refresh_tokens(), 0);
    assert_eq!(
        partner_center.handle.live_refresh_tokens(),
        [account.refresh_token()]
    );
}

#[tokio::test]
async fn a_full_disk_is_survived_said_aloud_and_leaves_the_old_token_whole() {
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
    let spent = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &spent);
    // Not a byte more may be written to any file, not even by root; pipes are none.
    let full_disk = usage_proxy_after("trap '' XFSZ; ulimit -f 0");

    let service = Service::start(&mut account.command(full_disk, "serve")).await;
    let reply = service.usage(partner_center.handle.customers()[1]).await;

    assert_eq!(reply.status, 200, "{}", reply.body);
    let line = service.running.stderr.line_with("cannot be written").await;
    assert!(line.contains(r#""level":"ERROR""#), "{line}");
    assert_eq!(
        service.metric("usage_proxy_refresh_token_unsaved").await,
        1.0
    );
    assert_eq!(account.refresh_token(), spent);
    let mut files: Vec<_> = std::fs::read_dir(account.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["client-secret", "refresh-token", "usage-proxy.toml"]
    );
}
