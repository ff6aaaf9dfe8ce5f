//! The limit of open files, which each connection needs one of.

use usage_proxy::simulator::Faults;

use crate::support::{PartnerCenter, Service, usage_proxy_after};

/// A service that was started under these limits.
async fn limited(limits: &str) -> Service {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    Service::start(&mut account.command(usage_proxy_after(limits), "serve")).await
}

/// The soft and the hard limit in use.
fn in_force(service: &Service) -> Vec<String> {
    let limits = format!("/proc/{}/limits", service.running.id());
    let limits = std::fs::read_to_string(limits).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words = line.unwrap().split_whitespace().skip(3);
    words.take(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_as_far_as_the_system_allows() {
    let service = limited("ulimit -Sn 256; ulimit -Hn 15000").await;

    assert_eq!(in_force(&service), ["15000", "15000"]);
    let log = service.running.transcript();
    assert!(!log.contains("open files"), "{log}");
}

#[tokio::test]
async fn too_low_a_limit_of_open_files_gives_a_warning() {
    let service = limited("ulimit -n 500").await;

    let log = service.running.transcript();
    let warning = "the system allows 500 open files, and server.max_connections = 10000 needs";
    assert!(log.contains(warning), "{log}");
    assert!(log.contains(r#""level":"WARN""#), "{log}");
}
