//! The same tests for every engine.

use bytes::Bytes;

use super::fixtures::{TestStore, at, customer, date, dated, newest, range, row, sqlite, usage};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerId, Resource, UpstreamApi},
    store::{AcceptedSnapshot, StoreWrite, StoredSnapshot, UsageStore},
};

const MORNING: &str = "2026-11-28T06:00:00Z";
const NOON: &str = "2026-11-28T12:00:00Z";
const EVENING: &str = "2026-11-28T18:00:00Z";

/// Runs a test on each engine.
macro_rules! on_each_engine {
    ($($test:ident;)+) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(super::sqlite().await).await;
                }
            )+
        }
    };
}

on_each_engine! {
    what_is_stored_comes_back;
    the_same_rows_confirm_and_other_rows_correct;
    the_newest_date_never_goes_backwards;
    an_answer_without_rows_is_the_newest;
    a_date_comes_from_the_call_that_knows_dates_first;
    a_check_confirms_those_that_the_last_refresh_confirmed;
    a_hard_purge_hides_what_was_stored_before_and_no_history;
    a_soft_purge_marks_what_was_stored_before;
}

async fn newest_of(store: &dyn UsageStore, customer: CustomerId) -> Option<StoredSnapshot> {
    let resource = Resource::InsightsUsage(customer);
    store.snapshot(resource).await.unwrap()
}

async fn what_is_stored_comes_back(TestStore { store, .. }: TestStore) {
    let stored = usage(
        customer(1),
        vec![
            row("E3", "Exchange", 3, 5, "2026-11-26"),
            row("E3", "Teams", 0, 5, "2026-11-25"),
        ],
    );
    let accepted = AcceptedSnapshot {
        api: UpstreamApi::Insights,
        usage: stored.clone(),
        native: Some(Bytes::from_static(b"\xef\xbb\xbf{ }")),
        asked_date: None,
        fetched_at: at(MORNING),
    };
    store
        .write(vec![StoreWrite::Snapshot(accepted)])
        .await
        .unwrap();

    let found = newest_of(&*store, customer(1)).await.unwrap();

    assert_eq!(found.usage, stored);
    assert_eq!(found.native.as_deref(), Some(&b"\xef\xbb\xbf{ }"[..]));
    assert_eq!((found.revision, found.is_purged), (1, false));
    assert_eq!(
        (found.fetched_at, found.confirmed_at),
        (at(MORNING), at(MORNING))
    );
    assert!(newest_of(&*store, customer(2)).await.is_none());
    let all = store.newest_of_all().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].usage, stored);
}

async fn the_same_rows_confirm_and_other_rows_correct(TestStore { store, .. }: TestStore) {
    let first = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let second = usage(customer(1), vec![row("E3", "Teams", 4, 5, "2026-11-26")]);
    let range = range("2026-11-01", "2026-11-30");

    let written = vec![
        newest(UpstreamApi::Insights, &first, MORNING),
        newest(UpstreamApi::Insights, &first, NOON),
    ];
    store.write(written).await.unwrap();
    let confirmed = newest_of(&*store, customer(1)).await.unwrap();
    let correction = newest(UpstreamApi::Insights, &second, EVENING);
    store.write(vec![correction]).await.unwrap();
    let corrected = newest_of(&*store, customer(1)).await.unwrap();

    assert_eq!(confirmed.revision, 1);
    assert_eq!(
        (confirmed.fetched_at, confirmed.confirmed_at),
        (at(MORNING), at(NOON))
    );
    assert_eq!(corrected.usage, second);
    assert_eq!(corrected.revision, 2);
    assert_eq!(
        (corrected.fetched_at, corrected.confirmed_at),
        (at(EVENING), at(EVENING))
    );
    let dates = store.dates(customer(1), range).await.unwrap();
    assert_eq!(dates.len(), 1);
    assert_eq!(dates[0].corrections, 1);
}

async fn the_newest_date_never_goes_backwards(TestStore { store, .. }: TestStore) {
    let newer = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let older = usage(customer(1), vec![row("E3", "Teams", 4, 5, "2026-11-25")]);

    let written = vec![
        newest(UpstreamApi::Insights, &newer, MORNING),
        newest(UpstreamApi::Insights, &older, NOON),
    ];
    store.write(written).await.unwrap();

    let found = newest_of(&*store, customer(1)).await.unwrap();
    assert_eq!(found.usage, newer);
    assert_eq!(found.confirmed_at, at(MORNING));
}

async fn an_answer_without_rows_is_the_newest(TestStore { store, .. }: TestStore) {
    let with_rows = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let without_rows = usage(customer(1), Vec::new());

    let written = vec![
        newest(UpstreamApi::Insights, &with_rows, MORNING),
        newest(UpstreamApi::Insights, &without_rows, NOON),
    ];
    store.write(written).await.unwrap();
    let empty = newest_of(&*store, customer(1)).await.unwrap();
    store
        .write(vec![newest(UpstreamApi::Insights, &with_rows, EVENING)])
        .await
        .unwrap();
    let again = newest_of(&*store, customer(1)).await.unwrap();

    assert_eq!(empty.usage, without_rows);
    assert_eq!(again.usage, with_rows);
    assert_eq!((again.revision, again.fetched_at), (1, at(MORNING)));
}

async fn a_date_comes_from_the_call_that_knows_dates_first(TestStore { store, .. }: TestStore) {
    let insights = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let commercial = usage(customer(1), vec![row("E5", "Teams", 2, 5, "2026-11-26")]);
    let resource = Resource::dated_usage(customer(1), date("2026-11-26"));

    let first = newest(UpstreamApi::Insights, &insights, MORNING);
    store.write(vec![first]).await.unwrap();
    let only = store.snapshot(resource).await.unwrap().unwrap();
    let second = dated(&commercial, "2026-11-26", NOON);
    store.write(vec![second]).await.unwrap();
    let both = store.snapshot(resource).await.unwrap().unwrap();

    assert_eq!(
        (only.api, only.usage),
        (UpstreamApi::Insights, insights.clone())
    );
    assert_eq!(
        (both.api, both.usage),
        (UpstreamApi::Commercial, commercial)
    );
    let newest = store.newest_of_all().await.unwrap();
    assert_eq!(
        newest[0].usage, insights,
        "a dated answer is not the newest"
    );
    let of_date = store.all_of_date(date("2026-11-26")).await.unwrap();
    assert_eq!(of_date.len(), 1);
    assert_eq!(of_date[0].api, UpstreamApi::Insights, "the preferred call");
}

async fn a_check_confirms_those_that_the_last_refresh_confirmed(
    TestStore { store, .. }: TestStore,
) {
    let of = |number| {
        usage(
            customer(number),
            vec![row("E3", "Teams", 3, 5, "2026-11-26")],
        )
    };
    let check = |refreshed_at, confirmed_at| StoreWrite::FleetConfirmed {
        api: UpstreamApi::Insights,
        refreshed_at: at(refreshed_at),
        confirmed_at: at(confirmed_at),
    };
    let confirmed_at = async |number| {
        newest_of(&*store, customer(number))
            .await
            .unwrap()
            .confirmed_at
    };

    let written = vec![
        newest(UpstreamApi::Insights, &of(1), "2026-11-28T05:00:00Z"),
        newest(UpstreamApi::Insights, &of(2), MORNING),
        check(MORNING, NOON),
    ];
    store.write(written).await.unwrap();
    assert_eq!(confirmed_at(1).await, at("2026-11-28T05:00:00Z"));
    assert_eq!(confirmed_at(2).await, at(NOON));

    store.write(vec![check(EVENING, EVENING)]).await.unwrap();
    assert_eq!(
        confirmed_at(2).await,
        at(NOON),
        "the confirmation before stays"
    );
}

async fn a_hard_purge_hides_what_was_stored_before_and_no_history(
    TestStore { store, .. }: TestStore,
) {
    let one = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let two = usage(customer(2), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let scope = PurgeScope {
        customer_id: Some(customer(1)),
        processed_date: None,
    };
    let written = vec![
        newest(UpstreamApi::Insights, &one, MORNING),
        newest(UpstreamApi::Insights, &two, MORNING),
        StoreWrite::Purge(scope, PurgeMode::Hard),
    ];
    store.write(written).await.unwrap();

    assert!(newest_of(&*store, customer(1)).await.is_none());
    assert!(newest_of(&*store, customer(2)).await.is_some());
    assert_eq!(store.newest_of_all().await.unwrap().len(), 1);
    let range = range("2026-11-01", "2026-11-30");
    assert_eq!(store.dates(customer(1), range).await.unwrap().len(), 1);

    store
        .write(vec![newest(UpstreamApi::Insights, &one, NOON)])
        .await
        .unwrap();
    let again = newest_of(&*store, customer(1)).await.unwrap();
    assert_eq!((again.revision, again.is_purged), (1, false));
}

async fn a_soft_purge_marks_what_was_stored_before(TestStore { store, .. }: TestStore) {
    let one = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let written = vec![
        newest(UpstreamApi::Insights, &one, MORNING),
        StoreWrite::Purge(PurgeScope::default(), PurgeMode::Soft),
    ];
    store.write(written).await.unwrap();

    assert!(newest_of(&*store, customer(1)).await.unwrap().is_purged);

    store
        .write(vec![newest(UpstreamApi::Insights, &one, NOON)])
        .await
        .unwrap();
    assert!(!newest_of(&*store, customer(1)).await.unwrap().is_purged);
}
