use std::{sync::Arc, time::Duration};

use prometheus::Registry;

use super::{
    fixtures::{TestPlace, TestStore, at, customer, newest, row, usage},
    guarded::{Behavior, FakeStore},
};
use crate::{
    clock::ManualClock,
    domain::{Resource, UpstreamApi},
    shutdown::Shutdown,
    store::{StoreMetrics, StoreWrite, StoreWriter, UsageStore, WriterConfig},
};

const FLUSH_WITHIN: Duration = Duration::from_secs(1);

struct WriterScene {
    store: TestStore,
    writer: StoreWriter,
    clock: Arc<ManualClock>,
    shutdown: Shutdown,
}

fn start(
    store: &Arc<dyn UsageStore>,
    keep: Option<Duration>,
) -> (StoreWriter, Arc<ManualClock>, Shutdown) {
    start_with(store, keep, StoreMetrics::new(&Registry::new()).unwrap())
}

fn start_with(
    store: &Arc<dyn UsageStore>,
    keep: Option<Duration>,
    metrics: StoreMetrics,
) -> (StoreWriter, Arc<ManualClock>, Shutdown) {
    let clock = Arc::new(ManualClock::at(at("2026-11-29T12:00:00Z")));
    let shutdown = Shutdown::new();
    let config = WriterConfig {
        flush_within: FLUSH_WITHIN,
        keep,
    };
    let writer = StoreWriter::start(
        Arc::clone(store),
        config,
        Arc::clone(&clock) as _,
        metrics,
        &shutdown,
    );
    (writer, clock, shutdown)
}

impl WriterScene {
    async fn new(keep: Option<Duration>) -> Self {
        let store = TestStore::on(TestPlace::file()).await;
        let (writer, clock, shutdown) = start(&store.store, keep);
        Self {
            store,
            writer,
            clock,
            shutdown,
        }
    }

    async fn is_stored(&self, number: u32) -> bool {
        let resource = Resource::InsightsUsage(customer(number));
        self.store.store.snapshot(resource).await.unwrap().is_some()
    }
}

fn snapshot(number: u32, day: &str) -> StoreWrite {
    let rows = vec![row("E3", "Teams", 3, 5, day)];
    newest(
        UpstreamApi::Insights,
        &usage(customer(number), rows),
        "2026-11-28T06:00:00Z",
    )
}

#[tokio::test]
async fn a_change_is_durable_within_its_time() {
    let scene = WriterScene::new(None).await;

    scene.writer.record(snapshot(1, "2026-11-26"));
    scene.clock.advance_when_sleeping(FLUSH_WITHIN).await;
    scene.writer.flush().await.unwrap();

    assert!(scene.is_stored(1).await);
}

#[tokio::test]
async fn the_end_of_the_process_writes_what_waits() {
    let scene = WriterScene::new(None).await;
    for number in 1..=3 {
        scene.writer.record(snapshot(number, "2026-11-26"));
    }

    scene.shutdown.cancel().await;

    let reopened = scene.store.place.open(UpstreamApi::Insights).await;
    assert_eq!(reopened.newest_of_all().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_change_that_can_never_be_stored_holds_up_no_other() {
    let scene = WriterScene::new(None).await;
    let usage = usage(customer(2), Vec::new());

    scene.writer.record(snapshot(1, "2026-11-26"));
    scene.writer.record(newest(
        UpstreamApi::PartnerUsage,
        &usage,
        "2026-11-28T06:00:00Z",
    ));
    scene.writer.record(snapshot(3, "2026-11-26"));
    scene.writer.flush().await.unwrap();

    assert!(scene.is_stored(1).await && scene.is_stored(3).await);
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_clock_that_was_set_forward_deletes_no_date_that_is_kept_beside_the_newest() {
    let scene = WriterScene::new(Some(30 * DAY)).await;
    for (number, day) in [(1, "2026-10-26"), (2, "2026-10-27"), (3, "2026-11-26")] {
        scene.writer.record(snapshot(number, day));
    }
    scene.writer.flush().await.unwrap();

    scene.clock.advance(365 * DAY);
    while scene.is_stored(1).await {
        tokio::task::yield_now().await;
    }

    assert!(scene.is_stored(2).await && scene.is_stored(3).await);
}

#[tokio::test]
async fn dates_that_are_kept_no_longer_are_deleted() {
    let scene = WriterScene::new(Some(30 * DAY)).await;
    scene.writer.record(snapshot(1, "2026-10-29"));
    scene.writer.record(snapshot(2, "2026-10-30"));
    scene.writer.record(snapshot(3, "2026-12-05"));
    scene.writer.flush().await.unwrap();

    scene.clock.advance(Duration::from_secs(2 * 60 * 60));
    while scene.is_stored(1).await {
        tokio::task::yield_now().await;
    }

    assert!(scene.is_stored(2).await);
}

#[tokio::test]
async fn a_writer_that_panicked_begins_again() {
    const PAUSE: Duration = Duration::from_secs(1);
    let fake = FakeStore::new(Behavior::Panics);
    let (writer, clock, _shutdown) = start(&(Arc::clone(&fake) as _), None);

    writer.record(snapshot(1, "2026-11-26"));
    clock.wait_for_sleepers_until(1, PAUSE).await;
    fake.behavior.send_replace(Behavior::Works);
    clock.advance(PAUSE);

    writer.flush().await.unwrap();
}

#[tokio::test]
async fn what_waited_for_long_is_written_soon_after_the_store_is_back() {
    const PAUSE: Duration = Duration::from_secs(1);
    let fake = FakeStore::new(Behavior::Fails);
    let (writer, clock, _shutdown) = start(&(Arc::clone(&fake) as _), None);
    writer.record(snapshot(1, "2026-11-26"));

    for _ in 0..8 {
        writer.flush().await.unwrap_err();
        clock.advance_when_sleeping(Duration::from_secs(5)).await;
    }
    writer.flush().await.unwrap_err();
    clock.wait_for_sleepers_until(1, PAUSE).await;
    fake.behavior.send_replace(Behavior::Works);
    clock.advance(PAUSE);

    writer.flush().await.unwrap();
}

#[tokio::test]
async fn a_change_that_panics_each_time_is_dropped_alone_after_some_attempts() {
    let fake = FakeStore::new(Behavior::PanicsWriting(customer(2)));
    let metrics = StoreMetrics::new(&Registry::new()).unwrap();
    let (writer, clock, _shutdown) = start_with(&(fake as _), None, metrics.clone());
    for number in 1..=3 {
        writer.record(snapshot(number, "2026-11-26"));
    }

    for _ in 0..3 {
        writer.flush().await.unwrap_err();
        clock.advance_when_sleeping(Duration::from_secs(5)).await;
    }
    writer.flush().await.unwrap();

    assert_eq!(metrics.dropped.get(), 1);
}
