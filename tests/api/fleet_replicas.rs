//! One of several replicas refreshes all customers, and the others take over what it stored.

use usage_proxy::simulator::SimulatedApi;

use crate::{
    replicas::{STEP, postgres_server::TestDatabase},
    support::prelude::*,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

const LOOKS: &str =
    r#"usage_proxy_store_operations_total{operation="last-refresh",outcome="success"}"#;
const LEASE_ATTEMPTS: &str =
    r#"usage_proxy_store_operations_total{operation="acquire-lease",outcome="success"}"#;
const REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;
const CHECKS: &str = r#"usage_proxy_fleet_checks_total{outcome="success"}"#;

async fn replica(database: &TestDatabase) -> TestApp {
    TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
        .set("store.url", &database.url())
        .set("store.flush_within", "1ms")
        .start()
        .await
}

/// One that has refreshed all customers, and one that came later.
async fn replicas(database: &TestDatabase) -> [TestApp; 2] {
    let one = replica(database).await;
    one.wait_for_metric(REFRESHES, 1.0).await;
    wait_until("the refresh is published", async || {
        database.psql("SELECT count(*) FROM usage_proxy.fleet_refresh") == "1"
    })
    .await;
    let other = replica(database).await;
    other.look_for_a_refresh().await;
    [one, other]
}

impl TestApp {
    /// Waits until it has looked for a refresh by another.
    async fn look_for_a_refresh(&self) {
        let before = self.metric(LOOKS).await;
        wait_until("the store was looked at twice", async || {
            self.advance(STEP);
            self.metric(LOOKS).await >= before + 2.0
        })
        .await;
    }

    fn fleet_calls(&self) -> [usize; 3] {
        [
            self.calls(SimulatedApi::FleetCheck),
            self.calls(SimulatedApi::FleetPage),
            self.calls(SimulatedApi::Customers),
        ]
    }
}

#[tokio::test]
async fn a_refresh_by_one_is_that_of_all() {
    let database = TestDatabase::create();
    let [one, other] = &replicas(&database).await;
    let calls = one.fleet_calls();

    let fleet = one.get("/v1/usage").await.json();
    assert_eq!(other.get("/v1/usage").await.json(), fleet);
    for id in other.simulator.customers() {
        let found = other.usage(id).await;
        assert!(found.cache_status().starts_with("hit;"), "{id}");
    }

    one.simulator.advance_day();
    one.clock.advance_when_sleeping(HOUR).await;
    one.wait_for_metric(REFRESHES, 2.0).await;
    let newer = one.get("/v1/usage").await.json();
    assert_ne!(newer["processedDate"], fleet["processedDate"]);
    wait_until("the other has the newer date", async || {
        other.advance(STEP);
        other.get("/v1/usage").await.json()["processedDate"] == newer["processedDate"]
    })
    .await;
    for id in other.simulator.customers() {
        let (ours, theirs) = (one.usage(id).await, other.usage(id).await);
        assert_eq!(ours.text(), theirs.text(), "{id} {}", theirs.cache_status());
        assert!(theirs.cache_status().starts_with("hit;"), "{id}");
    }
    // The list of customers was stale too.
    assert_eq!(one.fleet_calls(), calls.map(|count| count + 1));
    assert_eq!(other.fleet_calls(), [0, 0, 0]);
    assert_eq!(other.calls(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn another_refreshes_in_place_of_one_that_ended() {
    let database = TestDatabase::create();
    let [one, other] = replicas(&database).await;
    let before = other.metric(LEASE_ATTEMPTS).await;

    one.shutdown.drain();
    in_time(one.running).await.unwrap();
    wait_until("the other holds the lease", async || {
        other.advance(STEP);
        other.metric(LEASE_ATTEMPTS).await > before
            && database
                .psql("SELECT expires_at > 0 FROM usage_proxy.lease WHERE name = 'fleet-refresher'")
                == "t"
    })
    .await;
    assert_eq!(other.fleet_calls(), [0, 0, 0]);
    other.advance(2 * HOUR);
    other.wait_for_metric(CHECKS, 1.0).await;
    let [checks, pages, _] = other.fleet_calls();
    assert_eq!([checks, pages], [1, 0]);
}

#[tokio::test]
async fn a_past_date_is_fetched_by_one_for_all() {
    let database = TestDatabase::create();
    let one = replica(&database).await;
    one.wait_for_metric(REFRESHES, 1.0).await;
    let other = TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
        .set("store.url", &database.url())
        .beside(&one)
        .start()
        .await;
    let path = format!(
        "/v1/usage?processedDate={}",
        one.simulator.newest_date().yesterday().unwrap()
    );
    let before = one.calls(SimulatedApi::FleetPage);
    one.simulator.hold_calls();
    let pass = async {
        one.wait_for_calls(SimulatedApi::FleetPage, before + 1)
            .await;
        in_time(one.clock.wait_for_sleepers_until(1, STEP / 2)).await;
        one.simulator.release_calls();
        // Otherwise the time would run faster than the rows are stored.
        let held = "SELECT count(*) FROM usage_proxy.lease \
             WHERE name LIKE 'call/fleet/%' AND expires_at > 0";
        wait_until("the date is stored", async || database.psql(held) == "0").await;
        let mut pause = STEP / 2;
        loop {
            one.clock.wait_for_sleepers_until(1, pause).await;
            one.advance(pause);
            pause = (2 * pause).min(2 * STEP);
        }
    };

    let asked = async { tokio::join!(one.get(&path), other.get(&path)) };
    let (ours, theirs) = tokio::select! {
        replies = asked => replies,
        () = pass => unreachable!(),
    };

    assert_eq!((ours.status, theirs.status), (200, 200));
    assert_eq!(ours.json()["totals"], theirs.json()["totals"]);
    assert_eq!(one.calls(SimulatedApi::FleetPage), before + 1);
}
