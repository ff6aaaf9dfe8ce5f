//! The rotated refresh token over the life of a process.

use usage_proxy::simulator::Faults;

use crate::support::{PartnerCenter, Service, usage_proxy_after};

#[tokio::test]
async fn a_restart_continues_with_the_last_rotated_token() {
    let partner_center = PartnerCenter::with(Faults {
        strict_rotation: true,
        ..Faults::default()
    })
    .await;
    let account = partner_center.account();
    let handle = &partner_center.handle;

    for start in 1..=3 {
        let service = account.serve().await;
        let reply = service.usage(handle.customers()[start]).await;
        service.end().await;

        assert_eq!(reply.status, 200, "start {start}: {}", reply.body);
    }
    assert_eq!(handle.reused_refresh_tokens(), 0);
    assert_eq!(handle.live_refresh_tokens(), [account.refresh_token()]);
}

#[tokio::test]
async fn a_full_disk_is_logged_and_leaves_the_old_token_intact() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let spent = account.refresh_token();
    // Not a byte more may be written to any file, not even by root; pipes are none.
    let full_disk = usage_proxy_after("trap '' XFSZ; ulimit -f 0");

    let service = Service::start(&mut account.command(full_disk, "serve")).await;
    let reply = service.usage(partner_center.handle.customers()[1]).await;

    assert_eq!(reply.status, 200, "{}", reply.body);
    let line = service.running.stderr.line_with("cannot be written").await;
    assert!(line.contains(r#""level":"ERROR""#), "{line}");
    let unsaved = service.metric("usage_proxy_refresh_token_unsaved").await;
    assert_eq!(unsaved, 1.0);
    assert_eq!(account.refresh_token(), spent);
    let mut files: Vec<_> = std::fs::read_dir(account.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let left = ["client-secret", "refresh-token", "usage-proxy.toml"];
    assert_eq!(files, left, "no temporary file");
}
