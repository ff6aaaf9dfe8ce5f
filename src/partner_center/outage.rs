//! Five minutes of a Partner Center that fails, in simulated time: how often it is asked all the
//! same, and what those who ask us notice.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    PartnerCenter,
    client::{ExchangeError, HttpClient, HttpExchange, HttpExchangeFuture, UpstreamReply},
    test_support::{self, TestCredentials, UpstreamFixture},
};
use crate::{
    cache::{CacheMetrics, CacheResult, UsageCache},
    clock::{Clock, SharedClock},
    config::{Config, ConfigSources},
    domain::{Caller, CustomerId, UpstreamApi},
    jitter::Jitter,
    partner_center::UpstreamDeps,
    render::Format,
    resilience::memory_pool::MemoryShare,
    service::{
        CacheDirective, CallLimits, ErrorKind, UsageQuery, UsageService,
        source::{CallTrace, FetchFuture, SourceCall, UsageSource},
    },
};

/// Two hundred requests a second.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(5);
const OUTAGE: Duration = Duration::from_secs(5 * 60);

/// How long Partner Center takes when it answers.
const ANSWERS_AFTER: Duration = Duration::from_millis(80);

/// tokio's time: paused, it moves by itself as soon as everyone sleeps.
#[derive(Debug)]
struct PausedClock {
    started: Instant,
    started_wall: Timestamp,
}

// === impl PausedClock ===

impl Clock for PausedClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall_time(&self) -> Timestamp {
        self.started_wall + (self.now() - self.started)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

/// How Partner Center is.
#[derive(Clone, Copy, Debug)]
enum PartnerHealth {
    Well,
    /// No connection is made.
    Gone,
    /// Every answer is a 500.
    Failing,
    /// No answer ever comes.
    Silent,
    /// Every second answer is a 500.
    Ailing,
}

/// Partner Center, in process.
#[derive(Debug)]
struct SimulatedPartner {
    health: Mutex<PartnerHealth>,
    asked: AtomicU32,
}

// === impl Partner ===

impl SimulatedPartner {
    fn becomes(&self, health: PartnerHealth) {
        *self.health.lock().unwrap() = health;
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl HttpExchange for SimulatedPartner {
    fn exchange<'a>(
        &'a self,
        request: reqwest::Request,
        _: &'a mut MemoryShare,
        ends: Instant,
    ) -> HttpExchangeFuture<'a> {
        Box::pin(async move {
            let nth = self.asked.fetch_add(1, Ordering::SeqCst);
            let health = *self.health.lock().unwrap();
            let failure = Ok(answer(StatusCode::INTERNAL_SERVER_ERROR, String::new()));
            let usage = || Ok(answer(StatusCode::OK, usage_of(request.url().path())));
            match health {
                PartnerHealth::Gone => return Err(ExchangeError::Connection("refused".to_owned())),
                PartnerHealth::Silent => {
                    tokio::time::sleep_until(ends.into()).await;
                    return Err(ExchangeError::TimedOut);
                }
                PartnerHealth::Well | PartnerHealth::Failing | PartnerHealth::Ailing => {
                    tokio::time::sleep(ANSWERS_AFTER).await;
                }
            }
            match health {
                PartnerHealth::Failing => failure,
                PartnerHealth::Ailing if nth.is_multiple_of(2) => failure,
                _ => usage(),
            }
        })
    }
}

fn answer(status: StatusCode, body: String) -> UpstreamReply {
    UpstreamReply {
        status,
        headers: HeaderMap::new(),
        body: body.into(),
        unread: None,
    }
}

fn usage_of(path: &str) -> String {
    let customer = path.split('/').nth(3).unwrap();
    test_support::usage(1)
        .to_string()
        .replace(test_support::CUSTOMER, customer)
}

/// Counts the logical calls on their way to the source.
#[derive(Debug)]
struct CallCounts {
    source: PartnerCenter,
    calls: AtomicU32,
}

impl UsageSource for CallCounts {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.source.fetch(call)
    }
}

/// The service before a Partner Center that is well, with something of every age held.
struct OutageFixture {
    usage: UsageService,
    partner: Arc<SimulatedPartner>,
    source: Arc<CallCounts>,
    clock: SharedClock,
    fixture: UpstreamFixture,
}

/// Customers by what is held of them when the outage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutageCaller {
    /// Fresh: nobody need ask.
    Fresh,
    /// To be refreshed behind whoever asks.
    Revalidating,
    /// Asked for, while the held may stand in.
    Stale,
    Absent,
}

/// What became of the requests of an outage.
#[derive(Debug, Default)]
struct OutageReport {
    /// Logical calls, and HTTP requests they came to.
    calls: u32,
    attempts: u32,
    hits: u32,
    /// The longest that a request took that had something to fall back on.
    slowest_stale: Duration,
    slowest: Duration,
}

// === impl Service ===

impl OutageFixture {
    async fn start() -> Self {
        let clock: SharedClock = Arc::new(PausedClock {
            started: tokio::time::Instant::now().into_std(),
            started_wall: "2026-11-22T12:00:00Z".parse().unwrap(),
        });
        let fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
        let partner = Arc::new(SimulatedPartner {
            health: Mutex::new(PartnerHealth::Well),
            asked: AtomicU32::new(0),
        });
        let deps = UpstreamDeps {
            clock: Arc::clone(&clock),
            jitter: Jitter::Fixed(0.5),
            shutdown: fixture.shutdown.clone(),
            registry: &fixture.registry,
            tracer: None,
        };
        let http = HttpClient::build(&fixture.config, Arc::clone(&clock)).unwrap();
        let calls = Arc::clone(&partner) as _;
        let source = PartnerCenter::with_clients(&fixture.config, http, calls, deps).unwrap();
        let source = Arc::new(CallCounts {
            source,
            calls: AtomicU32::new(0),
        });
        let config = ConfigSources::default()
            .with_flag("test", "upstream.auth.kind", "token_file")
            .with_flag("test", "upstream.auth.token_file", "/t");
        let config = Config::load(config).unwrap().cache;
        let metrics = CacheMetrics::new(&fixture.registry).unwrap();
        let usage = UsageService::new(
            &config,
            CallLimits {
                max_concurrency: fixture.config.max_concurrency,
                deadline: fixture.config.deadline,
            },
            UpstreamApi::Insights,
            UsageCache::new(&config, Jitter::Fixed(0.5), metrics),
            Arc::clone(&source) as _,
            Arc::clone(&clock),
            &fixture.shutdown,
        );
        let service = Self {
            usage,
            partner,
            source,
            clock,
            fixture,
        };
        service.fill(OutageCaller::Stale).await;
        tokio::time::sleep(Duration::from_secs(70 * 60)).await;
        service.fill(OutageCaller::Revalidating).await;
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
        service.fill(OutageCaller::Fresh).await;
        // Calls of before the outage earn no retry within it.
        tokio::time::sleep(Duration::from_secs(60)).await;
        service
    }

    async fn fill(&self, kind: OutageCaller) {
        for index in 0..kind.customers() {
            self.ask(kind, index).await.unwrap();
        }
    }

    async fn ask(&self, kind: OutageCaller, index: u32) -> Result<CacheResult, ErrorKind> {
        ask(&self.usage, &self.clock, kind, index).await
    }

    /// Two hundred requests a second for five minutes, while Partner Center is as `health` says.
    async fn suffer(&self, health: PartnerHealth) -> OutageReport {
        self.partner.becomes(health);
        let (calls, attempts) = (
            self.source.calls.load(Ordering::SeqCst),
            self.partner.asked(),
        );
        let begins = tokio::time::Instant::now();
        let slowest = Arc::new(Mutex::new(OutageReport::default()));
        let mut waiting = tokio::task::JoinSet::new();
        let mut hits = 0;
        let mut due = begins;
        for nth in 0_u32.. {
            due += BETWEEN_REQUESTS;
            if due > begins + OUTAGE {
                break;
            }
            tokio::time::sleep_until(due).await;
            let (kind, index) = drawn(nth);
            if kind == OutageCaller::Fresh {
                let before = self.clock.now();
                assert_eq!(self.ask(kind, index).await.unwrap(), CacheResult::Hit);
                assert_eq!(self.clock.now(), before, "a hit waits for nothing");
                hits += 1;
                continue;
            }
            let (usage, clock) = (self.usage.clone(), Arc::clone(&self.clock));
            let slowest = Arc::clone(&slowest);
            waiting.spawn(async move {
                let before = clock.now();
                let answered = ask(&usage, &clock, kind, index).await;
                let took = clock.now() - before;
                let mut told = slowest.lock().unwrap();
                told.slowest = told.slowest.max(took);
                if kind != OutageCaller::Absent {
                    assert!(answered.is_ok(), "{kind:?} stands in: {answered:?}");
                    told.slowest_stale = told.slowest_stale.max(took);
                }
            });
        }
        while let Some(done) = waiting.join_next().await {
            done.unwrap();
        }
        let slowest = slowest.lock().unwrap();
        OutageReport {
            calls: self.source.calls.load(Ordering::SeqCst) - calls,
            attempts: self.partner.asked() - attempts,
            hits,
            slowest_stale: slowest.slowest_stale,
            slowest: slowest.slowest,
        }
    }
}

async fn ask(
    usage: &UsageService,
    clock: &SharedClock,
    kind: OutageCaller,
    index: u32,
) -> Result<CacheResult, ErrorKind> {
    let query = UsageQuery {
        customer_id: kind.customer(index),
        format: Format::Simplified,
        date: None,
        directive: CacheDirective::Any,
    };
    let answered = usage
        .answer(query, &Caller::anonymous(), CallTrace::default, clock.now())
        .await;
    answered
        .map(|answer| answer.result)
        .map_err(|unanswered| unanswered.kind)
}

// === impl Kind ===

impl OutageCaller {
    fn customers(self) -> u32 {
        match self {
            Self::Fresh => 50,
            Self::Revalidating | Self::Stale => 300,
            Self::Absent => 2_000,
        }
    }

    fn customer(self, index: u32) -> CustomerId {
        let id = Uuid::from_fields(index, self as u16, 0, b"customer");
        CustomerId::parse(&id.to_string()).unwrap()
    }
}

/// Half of the requests are for what is fresh, the others mixed; the same at every run.
fn drawn(nth: u32) -> (OutageCaller, u32) {
    let drawn = nth.wrapping_mul(2_654_435_761) >> 8;
    let kind = match drawn % 8 {
        0..4 => OutageCaller::Fresh,
        4 => OutageCaller::Revalidating,
        5 => OutageCaller::Stale,
        _ => OutageCaller::Absent,
    };
    (kind, (drawn / 8) % kind.customers())
}

// === What is promised ===

#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_about_rarely_and_hits_do_not_notice() {
    for health in [
        PartnerHealth::Gone,
        PartnerHealth::Failing,
        PartnerHealth::Silent,
    ] {
        let service = OutageFixture::start().await;

        let told = service.suffer(health).await;

        println!("{health:?}: {told:?}");
        assert!(told.hits > 25_000, "{told:?}");
        assert!(told.calls > 1_000, "{told:?}");
        // The five that opened the circuit, those under way with them, and the probes since.
        assert!(told.attempts <= 5 + 16 + 12, "{health:?}: {told:?}");
        assert!(told.slowest <= service.fixture.config.deadline, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partner_center_that_fails_every_other_time_is_retried_by_a_tenth() {
    let service = OutageFixture::start().await;

    let told = service.suffer(PartnerHealth::Ailing).await;

    println!("{told:?}");
    assert!(told.calls > 1_000, "{told:?}");
    let ratio = f64::from(told.attempts) / f64::from(told.calls);
    assert!(ratio <= 1.1, "{ratio}: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_first_probe_brings_everything_back() {
    let service = OutageFixture::start().await;
    service.suffer(PartnerHealth::Gone).await;

    service.partner.becomes(PartnerHealth::Well);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut served = 0;
    for index in 0..100 {
        served += u32::from(service.ask(OutageCaller::Absent, index).await.is_ok());
    }

    assert_eq!(served, 100);
    let closed = [("api", "insights"), ("state", "closed")];
    assert!((service.fixture.metric("circuit_state", &closed) - 1.0).abs() < f64::EPSILON);
}
