//! The disk of the database is full: what is stored is read, and nothing can be added.

use std::ops::Range;

use futures_util::future::join_all;

use crate::{
    server::Disk,
    support::{BOUND, Circumstances, Cluster, wait_at_most, wait_until},
};

/// A customer that all replicas have cached, and one whose lease has a row.
const CACHED: usize = 1;
const KNOWN: usize = 2;

/// The writer of a replica tries again at least so often.
const RETRY_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Asks all replicas for customers, one customer after the other.
async fn ask_everywhere(cluster: &Cluster, customers: Range<usize>) {
    for customer in customers {
        let questions = cluster.replicas.iter();
        let questions = questions.map(|replica| replica.ask_in_time(customer));
        for answer in join_all(questions).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

async fn wait_until_full(cluster: &Cluster) {
    for replica in &cluster.replicas {
        // On a busy machine it may not read the store for a while, and say that instead.
        wait_until("it says that the disk is full", async || {
            let ready = replica.service.admin_get("/readyz").await;
            assert_eq!(ready.status, 200, "{ready:?}");
            let parts = ["changes wait to be stored", "No space left on device"];
            parts.iter().all(|part| ready.body.contains(part))
        })
        .await;
        let metric = async |name| replica.service.metric(name).await;
        assert_eq!(metric("usage_proxy_store_up").await, 0.0);
        assert!(metric("usage_proxy_store_pending_writes").await > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_by_themselves_while_the_disk_of_the_server_is_full() {
    let circumstances = Circumstances {
        disk: Disk::Small,
        ..Circumstances::default()
    };
    let cluster = Cluster::start_in(circumstances, &[]).await;
    cluster.warm_up(CACHED).await;
    assert_eq!(cluster.replicas[0].ask(KNOWN).await.status, 200);
    cluster.wait_until_stored(KNOWN).await;
    cluster.wait_for_released_leases().await;

    cluster.server.fill_disk();
    let (before, new) = (cluster.calls(), 3..20);
    ask_everywhere(&cluster, new.clone()).await;
    let calls = cluster.calls() - before;
    wait_until_full(&cluster).await;

    let most = new.len() * cluster.replicas.len();
    assert!((new.len()..=most).contains(&calls), "{calls} calls");
    // What is stored is read.
    let stored = cluster.replicas[1].ask_in_time(KNOWN).await;
    assert_eq!(stored.status, 200);
    // A replica serves what it was told to fetch again, and no other one waits until that is stored.
    let newer = cluster.publish(1);
    for replica in &cluster.replicas {
        replica.purge(CACHED).await;
    }
    ask_everywhere(&cluster, CACHED..CACHED + 1).await;
    for replica in &cluster.replicas {
        wait_at_most(BOUND, "its own purge counts", async || {
            replica.ask_in_time(CACHED).await.date == Some(newer)
        })
        .await;
    }

    cluster.server.free_disk();
    wait_at_most(RETRY_TIME + BOUND, "all is stored", async || {
        let mut waiting = 0.0;
        for replica in &cluster.replicas {
            waiting += replica
                .service
                .metric("usage_proxy_store_pending_writes")
                .await;
        }
        waiting == 0.0
    })
    .await;
    cluster.wait_until_recovered().await;
    for customer in new {
        cluster.wait_until_stored(customer).await;
    }
    let newest = format!(
        "SELECT DISTINCT processed_date FROM usage_proxy.newest_usage WHERE customer_id = '{}'",
        cluster.world().id(CACHED)
    );
    assert_eq!(cluster.server.psql(&newest), newer.to_string());
    cluster.assert_purges_reach_all(CACHED, 2).await;
}
