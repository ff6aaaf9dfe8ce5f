//! The same tests for every engine.

use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::{TestPlace, TestStore, at, customer, date, dated, newest, range, row, usage};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{CustomerEntry, CustomerId, CustomerList, ListedCustomer, Resource, UpstreamApi},
    store::{
        AcceptedSnapshot, OldDates, StoreError, StoreWrite, StoredCustomers, StoredPurge,
        StoredSnapshot, UsageStore,
    },
};

const MORNING: &str = "2026-11-28T06:00:00Z";
const NOON: &str = "2026-11-28T12:00:00Z";
const EVENING: &str = "2026-11-28T18:00:00Z";

/// Runs each test in each kind of place.
macro_rules! on_each_engine {
    ([$($engine:ident: $place:ident),*] $tests:tt) => {
        $(on_each_engine!(@one $engine: $place $tests);)*
    };
    (@one $engine:ident: $place:ident { $($test:ident;)+ }) => {
        mod $engine {
            use super::{TestPlace, TestStore};

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(TestStore::on(TestPlace::$place()).await).await;
                }
            )+
        }
    };
}

on_each_engine! { [on_sqlite: file, on_postgres: database, behind_pgbouncer: pooled] {
    what_is_stored_comes_back;
    the_same_rows_confirm_and_other_rows_correct;
    what_was_fetched_before_the_current_content_changes_nothing;
    the_newest_date_never_goes_backwards;
    an_answer_without_rows_is_the_newest;
    a_date_comes_from_the_call_that_knows_dates_first;
    a_check_confirms_those_that_the_last_refresh_confirmed;
    a_hard_purge_hides_what_was_stored_before_and_no_history;
    a_soft_purge_marks_what_was_stored_before;
    a_hard_purge_of_a_date_hides_it_for_all_customers;
    purges_are_read_in_their_order_and_by_their_process;
    what_was_accepted_before_a_purge_of_another_process_counts_as_older;
    other_processes_read_what_replaced_something;
    many_changes_are_read_in_parts;
    dates_that_were_asked_for_are_remembered;
    the_list_of_customers_is_replaced;
    old_dates_are_deleted_in_small_parts;
    a_call_that_fails_changes_nothing;
} }

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
        native: Some(Bytes::from_static(b"\xef\xbb\xbf{\"items\": []}")),
        asked_date: None,
        fetched_at: at(MORNING),
        purge_generation: None,
        lease: None,
        is_of_refresh: false,
    };
    store
        .write(vec![StoreWrite::Snapshot(accepted)])
        .await
        .unwrap();

    let found = newest_of(&*store, customer(1)).await.unwrap();

    assert_eq!(found.usage, stored);
    assert_eq!(
        found.native.as_deref(),
        Some(&b"\xef\xbb\xbf{\"items\": []}"[..])
    );
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

/// One process fetches and loses the store, another stores a correction, and then the first writes.
async fn what_was_fetched_before_the_current_content_changes_nothing(
    TestStore { store, .. }: TestStore,
) {
    const YESTERDAY: &str = "2026-11-27T06:00:00Z";

    let first = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let correction = usage(customer(1), vec![row("E3", "Teams", 4, 5, "2026-11-26")]);
    let without_rows = usage(customer(1), Vec::new());
    let list = |name: &str, fetched_at| {
        let entry = CustomerEntry {
            id: customer(1),
            name: name.to_owned(),
            domain: None,
        };
        let raw = "{}".into();
        StoreWrite::Customers(StoredCustomers {
            list: Arc::new(CustomerList::new(vec![ListedCustomer { entry, raw }])),
            fetched_at: at(fetched_at),
        })
    };
    let current = vec![
        newest(UpstreamApi::Insights, &correction, EVENING),
        list("Contoso", EVENING),
    ];
    store.write(current).await.unwrap();

    let late = vec![
        newest(UpstreamApi::Insights, &first, MORNING),
        newest(UpstreamApi::Insights, &correction, NOON),
        newest(UpstreamApi::Insights, &without_rows, NOON),
        list("Fabrikam", NOON),
    ];
    store.write(late).await.unwrap();

    let found = newest_of(&*store, customer(1)).await.unwrap();
    assert_eq!((&found.usage, found.revision), (&correction, 1));
    assert_eq!(
        (found.fetched_at, found.confirmed_at),
        (at(EVENING), at(EVENING))
    );
    let customers = store.customers().await.unwrap().unwrap();
    assert_eq!(customers.list.customers()[0].entry.name, "Contoso");
    assert_eq!(customers.fetched_at, at(EVENING));

    // A clock that was wrong keeps nothing out.
    let written = vec![newest(UpstreamApi::Insights, &first, YESTERDAY)];
    store.write(written).await.unwrap();
    let found = newest_of(&*store, customer(1)).await.unwrap();
    assert_eq!((found.usage, found.revision), (first, 2));
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
    let of_date = store
        .all_of_date(date("2026-11-26"))
        .await
        .unwrap()
        .snapshots;
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

async fn a_hard_purge_of_a_date_hides_it_for_all_customers(TestStore { store, .. }: TestStore) {
    let of = |number, day| usage(customer(number), vec![row("E3", "Teams", 3, 5, day)]);
    let scope = PurgeScope {
        customer_id: None,
        processed_date: Some(date("2026-11-26")),
    };
    let written = vec![
        newest(UpstreamApi::Insights, &of(1, "2026-11-26"), MORNING),
        newest(UpstreamApi::Insights, &of(2, "2026-11-25"), MORNING),
        StoreWrite::Purge(scope, PurgeMode::Hard),
    ];
    store.write(written).await.unwrap();

    assert!(newest_of(&*store, customer(1)).await.is_none());
    assert!(newest_of(&*store, customer(2)).await.is_some());
    let purged = store.all_of_date(date("2026-11-26")).await.unwrap();
    let other = store.all_of_date(date("2026-11-25")).await.unwrap();
    assert_eq!((purged.snapshots.len(), other.snapshots.len()), (0, 1));
}

async fn purges_are_read_in_their_order_and_by_their_process(
    TestStore { store, place }: TestStore,
) {
    let other = place.open(UpstreamApi::Insights).await;
    let of_customer = PurgeScope {
        customer_id: Some(customer(1)),
        processed_date: None,
    };
    let of_date = PurgeScope {
        processed_date: Some(date("2026-11-26")),
        ..of_customer
    };
    let purge = |scope, mode| vec![StoreWrite::Purge(scope, mode)];
    store
        .write(purge(PurgeScope::default(), PurgeMode::Hard))
        .await
        .unwrap();

    let begin = other.purges_after(None).await.unwrap();
    store
        .write(purge(of_customer, PurgeMode::Soft))
        .await
        .unwrap();
    other.write(purge(of_date, PurgeMode::Hard)).await.unwrap();
    // It includes both, and still does not hide the first from its own process.
    other
        .write(purge(PurgeScope::default(), PurgeMode::Hard))
        .await
        .unwrap();
    let later = other.purges_after(Some(begin.generation)).await.unwrap();
    let seen_by_first = store.purges_after(Some(begin.generation)).await.unwrap();

    let stored = |scope, mode, is_own| StoredPurge {
        scope,
        mode,
        is_own,
    };
    assert_eq!(begin.purges, []);
    assert_eq!(
        later.purges,
        [
            stored(of_customer, PurgeMode::Soft, false),
            stored(PurgeScope::default(), PurgeMode::Hard, true)
        ]
    );
    assert!(later.generation >= begin.generation + 3);
    assert!(!later.went_back);
    assert_eq!(
        seen_by_first.purges[1],
        stored(PurgeScope::default(), PurgeMode::Hard, false)
    );
    let none = other.purges_after(Some(later.generation)).await.unwrap();
    assert_eq!(none.purges, []);
}

async fn other_processes_read_what_replaced_something(TestStore { store, place }: TestStore) {
    let api = UpstreamApi::Commercial;
    let of = |number, count, day| {
        let rows = vec![row("E3", "Teams", count, 5, day)];
        usage(customer(number), rows)
    };
    let other = place.open(api).await;
    let begin = other.changes_after(None).await.unwrap().number;
    let new = [1, 2, 3].map(|number| newest(api, &of(number, 1, "2026-11-25"), MORNING));
    let past = dated(&of(3, 1, "2026-11-20"), "2026-11-20", MORNING);
    store
        .write(new.into_iter().chain([past]).collect())
        .await
        .unwrap();
    let StoreWrite::Snapshot(of_refresh) = newest(api, &of(2, 7, "2026-11-26"), NOON) else {
        unreachable!();
    };
    let of_refresh = AcceptedSnapshot {
        is_of_refresh: true,
        ..of_refresh
    };

    let nothing_yet = other.changes_after(Some(begin)).await.unwrap();
    let written = vec![
        newest(api, &of(1, 2, "2026-11-26"), NOON),
        StoreWrite::Snapshot(of_refresh),
        newest(api, &of(3, 1, "2026-11-25"), NOON),
        dated(&of(3, 9, "2026-11-20"), "2026-11-20", NOON),
    ];
    store.write(written).await.unwrap();
    let later = other.changes_after(Some(begin)).await.unwrap();
    let of_one_itself = store.changes_after(Some(begin)).await.unwrap();
    let known = other.changes_after(Some(later.number)).await.unwrap();
    let too_long_ago = other.changes_after(Some(-1)).await.unwrap();
    let after_going_back = other.changes_after(Some(later.number + 1)).await.unwrap();

    assert_eq!((nothing_yet.resources, nothing_yet.number), (vec![], begin));
    let (newest, dated) = (Resource::newest_usage, Resource::dated_usage);
    let (of_refresh, of_others): (Vec<Resource>, Vec<_>) = later
        .resources
        .into_iter()
        .partition(|resource| resource.customer() == Some(customer(2)));
    assert_eq!(of_refresh.is_empty(), store.coordination().is_some());
    assert_eq!(
        of_others,
        [
            newest(customer(1), api),
            dated(customer(1), date("2026-11-26")),
            newest(customer(3), api),
            dated(customer(3), date("2026-11-20")),
        ]
    );
    assert!(later.number > begin && !later.is_cut && !later.has_more);
    assert_eq!(of_one_itself.resources, []);
    assert_eq!((known.resources, known.number), (vec![], later.number));
    assert!(too_long_ago.is_cut);
    assert_eq!(
        (after_going_back.resources, after_going_back.number),
        (vec![], later.number)
    );
}

async fn many_changes_are_read_in_parts(TestStore { store, place }: TestStore) {
    let other = place.open(UpstreamApi::Insights).await;
    let begin = other.changes_after(None).await.unwrap().number;
    for (day, at) in [("2026-11-25", MORNING), ("2026-11-26", NOON)] {
        let of = |number| {
            let rows = vec![row("E3", "Teams", 3, 5, day)];
            newest(UpstreamApi::Insights, &usage(customer(number), rows), at)
        };
        store.write((1..=80).map(of).collect()).await.unwrap();
    }

    let first = other.changes_after(Some(begin)).await.unwrap();
    let second = other.changes_after(Some(first.number)).await.unwrap();

    assert_eq!((first.resources.len(), first.has_more), (100, true));
    assert_eq!((second.resources.len(), second.has_more), (60, false));
}

async fn what_was_accepted_before_a_purge_of_another_process_counts_as_older(
    TestStore { store, place }: TestStore,
) {
    let day = date("2026-11-26");
    let accepted = |number, generation| {
        let rows = vec![row("E3", "Teams", 3, 5, "2026-11-26")];
        let usage = usage(customer(number), rows);
        let StoreWrite::Snapshot(accepted) = newest(UpstreamApi::Insights, &usage, NOON) else {
            unreachable!();
        };
        StoreWrite::Snapshot(AcceptedSnapshot {
            purge_generation: Some(generation),
            lease: None,
            ..accepted
        })
    };
    let asked = |number, generation| StoreWrite::NothingProcessed {
        customer: Some(customer(number)),
        date: date("2026-11-25"),
        asked_at: at(NOON),
        purge_generation: Some(generation),
    };
    let purge = |number, mode| {
        let customer_id = Some(customer(number));
        let processed_date = None;
        let scope = PurgeScope {
            customer_id,
            processed_date,
        };
        StoreWrite::Purge(scope, mode)
    };
    let other = place.open(UpstreamApi::Insights).await;
    let before = store.purges_after(None).await.unwrap().generation;
    other
        .write(vec![purge(1, PurgeMode::Soft), purge(2, PurgeMode::Hard)])
        .await
        .unwrap();

    let written = vec![
        accepted(1, before),
        accepted(2, before),
        asked(2, before),
        accepted(3, before),
        asked(3, before),
    ];
    store.write(written).await.unwrap();

    let is_purged = async |number| {
        newest_of(&*store, customer(number))
            .await
            .map(|found| found.is_purged)
    };
    let dated = async |number| {
        let resource = Resource::dated_usage(customer(number), day);
        let found = store.snapshot(resource).await.unwrap();
        found.map(|found| found.is_purged)
    };
    let asked_dates = async |number| {
        let range = range("2026-11-25", "2026-11-25");
        store.asked_dates(Some(customer(number)), range).await
    };
    for (number, expected) in [(1, Some(true)), (2, None), (3, Some(false))] {
        assert_eq!(is_purged(number).await, expected, "{number}");
        assert_eq!(dated(number).await, expected, "{number}");
    }
    assert_eq!(asked_dates(2).await.unwrap(), []);
    assert_eq!(asked_dates(3).await.unwrap(), [date("2026-11-25")]);
    let after = store.purges_after(None).await.unwrap().generation;
    store
        .write(vec![accepted(1, after), accepted(2, after)])
        .await
        .unwrap();
    assert_eq!(is_purged(1).await, Some(false));
    assert_eq!(is_purged(2).await, Some(false));
}

async fn dates_that_were_asked_for_are_remembered(TestStore { store, .. }: TestStore) {
    let nothing = |customer, day| StoreWrite::NothingProcessed {
        customer,
        date: date(day),
        asked_at: at(NOON),
        purge_generation: None,
    };
    let stored = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let written = vec![
        newest(UpstreamApi::Insights, &stored, MORNING),
        nothing(Some(customer(1)), "2026-11-25"),
        nothing(Some(customer(2)), "2026-11-24"),
        nothing(None, "2026-11-23"),
        StoreWrite::FleetFetched {
            date: date("2026-11-22"),
            asked_at: at(NOON),
            purge_generation: None,
        },
    ];
    store.write(written).await.unwrap();

    let range = range("2026-11-22", "2026-11-30");
    let asked = async |of| {
        let dates = store.asked_dates(of, range).await.unwrap();
        dates.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of_one = ["2026-11-22", "2026-11-23", "2026-11-25", "2026-11-26"];
    assert_eq!(asked(Some(customer(1))).await, of_one);
    assert_eq!(asked(Some(customer(9))).await, of_one[..2]);
    assert_eq!(asked(None).await, of_one[..2]);
    let asked_at = async || {
        let of_date = store.all_of_date(date("2026-11-23")).await.unwrap();
        of_date.asked_at.unwrap()
    };
    assert_eq!(asked_at().await, at(NOON));
    let purge = StoreWrite::Purge(PurgeScope::default(), PurgeMode::Soft);
    store.write(vec![purge]).await.unwrap();
    assert!(asked_at().await < at(MORNING), "it must be asked for again");
    assert_eq!(asked(None).await, of_one[..2]);
}

async fn the_list_of_customers_is_replaced(TestStore { store, .. }: TestStore) {
    let list = |customers: &[(u32, &str, Option<&str>)], fetched_at| {
        let listed = customers
            .iter()
            .map(|(number, name, domain)| ListedCustomer {
                entry: CustomerEntry {
                    id: customer(*number),
                    name: (*name).to_owned(),
                    domain: domain.map(str::to_owned),
                },
                raw: format!("{{\"name\": \"{name}\"}}").into(),
            });
        StoredCustomers {
            list: Arc::new(CustomerList::new(listed.collect())),
            fetched_at: at(fetched_at),
        }
    };
    let first = list(
        &[(1, "Contoso", None), (2, "Fabrikam", Some("f.example"))],
        MORNING,
    );
    let second = list(&[(2, "Fabrikam", None), (3, "", Some("x.example"))], NOON);
    assert!(store.customers().await.unwrap().is_none());

    for expected in [first, second] {
        store
            .write(vec![StoreWrite::Customers(expected.clone())])
            .await
            .unwrap();

        let found = store.customers().await.unwrap().unwrap();
        assert_eq!(found.list, expected.list);
        assert_eq!(found.fetched_at, expected.fetched_at);
    }
}

async fn old_dates_are_deleted_in_small_parts(TestStore { store, .. }: TestStore) {
    let of =
        |number, day, active| usage(customer(number), vec![row("E3", "Teams", active, 9, day)]);
    let days = ["2026-11-20", "2026-11-21", "2026-11-22"];
    for number in 1..=2 {
        for day in days {
            let written = vec![
                dated(&of(number, day, 1), day, MORNING),
                dated(&of(number, day, 2), day, NOON),
            ];
            store.write(written).await.unwrap();
        }
    }

    let old = OldDates {
        before: date("2026-11-22"),
        days_before_newest: 0,
    };
    let mut deleted = Vec::new();
    while deleted.last() != Some(&0) {
        let limit = 3.try_into().unwrap();
        deleted.push(store.delete_old(old, limit).await.unwrap());
    }

    assert_eq!(deleted, [3, 1, 0]);
    let range = range("2026-11-01", "2026-11-30");
    for number in 1..=2 {
        let left = store.dates(customer(number), range).await.unwrap();
        assert_eq!(
            left.iter().map(|stored| stored.date).collect::<Vec<_>>(),
            [date("2026-11-22")]
        );
        assert_eq!(
            store
                .asked_dates(Some(customer(number)), range)
                .await
                .unwrap()
                .len(),
            1
        );
    }
}

async fn a_call_that_fails_changes_nothing(TestStore { store, .. }: TestStore) {
    let stored = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let no_usage = usage(customer(2), Vec::new());
    let written = vec![
        newest(UpstreamApi::Insights, &stored, MORNING),
        newest(UpstreamApi::PartnerUsage, &no_usage, MORNING),
    ];

    let error = store.write(written).await.unwrap_err();

    assert!(matches!(error, StoreError::Unstorable(_)), "{error:?}");
    assert!(newest_of(&*store, customer(1)).await.is_none());
    let again = vec![newest(UpstreamApi::Insights, &stored, MORNING)];
    store.write(again).await.unwrap();
    assert_eq!(newest_of(&*store, customer(1)).await.unwrap().usage, stored);
}
