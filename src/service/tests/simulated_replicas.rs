//! Many replicas in virtual time, with faults at random. A seed names each run: `REPLICA_SEED=17` repeats
//! one, and `REPLICA_SEEDS=100000` runs more.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    super::*,
    MAX_CONCURRENCY, SECOND,
    shared_store::{Connection, Database},
};
use crate::{
    cache::CacheMetrics,
    clock::Clock,
    domain::{LicenseUsage, UsageRow, samples},
    service::source::{
        AnswerContent, CallIds, FetchFuture, SourceAnswer, SourceCall, SourceError, SourceErrorKind,
    },
    store::{GuardedStore, StoreMetrics, StoreWriter, WriterConfig},
};

/// The runs of one test; two tests share them, for two processors.
const SEEDS: u64 = 1_000;

const CUSTOMERS: usize = 3;

const FRESH_FOR: Duration = Duration::from_secs(20);

/// The time of a run.
const LENGTH_MS: u64 = 60_000;

/// Time for the last answers.
const END: Duration = Duration::from_secs(60);

/// After a fault, a replica works with the others again within this time: probes close its breaker, and
/// leases of the dead expire.
const RECOVERY: Duration = Duration::from_secs(12);

/// Time for a purge to reach all replicas.
const PURGE_TIME: Duration = Duration::from_secs(2);

/// The smallest count of a call; each further call counts one more, too few to be suspect.
const FIRST_COUNT: u64 = 10_000;

/// The clock of tokio, which jumps to the next timer. Each replica's wall time has an error of its own.
#[derive(Debug)]
struct VirtualClock {
    started: tokio::time::Instant,
    error: SignedDuration,
}

/// The events of a run.
#[derive(Debug, Default)]
struct Events {
    calls: Vec<UpstreamCall>,
    faults: Vec<Fault>,
    fail_overs: Vec<FailOver>,
    purges: Vec<Purge>,
    answers: Vec<Answered>,
}

#[derive(Clone, Debug)]
struct UpstreamCall {
    replica: usize,
    customer: CustomerId,
    started: Duration,
    /// `None`: it never ended.
    ended: Option<Duration>,
    is_good: bool,
}

/// A time in which a replica, or all of them, had no database.
#[derive(Clone, Debug)]
struct Fault {
    /// `None`: all.
    replica: Option<usize>,
    from: Duration,
    /// `None`: it died.
    until: Option<Duration>,
}

/// A time in which another server took over, without the last changes.
#[derive(Clone, Copy, Debug)]
struct FailOver {
    from: Duration,
    until: Duration,
}

#[derive(Clone, Debug)]
struct Purge {
    replica: usize,
    customer: Option<CustomerId>,
    at: Duration,
}

#[derive(Clone, Debug)]
struct Answered {
    replica: usize,
    customer: CustomerId,
    asked: Duration,
    /// The call that its content is of.
    call: usize,
    is_fresh: bool,
}

/// Upstream, as one replica reaches it.
#[derive(Debug)]
struct SimulatedUpstream {
    replica: usize,
    events: Arc<Mutex<Events>>,
    clock: SharedClock,
    started: Instant,
    random: Mutex<StdRng>,
}

struct Replica {
    service: UsageService,
    connection: Connection,
    shutdown: Shutdown,
}

/// One run.
struct Run {
    seed: u64,
    random: StdRng,
    events: Arc<Mutex<Events>>,
    clock: SharedClock,
    started: Instant,
    database: Arc<Database>,
    replicas: Vec<Option<Replica>>,
    customers: Vec<CustomerId>,
}

/// A step of a run.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    /// All replicas at once.
    AskEverywhere,
    Purge,
    Kill,
    Cut,
    StopDatabase,
    /// Another server takes over, which has not had the last changes.
    FailOver,
}

// === impl VirtualClock ===

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall_time(&self) -> Timestamp {
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        start + self.started.elapsed() + self.error
    }

    fn sleep_until(
        &self,
        deadline: Instant,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

// === impl SimulatedUpstream ===

impl UsageSource for SimulatedUpstream {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        Box::pin(async move {
            let customer = call.resource.customer().unwrap();
            let (millis, is_good) = {
                let mut random = self.random.lock().unwrap();
                let millis = match random.random_range(0..10) {
                    0 => random.random_range(5_000..20_000),
                    _ => random.random_range(20..1_000),
                };
                (millis, random.random_bool(0.9))
            };
            let number = {
                let calls = &mut self.events.lock().unwrap().calls;
                calls.push(UpstreamCall {
                    replica: self.replica,
                    customer,
                    started: self.clock.now() - self.started,
                    ended: None,
                    is_good,
                });
                calls.len() - 1
            };
            let end = self.clock.now() + Duration::from_millis(millis);
            self.clock.sleep_until(end).await;
            self.events.lock().unwrap().calls[number].ended = Some(self.clock.now() - self.started);
            let call_ids = CallIds {
                request_id: uuid::Uuid::nil(),
                correlation_id: uuid::Uuid::nil(),
            };
            if !is_good {
                return Err(SourceError {
                    call_ids: Some(call_ids),
                    status: Some(503),
                    ..SourceError::without_reply(SourceErrorKind::Unavailable, "out of order")
                });
            }
            let row = UsageRow {
                licenses_qualified: FIRST_COUNT + number as u64,
                ..samples::row()
            };
            Ok(SourceAnswer {
                content: AnswerContent::Usage {
                    usage: LicenseUsage::new(customer, None, vec![row]).unwrap(),
                    native: Some("{}".into()),
                },
                call_ids,
                memory: None,
            })
        })
    }
}

// === impl Replica ===

impl Replica {
    fn start(number: usize, run: &mut Run) -> Self {
        let shutdown = Shutdown::new();
        let error = SignedDuration::from_secs(run.random.random_range(-600..=600));
        let clock: SharedClock = Arc::new(VirtualClock {
            started: tokio::time::Instant::now(),
            error,
        });
        let config = CacheConfig {
            max_bytes: 1 << 20,
            fresh_for: FRESH_FOR,
            stale_while_revalidate: FRESH_FOR,
            stale_if_error: 10 * FRESH_FOR,
            soft_timeout: 2 * SECOND,
            negative_fresh_for: 10 * SECOND,
            past_absence_fresh_for: 24 * 3_600 * SECOND,
            min_refresh_interval: 5 * SECOND,
            suspect_confirm_after: 90 * SECOND,
        };
        let connection = run.database.connect(number as i64);
        let registry = Registry::new();
        let metrics = StoreMetrics::new(&registry).unwrap();
        let store = GuardedStore::new(
            Arc::new(connection.clone()),
            Arc::clone(&clock),
            shutdown.clone(),
            metrics.clone(),
        );
        let health = store.health();
        let store: Arc<dyn UsageStore> = Arc::new(store);
        let writer = WriterConfig {
            flush_within: Duration::from_millis(500),
            keep: None,
        };
        let writer = StoreWriter::start(
            Arc::clone(&store),
            writer,
            Arc::clone(&clock),
            metrics,
            &shutdown,
        );
        let upstream = SimulatedUpstream {
            replica: number,
            events: Arc::clone(&run.events),
            clock: Arc::clone(&clock),
            started: run.started,
            random: Mutex::new(StdRng::seed_from_u64(run.random.random())),
        };
        let jitter = Jitter::Fixed(run.random.random());
        let service = UsageService::new(ServiceParts {
            config: &config,
            limits: CallLimits {
                max_concurrency: std::num::NonZeroUsize::new(MAX_CONCURRENCY).unwrap(),
                deadline: 25 * SECOND,
            },
            newest_api: UpstreamApi::Insights,
            cache: UsageCache::new(
                &config,
                Jitter::Fixed(0.5),
                CacheMetrics::new(&registry).unwrap(),
            ),
            source: Arc::new(upstream),
            durable: Some(DurableStore {
                store,
                writer,
                health,
            }),
            portfolio: CurrentPortfolio::default(),
            clock,
            fleet_metrics: FleetMetrics::new(&registry).unwrap(),
            shutdown: &shutdown,
        });
        let (warm, follower) = (service.clone(), service.store_follower(jitter).unwrap());
        shutdown.spawn(async move {
            warm.warm_start().await;
            follower.run().await;
        });
        Self {
            service,
            connection,
            shutdown,
        }
    }
}

// === impl Run ===

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clock: SharedClock = Arc::new(VirtualClock {
            started: tokio::time::Instant::now(),
            error: SignedDuration::ZERO,
        });
        let count = match seed % 25 {
            0 => 100,
            _ => *[2, 3, 5, 8, 20].choose(&mut random).unwrap(),
        };
        let mut run = Self {
            seed,
            random,
            events: Arc::default(),
            database: match seed % 4 {
                // Of even and of odd seeds, half.
                0 | 1 => Database::new(Arc::clone(&clock)),
                _ => Database::without_notifications(Arc::clone(&clock)),
            },
            started: clock.now(),
            clock,
            replicas: Vec::new(),
            customers: (1..=CUSTOMERS).map(customer_number).collect(),
        };
        for number in 0..count {
            let replica = Replica::start(number, &mut run);
            run.replicas.push(Some(replica));
        }
        run
    }

    async fn pass(&mut self) {
        let begin = self.clock.now() + SECOND;
        let mut steps = Vec::new();
        let mut add = |random: &mut StdRng, step, most| {
            for _ in 0..random.random_range(0..=most) {
                steps.push((random.random_range(0..LENGTH_MS), step));
            }
        };
        add(&mut self.random, Step::Ask, 60);
        add(&mut self.random, Step::AskEverywhere, 5);
        add(&mut self.random, Step::Purge, 2);
        add(&mut self.random, Step::Kill, 2);
        add(&mut self.random, Step::Cut, 2);
        add(&mut self.random, Step::StopDatabase, 1);
        add(&mut self.random, Step::FailOver, 1);
        steps.sort_by_key(|(at, _)| *at);
        let mut database_until = Duration::ZERO;
        let mut cut_until: HashMap<usize, Duration> = HashMap::new();
        for (at, step) in steps {
            self.clock
                .sleep_until(begin + Duration::from_millis(at))
                .await;
            let now = self.clock.now() - self.started;
            let replica = self.random.random_range(0..self.replicas.len());
            let fault_time = Duration::from_millis(self.random.random_range(100..15_000));
            match step {
                Step::Ask => {
                    let customer = self.any_customer();
                    self.ask(replica, customer);
                }
                Step::AskEverywhere => {
                    let customer = self.any_customer();
                    for replica in 0..self.replicas.len() {
                        self.ask(replica, customer);
                    }
                }
                Step::Purge => self.purge(replica, now),
                Step::Kill => self.kill(replica, now),
                Step::Cut if cut_until.get(&replica).is_none_or(|until| *until < now) => {
                    if let Some(cut) = &self.replicas[replica] {
                        let connection = cut.connection.clone();
                        cut_until.insert(replica, now + fault_time);
                        self.begin_fault(Some(replica), now, fault_time, move |is_cut| {
                            connection.cut(is_cut);
                        });
                    }
                }
                Step::StopDatabase if database_until <= now => {
                    let database = Arc::clone(&self.database);
                    database_until = now + fault_time;
                    self.begin_fault(None, now, fault_time, move |is_stopped| {
                        database.stop(is_stopped);
                    });
                }
                Step::FailOver if database_until <= now => {
                    let lag = Duration::from_millis(self.random.random_range(10..4_000));
                    database_until = now + lag + fault_time;
                    self.fail_over(now + lag, fault_time);
                }
                Step::Cut | Step::StopDatabase | Step::FailOver => {}
            }
        }
        self.clock
            .sleep_until(begin + Duration::from_millis(LENGTH_MS) + END)
            .await;
    }

    fn any_customer(&mut self) -> CustomerId {
        *self.customers.choose(&mut self.random).unwrap()
    }

    fn ask(&self, number: usize, customer: CustomerId) {
        let Some(replica) = &self.replicas[number] else {
            return;
        };
        let (service, events) = (replica.service.clone(), Arc::clone(&self.events));
        let (asked, started) = (self.clock.now(), self.started);
        let query = UsageQuery {
            customer_id: customer,
            format: Format::Simplified,
            date: None,
            directive: CacheDirective::Any,
        };
        replica.shutdown.spawn(async move {
            let caller = Caller::anonymous();
            let answered = service.answer(query, &caller, CallTrace::default, asked);
            let Ok(answer) = answered.await else {
                return;
            };
            let rendered = &answer.cached.rendered;
            assert_eq!(rendered.customer(), Some(customer));
            let call = usize::try_from(rendered.licenses_qualified() - FIRST_COUNT).unwrap();
            events.lock().unwrap().answers.push(Answered {
                replica: number,
                customer,
                asked: asked - started,
                call,
                is_fresh: answer.cached.freshness == Freshness::Fresh,
            });
        });
    }

    fn purge(&mut self, number: usize, at: Duration) {
        let customer = self.random.random_bool(0.7).then(|| self.any_customer());
        let mode = match self.random.random_bool(0.5) {
            true => PurgeMode::Hard,
            false => PurgeMode::Soft,
        };
        let scope = PurgeScope {
            customer_id: customer,
            processed_date: None,
        };
        if let Some(replica) = &self.replicas[number] {
            replica.service.purge(scope, mode);
            self.events.lock().unwrap().purges.push(Purge {
                replica: number,
                customer,
                at,
            });
        }
    }

    fn kill(&mut self, number: usize, at: Duration) {
        if let Some(replica) = self.replicas[number].take() {
            replica.connection.cut(true);
            let shutdown = replica.shutdown.clone();
            self.events.lock().unwrap().faults.push(Fault {
                replica: Some(number),
                from: at,
                until: None,
            });
            let died = async move { shutdown.cancel().await };
            drop(tokio::task::spawn_local(died));
        }
    }

    fn begin_fault(
        &self,
        replica: Option<usize>,
        from: Duration,
        lasts: Duration,
        set: impl Fn(bool) + 'static,
    ) {
        let until = from + lasts;
        self.events.lock().unwrap().faults.push(Fault {
            replica,
            from,
            until: Some(until),
        });
        set(true);
        let (clock, end) = (Arc::clone(&self.clock), self.started + until);
        drop(tokio::task::spawn_local(async move {
            clock.sleep_until(end).await;
            set(false);
        }));
    }

    /// Stops the database at a time, for a while. It then lacks all changes from now until that time.
    fn fail_over(&self, at: Duration, lasts: Duration) {
        {
            let mut events = self.events.lock().unwrap();
            let (from, until) = (at, at + lasts);
            events.fail_overs.push(FailOver { from, until });
            events.faults.push(Fault {
                replica: None,
                from,
                until: Some(until),
            });
        }
        self.database.replicate();
        let (clock, database) = (Arc::clone(&self.clock), Arc::clone(&self.database));
        let started = self.started;
        drop(tokio::task::spawn_local(async move {
            clock.sleep_until(started + at).await;
            database.stop(true);
            clock.sleep_until(started + at + lasts).await;
            database.fail_over();
            database.stop(false);
        }));
    }

    fn check(&self) {
        let grants = self.database.grants();
        let fences: HashSet<_> = grants.iter().collect();
        assert_eq!(
            fences.len(),
            grants.len(),
            "seed {}: a fence twice between two fail-overs",
            self.seed
        );
        let events = self.events.lock().unwrap();
        for (number, call) in events.calls.iter().enumerate() {
            for earlier in &events.calls[..number] {
                assert!(
                    events.justifies(call, earlier),
                    "seed {}: a call too many\n{call:?}\nafter\n{earlier:?}\n{:?}\n{:?}",
                    self.seed,
                    events.faults,
                    events.purges
                );
            }
        }
        for fail_over in &events.fail_overs {
            let repeated = events.repeated_after(fail_over);
            let most = repeated.values().max().copied().unwrap_or_default();
            assert!(
                most <= 1,
                "seed {}: more than one call more\n{fail_over:?}\n{repeated:?}\n{:?}",
                self.seed,
                events.calls
            );
        }
        let mut newest: HashMap<(usize, CustomerId), UpstreamCall> = HashMap::new();
        for answer in &events.answers {
            let call = &events.calls[answer.call];
            assert_eq!(call.customer, answer.customer, "seed {}", self.seed);
            let newest = newest.entry((answer.replica, answer.customer));
            let newest = newest.or_insert_with(|| call.clone());
            assert!(
                !answer.is_fresh || !events.is_older(call, newest),
                "seed {}: older than what the replica has served\n{answer:?}\nof\n{call:?}",
                self.seed
            );
            if call.ended > newest.ended {
                *newest = call.clone();
            }
            for purge in &events.purges {
                assert!(
                    events.respects(answer, call, purge),
                    "seed {}: fresh after a purge\n{answer:?}\nof\n{call:?}\n{purge:?}\n{:?}",
                    self.seed,
                    events.faults
                );
            }
        }
    }
}

// === impl FailOver ===

impl FailOver {
    /// Returns whether purges that were lost may include the answer to an earlier call.
    fn justifies(&self, call: &UpstreamCall, earlier: &UpstreamCall) -> bool {
        self.from <= call.started && earlier.started <= self.until + PURGE_TIME
    }
}

// === impl Purge ===

impl Purge {
    fn includes(&self, customer: CustomerId) -> bool {
        self.customer.is_none_or(|purged| purged == customer)
    }
}

// === impl Events ===

impl Events {
    /// Returns whether a call had to be made in spite of an earlier one.
    fn justifies(&self, call: &UpstreamCall, earlier: &UpstreamCall) -> bool {
        let mut fail_overs = self.fail_overs.iter();
        self.justifies_without_fail_over(call, earlier)
            || fail_overs.any(|fail_over| fail_over.justifies(call, earlier))
    }

    /// Returns how often each replica repeated a call for a customer only because a fail-over may have lost
    /// purges.
    fn repeated_after(&self, fail_over: &FailOver) -> HashMap<(usize, CustomerId), usize> {
        let mut repeated = HashMap::new();
        for (number, call) in self.calls.iter().enumerate() {
            let mut earlier = self.calls[..number].iter();
            let is_repeated = earlier.any(|earlier| {
                fail_over.justifies(call, earlier)
                    && !self.justifies_without_fail_over(call, earlier)
            });
            if is_repeated {
                *repeated.entry((call.replica, call.customer)).or_default() += 1;
            }
        }
        repeated
    }

    fn justifies_without_fail_over(&self, call: &UpstreamCall, earlier: &UpstreamCall) -> bool {
        if call.customer != earlier.customer {
            return true;
        }
        let is_purged = self.purges.iter().any(|purge| {
            // Whoever learns of it late purges what is newer, too.
            let is_late = self.had_fault(purge.replica, purge.at, earlier.started)
                || self.had_fault(call.replica, purge.at, earlier.started)
                || self.is_replaced(earlier, purge, call);
            purge.includes(call.customer)
                && purge.at <= call.started
                && (is_late || earlier.started <= purge.at + PURGE_TIME)
        });
        let useful_until = match earlier.ended {
            Some(ended) if earlier.is_good => ended + FRESH_FOR,
            // The first failure counts for a second.
            Some(ended) => ended + SECOND,
            None => call.started + SECOND,
        };
        let is_over = call.started >= useful_until;
        // Its own memory needs no database.
        let has_memory = call.replica == earlier.replica;
        let is_apart = !has_memory
            && (self.had_fault(earlier.replica, earlier.started, call.started)
                || self.had_fault(call.replica, earlier.started, call.started));
        is_purged || is_over || is_apart
    }

    /// Returns whether a replica that did not know of the purge may have fetched the same, and stored it in
    /// place of what another fetched after the purge.
    fn is_replaced(&self, stored: &UpstreamCall, purge: &Purge, call: &UpstreamCall) -> bool {
        self.calls.iter().any(|other| {
            other.customer == call.customer
                && (purge.at..=call.started).contains(&other.started)
                && other.ended >= stored.ended
                && self.had_fault(other.replica, purge.at, other.started)
        })
    }

    /// Returns whether an answer is not fresh, or is newer than a purge that its replica knows.
    fn respects(&self, answer: &Answered, call: &UpstreamCall, purge: &Purge) -> bool {
        let is_known = answer.asked >= purge.at + PURGE_TIME
            && !self.had_fault(purge.replica, purge.at, answer.asked)
            && !self.had_fault(answer.replica, purge.at, answer.asked);
        !answer.is_fresh
            || !purge.includes(answer.customer)
            || !is_known
            || call.started >= purge.at
    }

    /// Returns whether the answer to a call had no right to follow that to another.
    fn is_older(&self, call: &UpstreamCall, before: &UpstreamCall) -> bool {
        // Of two calls at the same time, either may have the newer data.
        let is_older = call.started < before.started && call.ended < before.ended;
        // A purge that is stored late includes what another replica fetched until then.
        let is_purged = |purge: &Purge| {
            purge.includes(call.customer)
                && purge.at <= call.started
                && (self.had_fault(purge.replica, purge.at, before.started)
                    || self.had_fault(before.replica, purge.at, before.started))
        };
        is_older && !self.purges.iter().any(is_purged)
    }

    /// Returns whether a replica had no database at some time in between, or was still recovering.
    fn had_fault(&self, replica: usize, from: Duration, until: Duration) -> bool {
        self.faults.iter().any(|fault| {
            let ended = fault.until.map(|until| until + RECOVERY);
            fault.replica.is_none_or(|number| number == replica)
                && fault.from <= until
                && ended.is_none_or(|ended| from <= ended)
        })
    }
}

fn customer_number(number: usize) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the configuration of the service has nothing to do with it"
)]
fn number_of(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

fn run_seed(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut run = Run::new(seed);
        run.pass().await;
        run.check();
    });
}

fn run_seeds(of: impl Fn(u64) -> bool) {
    if let Some(seed) = number_of("REPLICA_SEED") {
        return run_seed(seed);
    }
    let seeds = number_of("REPLICA_SEEDS").unwrap_or(SEEDS);
    (0..seeds).filter(|seed| of(*seed)).for_each(run_seed);
}

#[test]
fn replicas_ask_once_and_see_every_purge_with_even_seeds() {
    run_seeds(|seed| seed % 2 == 0);
}

#[test]
fn replicas_ask_once_and_see_every_purge_with_odd_seeds() {
    run_seeds(|seed| seed % 2 == 1);
}
