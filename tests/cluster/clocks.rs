//! The clocks of two replicas are wrong by ten minutes, one in each direction.

use std::time::Instant;

use usage_proxy::simulator::SimulatedApi;

use crate::support::{BOUND, Circumstances, Cluster, wait_at_most, wait_until};

const CACHED: usize = 1;
const CORRECTED: usize = 2;

const CLOCK_ERRORS: [i32; 3] = [0, 600, -600];

/// Waits until a replica knows the time of the server.
async fn wait_for_time(cluster: &Cluster, number: usize) {
    // An answer that took longer is not believed.
    let asked = "usage_proxy_store_duration_seconds_bucket{operation=\"server-time\",le=\"0.02\"}";
    let replica = &cluster.replicas[number];
    wait_until("it knows the time of the server", async || {
        replica.service.metric(asked).await > 0.0
    })
    .await;
}

/// Asserts that all replicas have the answer that one of them fetched, and know its age.
async fn assert_is_shared(cluster: &Cluster, customer: usize, by: usize) {
    let (calls, missed) = (cluster.calls(), cluster.missed().await);
    let begun = Instant::now();

    let fetched = cluster.replicas[by].ask(customer).await;
    cluster.wait_until_stored(customer).await;
    cluster.wait_for_released_leases().await;

    assert_eq!(fetched.status, 200, "{fetched:?}");
    for replica in &cluster.replicas {
        let answer = replica.ask(customer).await;
        assert_eq!((answer.status, &answer.body), (200, &fetched.body));
        let most = begun.elapsed() + BOUND;
        assert!(answer.age.is_some_and(|age| age < most), "{answer:?}");
    }
    cluster.assert_calls(calls, missed, 1).await;
    let fetched_lately = format!(
        "SELECT DISTINCT abs(extract(epoch FROM clock_timestamp() - fetched_at)) < {}
        FROM usage_proxy.snapshots WHERE customer_id = '{}'",
        (begun.elapsed() + BOUND).as_secs(),
        cluster.world().id(customer)
    );
    assert_eq!(cluster.server.psql(&fetched_lately), "t");
}

/// Asserts that what one replica fetches again takes the place of what another one fetched before.
async fn assert_corrects(cluster: &Cluster, by: usize, licenses_active: u64) {
    cluster.correct(0, licenses_active);
    cluster.replicas[by].purge(CORRECTED).await;

    let expected = format!("\"licensesActive\":{licenses_active},");
    for replica in [&cluster.replicas[by]].into_iter().chain(&cluster.replicas) {
        wait_at_most(2 * BOUND, "the correction is served", async || {
            let body = replica.ask(CORRECTED).await.body;
            body.replace(' ', "").contains(&expected)
        })
        .await;
    }
    let stored = format!(
        "SELECT DISTINCT licenses_active FROM usage_proxy.newest_usage WHERE customer_id = '{}'",
        cluster.world().id(CORRECTED)
    );
    wait_until("the correction is stored", async || {
        cluster.server.psql(&stored) == licenses_active.to_string()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_clocks_are_wrong_share_everything() {
    let circumstances = Circumstances {
        clock_errors: CLOCK_ERRORS,
        ..Circumstances::default()
    };
    let mut cluster = Cluster::start_in(circumstances, &[]).await;
    for (number, error) in (0..).zip(CLOCK_ERRORS) {
        assert_clock_is_wrong(&cluster, number, error).await;
        wait_for_time(&cluster, number).await;
    }
    cluster.warm_up(CACHED).await;
    let redeemed = cluster.count(SimulatedApi::Token);

    for (customer, by) in [(3, 0), (4, 1), (5, 2)] {
        assert_is_shared(&cluster, customer, by).await;
    }
    for (licenses_active, by) in [(10, 1), (20, 2), (30, 0), (40, 2), (50, 1)] {
        assert_corrects(&cluster, by, licenses_active).await;
    }
    for (day, by) in [(1, 0), (2, 1), (3, 2)] {
        cluster.assert_purge_reaches_all(by, CACHED, day).await;
    }
    for number in [1, 2] {
        cluster.replicas[number].kill();
        cluster.revive(number).await;
        wait_for_time(&cluster, number).await;
        assert_is_shared(&cluster, 5 + number, number).await;
    }

    // Nobody takes the shared token for expired.
    assert_eq!(cluster.count(SimulatedApi::Token), redeemed);
}

/// Asserts that the test tests something: the lines of the log have the time of the process.
async fn assert_clock_is_wrong(cluster: &Cluster, number: usize, error: i32) {
    let running = &cluster.replicas[number].service.running;
    let line = running.stderr.line_with("\"listening\"").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let logged: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    let found = logged.duration_since(jiff::Timestamp::now());
    let difference = found - jiff::SignedDuration::from_secs(error.into());
    assert!(
        difference.abs() < jiff::SignedDuration::from_secs(60),
        "{found:?}"
    );
}
