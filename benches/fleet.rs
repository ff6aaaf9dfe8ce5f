//! What answers over all customers cost, from memory: rights, sums, order and format.
//!
//! Figures of one run are comparable with each other and with no other run: quote ratios.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail in any way"
)]

use std::{collections::HashSet, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use usage_proxy::{
    domain::{
        CustomerId, FleetEntry, FleetStatus, FleetUsage, LicensePrice, LicenseUsage, Portfolio,
        ProcessedAt, ProductRule, ProductSelector, UsageRow,
    },
    render::{
        ContentCoding, CsvReader, CsvSeparator,
        fleet::{
            FleetDocumentRequest, FleetDocuments, FleetFormat, FleetQuery, FleetScope, FleetView,
        },
    },
};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS_PER_CUSTOMER: usize = 8;
const WORKLOADS: [&str; 4] = ["Exchange", "SharePoint", "Teams", "OneDrive"];
/// More products than a customer has, so that customers differ.
const PRODUCTS: usize = 30;

fn seen_at() -> Timestamp {
    "2026-11-25T06:00:00Z".parse().unwrap()
}

fn customer_id(number: usize) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-4000-8000-{number:012}")).unwrap()
}

fn usage_row(customer: usize, row: usize) -> UsageRow {
    let product = (customer + row / WORKLOADS.len()) % PRODUCTS;
    let workload = WORKLOADS[row % WORKLOADS.len()];
    let qualified = 5 + (customer * 7 + product) % 200;
    UsageRow {
        service_code: None,
        service_name: "o365".into(),
        product_id: Some(format!("6fd2c87f-b296-42f0-b197-{product:012}").into()),
        product_name: format!("MICROSOFT 365 PRODUCT {product}").into(),
        channel: Some("reseller".into()),
        workload_code: None,
        workload_name: workload.into(),
        licenses_active: (qualified * (row + 1) / 10) as u64,
        licenses_qualified: qualified as u64,
        reported_usage_percent: None,
        processed_at: ProcessedAt("2026-11-25T00:00:00Z".parse().unwrap()),
    }
}

fn fleet(customers: usize) -> Arc<FleetUsage> {
    let entries = (0..customers).map(|number| {
        let rows = (0..ROWS_PER_CUSTOMER).map(|row| usage_row(number, row));
        let usage = LicenseUsage::new(customer_id(number), None, rows.collect()).unwrap();
        Arc::new(FleetEntry {
            customer_id: customer_id(number),
            customer_name: format!("Customer {number:05} GmbH & Co. KG").into(),
            status: FleetStatus::Current,
            usage: Some(Arc::new(usage)),
            fetched_at: Some(seen_at()),
            failure: None,
        })
    });
    let entries: Vec<_> = entries.collect();
    let newest = entries.iter().filter_map(|entry| entry.usage.as_ref());
    Arc::new(FleetUsage {
        processed_date: newest.filter_map(|usage| usage.processed_date()).max(),
        entries,
    })
}

/// Every second product has a name and a price, and there are 20 groups.
fn portfolio(customers: usize) -> Arc<Portfolio> {
    let mut portfolio = Portfolio::default();
    for product in (0..PRODUCTS).step_by(2) {
        let rule = ProductRule {
            display_name: Some(format!("Product {product}").into()),
            price: Some(LicensePrice {
                currency: if product % 4 == 0 { "EUR" } else { "PLN" }.into(),
                ten_thousandths: 87_000,
            }),
            exclude: false,
        };
        let name = format!("MICROSOFT 365 PRODUCT {product}");
        portfolio.add_rule(ProductSelector::Name(&name), rule);
    }
    for group in 0..20 {
        let members = (group..customers).step_by(20).map(customer_id).collect();
        portfolio.add_group(format!("Group {group}"), members);
    }
    Arc::new(portfolio)
}

fn answers(c: &mut Criterion) {
    for customers in [1_000, 5_000] {
        let (fleet, portfolio) = (fleet(customers), portfolio(customers));
        let half: HashSet<_> = (0..customers).step_by(2).map(customer_id).collect();
        let request = |query, format| FleetDocumentRequest {
            fleet: Arc::clone(&fleet),
            portfolio: Arc::clone(&portfolio),
            scope: FleetScope::new(&fleet, |customer| half.contains(&customer), None, None),
            query,
            format,
        };
        let page = |view| FleetQuery {
            limit: Some(FleetQuery::DEFAULT_LIMIT),
            ..FleetQuery::all(view)
        };
        let whole = |query, format| FleetDocumentRequest {
            scope: FleetScope::new(&fleet, |_| true, None, None),
            ..request(query, format)
        };
        let table = FleetFormat::Csv(CsvReader::Spreadsheet(CsvSeparator::Comma));
        let mut group = c.benchmark_group(format!("fleet/{customers}-customers"));
        for (name, request, coding) in [
            (
                "totals",
                whole(FleetQuery::all(FleetView::Products), FleetFormat::Json),
                ContentCoding::Identity,
            ),
            (
                "totals-of-half",
                request(FleetQuery::all(FleetView::Products), FleetFormat::Json),
                ContentCoding::Identity,
            ),
            (
                "customers",
                whole(page(FleetView::Customers), FleetFormat::Json),
                ContentCoding::Identity,
            ),
            (
                "unused",
                whole(page(FleetView::Unused), FleetFormat::Json),
                ContentCoding::Identity,
            ),
            (
                "unused-table",
                whole(FleetQuery::all(FleetView::Unused), table),
                ContentCoding::Identity,
            ),
            (
                "unused-table-br",
                whole(FleetQuery::all(FleetView::Unused), table),
                ContentCoding::Brotli,
            ),
        ] {
            // The first request after the data changed.
            group.bench_function(name, |b| {
                b.iter_with_large_drop(|| {
                    let documents = FleetDocuments::new();
                    documents
                        .render(black_box(&request), coding, seen_at())
                        .unwrap()
                });
            });
        }
        // Any other: the rights of the caller and a look-up.
        let documents = FleetDocuments::new();
        let totals = || request(FleetQuery::all(FleetView::Products), FleetFormat::Json);
        let coding = ContentCoding::Identity;
        documents.render(&totals(), coding, seen_at()).unwrap();
        group.bench_function("hit", |b| {
            b.iter(|| documents.ready(&totals(), coding).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, answers);
criterion_main!(benches);
