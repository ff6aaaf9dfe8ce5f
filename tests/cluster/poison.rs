//! Rows of the database that no replica has written.

use crate::{
    process::{assert_has, get},
    support::{Cluster, Replica, wait_until},
};

/// The customer whose rows are changed, and one whose rows are right.
const POISONED: usize = 2;
const OTHER: usize = 3;

/// Changes the database, and asserts that a replica without anything in memory asks upstream, and logs this.
async fn assert_asks_upstream(poison: &str, logged: &str) {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    assert_eq!(cluster.replicas[0].ask(OTHER).await.status, 200);
    cluster.wait_until_stored(OTHER).await;
    cluster.wait_for_released_leases().await;
    let number = |customer| {
        let id = cluster.world().id(customer);
        let statement = format!("SELECT id FROM usage_proxy.customer WHERE customer_id = '{id}'");
        cluster.server.psql(&statement)
    };
    let poison = poison
        .replace("POISONED", &number(POISONED))
        .replace("OTHER", &number(OTHER));
    cluster.server.psql(&poison);
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let before = cluster.calls();
    let poisoned = replica.ask_in_time(POISONED).await;
    let calls = cluster.calls() - before;
    let other = replica.ask_in_time(OTHER).await;

    // Neither is of another customer.
    assert_eq!((poisoned.status, other.status), (200, 200), "{poisoned:?}");
    assert_eq!(calls, 1, "{poisoned:?}");
    replica.service.running.stderr.line_with(logged).await;
    // It is right again once the answer is stored.
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

async fn wait_until_up(replica: &Replica) {
    wait_until("the store is up", async || {
        replica.service.metric("usage_proxy_store_up").await == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_an_unknown_product_is_not_served() {
    let poison = "UPDATE usage_proxy.fact SET product = 4711 WHERE customer = POISONED";
    assert_asks_upstream(poison, "unreadable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_negative_counts_is_not_served() {
    let poison = "UPDATE usage_proxy.fact SET licenses_qualified = -1 WHERE customer = POISONED";
    assert_asks_upstream(poison, "unreadable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_other_bytes_is_redeemed_again() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    cluster
        .server
        .psql("UPDATE usage_proxy.token SET access_token = sha256(access_token)");
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let answer = replica.ask(OTHER).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_customer_is_not_served() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    assert_eq!(cluster.replicas[0].ask(OTHER).await.status, 200);
    cluster.wait_until_stored(OTHER).await;
    let [poisoned, other] = [POISONED, OTHER].map(|customer| cluster.world().id(customer));
    let number = |id| format!("(SELECT id FROM usage_proxy.customer WHERE customer_id = '{id}')");
    cluster.server.psql(&format!(
        "UPDATE usage_proxy.native_body b SET bytes = o.bytes, codec = o.codec, length = o.length
        FROM usage_proxy.native_body o WHERE b.customer = {} AND o.customer = {}",
        number(poisoned),
        number(other)
    ));
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let url = format!(
        "{}/v1/customers/{poisoned}/analytics/licenses/usage",
        replica.service.api
    );
    let answer = get(&url, &[]).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_has(&answer.body, &[&poisoned.to_string()]);
    assert!(!answer.body.contains(&other.to_string()), "{answer:?}");
    let stderr = &replica.service.running.stderr;
    stderr.line_with("of another customer").await;
}
