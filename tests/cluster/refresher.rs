//! The replica that refreshes all customers dies or stops.

use usage_proxy::simulator::SimulatedApi;

use crate::support::{BOUND, Cluster, LEASE_TIME, fault_time, wait_at_most, wait_until};

const SETTINGS: [&str; 3] = [
    "upstream.source=commercial",
    "fleet.refresh=true",
    "fleet.check_interval=1s",
];

/// Another replica tells of its turn so long after the lease of the one before has ended.
const TAKE_OVER: std::time::Duration = LEASE_TIME.saturating_add(BOUND).saturating_add(BOUND);

fn is_refresher(cluster: &Cluster, number: usize) -> bool {
    let said = cluster.replicas[number].service.running.stderr.text();
    let of = |text| said.rfind(text);
    of("this process refreshes all customers") > of("another process refreshes all customers")
}

async fn refresher_except(cluster: &Cluster, without: Option<usize>) -> usize {
    let mut found = None;
    wait_at_most(TAKE_OVER, "one refreshes", async || {
        let mut others = (0..cluster.replicas.len()).filter(|number| Some(*number) != without);
        found = others.find(|number| is_refresher(cluster, *number));
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Waits until these replicas have the rows of a refresh.
async fn wait_for_refresh(cluster: &Cluster, numbers: &[usize]) {
    for number in numbers {
        wait_until("it has the rows of a refresh", async || {
            let said = cluster.replicas[*number].service.running.stderr.text();
            said.contains("all customers were refreshed")
                || said.contains("took over the customers")
        })
        .await;
    }
}

/// Waits until these replicas serve a day of all customers, and asserts that none asks for one of them.
async fn assert_day_reaches(cluster: &Cluster, day: usize, numbers: &[usize]) {
    let date = cluster.publish(day);
    for number in numbers {
        for customer in [0, 5, 25] {
            wait_until("the refresh is seen", async || {
                cluster.replicas[*number].ask(customer).await.date == Some(date)
            })
            .await;
        }
    }
    assert_eq!(cluster.count(SimulatedApi::Commercial), 0);
}

fn pages(cluster: &Cluster) -> usize {
    cluster.count(SimulatedApi::FleetPage)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_refreshes_in_place_of_one_that_was_killed() {
    let mut cluster = Cluster::start(&SETTINGS).await;
    let first = refresher_except(&cluster, None).await;
    wait_for_refresh(&cluster, &[0, 1, 2]).await;
    assert_day_reaches(&cluster, 1, &[0, 1, 2]).await;
    let before = pages(&cluster);

    cluster.replicas[first].kill();
    let second = refresher_except(&cluster, Some(first)).await;
    let third = 3 - first - second;
    assert_day_reaches(&cluster, 2, &[second, third]).await;
    assert!(!is_refresher(&cluster, third));
    cluster.revive(first).await;
    wait_for_refresh(&cluster, &[first]).await;
    assert_day_reaches(&cluster, 3, &[0, 1, 2]).await;

    // One of each day.
    assert_eq!(pages(&cluster) - before, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresher_that_was_stopped_follows_the_one_that_took_over() {
    let cluster = Cluster::start(&SETTINGS).await;
    let first = refresher_except(&cluster, None).await;
    wait_for_refresh(&cluster, &[0, 1, 2]).await;
    assert_day_reaches(&cluster, 1, &[0, 1, 2]).await;
    let before = pages(&cluster);

    cluster.replicas[first].stop();
    cluster
        .server
        .psql("UPDATE usage_proxy.lease SET expires_at = 1");
    let second = refresher_except(&cluster, Some(first)).await;
    let third = 3 - first - second;
    assert_day_reaches(&cluster, 2, &[second, third]).await;
    tokio::time::sleep(fault_time()).await;
    cluster.replicas[first].go_on();
    wait_at_most(TAKE_OVER, "the first gives way", async || {
        !is_refresher(&cluster, first)
    })
    .await;
    assert_day_reaches(&cluster, 3, &[0, 1, 2]).await;

    // One of each day, and one that the first may have fetched before it knew.
    let pages = pages(&cluster) - before;
    assert!((2..=3).contains(&pages), "{pages}");
    assert!(is_refresher(&cluster, second) && !is_refresher(&cluster, third));
}
