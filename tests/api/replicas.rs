//! Two services on one store: each serves from its own memory, and follows what the other does.

#[path = "../postgres/server.rs"]
pub(crate) mod postgres_server;

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::sync::Barrier;
use usage_proxy::clock::Clock;

use self::postgres_server::TestDatabase;
use crate::support::prelude::*;

const POLLS: &str = r#"usage_proxy_store_operations_total{operation="purges",outcome="success"}"#;

const REPORTS: &str =
    r#"usage_proxy_store_operations_total{operation="report-applied",outcome="success"}"#;

const LOOK_UPS: &str =
    r#"usage_proxy_store_operations_total{operation="snapshot",outcome="success"}"#;

/// So short that calls to the store end in time, although each look advances the clock.
pub(crate) const STEP: Duration = Duration::from_millis(100);

/// Long enough for `stale-while-revalidate`.
const TWENTY_MINUTES: Duration = Duration::from_secs(20 * 60);

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("usage.db")
}

async fn replica(folder: &TempDir) -> TestApp {
    replica_on(&format!("sqlite:{}", file(folder).display())).await
}

async fn replica_on(url: &str) -> TestApp {
    TestApp::builder()
        .set("store.url", url)
        .set("store.flush_within", "1ms")
        .set("upstream.retries", "0")
        .start()
        .await
}

/// Two services, and a customer that both have in memory.
async fn replicas(folder: &TempDir) -> [TestApp; 2] {
    let [one, other] = [replica(folder).await, replica(folder).await];
    one.usage(customer(0)).await;
    one.wait_until_stored().await;
    other.usage(customer(0)).await;
    [one, other]
}

impl TestApp {
    /// Lets time pass, and the database answer before more does: a look-up has 8 ms.
    pub(crate) async fn pass(&self, time: Duration) {
        self.advance(time);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// Waits until a look for purges began and ended.
    async fn wait_for_poll(&self) {
        let before = self.metric(POLLS).await;
        // One may have been under way.
        wait_until("the store was polled twice", async || {
            self.advance(STEP);
            self.metric(POLLS).await >= before + 2.0
        })
        .await;
    }

    /// Waits until other services know that this one runs.
    async fn wait_for_report(&self) {
        let before = self.metric(REPORTS).await;
        wait_until("the service has reported", async || {
            self.advance(STEP);
            self.metric(REPORTS).await > before
        })
        .await;
    }

    /// Purges, while the time goes on as soon as `ready` has ended.
    async fn purge_while(&self, ready: impl Future<Output = ()>) -> Value {
        let pass = async {
            ready.await;
            loop {
                self.clock
                    .advance_when_sleeping(Duration::from_millis(250))
                    .await;
            }
        };
        tokio::select! {
            purged = self.admin_post("/cache/purge") => purged.json(),
            () = pass => unreachable!(),
        }
    }

    /// Purges, and waits until other services can know.
    async fn purge(&self, query: &str) {
        let purged = self.admin_post(&format!("/cache/purge?{query}")).await;
        assert_eq!(purged.status, 200);
        self.wait_for_metric("usage_proxy_store_pending_writes", 0.0)
            .await;
    }
}

#[tokio::test]
async fn a_purge_by_one_is_applied_by_the_other() {
    let stale = "fwd=stale; fwd-status=503";
    for (query, status, cache_status) in [
        ("customer=ONE", 200, stale),
        ("processedDate=DATE", 200, stale),
        ("", 200, stale),
        ("customer=ONE&hard=true", 503, "fwd=uri-miss"),
        ("hard=true", 503, "fwd=uri-miss"),
        ("customer=OTHER&hard=true", 200, "hit; ttl="),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = replicas(&folder).await;
        let query = query
            .replace("ONE", &customer(0).to_string())
            .replace("OTHER", &customer(1).to_string())
            .replace("DATE", &other.simulator.newest_date().to_string());
        other.set_faults(failing(503));

        one.purge(&query).await;
        other.wait_for_poll().await;
        let reply = other.usage(customer(0)).await;

        assert_eq!(reply.status, status, "{query}");
        let found = reply.cache_status();
        assert!(found.starts_with(cache_status), "{query}: {found}");
    }
}

#[tokio::test]
async fn the_first_request_after_a_purge_asks_upstream_for_all() {
    for query in ["", "hard=true"] {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = replicas(&folder).await;

        one.purge(query).await;
        other.wait_for_poll().await;
        let asked = one.usage(customer(0)).await;
        one.wait_until_stored().await;
        let taken = other.usage(customer(0)).await;

        assert!(asked.cache_status().contains("fwd-status=200"));
        let found = taken.cache_status();
        assert!(found.starts_with("hit;"), "{query}: {found}");
        assert_eq!(other.calls(SimulatedApi::Insights), 0, "{query}");
    }
}

#[tokio::test]
async fn a_process_applies_its_own_purge_once() {
    let folder = tempfile::tempdir().unwrap();
    let [one, _other] = replicas(&folder).await;

    one.purge("hard=true").await;
    one.usage(customer(0)).await;
    one.wait_for_poll().await;
    let before = one.metric(LOOK_UPS).await;
    let reply = one.usage(customer(0)).await;

    let found = reply.cache_status();
    assert!(found.starts_with("hit;"), "{found}");
    // The store would have it again.
    assert_eq!(one.metric(LOOK_UPS).await, before);
}

#[tokio::test]
async fn nothing_is_fresh_on_a_store_that_went_back_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = replicas(&folder).await;
    one.purge(&format!("customer={}", customer(1))).await;
    other.wait_for_poll().await;
    let before = other.usage(customer(0)).await;

    let store = rusqlite::Connection::open(file(&folder)).unwrap();
    let go_back = "UPDATE store_state SET generation = 0; DELETE FROM purge";
    store.execute_batch(go_back).unwrap();
    other.wait_for_poll().await;
    other.set_faults(failing(503));
    let after = other.usage(customer(0)).await;

    assert!(before.cache_status().starts_with("hit;"));
    let found = after.cache_status();
    assert!(found.starts_with("fwd=stale; fwd-status=503"), "{found}");
}

#[tokio::test]
async fn a_refresh_by_one_is_fresh_for_the_other() {
    for (later, first) in [
        (TWENTY_MINUTES, "detail=stale-while-revalidate"),
        (STALE, "hit; ttl=890"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = replicas(&folder).await;
        for app in [&one, &other] {
            app.advance(later);
        }
        let refreshed_at = one.clock.wall_time();
        one.usage(customer(0)).await;
        one.wait_until_stored().await;
        let behind = refreshed_at.duration_since(other.clock.wall_time());
        other.advance(Duration::try_from(behind).unwrap() + 10 * SECOND);

        let before = other.usage(customer(0)).await;
        other.wait_until_filled().await;
        let after = other.usage(customer(0)).await;

        let found = before.cache_status();
        assert!(found.contains(first), "{found}");
        assert_eq!(after.cache_status(), "hit; ttl=890", "{later:?}");
        assert_eq!(after.header("age"), "10", "{later:?}");
        assert_eq!(other.calls(SimulatedApi::Insights), 0, "{later:?}");
    }
}

#[tokio::test]
async fn a_new_date_and_a_correction_by_one_reach_the_other_within_2_s() {
    let (newest, older) = (
        usage_path(customer(0)),
        dated_path(customer(0), "2026-11-18"),
    );
    for path in [&newest, &older] {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = replicas(&folder).await;
        let before = one.get(path).await;
        one.wait_until_stored().await;
        other.get(path).await;
        one.simulator.advance_day();
        one.simulator.correct_counts("2026-11-18".parse().unwrap());
        for app in [&one, &other] {
            app.advance(30 * SECOND);
        }

        let changed = one.get_with(path, &[("cache-control", "no-cache")]).await;
        one.wait_until_stored().await;
        other.wait_for_poll().await;
        let taken = other.get(path).await;

        assert_ne!(changed.body, before.body, "{path}");
        assert_eq!(taken.body, changed.body, "{path}");
        let found = taken.cache_status();
        assert!(found.starts_with("hit;"), "{path}: {found}");
        for api in [SimulatedApi::Insights, SimulatedApi::Commercial] {
            assert_eq!(other.calls(api), 0, "{path}");
        }
    }
}

#[tokio::test]
async fn a_hit_reads_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let [_one, other] = replicas(&folder).await;
    let before = other.metric(LOOK_UPS).await;

    for _ in 0..5 {
        let found = other.usage(customer(0)).await;
        assert!(found.cache_status().starts_with("hit;"));
    }

    assert_eq!(other.metric(LOOK_UPS).await, before);
}

#[tokio::test]
async fn a_purge_tells_how_many_have_applied_it_within_2_s() {
    let database = TestDatabase::create();
    // No notification comes through PgBouncer.
    let one = replica_on(&database.pooler_url()).await;
    let alone = one.admin_post("/cache/purge").await.json();
    let other = replica_on(&database.pooler_url()).await;
    other.wait_for_report().await;
    one.wait_for_report().await;

    let started = one.clock.now();
    let unconfirmed = one.purge_while(std::future::ready(())).await;
    let waited = one.clock.now() - started;
    // The third purge.
    let applied = "SELECT count(*) > 0 FROM usage_proxy.replica r
        JOIN usage_proxy.store_state s ON r.generation = s.generation
        WHERE (SELECT count(*) FROM usage_proxy.purge_generation) = 4";
    let confirmed = one
        .purge_while(wait_until("the other has applied it", async || {
            other.advance(STEP);
            other.metric(POLLS).await;
            database.psql(applied) == "t"
        }))
        .await;

    let outcome = |replicas, confirmed| json!({"purged": 0, "mode": "soft", "replicas": replicas, "confirmed": confirmed});
    assert_eq!(alone, outcome(1, 1));
    assert_eq!(unconfirmed, outcome(2, 1));
    assert!(waited >= 2 * SECOND, "{waited:?}");
    assert_eq!(confirmed, outcome(2, 2));
}

/// Completes when this many replicas receive notifications.
async fn wait_for_listeners(database: &TestDatabase, replicas: usize) {
    wait_until("all replicas listen", async || {
        database.listeners() == replicas
    })
    .await;
}

/// Two services that know of each other, receive notifications, and have a customer in memory.
async fn notified_replicas(
    database: &TestDatabase,
    start: impl AsyncFn() -> TestApp,
) -> [TestApp; 2] {
    let [one, other] = [start().await, start().await];
    one.usage(customer(0)).await;
    one.wait_until_stored().await;
    other.usage(customer(0)).await;
    other.wait_for_report().await;
    one.wait_for_report().await;
    wait_for_listeners(database, 2).await;
    [one, other]
}

async fn a_purge_is_applied_and_confirmed_at_once(
    database: &TestDatabase,
    start: impl AsyncFn() -> TestApp,
) {
    let [one, other] = notified_replicas(database, start).await;
    other.set_faults(failing(503));

    // The clocks stand still, so that nobody looks by itself.
    let purged = in_time(one.admin_post("/cache/purge")).await.json();
    let reply = other.usage(customer(0)).await;

    let outcome = json!({"purged": 1, "mode": "soft", "replicas": 2, "confirmed": 2});
    assert_eq!(purged, outcome);
    let found = reply.cache_status();
    assert!(found.starts_with("fwd=stale; fwd-status=503"), "{found}");
}

#[tokio::test]
async fn a_purge_notifies_the_other_replica_whose_report_notifies_the_first() {
    let database = TestDatabase::create();
    let start = async || replica_on(&database.url()).await;

    a_purge_is_applied_and_confirmed_at_once(&database, start).await;
}

#[tokio::test]
async fn notifications_arrive_past_a_pooler_that_passes_none_on() {
    let database = TestDatabase::create();
    let start = async || {
        TestApp::builder()
            .set("store.url", &database.pooler_url())
            .set("store.listen_url", &database.url())
            .set("store.flush_within", "1ms")
            .set("upstream.retries", "0")
            .start()
            .await
    };

    a_purge_is_applied_and_confirmed_at_once(&database, start).await;
}

#[tokio::test]
async fn a_replica_that_listens_again_applies_what_it_was_not_notified_of() {
    let database = TestDatabase::create();
    let start = async || replica_on(&database.url()).await;
    let [_one, other] = notified_replicas(&database, start).await;
    other.set_faults(failing(503));

    database.psql(
        "UPDATE usage_proxy.store_state SET generation = generation + 1;
         INSERT INTO usage_proxy.purge (generation, mode)
         SELECT generation, 1 FROM usage_proxy.store_state",
    );
    let before = other.usage(customer(0)).await;
    database.end_listeners();

    assert!(before.cache_status().starts_with("hit;"));
    wait_until("the purge is applied", async || {
        let reply = other.usage(customer(0)).await;
        reply.cache_status().starts_with("fwd=stale")
    })
    .await;
    wait_for_listeners(&database, 2).await;
}

/// The pause before a replica looks again whether another has asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Replicas, and a gate before the first one's upstream.
async fn three_replicas(database: &TestDatabase) -> [TestApp; 3] {
    let [one, two, three] = [
        replica_on(&database.url()).await,
        replica_on(&database.url()).await,
        replica_on(&database.url()).await,
    ];
    one.simulator.hold_calls();
    [one, two, three]
}

impl TestApp {
    /// Asks for a customer, several times at once.
    async fn ask_at_once(&self) -> [Reply; 3] {
        let ask = || self.usage(customer(0));
        let (first, second, third) = tokio::join!(ask(), ask(), ask());
        [first, second, third]
    }

    /// Completes when this replica waits for another.
    async fn wait_for_turn(&self) {
        in_time(self.clock.wait_for_sleepers_until(1, PAUSE)).await;
    }

    /// Lets the time pass that this replica waits for another.
    async fn pass_pauses(&self) {
        let mut pause = PAUSE;
        loop {
            self.clock.wait_for_sleepers_until(1, pause).await;
            self.advance(pause);
            pause = (2 * pause).min(4 * PAUSE);
        }
    }
}

/// Completes when no process holds the lease of a call.
pub(crate) async fn wait_for_released_leases(database: &TestDatabase) {
    wait_until("all leases have ended", async || {
        database.psql("SELECT count(*) FROM usage_proxy.lease WHERE expires_at > 0") == "0"
    })
    .await;
}

#[tokio::test]
async fn one_replica_asks_for_all() {
    let database = TestDatabase::create();
    let [one, two, three] = &three_replicas(&database).await;
    let (waits, released) = (Barrier::new(3), Barrier::new(3));
    let answer_one = async {
        waits.wait().await;
        one.simulator.release_calls();
        wait_for_released_leases(&database).await;
        released.wait().await;
    };
    let ask_other = async |app: &TestApp| {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        let pass = async {
            app.wait_for_turn().await;
            waits.wait().await;
            released.wait().await;
            app.pass_pauses().await;
        };
        tokio::select! {
            replies = app.ask_at_once() => replies,
            () = pass => unreachable!(),
        }
    };

    let (of_one, of_two, of_three, ()) = tokio::join!(
        one.ask_at_once(),
        ask_other(two),
        ask_other(three),
        answer_one
    );

    for reply in of_one.iter().chain(&of_two).chain(&of_three) {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.body, of_one[0].body);
    }
    let calls = [one, two, three].map(|app| app.calls(SimulatedApi::Insights));
    assert_eq!(calls, [1, 0, 0]);
}

#[tokio::test]
async fn a_replica_that_waits_for_another_is_notified_of_the_answer() {
    let database = TestDatabase::create();
    let [one, two, _] = &three_replicas(&database).await;
    wait_for_listeners(&database, 3).await;
    let answer_one = async {
        two.wait_for_turn().await;
        one.simulator.release_calls();
    };
    let other = async {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        in_time(two.usage(customer(0))).await
    };

    let (of_one, of_two, ()) = tokio::join!(one.usage(customer(0)), other, answer_one);

    assert_eq!((of_one.status, of_two.status), (200, 200));
    assert_eq!(of_two.body, of_one.body);
    assert_eq!(two.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_failure_of_one_replica_counts_for_all() {
    let database = TestDatabase::create();
    let [one, two, _] = &three_replicas(&database).await;
    one.set_faults(failing(503));
    let answer_one = async {
        two.wait_for_turn().await;
        one.simulator.release_calls();
        wait_for_released_leases(&database).await;
        two.advance(PAUSE);
    };
    let other = async {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        two.usage(customer(0)).await
    };

    let (of_one, of_two, ()) = tokio::join!(one.usage(customer(0)), other, answer_one);

    assert_eq!((of_one.status, of_two.status), (503, 503));
    assert_eq!(of_two.header("retry-after"), "1");
    assert_eq!(two.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn another_replica_asks_in_place_of_one_that_died() {
    let database = TestDatabase::create();
    let [one, two, _] = &three_replicas(&database).await;
    let die = async {
        two.wait_for_turn().await;
        database.psql("UPDATE usage_proxy.lease SET expires_at = 1");
        two.advance(PAUSE);
    };
    let of_one = async {
        let reply = one.usage(customer(0)).await;
        unreachable!("{reply:?}");
    };
    let of_two = async {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        let (reply, ()) = tokio::join!(two.usage(customer(0)), die);
        reply
    };

    let reply = tokio::select! {
        reply = of_two => reply,
        () = of_one => unreachable!(),
    };

    assert_eq!(reply.status, 200);
    assert_eq!(two.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn a_call_that_queues_on_one_replica_is_made_by_another() {
    let database = TestDatabase::create();
    let one = TestApp::builder()
        .set("store.url", &database.url())
        .set("store.flush_within", "1ms")
        .set("upstream.max_concurrency", "1")
        .start()
        .await;
    let two = replica_on(&database.url()).await;
    one.simulator.hold_calls();
    let ask_two = async {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        one.wait_for_metric("usage_proxy_fills_waiting", 1.0).await;
        wait_until("only the call under way has a lease", async || {
            database.psql("SELECT count(*) FROM usage_proxy.lease WHERE expires_at > 0") == "1"
        })
        .await;
        let reply = two.usage(customer(1)).await;
        wait_until("the answer is stored", async || {
            database.psql("SELECT count(*) FROM usage_proxy.lease WHERE expires_at > 0") == "1"
        })
        .await;
        // As on a clock that runs, it was asked for before the other had its answer.
        one.advance(Duration::from_secs(5));
        one.simulator.release_calls();
        reply
    };
    let ask_one = async {
        one.wait_for_calls(SimulatedApi::Insights, 1).await;
        one.usage(customer(1)).await
    };

    let (under_way, queued, of_two) =
        in_time(async { tokio::join!(one.usage(customer(0)), ask_one, ask_two) }).await;

    assert_eq!([under_way.status, queued.status, of_two.status], [200; 3]);
    assert_eq!(queued.body, of_two.body);
    assert_eq!(one.calls(SimulatedApi::Insights), 1);
    assert_eq!(two.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn all_replicas_obey_a_pause_that_one_was_asked_for() {
    const SHARED: &str =
        r#"usage_proxy_store_operations_total{operation="shared-pauses",outcome="success"}"#;
    let database = TestDatabase::create();
    let one = replica_on(&database.url()).await;
    let two = TestApp::builder()
        .set("store.url", &database.url())
        .beside(&one)
        .start()
        .await;
    one.set_faults(throttling("57"));

    // The second customer shows that the partner is throttled.
    for index in 0..2 {
        assert_eq!(one.usage(customer(index)).await.status, 503);
    }
    wait_until("the pause is shared", async || {
        database.psql("SELECT count(*) FROM usage_proxy.throttle WHERE name LIKE '%/*'") == "1"
    })
    .await;
    let before = two.metric(SHARED).await;
    wait_until("the other knows it", async || {
        two.advance(Duration::from_millis(100));
        two.metric(SHARED).await >= before + 2.0
    })
    .await;
    let calls = one.calls(SimulatedApi::Insights);
    let reply = two.usage(customer(2)).await;

    reply.problem(503, "throttled");
    let retry_after: u64 = reply.header("retry-after").parse().unwrap();
    assert!((2..=57).contains(&retry_after), "{retry_after}");
    assert_eq!(one.calls(SimulatedApi::Insights), calls);
}
