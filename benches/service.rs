//! What a request costs without a socket: a hit, filling an entry, and handing out one fetch.
//!
//! Figures of one run are comparable with each other and with no other run: quote ratios.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail in any way"
)]

use std::{
    convert::Infallible,
    fs::File,
    future::Future,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response, header, request::Parts};
use prometheus::Registry;
use serde_json::json;
use tower::Service;
use usage_proxy::{
    allowed_hosts::AllowedHosts,
    api::{Api, ApiBody, ApiParts, Authenticator},
    cache::{CacheMetrics, LeaderGuard, SingleFlight, UsageCache},
    clock::{Clock, SystemClock},
    config::{CacheConfig, LogConfig, LogFormat, RequestLog},
    domain::{CustomerId, UpstreamApi},
    jitter::Jitter,
    observability::telemetry,
    partner_center::wire,
    peer::Peer,
    portfolio_file::CurrentPortfolio,
    render::{ContentCoding, Format, Rendered},
    service::{
        CallLimits, FleetMetrics, ServiceParts, UsageService,
        source::{AnswerContent, CallIds, FetchFuture, SourceAnswer, SourceCall, UsageSource},
    },
    shutdown::Shutdown,
    simulator::documented_body,
};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

/// Answers every call at once with Microsoft's documented example.
#[derive(Debug)]
struct Documented;

impl UsageSource for Documented {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        Box::pin(async move {
            let body = documented_body();
            Ok(SourceAnswer {
                content: AnswerContent::Usage {
                    usage: wire::decode_insights(&body, call.resource.customer().unwrap()).unwrap(),
                    native: Some(body.into()),
                },
                call_ids: CallIds {
                    request_id: uuid::Uuid::nil(),
                    correlation_id: uuid::Uuid::nil(),
                },
                memory: None,
            })
        })
    }
}

fn api(
    log: RequestLog,
) -> impl Service<(Parts, Peer), Response = Response<ApiBody>, Error = Infallible> + Clone {
    let config = CacheConfig {
        max_bytes: 64 << 20,
        fresh_for: Duration::from_secs(86_400),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        soft_timeout: Duration::ZERO,
        negative_fresh_for: Duration::ZERO,
        past_absence_fresh_for: Duration::ZERO,
        min_refresh_interval: Duration::ZERO,
        suspect_confirm_after: Duration::ZERO,
    };
    let registry = Registry::new();
    let metrics = CacheMetrics::new(&registry).unwrap();
    let usage = UsageService::new(ServiceParts {
        config: &config,
        limits: CallLimits {
            max_concurrency: NonZeroUsize::MIN,
            deadline: Duration::from_secs(25),
        },
        newest_api: UpstreamApi::Insights,
        cache: UsageCache::new(&config, Jitter::Random, metrics),
        source: Arc::new(Documented),
        durable: None,
        portfolio: CurrentPortfolio::default(),
        clock: Arc::new(SystemClock),
        fleet_metrics: FleetMetrics::new(&Registry::new()).unwrap(),
        shutdown: &Shutdown::new(),
    });
    let parts = ApiParts {
        authenticator: Authenticator::new(None, None),
        usage,
        refreshes_fleet: false,
        clock: Arc::new(SystemClock),
        request_log: log,
        allowed_hosts: Some(AllowedHosts::new(&[])),
        cors_origins: &[],
        spans: None,
    };
    Api::new(parts, &registry).unwrap().into_service()
}

fn request(path: &str, headers: &[(header::HeaderName, &str)]) -> Parts {
    let mut request = Request::get(format!("/v1/customers/{CUSTOMER}/{path}"))
        .header(header::HOST, "127.0.0.1:8080")
        .header(header::ACCEPT, "application/json");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// A hit never waits, so one poll is all it takes.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a hit does not wait"),
    }
}

fn hit(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut api, mut logging_api) = (api(RequestLog::Off), api(RequestLog::All));
    let peer = Peer::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    let gzip = [(header::ACCEPT_ENCODING, "gzip")];
    let etag = runtime.block_on(async {
        let first = api
            .call((request("usage", &[]), peer.clone()))
            .await
            .unwrap();
        let compressed = api
            .call((request("usage", &gzip), peer.clone()))
            .await
            .unwrap();
        assert_eq!(compressed.headers()[header::CONTENT_ENCODING], "gzip");
        logging_api
            .call((request("usage", &[]), peer.clone()))
            .await
            .unwrap();
        first.headers()[header::ETAG].to_str().unwrap().to_owned()
    });

    let mut group = c.benchmark_group("hit");
    for (name, path, headers) in [
        ("simplified", "usage", &[][..]),
        ("native", "analytics/licenses/usage", &[]),
        ("gzip", "usage", &gzip),
        (
            "not-modified",
            "usage",
            &[(header::IF_NONE_MATCH, etag.as_str())],
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || request(path, headers),
                |request| ready(api.call((request, peer.clone()))),
                BatchSize::SmallInput,
            );
        });
    }
    // As `simplified`, with a line in the log.
    let log = LogConfig {
        format: Some(LogFormat::Json),
        filter: "info".to_owned(),
        requests: RequestLog::All,
    };
    let (writer, _log) = telemetry::start_log_thread(File::create("/dev/null").unwrap());
    let dispatch = telemetry::build_dispatch(&log, writer).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        group.bench_function("logged", |b| {
            b.iter_batched(
                || request("usage", &[]),
                |request| ready(logging_api.call((request, peer.clone()))),
                BatchSize::SmallInput,
            );
        });
    });
    group.finish();
}

/// A body of the insights call with this many rows.
fn body_of(rows: usize) -> Vec<u8> {
    let items: Vec<_> = (0..rows)
        .map(|row| {
            json!({
                "customerName": "DT DEMO CSP CUSTOMER 005",
                "productName": format!("PRODUCT {}", row / 5),
                "workloadName": format!("Workload {}", row % 5),
                "licensesActive": row,
                "licensesQualified": 2 * row + 1,
                "usagePercent": 49.5,
                "processedDateTime": "2017-03-09T00:00:00+00:00",
                "serviceName": "o365",
                "channel": "reseller",
                "attributes": {"objectType": "CustomerLicensesUsageInsights"},
            })
        })
        .collect();
    serde_json::to_vec(&json!({"totalCount": rows, "items": items})).unwrap()
}

fn fill(c: &mut Criterion) {
    let customer = CustomerId::parse(CUSTOMER).unwrap();
    let now = SystemClock.wall_time();
    for rows in [5, 5_000] {
        let body = body_of(rows);
        let snapshot = wire::decode_insights(&body, customer).unwrap();
        let mut group = c.benchmark_group(format!("fill/{rows}-rows"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("decode", |b| {
            b.iter(|| wire::decode_insights(black_box(&body), customer).unwrap());
        });
        group.bench_function("prepare", |b| {
            b.iter(|| Rendered::new(black_box(&snapshot), Some(&body), now).unwrap());
        });
        for (name, form, coding) in [
            ("csv", Format::Csv, ContentCoding::Identity),
            ("gzip", Format::Simplified, ContentCoding::Gzip),
            ("br", Format::Simplified, ContentCoding::Brotli),
            ("zstd", Format::Simplified, ContentCoding::Zstd),
        ] {
            group.bench_function(name, |b| {
                b.iter_batched(
                    || Rendered::new(&snapshot, None, now).unwrap(),
                    |prepared| {
                        prepared.render(form, coding).unwrap();
                        prepared
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn single_flight(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("single-flight");
    for callers in [1_u32, 1_000] {
        let flights = SingleFlight::new(Shutdown::new());
        let board = || {
            let fetch = |ticket: LeaderGuard<_, _>, ()| async move {
                ticket.complete((), |()| ()).unwrap();
                7_u32
            };
            flights
                .join_or_lead("key", |()| (), || Ok::<(), ()>(()), fetch)
                .unwrap()
        };
        group.throughput(Throughput::Elements(callers.into()));
        group.bench_function(format!("{callers}-callers"), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let boardings: Vec<_> = (0..callers).map(|_| board()).collect();
                    for boarding in boardings {
                        black_box(boarding.outcome().await.unwrap());
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hit, fill, single_flight);
criterion_main!(benches);
