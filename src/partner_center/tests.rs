//! Calls for all customers, to the simulator.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _};

use prometheus::Registry;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    config::{Config, ConfigSources},
    domain::{CustomerId, Resource},
    shutdown::Shutdown,
    simulator::{
        BodyFault, CustomerOverride, DOCUMENTED_CUSTOMER, Faults, SimulatedApi, SimulatedRow,
        Simulator, SimulatorHandle, SimulatorOptions,
    },
};

/// The client and its simulator. Both end with the test.
struct TestUpstream {
    partner_center: PartnerCenter,
    simulator: SimulatorHandle,
    clock: Arc<ManualClock>,
    _secrets: TempDir,
}

impl TestUpstream {
    async fn start(options: SimulatorOptions) -> Self {
        Self::start_with(options, 32 * 1024 * 1024).await
    }

    async fn start_with(options: SimulatorOptions, max_body: usize) -> Self {
        let clock = Arc::new(ManualClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let options = SimulatorOptions {
            clock: Arc::clone(&clock) as _,
            today: "2026-11-22".parse().unwrap(),
            ..options
        };
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        let simulator = Simulator::bind(anywhere, options).await.unwrap();
        let (handle, address) = (simulator.handle(), simulator.local_addr());
        let shutdown = Shutdown::new();
        shutdown.spawn(simulator.run(shutdown.clone()));
        let secrets = tempfile::tempdir().unwrap();
        let secret = |name: &str, content: &str| {
            let path = secrets.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.to_string_lossy().into_owned()
        };
        let sources = [
            ("upstream.base_url", format!("http://{address}")),
            ("upstream.retries", "0".to_owned()),
            ("upstream.max_body", max_body.to_string()),
            ("upstream.auth.kind", "refresh_token".to_owned()),
            (
                "upstream.auth.token_url",
                format!("http://{address}/tenant/oauth2/v2.0/token"),
            ),
            ("upstream.auth.client_id", "usage-proxy-test".to_owned()),
            (
                "upstream.auth.client_secret_file",
                secret("client-secret", "any"),
            ),
            (
                "upstream.auth.refresh_token_file",
                secret("refresh-token", &handle.issue_refresh_token()),
            ),
        ]
        .into_iter()
        .fold(ConfigSources::default(), |sources, (key, value)| {
            sources.with_flag("test", key, value)
        });
        let config = Config::load(sources).unwrap();
        let deps = UpstreamDeps {
            clock: Arc::clone(&clock) as _,
            jitter: Jitter::Fixed(0.0),
            shutdown,
            registry: &Registry::new(),
            tracer: None,
            tokens: None,
        };
        Self {
            partner_center: PartnerCenter::new(&config.upstream, deps).unwrap(),
            simulator: handle,
            clock,
            _secrets: secrets,
        }
    }

    async fn fetch(&self, resource: Resource) -> Result<AnswerContent, SourceError> {
        let call = SourceCall {
            resource,
            trace: CallTrace::default(),
            requested_at: self.clock.now(),
        };
        Ok(self.partner_center.fetch(call).await?.content)
    }

    async fn fleet(&self, date: Option<ProcessedDate>) -> Result<Vec<LicenseUsage>, SourceError> {
        match self.fetch(Resource::FleetUsage(date)).await? {
            AnswerContent::Fleet(usages) => Ok(usages),
            other => panic!("{other:?}"),
        }
    }

    async fn fleet_date(&self) -> Result<Option<ProcessedDate>, SourceError> {
        match self.fetch(Resource::FleetDate).await? {
            AnswerContent::FleetDate(date) => Ok(date),
            other => panic!("{other:?}"),
        }
    }

    /// The newest date of the simulator.
    fn newest_date(&self) -> ProcessedDate {
        ProcessedDate::parse(&self.simulator.newest_date().to_string()).unwrap()
    }
}

/// Fifteen pages or so.
fn small_pages() -> SimulatorOptions {
    SimulatorOptions {
        customers: 100,
        page_size: 50,
        ..SimulatorOptions::default()
    }
}

fn on_page(page: usize, body: BodyFault) -> Faults {
    Faults {
        page: Some(page),
        body: Some(body),
        ..Faults::default()
    }
}

fn row(processed: ProcessedDate) -> SimulatedRow {
    let day = processed.to_string().parse().unwrap();
    SimulatedRow::new("EXCHANGE ONLINE (PLAN 1)", "Exchange", 5, day)
}

#[tokio::test]
async fn all_customers_have_the_same_rows_together_and_alone() {
    for (seed, page_size) in [(1, 10_000), (2, 37), (3, 100)] {
        let upstream = TestUpstream::start(SimulatorOptions {
            seed,
            page_size,
            customers: 40,
            ..SimulatorOptions::default()
        })
        .await;
        let ids = upstream.simulator.customers().into_iter();
        let mut ids: Vec<_> = ids
            .map(|id| CustomerId::parse(&id.to_string()).unwrap())
            .collect();
        ids.sort();
        let past = upstream.newest_date().months_before(2);

        for date in [None, Some(past)] {
            let together = upstream.fleet(date).await.unwrap();

            let mut alone = Vec::new();
            for id in &ids {
                let resource = Resource::CommercialUsage(*id, date);
                match upstream.fetch(resource).await {
                    Ok(AnswerContent::Usage { usage, .. }) => alone.push(usage),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => assert_eq!(error.kind, SourceErrorKind::NothingProcessed),
                }
            }
            alone.retain(|usage| !usage.rows().is_empty());
            assert!(alone.len() > 30);
            assert_eq!(together, alone, "seed {seed}, date {date:?}");
        }
    }
}

#[tokio::test]
async fn a_fleet_costs_one_call_for_each_page_and_its_date_one_small_call() {
    let upstream = TestUpstream::start(small_pages()).await;

    let date = upstream.fleet_date().await.unwrap();
    let usages = upstream.fleet(None).await.unwrap();

    assert_eq!(date, Some(upstream.newest_date()));
    assert_eq!(date, LicenseUsage::newest_date(&usages));
    let rows: usize = usages.iter().map(|usage| usage.rows().len()).sum();
    let calls = |api| upstream.simulator.request_count(api);
    assert_eq!(calls(SimulatedApi::FleetPage), rows.div_ceil(50));
    assert_eq!(calls(SimulatedApi::FleetCheck), 1);
    assert_eq!(calls(SimulatedApi::Commercial), 0);
}

#[tokio::test]
async fn the_newest_date_is_that_of_most_customers_not_of_one_that_lags() {
    let upstream = TestUpstream::start(SimulatorOptions::default()).await;
    let first = upstream.simulator.customers()[0];
    assert_eq!(first, DOCUMENTED_CUSTOMER, "its rows are of 2017");

    assert_eq!(
        upstream.fleet_date().await.unwrap(),
        Some(upstream.newest_date())
    );

    upstream.simulator.advance_day();
    let customers = upstream.simulator.customers().into_iter();
    upstream.simulator.delay_customers(customers.step_by(2));
    let newest = upstream.newest_date();
    assert_eq!(upstream.fleet_date().await.unwrap(), Some(newest));
    let usages = upstream.fleet(None).await.unwrap();
    let current = usages
        .iter()
        .filter(|usage| usage.processed_date() == Some(newest));
    assert!((8..=13).contains(&current.count()));
}

#[tokio::test]
async fn pages_that_do_not_belong_together_fail_the_call() {
    let upstream = TestUpstream::start(small_pages()).await;
    let simulator = &upstream.simulator;
    for date in [None, Some(upstream.newest_date())] {
        simulator.clear_requests();
        upstream.fleet(date).await.unwrap();
        let last = simulator.request_count(SimulatedApi::FleetPage);

        for (page, fault) in [
            (2, BodyFault::RepeatedPage),
            (3, BodyFault::ShiftedRows),
            (4, BodyFault::ShrunkTotal),
            (last, BodyFault::WrongTotal),
            (2, BodyFault::CutShort),
            (last, BodyFault::CutShort),
            (5, BodyFault::MissingFields),
        ] {
            simulator.set_faults(on_page(page, fault));
            let failed = upstream.fleet(date).await.map(drop);
            simulator.set_faults(Faults::default());
            let retried = upstream.fleet(date).await.map(drop);

            let kind = failed.map_err(|error| error.kind);
            assert_eq!(kind, Err(SourceErrorKind::Malformed), "{fault:?}");
            assert!(retried.is_ok(), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_failing_page_fails_the_call() {
    let upstream = TestUpstream::start(small_pages()).await;
    upstream.simulator.set_faults(Faults {
        page: Some(3),
        status: Some(http::StatusCode::BAD_GATEWAY),
        ..Faults::default()
    });

    let error = upstream.fleet(None).await.map(drop).unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Unavailable);
    assert_eq!(upstream.simulator.request_count(SimulatedApi::FleetPage), 3);
}

#[tokio::test]
async fn a_newer_date_that_is_published_between_two_pages_fails_the_call() {
    let upstream = TestUpstream::start(SimulatorOptions {
        page_size: 250,
        ..small_pages()
    })
    .await;
    let simulator = &upstream.simulator;
    simulator.hold_calls();
    let publish = async {
        simulator
            .wait_for_requests(SimulatedApi::FleetPage, 1)
            .await;
        simulator.release_calls();
        simulator.hold_calls();
        simulator
            .wait_for_requests(SimulatedApi::FleetPage, 2)
            .await;
        simulator.advance_day();
        simulator.release_calls();
    };

    let (usages, ()) = tokio::join!(upstream.fleet(None), publish);

    let kind = usages.map(drop).map_err(|error| error.kind);
    assert_eq!(kind, Err(SourceErrorKind::Malformed));
    let usages = upstream.fleet(None).await.unwrap();
    assert_eq!(
        LicenseUsage::newest_date(&usages),
        Some(upstream.newest_date())
    );
}

#[tokio::test]
async fn first_customers_that_lag_behind_do_not_fail_the_call() {
    let upstream = TestUpstream::start(small_pages()).await;
    let customers = upstream.simulator.customers().into_iter();
    upstream.simulator.delay_customers(customers.take(50));

    let usages = upstream.fleet(None).await.unwrap();

    assert_eq!(
        LicenseUsage::newest_date(&usages),
        Some(upstream.newest_date())
    );
    assert_eq!(
        upstream.simulator.request_count(SimulatedApi::FleetCheck),
        1
    );
}

#[tokio::test]
async fn a_date_without_rows_was_not_processed() {
    let upstream = TestUpstream::start(small_pages()).await;
    let tomorrow = upstream.newest_date().next().unwrap();

    for date in [tomorrow, ProcessedDate::parse("2015-01-01").unwrap()] {
        let error = upstream.fleet(Some(date)).await.map(drop).unwrap_err();

        assert_eq!(error.kind, SourceErrorKind::NothingProcessed);
    }
}

#[tokio::test]
async fn a_date_after_today_is_rejected() {
    let upstream = TestUpstream::start(small_pages()).await;
    let date = ProcessedDate::parse("2026-11-24").unwrap();
    let rows = CustomerOverride::Rows(vec![row(date)]);
    upstream
        .simulator
        .override_customer(DOCUMENTED_CUSTOMER, rows);

    for result in [
        upstream.fleet(None).await.map(drop),
        upstream.fleet_date().await.map(drop),
    ] {
        assert_eq!(result.unwrap_err().kind, SourceErrorKind::Malformed);
    }
}

#[tokio::test]
async fn each_page_has_a_deadline_of_its_own() {
    let upstream = TestUpstream::start(small_pages()).await;
    let simulator = &upstream.simulator;
    simulator.hold_calls();
    let slow_pages = async {
        for page in 1..=5 {
            simulator
                .wait_for_requests(SimulatedApi::FleetPage, page)
                .await;
            // Less than an attempt may take. Together they are more than a call may.
            upstream.clock.advance(Duration::from_secs(9));
            simulator.release_calls();
            simulator.hold_calls();
        }
        simulator.release_calls();
    };

    let (usages, ()) = tokio::join!(upstream.fleet(None), slow_pages);

    assert!(usages.is_ok(), "{:?}", usages.err());
}

#[tokio::test]
async fn the_pages_together_may_have_more_bytes_than_one_answer() {
    const PAGE_BYTES: usize = 50 * 400;
    let upstream = TestUpstream::start_with(small_pages(), 8 * PAGE_BYTES).await;

    let usages = upstream.fleet(None).await;

    assert!(usages.is_ok(), "{:?}", usages.err());
    let pages = upstream.simulator.request_count(SimulatedApi::FleetPage);
    assert!(pages > 8, "{pages}");
}
