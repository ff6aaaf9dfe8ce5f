//! The database server stops, dies, or ends connections.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Cluster, fault_time, wait_until};

/// A customer that all replicas have cached.
const CACHED: usize = 1;

/// Asks all replicas for new customers while the store is gone. Returns the customers.
async fn ask_for_new_customers(cluster: &Cluster, time: Duration) -> Vec<usize> {
    let begun = Instant::now();
    let mut customers = 3..20;
    let mut asked = Vec::new();
    while begun.elapsed() < time {
        for replica in &cluster.replicas {
            let hit = replica.ask_in_time(CACHED).await;
            assert!(hit.cache_status.contains("hit;"), "{hit:?}");
        }
        if let Some(customer) = customers.next() {
            asked.push(customer);
            let questions = cluster.replicas.iter();
            let questions = questions.map(|replica| replica.ask_in_time(customer));
            for answer in join_all(questions).await {
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    asked
}

/// Asserts that replicas go on by themselves while the store is gone, and share it again afterwards.
async fn assert_outage_is_survived(cluster: &Cluster, end: impl FnOnce()) {
    let calls = cluster.calls();
    let asked = ask_for_new_customers(cluster, fault_time()).await;
    let calls = cluster.calls() - calls;
    end();

    let range = asked.len()..=asked.len() * cluster.replicas.len();
    assert!(range.contains(&calls), "{calls} calls for {}", asked.len());
    cluster.wait_until_recovered().await;
    // Answers of the outage are stored.
    for customer in asked {
        cluster.wait_until_stored(customer).await;
    }
    cluster.assert_purges_reach_all(CACHED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_by_themselves_while_the_server_is_stopped() {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(CACHED).await;

    cluster.server.stop();
    assert_outage_is_survived(&cluster, || cluster.server.go_on()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_by_themselves_while_the_server_is_dead() {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(CACHED).await;

    cluster.server.kill();
    assert_outage_is_survived(&cluster, || cluster.server.resume_data()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_cost_no_answer() {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(CACHED).await;
    let calls = cluster.calls();

    let customers = 3..11;
    for customer in customers.clone() {
        cluster.server.terminate_connections();
        let questions = cluster.replicas.iter();
        let questions = questions.map(|replica| replica.ask_in_time(customer));
        for answer in join_all(questions).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    let (calls, least) = (cluster.calls() - calls, customers.len());
    assert!((least..=3 * least).contains(&calls), "{calls}");
    cluster.wait_until_recovered().await;
    for customer in customers {
        cluster.wait_until_stored(customer).await;
    }
    cluster.assert_purges_reach_all(CACHED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_is_served_after_everything_died_at_once() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(CACHED).await;
    let before = cluster.replicas[0].ask(CACHED).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);

    for replica in &cluster.replicas {
        replica.kill();
    }
    cluster.server.kill();
    cluster.server.resume_data();
    for number in 0..cluster.replicas.len() {
        cluster.revive(number).await;
    }

    for replica in &cluster.replicas {
        wait_until("it has read the store", async || {
            replica.service.metric("usage_proxy_store_up").await == 1.0
        })
        .await;
        let answer = replica.ask_in_time(CACHED).await;
        assert_eq!(answer.body, before.body);
    }
    let most = cluster.missed().await + missed;
    let calls = cluster.calls() - calls;
    assert!(calls <= most, "{calls} calls, {most} missed");
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(CACHED, 1).await;
}
