//! The replica that asks upstream for all dies or stops.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use usage_proxy::simulator::SimulatedApi;

use crate::support::{Answer, BOUND, Cluster, LEASE_TIME, fault_time, wait_until};

/// Asks for a customer on the first replica, whose call is held, and then on the others, which wait.
async fn ask_while_held(cluster: &Cluster, customer: usize) -> [Vec<JoinHandle<Answer>>; 3] {
    const REQUESTS: usize = 5;

    let [first, others @ ..] = &cluster.replicas[..] else {
        unreachable!();
    };
    let ask = |replica: &crate::support::Replica| -> Vec<_> {
        let questions = (0..REQUESTS).map(|_| tokio::spawn(replica.question(customer)));
        questions.collect()
    };
    cluster.partner_center.handle.hold_calls();
    let calls = cluster.count(SimulatedApi::Insights);
    let missed = cluster.missed().await;
    let of_first = ask(first);
    cluster
        .partner_center
        .wait_for_calls(SimulatedApi::Insights, calls + 1)
        .await;
    let mut asked = vec![of_first];
    for replica in others {
        let attempts = replica.lease_attempts().await;
        asked.push(ask(replica));
        // On a busy machine it may miss the answer of the store, and ask for itself. If the first did, there
        // is no lease to wait for.
        wait_until("it waits for the first", async || {
            replica.lease_attempts().await >= attempts + 2.0 || cluster.missed().await > missed
        })
        .await;
    }
    asked.try_into().unwrap()
}

/// Asserts that all requests were answered, with the same.
async fn assert_answered(
    asked: impl IntoIterator<Item = Vec<JoinHandle<Answer>>>,
    bound: Duration,
) {
    let answers = join_all(asked.into_iter().flatten()).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, answers[0].body);
        assert!(answer.took < bound, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_asks_in_place_of_one_that_was_killed() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(1).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);

    let [of_killed, of_others @ ..] = ask_while_held(&cluster, 2).await;
    cluster.replicas[0].kill();
    cluster.partner_center.handle.release_calls();
    assert_answered(of_others, LEASE_TIME + 2 * BOUND).await;
    for request in of_killed {
        request.abort();
    }
    cluster.revive(0).await;

    // One of the question, and one of the replica that died.
    cluster.assert_calls(calls, missed, 2).await;
    assert_eq!(cluster.replicas[0].ask(2).await.status, 200);
    cluster.assert_calls(calls, missed, 2).await;
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(2, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_wait_for_a_replica_that_was_stopped_for_less_than_its_lease() {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(1).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);

    let asked = ask_while_held(&cluster, 2).await;
    let stopped = Duration::from_secs(5);
    cluster.replicas[0].stop();
    cluster.partner_center.handle.release_calls();
    tokio::time::sleep(stopped).await;
    cluster.replicas[0].go_on();
    assert_answered(asked, stopped + 2 * BOUND).await;

    cluster.assert_calls(calls, missed, 1).await;
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(2, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_stopped_for_longer_than_its_lease_brings_nothing_old_back() {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(1).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);

    let [of_stopped, of_others @ ..] = ask_while_held(&cluster, 2).await;
    // One that the store did not answer in time has asked for itself.
    let others_wait = cluster.missed().await == missed;
    cluster.replicas[0].stop();
    cluster.partner_center.handle.release_calls();
    wait_until("the answer of the day before is on its way", async || {
        let requests = cluster.partner_center.handle.requests();
        requests.iter().all(|request| request.status.is_some())
    })
    .await;
    let newer = cluster.publish(1);
    cluster
        .server
        .psql("UPDATE usage_proxy.lease SET expires_at = 1");
    assert_answered(of_others, LEASE_TIME + 2 * BOUND).await;
    cluster.wait_until_stored(2).await;
    tokio::time::sleep(fault_time()).await;
    cluster.replicas[0].go_on();
    for answer in join_all(of_stopped).await {
        assert_eq!(answer.unwrap().status, 200);
    }

    // One of the question, and one of the replica that stopped.
    cluster.assert_calls(calls, missed, 2).await;
    cluster.wait_until_recovered().await;
    if others_wait {
        for replica in &cluster.replicas[1..] {
            assert_eq!(replica.ask(2).await.date, Some(newer));
        }
        let newest = format!(
            "SELECT DISTINCT processed_date FROM usage_proxy.newest_usage WHERE customer_id = '{}'",
            cluster.world().id(2)
        );
        assert_eq!(cluster.server.psql(&newest), newer.to_string());
    }
    cluster.assert_purges_reach_all(2, 2).await;
}
