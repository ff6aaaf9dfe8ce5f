//! A replica loses the server, which the others still reach.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    relay::{Network, Relay},
    support::{BOUND, Cluster, wait_until},
};

const CACHED: usize = 1;

/// A replica that waits for the answer of another waits at most so long until it is stored: a transaction
/// of the replica that is gone may hold the lock.
const STORE_TIME: Duration = Duration::from_secs(5);

/// The time for which the network is not good: longer than purges take.
const FAULT_TIME: Duration = Duration::from_secs(4);

/// Two replicas that reach the server, and the last one, which does so through a relay.
async fn cluster_with_relay() -> (Cluster, Relay) {
    let (sender, relay) = tokio::sync::oneshot::channel();
    let cluster = Cluster::start_at(&[], |server| {
        let port = server.port();
        let relay = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(Relay::start(port))
        });
        let ports = [port, port, relay.port()];
        assert!(sender.send(relay).is_ok());
        ports
    })
    .await;
    cluster.warm_up(CACHED).await;
    (cluster, relay.await.unwrap())
}

/// Asserts that a replica behind a bad network answers in time, asks for itself at most once a question,
/// and shares the store again as soon as the network is good.
async fn assert_is_survived(network: Network) {
    let (cluster, relay) = cluster_with_relay().await;
    let last = cluster.replicas.last().unwrap();
    let (calls, mut asked) = (cluster.calls(), 0);

    relay.set(network);
    let begun = Instant::now();
    for customer in 3..20 {
        if begun.elapsed() > FAULT_TIME {
            break;
        }
        asked += 1;
        let hit = last.ask_in_time(CACHED).await;
        assert!(hit.cache_status.contains("hit;"), "{hit:?}");
        let questions = cluster.replicas.iter();
        let questions = questions.map(|replica| replica.ask(customer));
        for answer in join_all(questions).await {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.took < STORE_TIME + BOUND, "{answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = cluster.calls() - calls;
    // Others see a purge that the last one does not.
    let newer = cluster.publish(1);
    cluster.replicas[0].purge(CACHED).await;
    assert_eq!(cluster.replicas[0].ask(CACHED).await.date, Some(newer));
    relay.set(Network::Good);

    let most = asked * cluster.replicas.len();
    assert!((asked..=most).contains(&calls), "{calls} calls for {asked}");
    cluster.wait_until_recovered().await;
    let recovered = Instant::now();
    wait_until("the last one has seen the purge", async || {
        last.ask(CACHED).await.date == Some(newer)
    })
    .await;
    assert!(recovered.elapsed() < 2 * BOUND, "{:?}", recovered.elapsed());
    cluster.assert_purges_reach_all(CACHED, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_connections_are_cut_goes_on() {
    assert_is_survived(Network::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_packets_are_lost_goes_on() {
    assert_is_survived(Network::Lossy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_far_from_the_server_goes_on() {
    assert_is_survived(Network::Slow(Duration::from_millis(100))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_half_open_connections_makes_new_ones() {
    assert_is_survived(Network::HalfOpen).await;
}
