//! A model of the store in a few maps: random changes must have the same effect on both.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::fixtures::{TestPlace, TestStore, at, customer, date};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{
        CustomerId, LicenseUsage, ProcessedAt, ProcessedDate, Resource, UpstreamApi, UsageRow,
        aggregation,
    },
    proptest_support::proptest_config,
    store::{
        AcceptedSnapshot, CustomerTotals, DateRange, FleetDateTotals, FleetHistoryQuery,
        HistoryQuery, ProductFilter, RecentTotalsQuery, StoreWrite, UsageStore,
    },
};

/// The call that the tests prefer.
const PREFERRED: UpstreamApi = UpstreamApi::Insights;

const CUSTOMERS: u32 = 4;

const DAYS: i32 = 4;

const RECENT_DATES: usize = 2;

/// The changes that were written.
#[derive(Default)]
struct Model {
    /// The content of each customer, call and date.
    contents: BTreeMap<(CustomerId, UpstreamApi, Option<ProcessedDate>), Content>,
    /// The newest answer of each customer and call.
    newest: HashMap<(CustomerId, UpstreamApi), Newest>,
}

struct Content {
    usage: Arc<LicenseUsage>,
    corrections: u32,
    confirmed_at: Timestamp,
}

struct Newest {
    date: Option<ProcessedDate>,
    confirmed_at: Timestamp,
    is_hidden: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Accept(AcceptedSnapshot),
    Purge(PurgeScope),
    /// Totals are computed.
    Maintain,
}

#[derive(Clone, Debug)]
struct Question {
    customers: Option<Vec<CustomerId>>,
    filter: ProductFilter,
    constant_cohort: bool,
    range: DateRange,
}

fn day(number: i32) -> ProcessedDate {
    date("2026-11-20").plus_days(number).unwrap()
}

fn any_row() -> impl Strategy<Value = (UsageRow, bool)> {
    let product_id = prop::option::of(prop::sample::select(vec!["ab", "AB", "cd"]));
    let text = |texts: &[&'static str]| prop::sample::select(texts.to_vec());
    (
        (product_id, text(&["E3", "e5"]), text(&["o365", "crm"])),
        (
            prop::option::of(text(&["reseller", "direct"])),
            text(&["Teams", "Exchange", "Mail"]),
            prop::option::of(text(&["T", "E"])),
        ),
        (0..9_u64, 0..9_u64, prop::option::of(0.0..100.0_f64)),
        (0..86_400_000_i64, prop::bool::weighted(0.2)),
    )
        .prop_map(|(product, workload, counts, (millisecond, is_older))| {
            let row = UsageRow {
                service_code: None,
                service_name: product.2.into(),
                product_id: product.0.map(Into::into),
                product_name: product.1.into(),
                channel: workload.0.map(Into::into),
                workload_name: workload.1.into(),
                workload_code: workload.2.map(Into::into),
                licenses_active: counts.0,
                licenses_qualified: counts.1,
                reported_usage_percent: counts.2,
                processed_at: ProcessedAt(Timestamp::from_millisecond(millisecond).unwrap()),
            };
            (row, is_older)
        })
}

/// Puts rows on a day, some of them on the day before.
fn on_day(rows: Vec<(UsageRow, bool)>, of: ProcessedDate) -> Vec<UsageRow> {
    let midnight = of.start();
    let moved = rows
        .into_iter()
        .enumerate()
        .map(|(index, (row, is_older))| {
            let older = i64::from(is_older && index > 0) * 24;
            let at = midnight + row.processed_at.0.duration_since(Timestamp::UNIX_EPOCH);
            UsageRow {
                processed_at: ProcessedAt(at - older.hours()),
                ..row
            }
        });
    moved.collect()
}

/// A body for these rows, as no upstream has it.
fn body_of(usage: &LicenseUsage) -> Bytes {
    let body = serde_json::json!({"items": [], "usage": format!("{usage:?}")});
    body.to_string().into()
}

fn any_customer() -> impl Strategy<Value = CustomerId> {
    (0..CUSTOMERS).prop_map(customer)
}

fn any_accepted() -> impl Strategy<Value = AcceptedSnapshot> {
    let rows = prop::collection::vec(any_row(), 0..5);
    // Between the last two is more than any write waits: a clock was set back.
    let hours = prop::sample::select(vec![0, 1, 2, 30]);
    let choices = any::<(bool, bool, bool)>();
    (any_customer(), rows, 0..DAYS, hours, choices).prop_map(
        |(customer, rows, number, hours, (is_commercial, is_dated, has_name))| {
            let name = has_name.then(|| format!("Customer {customer}"));
            let rows = on_day(rows, day(number));
            let usage = LicenseUsage::new(customer, name, rows).unwrap();
            let is_dated = is_commercial && is_dated;
            AcceptedSnapshot {
                api: match is_commercial {
                    true => UpstreamApi::Commercial,
                    false => UpstreamApi::Insights,
                },
                asked_date: is_dated.then(|| day(number)),
                native: (!is_commercial).then(|| body_of(&usage)),
                usage: Arc::new(usage),
                fetched_at: at("2026-11-28T00:00:00Z") + i64::from(hours).hours(),
                purge_generation: None,
                lease: None,
                is_of_refresh: false,
            }
        },
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    let scope = (prop::option::of(any_customer()), prop::option::of(0..DAYS));
    let scope = scope.prop_map(|(customer_id, number)| PurgeScope {
        customer_id,
        processed_date: number.map(day),
    });
    prop_oneof![
        12 => any_accepted().prop_map(Change::Accept),
        1 => scope.prop_map(Change::Purge),
        1 => Just(Change::Maintain),
    ]
}

fn any_question() -> impl Strategy<Value = Question> {
    let texts = |of: &[&'static str]| {
        let texts: Vec<String> = of.iter().map(|text| (*text).to_owned()).collect();
        prop::sample::subsequence(texts, 0..=1)
    };
    let filter = (
        texts(&["E3", "E5", "Ab"]),
        texts(&["CRM"]),
        texts(&["Direct"]),
        texts(&["e3", "CD"]),
        texts(&["Ab"]),
    );
    let filter =
        filter.prop_map(
            |(products, services, channels, excluded, kept_ids)| ProductFilter {
                products,
                services,
                channels,
                excluded,
                kept_ids,
            },
        );
    let customers = prop::option::of(prop::collection::vec(any_customer(), 0..3));
    (customers, filter, any::<bool>(), 0..DAYS, 0..DAYS).prop_map(
        |(customers, filter, constant_cohort, one, other)| Question {
            customers,
            filter,
            constant_cohort,
            range: DateRange {
                from: day(one.min(other)),
                to: day(one.max(other)),
            },
        },
    )
}

// === impl Model ===

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Accept(accepted) => self.accept(accepted),
            Change::Purge(scope) => {
                for ((customer, _), newest) in &mut self.newest {
                    newest.is_hidden |= scope.covers(Some(*customer), newest.date);
                }
            }
            Change::Maintain => {}
        }
    }

    fn accept(&mut self, accepted: &AcceptedSnapshot) {
        let usage = &accepted.usage;
        let of_customer = (usage.customer_id(), accepted.api);
        let fetched_at = accepted.fetched_at;
        let key = (of_customer.0, of_customer.1, accepted.date());
        let mut corrections = 0;
        if let Some(current) = self.contents.get(&key) {
            if is_late(fetched_at, current.confirmed_at) {
                return;
            }
            corrections = current.corrections + u32::from(current.usage.rows() != usage.rows());
        }
        let content = Content {
            usage: Arc::clone(usage),
            corrections,
            confirmed_at: fetched_at,
        };
        self.contents.insert(key, content);
        let date = usage.processed_date();
        if accepted.asked_date.is_none() {
            let stays = self.newest.get(&of_customer).is_some_and(|newest| {
                let is_late = is_late(fetched_at, newest.confirmed_at)
                    && (date <= newest.date || newest.date.is_none());
                is_late || !newest.is_hidden && date.is_some() && date < newest.date
            });
            if !stays {
                let newest = Newest {
                    date,
                    confirmed_at: fetched_at,
                    is_hidden: false,
                };
                self.newest.insert(of_customer, newest);
            }
        } else if usage.rows().is_empty()
            && let Some(newest) = self.newest.get(&of_customer)
            && newest.date == accepted.date()
        {
            // Which date is the newest is not known any more.
            self.newest.remove(&of_customer);
        }
    }

    /// The rows of a customer and date that count.
    fn rows(&self, customer: CustomerId, date: ProcessedDate) -> Option<&LicenseUsage> {
        let calls = [PREFERRED, UpstreamApi::Commercial];
        calls.into_iter().find_map(|api| {
            let content = self.contents.get(&(customer, api, Some(date)))?;
            Some(&*content.usage).filter(|usage| !usage.rows().is_empty())
        })
    }

    fn fleet_history(&self, question: &Question) -> Vec<FleetDateTotals> {
        let all: Vec<_> = (0..CUSTOMERS).map(customer).collect();
        let wanted: BTreeSet<_> = question
            .customers
            .as_ref()
            .unwrap_or(&all)
            .iter()
            .copied()
            .collect();
        let dates: Vec<_> = question.range.dates().collect();
        let known: Vec<_> = dates
            .iter()
            .filter(|date| wanted.iter().any(|of| self.rows(*of, **date).is_some()))
            .collect();
        let in_cohort = |of: &CustomerId| {
            !question.constant_cohort || known.iter().all(|date| self.rows(*of, **date).is_some())
        };
        let cohort: Vec<_> = wanted.into_iter().filter(in_cohort).collect();
        let filter = question.filter.to_lowercase();
        let totals = dates.into_iter().filter_map(|date| {
            let mut totals = FleetDateTotals {
                date,
                customers: 0,
                licenses_qualified: 0,
                licenses_active: 0,
                licenses_unused: 0,
            };
            for usage in cohort.iter().filter_map(|of| self.rows(*of, date)) {
                let products = aggregation::products(usage).into_iter();
                let products: Vec<_> = products.filter(|of| counts(&filter, of.product)).collect();
                totals.customers += u64::from(!products.is_empty());
                for product in products {
                    let actives = product.workloads.iter().map(|row| row.licenses_active);
                    let active = actives.max().unwrap();
                    totals.licenses_qualified += product.licenses_qualified;
                    totals.licenses_active += active;
                    totals.licenses_unused += product.licenses_qualified.saturating_sub(active);
                }
            }
            Some(totals).filter(|totals| totals.customers > 0)
        });
        totals.collect()
    }

    fn recent_totals(&self, question: &Question) -> Vec<CustomerTotals> {
        let range = DateRange {
            from: day(0),
            to: question.range.to,
        };
        let recent = question.customers.iter().flatten().filter_map(|customer| {
            let dates = range.dates();
            let dates: Vec<_> = dates
                .filter(|date| self.rows(*customer, *date).is_some())
                .collect();
            let from = dates[dates.len().saturating_sub(RECENT_DATES)..].first()?;
            let question = Question {
                customers: Some(vec![*customer]),
                constant_cohort: false,
                range: DateRange {
                    from: *from,
                    ..range
                },
                ..question.clone()
            };
            Some(CustomerTotals {
                customer: *customer,
                totals: self.fleet_history(&question),
            })
        });
        recent.collect()
    }
}

/// Returns whether another process has stored what it fetched later.
fn is_late(fetched_at: Timestamp, stored_at: Timestamp) -> bool {
    let waited = stored_at.duration_since(fetched_at);
    waited.is_positive() && waited.as_hours() < 24
}

fn counts(filter: &ProductFilter, row: &UsageRow) -> bool {
    let is = |wanted: &String, name: &str| *wanted == name.to_lowercase();
    let is_id = |wanted: &String| row.product_id.as_deref().is_some_and(|id| is(wanted, id));
    let is_product = |wanted: &String| is(wanted, &row.product_name) || is_id(wanted);
    let is_channel = |wanted: &String| {
        row.channel
            .as_deref()
            .is_some_and(|channel| is(wanted, channel))
    };
    let is_service = |wanted: &String| is(wanted, &row.service_name);
    (filter.products.is_empty() || filter.products.iter().any(is_product))
        && (filter.services.is_empty() || filter.services.iter().any(is_service))
        && (filter.channels.is_empty() || filter.channels.iter().any(is_channel))
        && (!filter.excluded.iter().any(is_product) || filter.kept_ids.iter().any(is_id))
}

async fn write(store: &dyn UsageStore, change: &Change) {
    let change = match change {
        Change::Accept(accepted) => StoreWrite::Snapshot(accepted.clone()),
        Change::Purge(scope) => StoreWrite::Purge(*scope, PurgeMode::Hard),
        Change::Maintain => {
            while !store.maintain().await.unwrap().is_done {}
            return;
        }
    };
    store.write(vec![change]).await.unwrap();
}

/// Compares what a store answers with the model.
async fn compare(store: &dyn UsageStore, model: &Model, questions: &[Question]) {
    let range = DateRange {
        from: day(0),
        to: day(DAYS),
    };
    for of in (0..CUSTOMERS).map(customer) {
        for api in UpstreamApi::OF_USAGE {
            let found = store
                .snapshot(Resource::newest_usage(of, api))
                .await
                .unwrap();
            let found = found
                .as_ref()
                .map(|found| (&found.usage, found.native.is_some()));
            let newest = model.newest.get(&(of, api));
            let newest = newest.filter(|newest| !newest.is_hidden);
            let newest = newest.map(|newest| &model.contents[&(of, api, newest.date)].usage);
            let expected = newest.map(|usage| (usage, api == UpstreamApi::Insights));
            assert_eq!(found, expected, "newest of {of} by {api:?}");
        }
        compare_history(store, model, of, range).await;
    }
    for question in questions {
        let query = FleetHistoryQuery {
            range: question.range,
            customers: question.customers.clone(),
            products: question.filter.clone(),
            constant_cohort: question.constant_cohort,
        };
        let found = store.fleet_history(query).await.unwrap();
        assert_eq!(found, model.fleet_history(question), "{question:?}");
        let found = store.recent_totals(recent_totals_query(question)).await;
        assert_eq!(
            found.unwrap(),
            model.recent_totals(question),
            "{question:?}"
        );
    }
}

/// Asks for the last dates until the end of the range.
fn recent_totals_query(question: &Question) -> RecentTotalsQuery {
    RecentTotalsQuery {
        customers: question.customers.clone().unwrap_or_default(),
        until: question.range.to,
        dates: RECENT_DATES.try_into().unwrap(),
        products: question.filter.clone(),
    }
}

async fn compare_history(store: &dyn UsageStore, model: &Model, of: CustomerId, range: DateRange) {
    let mut expected = Vec::new();
    let mut expected_dates = Vec::new();
    for date in range.dates() {
        let Some(usage) = model.rows(of, date) else {
            continue;
        };
        let calls = [PREFERRED, UpstreamApi::Commercial];
        let corrections = calls.into_iter().find_map(|api| {
            let content = model.contents.get(&(of, api, Some(date)))?;
            std::ptr::eq(&raw const *content.usage, &raw const *usage)
                .then_some(content.corrections)
        });
        expected_dates.push((date, corrections.unwrap()));
        expected.extend(usage.rows().iter().map(|row| {
            let names = format!("{:?} {:?}", row.product_id, row.channel);
            let texts = [&*row.product_name, &*row.service_name, &*row.workload_name].concat();
            (
                date,
                names,
                texts,
                row.licenses_active,
                row.licenses_qualified,
            )
        }));
    }
    let dates = store.dates(of, range).await.unwrap();
    let dates: Vec<_> = dates
        .iter()
        .map(|stored| (stored.date, stored.corrections))
        .collect();
    assert_eq!(dates, expected_dates, "dates of {of}");

    let mut query = HistoryQuery {
        customer: of,
        range,
        products: Vec::new(),
        workload: None,
        after: None,
        limit: 3.try_into().unwrap(),
    };
    let mut found = Vec::new();
    loop {
        let page = store.history(query.clone()).await.unwrap();
        query.after = page.last().map(|row| row.position.clone());
        let is_last = page.len() < 3;
        found.extend(page);
        if is_last {
            break;
        }
    }
    assert!(found.is_sorted_by(|one, next| one.position < next.position));
    let mut found: Vec<_> = found
        .iter()
        .map(|row| {
            let names = format!("{:?} {:?}", row.product_id, row.channel);
            let texts = [&*row.product_name, &*row.service_name, &*row.workload_name].concat();
            (
                row.position.date,
                names,
                texts,
                row.licenses_active,
                row.licenses_qualified,
            )
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "history of {of}");
}

/// Writes changes from two processes in turn, and compares what both then answer.
async fn compare_two(place: TestPlace, changes: &[Change], questions: &[Question]) {
    let TestStore { store, place } = TestStore::on(place).await;
    // Another process, while one replaces the other.
    let other = place.open(PREFERRED).await;
    let mut model = Model::default();
    for (change, store) in changes.iter().zip([&store, &other].into_iter().cycle()) {
        write(&**store, change).await;
        model.apply(change);
    }

    compare(&*store, &model, questions).await;
    write(&*store, &Change::Maintain).await;
    compare(&*other, &model, questions).await;
}

async fn store_and_find(place: TestPlace, rows: Vec<UsageRow>) {
    let TestStore {
        store,
        place: _place,
    } = TestStore::on(place).await;
    let usage = LicenseUsage::new(customer(1), Some("Łódź\0'\"".to_owned()), rows);
    let usage = Arc::new(usage.unwrap());
    let accepted = AcceptedSnapshot {
        api: PREFERRED,
        asked_date: None,
        native: None,
        usage: Arc::clone(&usage),
        fetched_at: at("2026-11-28T00:00:00Z"),
        purge_generation: None,
        lease: None,
        is_of_refresh: false,
    };
    store
        .write(vec![StoreWrite::Snapshot(accepted)])
        .await
        .unwrap();

    let found = store
        .snapshot(Resource::InsightsUsage(customer(1)))
        .await
        .unwrap();

    assert_eq!(found.unwrap().usage, usage);
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Random cases of a test, each with a store of its own.
fn cases(divisor: u32) -> ProptestConfig {
    let config = proptest_config();
    let cases = (config.cases / divisor).clamp(1, 8_000 / divisor);
    ProptestConfig { cases, ..config }
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn a_store_answers_as_the_model(
        changes in prop::collection::vec(any_change(), 1..30),
        questions in prop::collection::vec(any_question(), 4),
    ) {
        block_on(compare_two(TestPlace::file(), &changes, &questions));
    }

    #[test]
    fn any_rows_come_back_equal(rows in prop::collection::vec(row_with_any_values(), 1..8)) {
        block_on(store_and_find(TestPlace::file(), rows));
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_store_on_postgres_answers_as_the_model(
        changes in prop::collection::vec(any_change(), 1..30),
        questions in prop::collection::vec(any_question(), 4),
    ) {
        block_on(compare_two(TestPlace::database(), &changes, &questions));
    }

    #[test]
    fn any_rows_come_back_equal_from_postgres(
        rows in prop::collection::vec(row_with_any_values(), 1..8),
    ) {
        block_on(store_and_find(TestPlace::database(), rows));
    }
}

/// A row with any text, empty ones too, and values up to the largest.
fn row_with_any_values() -> impl Strategy<Value = UsageRow> {
    let optional = || prop::option::of(".{0,9}");
    (
        (optional(), ".{0,9}", optional(), ".{0,9}"),
        (optional(), optional(), ".{0,9}"),
        (
            0..1_u64 << 60,
            0..1_u64 << 60,
            prop::option::of(any::<f64>()),
        ),
        -4_000_000_000_000_000_000..4_000_000_000_000_000_000_i128,
    )
        .prop_map(|(product, workload, counts, nanosecond)| UsageRow {
            service_code: product.0.map(Into::into),
            service_name: product.1.into(),
            product_id: product.2.map(Into::into),
            product_name: product.3.into(),
            channel: workload.0.map(Into::into),
            workload_code: workload.1.map(Into::into),
            workload_name: workload.2.into(),
            licenses_active: counts.0,
            licenses_qualified: counts.1,
            reported_usage_percent: counts.2.filter(|percent| percent.is_finite()),
            processed_at: ProcessedAt(Timestamp::from_nanosecond(nanosecond).unwrap()),
        })
}
