//! A collector that is down, slow or unwilling: spans are lost, and counted; answers are not.

use std::{io::Write as _, sync::Arc};

use prometheus::Registry;
use usage_proxy::{
    clock::ManualClock,
    config::TracingConfig,
    jitter::Jitter,
    observability::traces::{Exporting, SpanKind, TraceDeps, Tracer},
};

use super::{Collector, DOCUMENTED, TestApp, end, traced};
use crate::{
    logs::Log,
    support::{collector::Answer, prelude::*},
};

/// The time that a span waits for others.
const DELAY: Duration = Duration::from_secs(5);

/// Between two attempts, without jitter.
const PAUSE: Duration = Duration::from_secs(1);

/// A tracer by itself, with a clock of its own.
struct Test {
    tracer: Tracer,
    exporting: Exporting,
    clock: Arc<ManualClock>,
    registry: Registry,
    collector: Collector,
}

impl Test {
    async fn start(answer: Answer) -> Self {
        Self::with(answer, |_| {}).await
    }

    async fn with(answer: Answer, change: impl FnOnce(&mut TracingConfig)) -> Self {
        let collector = Collector::start().await;
        collector.answer(answer);
        let clock = Arc::new(ManualClock::at(START.parse().unwrap()));
        let registry = Registry::new();
        let mut config = TracingConfig {
            otlp_endpoint: collector.url.parse().unwrap(),
            headers_file: None,
            sample_ratio: 1.0,
            service_name: "test".to_owned(),
        };
        change(&mut config);
        let deps = TraceDeps {
            clock: Arc::clone(&clock) as _,
            jitter: Jitter::Fixed(0.0),
            registry: &registry,
        };
        let (tracer, exporting) = Tracer::start(&config, &deps).unwrap();
        Self {
            tracer,
            exporting,
            clock,
            registry,
            collector,
        }
    }

    fn span(&self, name: &'static str) {
        self.tracer.start_root_span(SpanKind::Internal, name).end();
    }

    /// Exports what ended, and waits until the collector has it.
    async fn export(&self) {
        let times = self.collector.exports().len() + 1;
        self.clock.advance_when_sleeping(DELAY).await;
        self.collector.exported(times).await;
    }

    /// Returns the number of exported spans, and the numbers of dropped spans by reason.
    fn counted(&self) -> (f64, Vec<(String, f64)>) {
        let mut exported = 0.0;
        let mut dropped = Vec::new();
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let value = metric.get_counter().get_value();
                match metric.get_label() {
                    [] => exported = value,
                    [reason] if value > 0.0 => dropped.push((reason.value().to_owned(), value)),
                    _ => {}
                }
            }
        }
        (exported, dropped)
    }
}

fn dropped(reason: &str, spans: f64) -> Vec<(String, f64)> {
    vec![(reason.to_owned(), spans)]
}

#[tokio::test]
async fn spans_are_exported_together_after_the_delay() {
    let test = Test::start(Answer::Take).await;

    test.span("first");
    test.span("second");
    test.export().await;

    let exports = test.collector.exports();
    assert_eq!(exports.len(), 1);
    let names: Vec<_> = exports[0]
        .spans()
        .into_iter()
        .map(|span| span.name)
        .collect();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn a_full_batch_is_exported_at_once() {
    let test = Test::start(Answer::Take).await;

    for _ in 0..512 {
        test.span("one of many");
    }
    test.collector.exported(1).await;

    assert_eq!(test.collector.spans().len(), 512);
}

#[tokio::test]
async fn spans_are_sent_again_if_the_collector_was_busy() {
    let log = Log::start();
    let test = Test::start(Answer::Status(503)).await;

    test.span("patient");
    test.export().await;
    test.collector.answer(Answer::Take);
    test.clock.advance_when_sleeping(PAUSE).await;
    test.collector.exported(2).await;
    test.span("next");
    test.clock.wait_for_sleepers_until(1, DELAY).await;

    assert_eq!(test.counted(), (1.0, Vec::new()));
    assert_eq!(test.collector.spans()[0].name, "patient");
    assert_eq!(warnings(&log), 1);
    assert_eq!(log.with_message("spans can be exported again").len(), 1);
}

#[tokio::test]
async fn an_unavailable_collector_is_logged_once_and_its_spans_are_dropped() {
    let log = Log::start();
    let test = Test::start(Answer::Status(503)).await;

    test.span("hopeless");
    test.export().await;
    for attempt in 2..=5 {
        test.clock.advance_when_sleeping(PAUSE).await;
        test.collector.exported(attempt).await;
    }
    test.clock.wait_for_sleepers_until(1, PAUSE).await;

    assert_eq!(test.counted(), (0.0, dropped("undelivered", 1.0)));
    assert_eq!(warnings(&log), 1);
    let bodies = test.collector.exports();
    assert!(bodies.windows(2).all(|pair| pair[0].body == pair[1].body));
}

#[tokio::test]
async fn spans_are_not_sent_again_if_the_collector_refused_them() {
    let log = Log::start();
    let test = Test::start(Answer::Status(401)).await;

    for name in ["first", "second"] {
        test.span(name);
        test.export().await;
        test.clock
            .advance_when_sleeping(Duration::from_secs(4))
            .await;
    }

    assert_eq!(test.counted(), (0.0, dropped("refused", 2.0)));
    assert_eq!(warnings(&log), 1, "one for both");
    assert_eq!(test.collector.exports().len(), 2);
}

#[tokio::test]
async fn spans_of_a_partly_accepted_export_are_counted_one_by_one() {
    let test = Test::start(Answer::TakeBut(1)).await;

    test.span("first");
    test.span("second");
    test.export().await;
    test.span("third");
    test.clock.wait_for_sleepers_until(1, DELAY).await;

    assert_eq!(test.counted(), (1.0, dropped("refused", 1.0)));
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_without_waiting() {
    let test = Test::start(Answer::Never).await;
    for _ in 0..512 {
        test.span("under way");
    }
    test.collector.exported(1).await;

    for _ in 0..3_000 {
        test.span("one of too many");
    }

    assert_eq!(
        test.counted(),
        (0.0, dropped("queue-full", 3_000.0 - 2_048.0))
    );
}

#[tokio::test]
async fn an_export_without_a_response_times_out() {
    let test = Test::start(Answer::Never).await;
    test.span("slow");
    test.export().await;

    test.clock
        .advance_when_sleeping(Duration::from_secs(10))
        .await;
    test.collector.answer(Answer::Take);
    test.clock.advance_when_sleeping(PAUSE).await;
    test.collector.exported(2).await;

    assert_eq!(test.collector.spans().len(), 1);
}

#[tokio::test]
async fn headers_are_read_each_time_and_a_file_without_stops_nothing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "Authorization: Basic first").unwrap();
    let path = file.path().to_owned();
    let test = Test::with(Answer::Take, |config| {
        config.headers_file = Some(path.clone())
    })
    .await;

    test.span("first");
    test.export().await;
    std::fs::write(&path, "Authorization: Basic second\nX-Scope-OrgID: ours\n").unwrap();
    test.span("second");
    test.export().await;
    std::fs::write(&path, "").unwrap();
    test.span("third");
    test.clock.advance_when_sleeping(DELAY).await;
    test.clock.wait_for_sleepers_until(1, PAUSE).await;
    std::fs::write(&path, "Authorization: Basic third").unwrap();
    test.clock.advance_when_sleeping(PAUSE).await;
    test.collector.exported(3).await;

    let exports = test.collector.exports();
    let shown: Vec<_> = exports
        .iter()
        .map(|export| &export.headers["authorization"])
        .collect();
    assert_eq!(shown, ["Basic first", "Basic second", "Basic third"]);
    assert_eq!(exports[1].headers["x-scope-orgid"], "ours");
    assert_eq!(exports[2].spans()[0].name, "third", "kept meanwhile");
}

#[tokio::test]
async fn shutdown_exports_the_remaining_spans() {
    let test = Test::start(Answer::Take).await;
    for _ in 0..1_200 {
        test.span("one of many");
    }

    test.exporting.finish().await;

    assert_eq!(test.collector.spans().len(), 1_200);
}

#[tokio::test]
async fn shutdown_does_not_wait_long_for_the_collector() {
    let collector = Collector::start().await;
    collector.answer(Answer::Never);
    let app = traced(&collector).start().await;
    app.usage(DOCUMENTED).await;
    let clock = Arc::clone(&app.clock);

    let ended = async {
        collector.exported(1).await;
        clock.advance_when_sleeping(DELAY).await;
    };
    tokio::join!(end(app), ended);

    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn answers_do_not_depend_on_the_collector() {
    let app = TestApp::with("tracing.otlp_endpoint", "http://127.0.0.1:9").await;

    let first = app.usage(DOCUMENTED).await;
    let second = app.usage(DOCUMENTED).await;
    let undelivered = "usage_proxy_trace_spans_dropped_total{reason=\"undelivered\"}";
    let lost = async || {
        app.advance(Duration::from_secs(30));
        app.metric(undelivered).await >= 1.0
    };
    wait_until("a span is lost", lost).await;

    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(
        app.metric("usage_proxy_trace_spans_exported_total").await,
        0.0
    );
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_traced() {
    let app = TestApp::start().await;

    let scrape = app.admin_get("/metrics").await.text();

    assert!(!scrape.contains("usage_proxy_trace_"));
}

fn warnings(log: &Log) -> usize {
    let lines = log.lines().into_iter();
    lines.filter(|line| line["level"] == "WARN").count()
}
