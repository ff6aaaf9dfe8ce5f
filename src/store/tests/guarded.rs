//! A store that is slow or gone, and what that costs.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use prometheus::Registry;
use tokio::sync::watch;

use super::fixtures::{customer, range};
use crate::{
    clock::{Clock, ManualClock},
    domain::{CustomerId, ProcessedDate, Resource},
    shutdown::Shutdown,
    store::{
        CustomerTotals, DateRange, FleetDateTotals, FleetHistoryQuery, GuardedStore, HistoryQuery,
        HistoryRow, LOOK_UPS_AT_ONCE, LaterChanges, LaterPurges, OldDates, RecentTotalsQuery,
        StoreError, StoreFuture, StoreMetrics, StoreWrite, StoredCustomers, StoredDate,
        StoredFleetDate, StoredSnapshot, Upkeep, UsageStore,
    },
};

/// The answer of a [`FakeStore`] to every call.
#[derive(Clone, Debug)]
pub(super) enum Behavior {
    Works,
    Panics,
    Hangs,
    Fails,
    IsGone,
    /// Only writes of this customer panic, on the thread of the store.
    PanicsWriting(CustomerId),
    /// Only look-ups hang.
    IsSlow,
    /// Probes take longer than a look-up may, since they connect.
    ConnectsSlowly(Arc<ManualClock>),
}

/// A store that is empty, and behaves as it is told.
#[derive(Debug)]
pub(super) struct FakeStore {
    pub(super) behavior: watch::Sender<Behavior>,
    look_ups: AtomicUsize,
}

impl FakeStore {
    pub(super) fn new(behavior: Behavior) -> Arc<Self> {
        Arc::new(Self {
            behavior: watch::Sender::new(behavior),
            look_ups: AtomicUsize::new(0),
        })
    }

    fn answer<T: Send + 'static>(&self, value: T) -> StoreFuture<'_, T> {
        let behavior = self.behavior.borrow().clone();
        Box::pin(async move {
            match behavior {
                Behavior::Works
                | Behavior::PanicsWriting(_)
                | Behavior::IsSlow
                | Behavior::ConnectsSlowly(_) => Ok(value),
                Behavior::Panics => panic!("as the test wants it"),
                Behavior::Hangs => std::future::pending().await,
                Behavior::Fails => Err(StoreError::Failed("disk I/O error".to_owned())),
                Behavior::IsGone => Err(StoreError::NotOpen("no such file".to_owned())),
            }
        })
    }
}

impl UsageStore for FakeStore {
    fn snapshot(&self, _: Resource) -> StoreFuture<'_, Option<StoredSnapshot>> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        if let Behavior::IsSlow = *self.behavior.borrow() {
            return Box::pin(std::future::pending());
        }
        self.answer(None)
    }

    fn newest_of_all(&self) -> StoreFuture<'_, Vec<StoredSnapshot>> {
        self.answer(Vec::new())
    }

    fn all_of_date(&self, _: ProcessedDate) -> StoreFuture<'_, StoredFleetDate> {
        self.answer(StoredFleetDate {
            snapshots: Vec::new(),
            asked_at: None,
        })
    }

    fn customers(&self) -> StoreFuture<'_, Option<StoredCustomers>> {
        self.answer(None)
    }

    fn write(&self, changes: Vec<StoreWrite>) -> StoreFuture<'_, ()> {
        if let Behavior::PanicsWriting(customer) = *self.behavior.borrow()
            && changes.iter().any(|change| {
                matches!(change, StoreWrite::Snapshot(of) if of.usage.customer_id() == customer)
            })
        {
            return Box::pin(async { Err(StoreError::Panicked) });
        }
        self.answer(())
    }

    fn dates(&self, _: CustomerId, _: DateRange) -> StoreFuture<'_, Vec<StoredDate>> {
        self.answer(Vec::new())
    }

    fn history(&self, _: HistoryQuery) -> StoreFuture<'_, Vec<HistoryRow>> {
        self.answer(Vec::new())
    }

    fn fleet_history(&self, _: FleetHistoryQuery) -> StoreFuture<'_, Vec<FleetDateTotals>> {
        self.answer(Vec::new())
    }

    fn recent_totals(&self, _: RecentTotalsQuery) -> StoreFuture<'_, Vec<CustomerTotals>> {
        self.answer(Vec::new())
    }

    fn asked_dates(
        &self,
        _: Option<CustomerId>,
        _: DateRange,
    ) -> StoreFuture<'_, Vec<ProcessedDate>> {
        self.answer(Vec::new())
    }

    fn purges_after(&self, _: Option<i64>) -> StoreFuture<'_, LaterPurges> {
        self.answer(LaterPurges {
            went_back: false,
            generation: 0,
            purges: Vec::new(),
        })
    }

    fn changes_after(&self, _: Option<i64>) -> StoreFuture<'_, LaterChanges> {
        self.answer(LaterChanges {
            number: 0,
            has_more: false,
            is_cut: false,
            resources: Vec::new(),
        })
    }

    fn changed_snapshots(&self, _: Vec<Resource>) -> StoreFuture<'_, Vec<Option<StoredSnapshot>>> {
        self.answer(Vec::new())
    }

    fn report_applied(&self, _: i64) -> StoreFuture<'_, Vec<i64>> {
        self.answer(Vec::new())
    }

    fn delete_old(&self, _: OldDates, _: NonZeroUsize) -> StoreFuture<'_, usize> {
        self.answer(0)
    }

    fn maintain(&self) -> StoreFuture<'_, Upkeep> {
        self.answer(Upkeep {
            stored_bytes: 0,
            is_done: true,
        })
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        if let Behavior::ConnectsSlowly(clock) = &*self.behavior.borrow() {
            clock.advance(Duration::from_millis(100));
        }
        self.answer(())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.answer(())
    }
}

struct GuardScene {
    fake: Arc<FakeStore>,
    guarded: GuardedStore,
    clock: Arc<ManualClock>,
    registry: Registry,
}

const TWENTY_MILLISECONDS: Duration = Duration::from_millis(20);

impl GuardScene {
    fn new(behavior: Behavior) -> Self {
        let fake = FakeStore::new(behavior);
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let registry = Registry::new();
        let guarded = GuardedStore::new(
            Arc::clone(&fake) as _,
            Arc::clone(&clock) as _,
            Shutdown::new(),
            StoreMetrics::new(&registry).unwrap(),
        );
        Self {
            fake,
            guarded,
            clock,
            registry,
        }
    }

    async fn look_up(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        let look_up = self.guarded.snapshot(Resource::InsightsUsage(customer(1)));
        let advance = self.clock.advance_when_sleeping(TWENTY_MILLISECONDS);
        tokio::select! {
            biased;
            result = look_up => result,
            () = async { advance.await; std::future::pending().await } => unreachable!(),
        }
    }

    fn asked(&self) -> usize {
        self.fake.look_ups.load(Ordering::Relaxed)
    }

    fn metric(&self, line: &str) -> String {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found
            .unwrap_or_else(|| panic!("{line} in {text}"))
            .trim()
            .to_owned()
    }

    /// Lets probes run until the breaker is closed.
    async fn wait_until_closed(&self) {
        let closed = async {
            while self.guarded.health().problem().is_some() {
                self.let_probe().await;
            }
        };
        let closed = tokio::time::timeout(Duration::from_secs(10), closed);
        closed.await.expect("a closed breaker");
    }

    async fn let_probe(&self) {
        self.clock
            .advance_when_sleeping(Duration::from_millis(250))
            .await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_look_up_takes_20_ms_at_most_and_after_three_in_vain_only_writes_are_tried() {
    let scene = GuardScene::new(Behavior::Hangs);
    let started = scene.clock.now();

    for _ in 0..3 {
        assert!(matches!(
            scene.look_up().await,
            Err(StoreError::Unavailable)
        ));
    }
    let asked_in_vain = scene.clock.now() - started;
    for _ in 0..10 {
        let look_up = scene.guarded.snapshot(Resource::InsightsUsage(customer(1)));
        assert!(matches!(look_up.await, Err(StoreError::Unavailable)));
    }

    assert!(
        asked_in_vain <= 3 * TWENTY_MILLISECONDS,
        "{asked_in_vain:?}"
    );
    assert_eq!(scene.asked(), 3);
    assert_eq!(scene.metric("usage_proxy_store_up"), "0");
    let rejected = r#"usage_proxy_store_operations_total{operation="snapshot",outcome="rejected"}"#;
    assert_eq!(scene.metric(rejected), "10");
}

#[tokio::test]
async fn look_ups_that_wait_for_others_in_vain_do_not_open_the_breaker() {
    let scene = GuardScene::new(Behavior::Hangs);
    let look_up = |_| scene.guarded.snapshot(Resource::InsightsUsage(customer(1)));
    let mut busy = join_all((0..LOOK_UPS_AT_ONCE).map(look_up));
    tokio::select! {
        biased;
        _ = &mut busy => unreachable!(),
        () = std::future::ready(()) => {}
    }

    let (waited, ()) = tokio::join!(
        join_all((0..8).map(look_up)),
        scene.clock.advance_when_sleeping(Duration::from_millis(5)),
    );

    assert!(waited.iter().all(Result::is_err));
    assert_eq!(scene.asked(), LOOK_UPS_AT_ONCE);
    assert_eq!(scene.metric("usage_proxy_store_up"), "1");
}

#[tokio::test]
async fn all_customers_of_a_date_take_a_second_at_most_and_three_in_vain_open_the_breaker() {
    let scene = GuardScene::new(Behavior::Hangs);
    let date = range("2026-11-01", "2026-11-01").from;

    for _ in 0..3 {
        let (read, ()) = tokio::join!(
            scene.guarded.all_of_date(date),
            scene.clock.advance_when_sleeping(Duration::from_secs(1)),
        );
        assert!(matches!(read, Err(StoreError::Unavailable)));
    }

    assert_eq!(scene.metric("usage_proxy_store_up"), "0");
    assert!(scene.guarded.all_of_date(date).await.is_err());
}

#[tokio::test]
async fn a_store_that_works_again_is_used_again() {
    let scene = GuardScene::new(Behavior::Fails);
    for _ in 0..3 {
        scene.look_up().await.unwrap_err();
    }
    assert!(
        scene
            .guarded
            .health()
            .problem()
            .unwrap()
            .contains("disk I/O error")
    );

    scene.fake.behavior.send_replace(Behavior::Works);
    scene.wait_until_closed().await;

    scene.look_up().await.unwrap();
    assert_eq!(scene.metric("usage_proxy_store_up"), "1");
    let probes = r#"usage_proxy_store_operations_total{operation="probe",outcome="success"}"#;
    assert_eq!(scene.metric(probes), "2");
}

#[tokio::test]
async fn a_probe_that_panics_does_not_leave_the_breaker_open() {
    let scene = GuardScene::new(Behavior::Fails);
    for _ in 0..3 {
        scene.look_up().await.unwrap_err();
    }

    scene.fake.behavior.send_replace(Behavior::Panics);
    for _ in 0..2 {
        scene.let_probe().await;
    }
    scene.fake.behavior.send_replace(Behavior::Works);
    scene.wait_until_closed().await;

    scene.look_up().await.unwrap();
}

#[tokio::test]
async fn the_time_of_a_look_up_closes_the_breaker_and_not_that_of_a_probe() {
    let scene = GuardScene::new(Behavior::IsSlow);
    for _ in 0..3 {
        scene.look_up().await.unwrap_err();
    }
    for _ in 0..10 {
        scene.let_probe().await;
    }
    assert_eq!(scene.metric("usage_proxy_store_up"), "0");

    let slow = Behavior::ConnectsSlowly(Arc::clone(&scene.clock));
    scene.fake.behavior.send_replace(slow);
    scene.wait_until_closed().await;

    scene.look_up().await.unwrap();
}

#[tokio::test]
async fn misses_count_only_in_a_row() {
    let scene = GuardScene::new(Behavior::Fails);
    for _ in 0..5 {
        for _ in 0..2 {
            scene.look_up().await.unwrap_err();
        }
        scene.fake.behavior.send_replace(Behavior::Works);
        scene.look_up().await.unwrap();
        scene.fake.behavior.send_replace(Behavior::Fails);
    }

    assert_eq!(scene.asked(), 15);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_not_asked_again() {
    let scene = GuardScene::new(Behavior::IsGone);

    let error = scene
        .guarded
        .dates(customer(1), range("2026-11-01", "2026-11-02"))
        .await;
    assert!(matches!(error, Err(StoreError::NotOpen(_))));
    scene.look_up().await.unwrap_err();

    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn a_store_that_hangs_at_the_start_is_not_waited_for_again() {
    let scene = GuardScene::new(Behavior::Hangs);

    let probe = scene.guarded.probe();
    let advance = scene.clock.advance_when_sleeping(Duration::from_secs(2));
    let (probe, ()) = tokio::join!(probe, advance);

    assert!(probe.is_err());
    assert!(scene.guarded.newest_of_all().await.is_err());
}

#[tokio::test]
async fn a_store_that_cannot_be_written_can_be_read() {
    let scene = GuardScene::new(Behavior::Fails);
    scene.guarded.write(Vec::new()).await.unwrap_err();
    let problem = scene.guarded.health().problem();
    scene.fake.behavior.send_replace(Behavior::Works);

    scene.look_up().await.unwrap();
    assert!(problem.unwrap().contains("disk I/O error"));
    assert_eq!(scene.metric("usage_proxy_store_up"), "0");

    scene.guarded.write(Vec::new()).await.unwrap();
    assert_eq!(scene.metric("usage_proxy_store_up"), "1");
}
