//! Huge pages, which make a process take twice its memory.

use std::fs;

use usage_proxy::simulator::Faults;

use crate::support::PartnerCenter;

#[tokio::test]
async fn the_service_uses_no_huge_pages() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let service = partner_center.account().serve().await;

    let status = format!("/proc/{}/status", service.running.id());
    let status = fs::read_to_string(status).unwrap();

    // A kernel without huge pages has no such line.
    let enabled = status
        .lines()
        .find_map(|line| line.strip_prefix("THP_enabled:"));
    assert_ne!(enabled.map(str::trim), Some("1"));
}
