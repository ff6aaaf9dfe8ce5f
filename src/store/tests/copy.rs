//! Copies from one store into another.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, types::Value};

use super::fixtures::{TestPlace, TestStore, at, clock, customer, date, dated, newest, row, usage};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerEntry, CustomerList, LicenseUsage, ListedCustomer, Resource, UpstreamApi},
    store::{
        AcceptedSnapshot, StoreWrite, StoredCustomers, UsageStore,
        copy::{CopyError, CopyProgress, CopySide, CopySummary, copy},
    },
};

const MORNING: &str = "2026-11-28T06:00:00Z";
const NOON: &str = "2026-11-28T12:00:00.123Z";
const EVENING: &str = "2026-11-28T18:00:00Z";

async fn copied(from: &TestPlace, to: &TestPlace) -> Result<CopySummary, CopyError> {
    let progress = Arc::new(CopyProgress::default());
    copy(from.store_place(), to.store_place(), clock(), progress).await
}

async fn on_file() -> TestStore {
    TestStore::on(TestPlace::file()).await
}

fn with_body(change: StoreWrite, body: &'static str) -> StoreWrite {
    match change {
        StoreWrite::Snapshot(accepted) => StoreWrite::Snapshot(AcceptedSnapshot {
            native: Some(Bytes::from_static(body.as_bytes())),
            ..accepted
        }),
        other => other,
    }
}

fn purge(number: Option<u32>, day: Option<&str>, mode: PurgeMode) -> StoreWrite {
    let scope = PurgeScope {
        customer_id: number.map(customer),
        processed_date: day.map(date),
    };
    StoreWrite::Purge(scope, mode)
}

/// Rows of a customer, as many as go into no single transaction of a test.
fn many(number: u32, day: &str, active: u64) -> Arc<LicenseUsage> {
    let products = (0..7).map(|product| format!("Product {product}"));
    let rows = products.map(|name| row(&name, "Exchange", active, 9, day));
    usage(customer(number), rows.collect())
}

fn list(name: &str, fetched_at: &str) -> StoreWrite {
    let entry = CustomerEntry {
        id: customer(1),
        name: name.into(),
        domain: Some("contoso.example".into()),
    };
    let raw = r#"{"name": "raw"}"#.to_owned().into();
    StoreWrite::Customers(StoredCustomers {
        list: Arc::new(CustomerList::new(vec![ListedCustomer { entry, raw }])),
        fetched_at: at(fetched_at),
    })
}

/// Writes something of all that a store can have.
async fn fill(store: &dyn UsageStore) {
    let insights = UpstreamApi::Insights;
    let first = usage(customer(1), vec![row("E3\0", "Teams", 3, 5, "2026-11-26")]);
    let second = usage(customer(1), vec![row("E3\0", "Teams", 4, 5, "2026-11-26")]);
    let nothing = usage(customer(4), Vec::new());
    let changes = vec![
        list("Contoso Ltd", MORNING),
        with_body(newest(insights, &first, MORNING), "{\"items\": []}"),
        with_body(newest(insights, &first, NOON), "{\"items\": []}"),
        with_body(newest(insights, &second, EVENING), "{\"items\": [{}]}"),
        dated(&many(1, "2026-11-26", 2), "2026-11-26", MORNING),
        dated(&many(1, "2026-11-25", 2), "2026-11-25", MORNING),
        dated(&many(1, "2026-11-25", 3), "2026-11-25", NOON),
        newest(insights, &nothing, NOON),
        StoreWrite::NothingProcessed {
            customer: Some(customer(1)),
            date: date("2026-11-20"),
            asked_at: at(NOON),
            purge_generation: None,
        },
    ];
    store.write(changes).await.unwrap();
    for number in [2, 3, 5] {
        let changes = (20..27).map(|day| {
            let day = format!("2026-11-{day}");
            dated(&many(number, &day, 1), &day, MORNING)
        });
        store.write(changes.collect()).await.unwrap();
        let day = "2026-11-27";
        let newest = newest(UpstreamApi::Commercial, &many(number, day, 1), MORNING);
        store.write(vec![newest]).await.unwrap();
    }
    let purges = vec![
        purge(Some(2), None, PurgeMode::Hard),
        purge(None, Some("2026-11-21"), PurgeMode::Soft),
        purge(Some(3), None, PurgeMode::Soft),
        StoreWrite::FleetConfirmed {
            api: UpstreamApi::Commercial,
            refreshed_at: at(MORNING),
            confirmed_at: at(EVENING),
        },
        dated(&many(3, "2026-11-22", 2), "2026-11-22", EVENING),
        StoreWrite::FleetFetched {
            date: date("2026-11-24"),
            asked_at: at(NOON),
            purge_generation: None,
        },
    ];
    store.write(purges).await.unwrap();
}

/// Returns all that a store serves.
async fn served(store: &dyn UsageStore) -> Vec<String> {
    let mut resources = Vec::new();
    for number in 1..=5 {
        resources.push(Resource::InsightsUsage(customer(number)));
        resources.push(Resource::CommercialUsage(customer(number), None));
        for day in 20..28 {
            let day = date(&format!("2026-11-{day}"));
            resources.push(Resource::CommercialUsage(customer(number), Some(day)));
        }
    }
    let mut served = Vec::new();
    for resource in resources {
        served.push(format!("{:?}", store.snapshot(resource).await.unwrap()));
    }
    served.push(format!("{:?}", store.newest_of_all().await.unwrap()));
    served.push(format!("{:?}", store.customers().await.unwrap()));
    for day in 20..28 {
        let day = date(&format!("2026-11-{day}"));
        served.push(format!("{:?}", store.all_of_date(day).await.unwrap()));
    }
    served
}

/// Returns the content of views and tables, whatever numbers texts have.
fn content(place: &TestPlace) -> Vec<String> {
    const QUERIES: [&str; 8] = [
        "SELECT customer_id, customer_name, processed_date, product_name, workload_name, service_name, \
         channel, licenses_active, licenses_qualified, \
         CAST(round(reported_usage_percent * 100) AS INTEGER), TIME(fetched_at), revision, source \
         FROM usage_rows",
        "SELECT customer_id, processed_date, product_name, revision FROM newest_usage",
        "SELECT customer_id, customer_name, processed_date, revision, state, TIME(fetched_at), \
         TIME(confirmed_at), source FROM snapshots",
        "SELECT c.customer_id, b.day, b.source, b.revision, b.codec, b.length, HEX(b.bytes) \
         FROM native_body b JOIN customer c ON c.id = b.customer",
        "SELECT c.customer_id, f.day, f.source, f.revision, p.product_name, f.licenses_active, \
         f.processed_offset FROM superseded_fact f JOIN customer c ON c.id = f.customer \
         JOIN product p ON p.id = f.product",
        "SELECT coalesce(c.customer_id, 'all'), a.day, a.asked_at \
         FROM asked_day a LEFT JOIN customer c ON c.id = a.customer",
        "SELECT c.customer_id, s.day, s.source, n.name FROM snapshot s \
         JOIN customer c ON c.id = s.customer JOIN customer_name n ON n.id = s.customer_name",
        "SELECT c.customer_id, n.source, n.day, f.refreshed_at, f.confirmed_at FROM newest n \
         JOIN customer c ON c.id = n.customer LEFT JOIN fleet_confirmed f ON f.source = n.source",
    ];
    let mut content = Vec::new();
    for query in QUERIES {
        let mut lines = match place {
            TestPlace::File(folder) => {
                let file = Connection::open(folder.path().join("usage.db")).unwrap();
                let query = query.replace("TIME(", "(").replace("HEX(", "hex(");
                lines_of_file(&file, &query)
            }
            TestPlace::Database(database) | TestPlace::Pooled(database) => {
                let form = "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'";
                let query = query
                    .replace(
                        "TIME(fetched_at)",
                        &format!("to_char(fetched_at AT TIME ZONE 'UTC', {form})"),
                    )
                    .replace(
                        "TIME(confirmed_at)",
                        &format!("to_char(confirmed_at AT TIME ZONE 'UTC', {form})"),
                    )
                    .replace("HEX(b.bytes)", "upper(encode(b.bytes, 'hex'))");
                let query = format!("SET search_path = usage_proxy; {query}");
                let printed = database.psql(&query).replace("\u{2400}0", "\0");
                printed.lines().map(str::to_owned).collect()
            }
        };
        assert!(!lines.is_empty(), "{query}");
        lines.sort();
        content.extend(lines);
    }
    content
}

fn lines_of_file(file: &Connection, query: &str) -> Vec<String> {
    let mut statement = file.prepare(query).unwrap();
    let columns = statement.column_count();
    let lines = statement.query_map([], |row| {
        let cells = (0..columns).map(|column| match row.get_unwrap(column) {
            Value::Null => String::new(),
            Value::Integer(value) => value.to_string(),
            Value::Real(value) => value.to_string(),
            Value::Text(text) => text,
            Value::Blob(_) => panic!("no column is one"),
        });
        Ok(cells.collect::<Vec<_>>().join("|"))
    });
    lines.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_store_is_the_same_on_each_engine_and_back() {
    let source = on_file().await;
    fill(&*source.store).await;
    let (expected, expected_answers) = (content(&source.place), served(&*source.store).await);
    let [database, pooled, back] = [
        TestPlace::database(),
        TestPlace::pooled(),
        TestPlace::file(),
    ];

    let summary = copied(&source.place, &database).await.unwrap();
    copied(&database, &pooled).await.unwrap();
    copied(&pooled, &back).await.unwrap();

    for place in [&database, &pooled, &back] {
        assert_eq!(content(place), expected);
        let store = place.open(UpstreamApi::Insights).await;
        assert_eq!(served(&*store).await, expected_answers);
    }
    let is_hidden = |answer: &String| answer == "None";
    assert!(expected_answers.iter().any(is_hidden), "a purge hides some");
    assert_eq!(
        (
            summary.customers,
            summary.snapshots,
            summary.unchanged,
            summary.bodies
        ),
        (5, 28, 0, 2)
    );
    assert_eq!((summary.superseded, summary.rows), (3, 198));
}

#[tokio::test]
async fn a_second_copy_changes_nothing() {
    let source = on_file().await;
    fill(&*source.store).await;
    for target in [TestPlace::file(), TestPlace::database()] {
        let first = copied(&source.place, &target).await.unwrap();
        let before = content(&target);

        let second = copied(&source.place, &target).await.unwrap();
        let back = copied(&target, &source.place).await.unwrap();

        assert_eq!(content(&target), before);
        assert_eq!(content(&source.place), before);
        assert_eq!((second.snapshots, second.unchanged), (0, first.snapshots));
        assert_eq!((back.snapshots, back.rows), (0, 0));
    }
}

#[tokio::test]
async fn a_copy_that_broke_continues_where_it_ended() {
    let source = on_file().await;
    fill(&*source.store).await;
    let target = on_file().await;
    let TestPlace::File(folder) = &target.place else {
        panic!("a file");
    };
    let file = Connection::open(folder.path().join("usage.db")).unwrap();
    let last = customer(5);
    file.execute_batch(&format!(
        "CREATE TRIGGER full BEFORE INSERT ON customer WHEN new.customer_id = '{last}'
         BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    ))
    .unwrap();

    let broken = copied(&source.place, &target.place).await.unwrap_err();
    file.execute_batch("DROP TRIGGER full").unwrap();
    let asked = "SELECT count(*) FROM asked_day WHERE customer = 0";
    let fetched_whole: i64 = file.query_row(asked, [], |row| row.get(0)).unwrap();
    let summary = copied(&source.place, &target.place).await.unwrap();

    let CopyError::Failed {
        side: CopySide::Target,
        problem,
    } = broken
    else {
        panic!("{broken:?}");
    };
    assert!(problem.contains("disk is full"), "{problem}");
    assert_eq!(
        fetched_whole, 0,
        "no date is whole before all customers are there"
    );
    assert!(summary.unchanged > 0 && summary.snapshots > 0, "{summary}");
    assert_eq!(content(&target.place), content(&source.place));
}

#[tokio::test]
async fn a_copy_that_is_stopped_ends() {
    let source = on_file().await;
    fill(&*source.store).await;
    let target = TestPlace::file();
    let progress = Arc::new(CopyProgress::default());
    progress.stop();

    let stopped = copy(
        source.place.store_place(),
        target.store_place(),
        clock(),
        progress,
    )
    .await;

    assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
}

#[tokio::test]
async fn what_the_target_has_and_is_newer_stays_and_the_rest_becomes_history() {
    let insights = UpstreamApi::Insights;
    let resource = Resource::InsightsUsage(customer(1));
    let content = |active| {
        usage(
            customer(1),
            vec![row("E3", "Teams", active, 9, "2026-11-26")],
        )
    };
    for target in [TestPlace::file(), TestPlace::database()] {
        let target = TestStore::on(target).await;
        let source = on_file().await;
        let changes = vec![
            list("Old name", MORNING),
            newest(insights, &content(1), MORNING),
            dated(&many(2, "2026-11-26", 3), "2026-11-26", EVENING),
        ];
        source.store.write(changes).await.unwrap();
        let later = usage(customer(1), vec![row("E3", "Teams", 7, 9, "2026-11-27")]);
        let changes = vec![
            list("New name", EVENING),
            newest(insights, &content(2), NOON),
            newest(insights, &later, EVENING),
            dated(&many(2, "2026-11-26", 2), "2026-11-26", NOON),
        ];
        target.store.write(changes).await.unwrap();

        copied(&source.place, &target.place).await.unwrap();
        copied(&source.place, &target.place).await.unwrap();

        let served = target.store.snapshot(resource).await.unwrap().unwrap();
        assert_eq!(served.usage.rows(), later.rows());
        let range = super::fixtures::range("2026-11-01", "2026-11-30");
        let dates = target.store.dates(customer(1), range).await.unwrap();
        assert_eq!(dates.len(), 2);
        assert_eq!((dates[0].fetched_at, dates[0].corrections), (at(NOON), 1));
        let corrected = target.store.dates(customer(2), range).await.unwrap();
        assert_eq!(
            (corrected[0].fetched_at, corrected[0].corrections),
            (at(EVENING), 1)
        );
        let listed = target.store.customers().await.unwrap().unwrap();
        assert_eq!(&*listed.list.customers()[0].entry.name, "New name");
    }
}

#[tokio::test]
async fn a_purge_after_a_copy_counts_with_the_next_one() {
    let source = on_file().await;
    fill(&*source.store).await;
    let target = TestStore::on(TestPlace::database()).await;
    copied(&source.place, &target.place).await.unwrap();
    let of_date = Resource::CommercialUsage(customer(5), Some(date("2026-11-24")));
    let newest = Resource::CommercialUsage(customer(5), None);
    let look_up = async |resource| target.store.snapshot(resource).await.unwrap();
    let day = date("2026-11-24");
    let asked_at = async || target.store.all_of_date(day).await.unwrap().asked_at;

    let before = [
        look_up(of_date).await.is_some(),
        look_up(newest).await.is_some(),
    ];
    let asked_before = asked_at().await;
    source
        .store
        .write(vec![purge(Some(5), None, PurgeMode::Hard)])
        .await
        .unwrap();
    copied(&source.place, &target.place).await.unwrap();

    assert_eq!((before, asked_before.is_some()), ([true, true], true));
    assert!(look_up(of_date).await.is_none());
    assert!(look_up(newest).await.is_none());
    assert_eq!(
        asked_at().await,
        None,
        "the date is not fetched whole any more"
    );
    assert_eq!(served(&*target.store).await, served(&*source.store).await);
}

#[tokio::test]
async fn a_purge_of_the_target_hides_what_is_copied() {
    let source = on_file().await;
    fill(&*source.store).await;
    let target = on_file().await;
    let purge = purge(Some(5), None, PurgeMode::Hard);
    target.store.write(vec![purge]).await.unwrap();

    copied(&source.place, &target.place).await.unwrap();

    let newest = Resource::CommercialUsage(customer(5), None);
    assert!(source.store.snapshot(newest).await.unwrap().is_some());
    assert!(target.store.snapshot(newest).await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_and_nothing_is_created() {
    let source = on_file().await;
    let (missing, empty) = (TestPlace::file(), TestPlace::database());
    let newer = TestStore::on(TestPlace::database()).await;
    let TestPlace::Database(database) = &newer.place else {
        panic!("a database");
    };
    database.psql("INSERT INTO usage_proxy.schema_version VALUES (999, 0)");
    let target = TestPlace::file();

    for (from, to, expected) in [
        (&missing, &target, "does not exist"),
        (&empty, &target, "has no store"),
        (&newer.place, &target, "version 999"),
        (&source.place, &newer.place, "version 999"),
    ] {
        let refused = copied(from, to).await.unwrap_err();

        assert!(matches!(refused, CopyError::Refused { .. }), "{refused:?}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    for place in [&missing, &target] {
        let TestPlace::File(folder) = place else {
            panic!("a file");
        };
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_store_is_not_copied_into_itself() {
    let file = on_file().await;
    let database = TestStore::on(TestPlace::database()).await;
    for place in [&file.place, &database.place] {
        let same = copied(place, place).await;

        assert!(matches!(same, Err(CopyError::SameStore)), "{same:?}");
    }
}
