//! Faults between the service and a PostgreSQL server.

use std::{
    io::{self, Read, Write},
    net::{self, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    fixtures::{
        TestPlace, TestStore, clock, customer, database as database_config, dated, newest,
        open_database, range, row, usage,
    },
    postgres_server::{self, TestDatabase},
};
use crate::{
    cache::{PurgeMode, PurgeScope},
    config::PostgresConfig,
    domain::{Resource, UpstreamApi},
    shutdown::Shutdown,
    store::{
        HistoryQuery, LOOK_UPS_AT_ONCE, StoreError, StoreStartError, StoreWrite, StoredPurge,
        StoredSnapshot, UsageStore, postgres, sql,
    },
};

const PREFERRED: UpstreamApi = UpstreamApi::Insights;

fn snapshot(number: u32, product: &str) -> StoreWrite {
    let rows = vec![row(product, "Teams", 3, 5, "2026-11-26")];
    newest(
        PREFERRED,
        &usage(customer(number), rows),
        "2026-11-28T06:00:00Z",
    )
}

async fn look_up(
    store: &dyn UsageStore,
    number: u32,
) -> Result<Option<StoredSnapshot>, StoreError> {
    store
        .snapshot(Resource::InsightsUsage(customer(number)))
        .await
}

async fn on_database() -> (TestDatabase, Arc<dyn UsageStore>) {
    let TestStore { store, place } = TestStore::on(TestPlace::database()).await;
    let TestPlace::Database(database) = place else {
        panic!("a database");
    };
    store.write(vec![snapshot(1, "E3")]).await.unwrap();
    (database, store)
}

#[tokio::test]
async fn a_look_for_old_dates_reads_no_others() {
    let (database, _store) = on_database().await;
    database.psql(
        "SET search_path = usage_proxy; \
         INSERT INTO customer (id, customer_id) SELECT n, n::text FROM generate_series(2, 200) n; \
         INSERT INTO snapshot SELECT n, day, 1, 1, 1, NULL, 0, 0, 0 \
         FROM generate_series(2, 200) n, generate_series(20001, 20100) day; ANALYZE",
    );

    let query = sql::CUSTOMERS_BEFORE.dollars;
    let query = query.replace("$1", "20001").replace("$2", "500");
    let plan = database.psql(&format!("SET search_path = usage_proxy; EXPLAIN {query}"));

    assert!(plan.contains("on snapshot"), "{plan}");
    assert!(!plan.contains("Seq Scan on snapshot"), "{plan}");
}

#[tokio::test]
async fn processes_that_start_together_make_one_schema() {
    let database = TestDatabase::create();
    let url = database.url();

    let opened = (0..4).map(|_| open_database(&url, PREFERRED));
    let stores = futures_util::future::join_all(opened).await;

    stores[0].write(vec![snapshot(1, "E3")]).await.unwrap();
    assert!(look_up(&*stores[3], 1).await.unwrap().is_some());
    let once = "SELECT count(*) = max(version) FROM usage_proxy.schema_version";
    assert_eq!(database.psql(once), "t");
}

#[tokio::test]
async fn a_newer_schema_refuses_a_start_and_no_process_that_runs() {
    let (database, store) = on_database().await;
    database.psql("INSERT INTO usage_proxy.schema_version VALUES (999, 0)");

    let error = postgres::open(
        database_config(&database.url()),
        PREFERRED,
        clock(),
        Shutdown::new(),
    )
    .await
    .unwrap_err();

    let StoreStartError::NewerSchema {
        store: name, found, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((name, found), (database.url(), 999));
    end_connections(&database);
    store.write(vec![snapshot(2, "E3")]).await.unwrap();
    store.probe().await.unwrap();
    assert!(look_up(&*store, 2).await.unwrap().is_some());
}

#[tokio::test]
async fn replicas_know_what_others_have_applied_lately() {
    let (database, one) = on_database().await;
    let other = open_database(&database.url(), PREFERRED).await;
    let replicas = || database.psql("SELECT count(*) FROM usage_proxy.replica");

    let alone = one.report_applied(1).await.unwrap();
    let first = other.report_applied(2).await.unwrap();
    let second = one.report_applied(3).await.unwrap();
    database.psql("UPDATE usage_proxy.replica SET seen_at = seen_at - 11000 WHERE generation = 3");
    let gone = other.report_applied(4).await.unwrap();
    let before = replicas();
    database.psql("UPDATE usage_proxy.replica SET seen_at = 0 WHERE generation = 3");
    other.report_applied(4).await.unwrap();

    assert_eq!(
        [alone, first, second, gone],
        [vec![], vec![1], vec![2], vec![]]
    );
    assert_eq!([before, replicas()], ["2", "1"]);
}

#[tokio::test]
async fn a_database_that_has_lost_a_purge_says_so_to_whoever_knew_it() {
    let (database, maker) = on_database().await;
    let follower = open_database(&database.url(), PREFERRED).await;
    let other = open_database(&database.url(), PREFERRED).await;
    let before = other.purges_after(None).await.unwrap().generation;
    let scope = PurgeScope {
        customer_id: Some(customer(1)),
        processed_date: None,
    };
    let purge = StoreWrite::Purge(scope, PurgeMode::Hard);
    maker.write(vec![purge]).await.unwrap();
    let applied = follower.purges_after(Some(before)).await.unwrap();
    let went_back = async |store: &dyn UsageStore, applied| {
        store.purges_after(Some(applied)).await.unwrap().went_back
    };
    assert_eq!((applied.purges.len(), applied.went_back), (1, false));

    database.psql(&format!(
        "UPDATE usage_proxy.store_state SET generation = {before}; DELETE FROM usage_proxy.purge;
        DELETE FROM usage_proxy.purge_generation WHERE generation > {before}"
    ));

    assert!(went_back(&*maker, before).await);
    assert!(!went_back(&*maker, before).await, "it says so twice");
    assert!(went_back(&*follower, applied.generation).await);
    assert!(!went_back(&*other, before).await);
    // Both who knew it tell the others, with one purge.
    for (store, applied) in [(&maker, before), (&follower, applied.generation)] {
        let lost = StoreWrite::LostPurges { applied };
        store.write(vec![lost]).await.unwrap();
    }
    let told = other.purges_after(Some(before)).await.unwrap();
    let of_all = StoredPurge {
        scope: PurgeScope::default(),
        mode: PurgeMode::Soft,
        is_own: false,
    };
    assert_eq!(told.purges, [of_all]);
    // Whoever has not looked since the fail-over learns it too.
    assert!(told.generation > applied.generation);
    assert!(went_back(&*follower, applied.generation).await);
}

fn end_connections(database: &TestDatabase) {
    database.psql(&format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name()
    ));
}

#[tokio::test]
async fn doctor_says_why_a_database_cannot_be_used() {
    let (database, _store) = on_database().await;
    let user = format!("some_in_{}", database.name());
    database.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA usage_proxy TO {user};
         GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA usage_proxy TO {user}"
    ));
    let password_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password_file, "secret").unwrap();
    let config = PostgresConfig {
        password_file: Some(password_file.path().to_owned()),
        ca_file: Some(postgres_server::certificate("ca")),
        ..database_config(&database.tls_url(&user))
    };
    let owner = database_config(&database.url());
    let said = async |config: &PostgresConfig| {
        let problem = postgres::check(config.clone()).await.unwrap_err();
        format!("{}: {}", problem.said, problem.action)
    };

    let some_rights = said(&config).await;
    let without_password = PostgresConfig {
        password_file: Some("/nonexistent".into()),
        ..config
    };
    let unreadable = said(&without_password).await;
    database.psql("INSERT INTO usage_proxy.schema_version VALUES (999, 0)");
    let newer = said(&owner).await;
    database.psql("TRUNCATE usage_proxy.schema_version");
    let older = postgres::check(owner).await.unwrap();

    assert!(some_rights.contains("may not use"), "{some_rights}");
    assert!(unreadable.contains("store.password_file"), "{unreadable}");
    assert!(newer.contains("version 999"), "{newer}");
    assert!(older.contains("from version 0"), "{older}");
}

#[tokio::test]
async fn ended_connections_are_made_again() {
    let (database, store) = on_database().await;
    let range = range("2026-11-01", "2026-11-30");
    assert_eq!(store.dates(customer(1), range).await.unwrap().len(), 1);
    end_connections(&database);

    // A query may wait for a new connection; a look-up may not.
    assert_eq!(store.dates(customer(1), range).await.unwrap().len(), 1);
    assert!(look_up(&*store, 1).await.is_err());
    store.probe().await.unwrap();

    for _ in 0..8 {
        assert!(look_up(&*store, 1).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_schema_that_was_dropped_and_a_database_that_was_replaced_are_made_again() {
    let (database, store) = on_database().await;
    let name = database.name();
    let range = range("2026-11-01", "2026-11-30");
    let replace = || {
        TestDatabase::administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
        TestDatabase::administer(&format!("CREATE DATABASE {name}"));
    };
    let drop_schema = || drop(database.psql("DROP SCHEMA usage_proxy CASCADE"));

    for lose in [&drop_schema as &dyn Fn(), &replace] {
        // One is noticed by a write, the other by a read.
        lose();
        assert!(store.write(vec![snapshot(1, "E3")]).await.is_err());
        store.write(vec![snapshot(1, "E3")]).await.unwrap();
        assert_eq!(store.dates(customer(1), range).await.unwrap().len(), 1);
        lose();
        assert!(store.dates(customer(1), range).await.is_err());
        store.probe().await.unwrap();
        assert!(look_up(&*store, 1).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_server_that_comes_later_is_used_then() {
    let database = TestDatabase::create();
    let relay = Relay::start();
    relay.set_frozen(true);
    let config = database_config(&database.url_at(relay.port));
    let store = postgres::open(config, PREFERRED, clock(), Shutdown::new())
        .await
        .unwrap();
    let before = look_up(&*store, 1).await;

    relay.set_frozen(false);
    store.probe().await.unwrap();
    store.write(vec![snapshot(1, "E3")]).await.unwrap();

    assert!(matches!(before, Err(StoreError::NotOpen(_))), "{before:?}");
    assert!(look_up(&*store, 1).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_freezes_holds_no_look_up_for_longer_than_250_ms() {
    let database = TestDatabase::create();
    let relay = Relay::start();
    let store = open_database(&database.url_at(relay.port), PREFERRED).await;
    store.write(vec![snapshot(1, "E3")]).await.unwrap();
    relay.set_frozen(true);

    // All four threads at once. Any other limit is 5 s or more.
    let look_ups = (0..LOOK_UPS_AT_ONCE).map(|_| look_up(&*store, 1));
    let frozen = futures_util::future::join_all(look_ups);
    let frozen = tokio::time::timeout(Duration::from_secs(1), frozen).await;
    relay.set_frozen(false);
    store.probe().await.unwrap();

    for result in frozen.unwrap() {
        assert!(result.is_err(), "{result:?}");
    }
    assert!(look_up(&*store, 1).await.unwrap().is_some());
}

#[tokio::test]
async fn a_page_of_a_history_reads_no_more_than_itself() {
    let database = TestDatabase::create();
    let relay = Relay::start();
    let store = open_database(&database.url_at(relay.port), PREFERRED).await;
    let days = range("2026-08-01", "2026-11-26").dates().map(|date| {
        let day = date.to_string();
        let products = (0..30).map(|number| format!("Product {number}"));
        let rows = products.map(|product| row(&product, "Teams", 3, 5, &day));
        let usage = usage(customer(1), rows.collect());
        dated(&usage, &day, "2026-11-28T06:00:00Z")
    });
    store.write(days.collect()).await.unwrap();
    let query = |after| HistoryQuery {
        customer: customer(1),
        range: range("2026-08-01", "2026-11-30"),
        products: Vec::new(),
        workload: None,
        after,
        limit: 10.try_into().unwrap(),
    };
    // The first connects, and reads all texts.
    let mut page = store.history(query(None)).await.unwrap();
    let before = relay.bytes.load(Ordering::SeqCst);

    for _ in 0..10 {
        let after = page.last().map(|row| row.position.clone());
        page = store.history(query(after)).await.unwrap();
        assert_eq!(page.len(), 10);
    }

    let passed = relay.bytes.load(Ordering::SeqCst) - before;
    assert!(passed < 60_000, "{passed}");
}

#[tokio::test]
async fn a_transaction_that_conflicts_is_tried_three_times() {
    let (database, store) = on_database().await;
    database.psql(
        "CREATE SEQUENCE usage_proxy.conflicts;
         CREATE FUNCTION usage_proxy.conflict() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('usage_proxy.conflicts') < 3 THEN
                 RAISE EXCEPTION 'conflict' USING ERRCODE = '40001';
             END IF;
             RETURN NEW;
         END $$",
    );
    database.psql(
        "CREATE TRIGGER conflict BEFORE INSERT ON usage_proxy.fact \
         FOR EACH ROW EXECUTE FUNCTION usage_proxy.conflict()",
    );

    // The first two attempts conflict, the third does not.
    store.write(vec![snapshot(2, "E5")]).await.unwrap();

    assert_eq!(
        database.psql("SELECT nextval('usage_proxy.conflicts')"),
        "4"
    );
    let found = look_up(&*store, 2).await.unwrap().unwrap();
    assert_eq!(&*found.usage.rows()[0].product_name, "E5");
}

/// A fail-over to a server that lags may lose the last transactions, and give their numbers to others.
/// Behind a pooler, connections survive it.
#[tokio::test]
async fn numbers_that_now_stand_for_other_customers_are_not_used() {
    let (database, store) = on_database().await;
    store.write(vec![snapshot(2, "E5")]).await.unwrap();
    for number in 1..=2 {
        // Each thread has read both customers.
        let look_ups = (0..8).map(|_| look_up(&*store, number));
        futures_util::future::join_all(look_ups).await;
    }
    database.psql(
        "SET search_path = usage_proxy;
         UPDATE customer SET customer_id = 'lost' WHERE id = 1;
         UPDATE customer SET customer_id = '00000000-0000-0000-0000-000000000001' WHERE id = 2;
         UPDATE customer SET customer_id = '00000000-0000-0000-0000-000000000002' WHERE id = 1;
         DELETE FROM texts_version WHERE version <> 0;
         INSERT INTO texts_version VALUES (7);
         UPDATE store_state SET texts_version = 7",
    );

    for _ in 0..8 {
        let found = look_up(&*store, 1).await.unwrap().unwrap();
        assert_eq!(found.usage.customer_id(), customer(1));
        assert_eq!(&*found.usage.rows()[0].product_name, "E5");
    }
    store.write(vec![snapshot(2, "F3")]).await.unwrap();
    let found = look_up(&*store, 2).await.unwrap().unwrap();
    assert_eq!(&*found.usage.rows()[0].product_name, "F3");
    assert_eq!(found.revision, 2, "a correction of what was the first's");
}

#[tokio::test]
async fn a_password_is_read_at_each_connect_and_the_certificate_is_verified() {
    let database = TestDatabase::create();
    let user = format!("user_of_{}", database.name());
    let create = format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'first'; GRANT CREATE ON DATABASE {} TO {user}",
        database.name()
    );
    database.psql(&create);
    let password_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password_file, "first\n").unwrap();
    let config = PostgresConfig {
        password_file: Some(password_file.path().to_owned()),
        ca_file: Some(postgres_server::certificate("ca")),
        ..database_config(&database.tls_url(&user))
    };

    let store = postgres::open(config.clone(), PREFERRED, clock(), Shutdown::new())
        .await
        .unwrap();
    store.write(vec![snapshot(1, "E3")]).await.unwrap();
    database.psql(&format!("ALTER ROLE {user} PASSWORD 'second'"));
    std::fs::write(&password_file, "second").unwrap();
    end_connections(&database);
    store.write(vec![snapshot(2, "E3")]).await.unwrap();

    let untrusted = PostgresConfig {
        ca_file: Some(postgres_server::certificate("self")),
        ..config
    };
    let store = postgres::open(untrusted, PREFERRED, clock(), Shutdown::new())
        .await
        .unwrap();
    let error = store.probe().await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_user_who_owns_the_schema_needs_no_right_to_create_one() {
    let database = TestDatabase::create();
    let user = format!("owner_in_{}", database.name());
    database.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret'; CREATE SCHEMA usage_proxy AUTHORIZATION {user}"
    ));
    let password_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password_file, "secret").unwrap();
    let config = PostgresConfig {
        password_file: Some(password_file.path().to_owned()),
        ca_file: Some(postgres_server::certificate("ca")),
        ..database_config(&database.tls_url(&user))
    };
    let before = postgres::check(config.clone()).await.unwrap();

    let store = postgres::open(config, PREFERRED, clock(), Shutdown::new())
        .await
        .unwrap();
    store.write(vec![snapshot(1, "E3")]).await.unwrap();
    store.probe().await.unwrap();

    assert!(before.contains("will create its schema"), "{before}");
    assert!(look_up(&*store, 1).await.unwrap().is_some());
}

/// Returns the statements of a section of deploy/store/README.md, with other names.
fn documented(number: usize, database: &TestDatabase) -> String {
    let document = include_str!("../../../deploy/store/README.md");
    let block = document.split("```sql\n").nth(number).unwrap();
    let statements = block.split("```").next().unwrap();
    let own = |role: &str| format!("{role}_{}", database.name());
    statements
        .replace("usage_writer", &own("usage_writer"))
        .replace("usage_reader", &own("usage_reader"))
}

#[tokio::test]
async fn the_documented_roles_can_do_their_work_and_no_more() {
    let (database, owner) = on_database().await;
    drop(owner);
    database.psql(&documented(2, &database));
    database.psql(&documented(3, &database));
    let password_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password_file, "secret").unwrap();
    let of_role = |role: &str| PostgresConfig {
        password_file: Some(password_file.path().to_owned()),
        ca_file: Some(postgres_server::certificate("ca")),
        ..database_config(&database.tls_url(&format!("{role}_{}", database.name())))
    };

    let opened = postgres::open(of_role("usage_writer"), PREFERRED, clock(), Shutdown::new());
    let store = opened.await.unwrap();
    store.probe().await.unwrap();
    store.write(vec![snapshot(2, "E5")]).await.unwrap();
    store.maintain().await.unwrap();
    assert!(look_up(&*store, 2).await.unwrap().is_some());
    assert!(postgres::check(of_role("usage_writer")).await.is_ok());

    let reader = format!("SET ROLE usage_reader_{};", database.name());
    let row =
        "customer_name, processed_date, licenses_active, fetched_at AT TIME ZONE 'UTC', source";
    for view in ["usage_rows", "newest_usage"] {
        let read =
            format!("{reader} SELECT {row} FROM usage_proxy.{view} WHERE product_name = 'E5'");
        let read = database.psql(&read);
        assert_eq!(
            read, "Contoso|2026-11-26|3|2026-11-28 06:00:00|insights",
            "{view}"
        );
    }
    let query = "SELECT state, confirmed_at - fetched_at FROM usage_proxy.snapshots";
    assert_eq!(
        database.psql(&format!("{reader} {query}")),
        "rows|00:00:00\nrows|00:00:00"
    );
    let unused = database.psql(&format!("{reader} {}", documented(4, &database)));
    assert_eq!(unused, "Contoso|2026-11-26|5|2\nContoso|2026-11-26|5|2");
    let readable = "SELECT count(*) FROM pg_class WHERE relkind = 'r' \
        AND relnamespace = 'usage_proxy'::regnamespace AND has_table_privilege(oid, 'SELECT')";
    assert_eq!(database.psql(&format!("{reader} {readable}")), "0");
    let problem = postgres::check(of_role("usage_reader")).await.unwrap_err();
    assert!(
        problem.said.contains("may not use the schema"),
        "{problem:?}"
    );
}

/// Passes bytes between a client and the server, until it is frozen.
struct Relay {
    port: u16,
    is_frozen: Arc<AtomicBool>,
    /// In both directions.
    bytes: Arc<AtomicUsize>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            is_frozen: Arc::default(),
            bytes: Arc::default(),
        };
        let is_frozen = Arc::clone(&relay.is_frozen);
        let bytes = Arc::clone(&relay.bytes);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(postgres_server::address()).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (is_frozen, bytes) = (Arc::clone(&is_frozen), Arc::clone(&bytes));
                    thread::spawn(move || pass(from, to, &is_frozen, &bytes));
                }
            }
        });
        relay
    }

    fn set_frozen(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::SeqCst);
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    is_frozen: &AtomicBool,
    passed: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes)?;
        passed.fetch_add(count, Ordering::SeqCst);
        while is_frozen.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(1));
        }
        if count == 0 {
            return to.shutdown(net::Shutdown::Write);
        }
        to.write_all(&bytes[..count])?;
    }
}
