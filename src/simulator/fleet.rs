//! The customers of the stand-in and what they use.
//!
//! Microsoft's documented customer, a fleet that follows from a seed, and on demand one customer
//! with very many rows. Every count is a pure function of seed, customer, product, workload and
//! day, so that both usage calls tell the same and no history has to be kept.

mod catalog;
mod seeded_draw;
mod usage;

use std::{collections::HashMap, sync::Arc};

use jiff::{
    Span, ToSpan,
    civil::{Date, DateTime, Time, date, time},
};
use uuid::Uuid;

use catalog::{CatalogProduct, CatalogService, CatalogWorkload, EXCHANGE, SHAREPOINT, SKYPE};
use seeded_draw::SeededDraw;

/// The customer of Microsoft's documentation; its insights body is Microsoft's example.
pub const DOCUMENTED_CUSTOMER: Uuid = Uuid::from_u128(0x4d3c_f487_70f4_4e1e_9ff1_b2bf_ce8d_9f04);

/// The only processed date that the documented customer has data for.
pub const DOCUMENTED_DATE: Date = date(2017, 3, 9);

/// A customer with `SimulatorOptions::wide_rows` rows; unknown when that is 0.
pub const WIDE_CUSTOMER: Uuid = Uuid::from_u128(0x57bd_0000_0000_4000_8000_0000_0000_0001);

/// A customer that this partner has no relationship with: 403, code 2032.
pub const NO_RELATIONSHIP_CUSTOMER: Uuid =
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0001);

/// Every customer that this partner has no relationship with.
pub(super) const NO_RELATIONSHIP_CUSTOMERS: [Uuid; 3] = [
    NO_RELATIONSHIP_CUSTOMER,
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0002),
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0003),
];

/// Days by which the newest processed date lags the clock.
const PROCESSING_LAG_DAYS: i32 = 3;

/// Processed dates that are kept, the newest included.
const HISTORY_DAYS: i32 = 400;

/// Most rows of a generated customer.
const MAX_ROWS: usize = 12;

/// When the newer rows of half the customers with mixed dates were processed.
const MIXED_TIME: Time = time(3, 25, 16, 360_000_000);

/// Microsoft's example, byte for byte.
const DOCUMENTED_USAGE: &[u8] = include_bytes!("fleet/documented_usage.json");

/// The same of the deployment call.
const DOCUMENTED_DEPLOYMENT: &[u8] = include_bytes!("fleet/documented_deployment.json");

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The id of the generated customer at `index` of the fleet that follows from `seed`.
///
/// Every twentieth customer from index 19 on is empty. Every tenth from index 4 on has mixed
/// dates: its `crm` rows are a day newer than its `o365` rows.
pub fn customer_id(seed: u64, index: usize) -> Uuid {
    draw_for_customer(seed, index).id()
}

/// The id of a product, which follows from its name.
pub(super) fn product_id(name: &str) -> Uuid {
    SeededDraw::new(0).with_text(name).id()
}

/// What the insights call answers for [`DOCUMENTED_CUSTOMER`]: Microsoft's example behind a
/// UTF-8 byte-order mark.
pub fn documented_body() -> Vec<u8> {
    [BYTE_ORDER_MARK, DOCUMENTED_USAGE].concat()
}

/// What the deployment call answers for [`DOCUMENTED_CUSTOMER`]: Microsoft's example behind a UTF-8
/// byte-order mark.
pub fn documented_deployment_body() -> Vec<u8> {
    [BYTE_ORDER_MARK, DOCUMENTED_DEPLOYMENT].concat()
}

/// Everyone the partner sells to.
#[derive(Debug)]
pub(super) struct CustomerFleet {
    customers: Vec<FleetCustomer>,
    by_id: HashMap<Uuid, usize>,
}

/// One customer and what it holds.
#[derive(Debug)]
pub(super) struct FleetCustomer {
    pub(super) id: Uuid,
    pub(super) name: String,
    draw: SeededDraw,
    schedule: ProcessingSchedule,
    channel: &'static str,
    purchases: Vec<PurchasedWorkload>,
}

/// When a customer's usage is processed.
#[derive(Clone, Copy, Debug)]
enum ProcessingSchedule {
    /// Once, and never again.
    Once(Date),
    /// Daily, all services together at midnight.
    Daily,
    /// Daily, Office a day behind Dynamics, and Dynamics at this time.
    Mixed(Time),
}

/// Seats of one product in one workload: one row a day.
#[derive(Debug)]
struct PurchasedWorkload {
    product: Arc<CatalogProduct>,
    workload: &'static CatalogWorkload,
    seats: u64,
}

/// Which processed date is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestedDate {
    /// The newest of each service.
    Newest,
    /// This one.
    Date(Date),
}

/// One row, before either call puts it in its own words.
#[derive(Clone, Debug)]
pub(super) struct FleetRow<'a> {
    pub(super) customer_id: Uuid,
    pub(super) customer_name: &'a str,
    pub(super) product_id: Uuid,
    pub(super) product_name: &'a str,
    pub(super) workload_code: &'a str,
    pub(super) workload_name: &'a str,
    pub(super) service_code: &'a str,
    pub(super) service_name: &'a str,
    pub(super) channel: &'a str,
    pub(super) active: u64,
    pub(super) qualified: u64,
    pub(super) processed: DateTime,
}

/// The newest processed date when the clock shows `today`.
pub(super) fn newest_date(today: Date) -> Date {
    today.saturating_sub(PROCESSING_LAG_DAYS.days())
}

// === impl Fleet ===

impl CustomerFleet {
    pub(super) fn new(seed: u64, generated: usize, wide_rows: usize) -> Self {
        let catalog = catalog::products();
        let mut customers = vec![FleetCustomer::documented()];
        customers
            .extend((0..generated).map(|index| FleetCustomer::generated(seed, index, &catalog)));
        if wide_rows > 0 {
            customers.push(FleetCustomer::wide(seed, wide_rows));
        }
        let by_id = customers
            .iter()
            .enumerate()
            .map(|(position, customer)| (customer.id, position))
            .collect();
        Self { customers, by_id }
    }

    pub(super) fn customers(&self) -> &[FleetCustomer] {
        &self.customers
    }

    pub(super) fn customer(&self, id: Uuid) -> Option<&FleetCustomer> {
        self.customers.get(*self.by_id.get(&id)?)
    }
}

// === impl Customer ===

impl FleetCustomer {
    fn documented() -> Self {
        const HOLDINGS: [(&str, CatalogWorkload, u64); 5] = [
            ("OFFICE 365 BUSINESS ESSENTIALS", EXCHANGE, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SHAREPOINT, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SKYPE, 1),
            ("EXCHANGE ONLINE (PLAN 1)", EXCHANGE, 5),
            ("EXCHANGE ONLINE ARCHIVING FOR EXCHANGE ONLINE", EXCHANGE, 2),
        ];
        let holdings = HOLDINGS
            .iter()
            .map(|(product, workload, seats)| PurchasedWorkload {
                product: Arc::new(CatalogProduct::new(
                    *product,
                    CatalogService::Office365,
                    &[],
                )),
                workload,
                seats: *seats,
            })
            .collect();
        Self {
            id: DOCUMENTED_CUSTOMER,
            name: "DT DEMO CSP CUSTOMER 005".into(),
            draw: SeededDraw::new(0),
            schedule: ProcessingSchedule::Once(DOCUMENTED_DATE),
            channel: "reseller",
            purchases: holdings,
        }
    }

    fn generated(seed: u64, index: usize, catalog: &[Arc<CatalogProduct>]) -> Self {
        let draw = draw_for_customer(seed, index);
        let schedule = match index % 20 {
            4 => ProcessingSchedule::Mixed(MIXED_TIME),
            14 => ProcessingSchedule::Mixed(Time::midnight()),
            _ => ProcessingSchedule::Daily,
        };
        let holdings = if index % 20 == 19 {
            Vec::new()
        } else {
            draw_purchases(draw, schedule, catalog)
        };
        Self {
            id: draw.id(),
            name: catalog::company_name(draw, index),
            draw,
            schedule,
            channel: if draw.with_text("channel").number_below(8) == 0 {
                "direct"
            } else {
                "reseller"
            },
            purchases: holdings,
        }
    }

    fn wide(seed: u64, rows: usize) -> Self {
        let holding = |number: usize| PurchasedWorkload {
            product: Arc::new(CatalogProduct::new(
                format!("WIDE PRODUCT {number:06}"),
                CatalogService::Office365,
                &[],
            )),
            workload: &EXCHANGE,
            seats: 100,
        };
        Self {
            id: WIDE_CUSTOMER,
            name: "WIDE CUSTOMER".into(),
            draw: SeededDraw::new(seed).with_id(WIDE_CUSTOMER),
            schedule: ProcessingSchedule::Daily,
            channel: "reseller",
            purchases: (0..rows).map(holding).collect(),
        }
    }

    /// The domain of the customer's tenant.
    pub(super) fn domain(&self) -> String {
        let label = self.id.simple().to_string();
        format!("{}.onmicrosoft.com", label.get(..12).unwrap_or(&label))
    }

    /// What was processed for `as_of`, while `newest` is the newest processed date of all.
    pub(super) fn rows(
        &self,
        as_of: RequestedDate,
        newest: Date,
    ) -> impl Iterator<Item = FleetRow<'_>> {
        self.purchases
            .iter()
            .filter_map(move |holding| self.row_for(holding, as_of, newest))
    }

    fn row_for<'a>(
        &'a self,
        holding: &'a PurchasedWorkload,
        as_of: RequestedDate,
        newest: Date,
    ) -> Option<FleetRow<'a>> {
        let product = &holding.product;
        let processed = self.schedule.processed_at(product.service, as_of, newest)?;
        let (active, qualified) = self.seat_counts(holding, processed.date());
        Some(FleetRow {
            customer_id: self.id,
            customer_name: &self.name,
            product_id: product.id,
            product_name: &product.name,
            workload_code: holding.workload.code,
            workload_name: holding.workload.name,
            service_code: product.service.code(),
            service_name: product.service.name(),
            channel: self.channel,
            active,
            qualified,
            processed,
        })
    }

    fn seat_counts(&self, holding: &PurchasedWorkload, day: Date) -> (u64, u64) {
        if matches!(self.schedule, ProcessingSchedule::Once(_)) {
            return (0, holding.seats);
        }
        let product = self.draw.with_id(holding.product.id);
        let workload = product.with_text(holding.workload.code);
        let qualified = usage::qualified(product, day, holding.seats);
        (usage::active(workload, day, qualified), qualified)
    }
}

fn draw_for_customer(seed: u64, index: usize) -> SeededDraw {
    SeededDraw::new(seed)
        .with_text("customer")
        .with_word(index as u64)
}

/// One to four products, no product twice, and at most [`MAX_ROWS`] workloads of them.
fn draw_purchases(
    draw: SeededDraw,
    schedule: ProcessingSchedule,
    catalog: &[Arc<CatalogProduct>],
) -> Vec<PurchasedWorkload> {
    let count = 1 + draw.with_text("count").number_below(4);
    let drawn =
        (0..count).filter_map(|turn| draw.with_text("product").with_word(turn).choose(catalog));
    let first_of = |service| {
        catalog
            .iter()
            .find(move |product| product.service == service)
    };
    let needed = match schedule {
        ProcessingSchedule::Mixed(_) => [
            first_of(CatalogService::Dynamics),
            first_of(CatalogService::Office365),
        ],
        ProcessingSchedule::Once(_) | ProcessingSchedule::Daily => [None, None],
    };
    let mut products: Vec<&Arc<CatalogProduct>> = Vec::new();
    for product in needed.into_iter().flatten().chain(drawn) {
        if !products.iter().any(|held| held.id == product.id) {
            products.push(product);
        }
    }
    let seats = |product: &CatalogProduct| {
        5 + draw
            .with_text("seats")
            .with_id(product.id)
            .number_below(400)
    };
    products
        .into_iter()
        .flat_map(|product| {
            product
                .workloads
                .iter()
                .map(move |workload| PurchasedWorkload {
                    product: Arc::clone(product),
                    workload,
                    seats: seats(product),
                })
        })
        .take(MAX_ROWS)
        .collect()
}

// === impl Schedule ===

impl ProcessingSchedule {
    /// When `service` was processed for `as_of`; `None` when it was not.
    fn processed_at(
        self,
        service: CatalogService,
        as_of: RequestedDate,
        newest: Date,
    ) -> Option<DateTime> {
        let (last, kept_days, at) = match self {
            Self::Once(day) => (day, 1, Time::midnight()),
            Self::Daily => (newest, HISTORY_DAYS, Time::midnight()),
            Self::Mixed(at) if service == CatalogService::Dynamics => (newest, HISTORY_DAYS, at),
            Self::Mixed(_) => (day_before(newest), HISTORY_DAYS, Time::midnight()),
        };
        let day = match as_of {
            RequestedDate::Newest => last,
            RequestedDate::Date(day) => day,
        };
        let too_old = last.saturating_sub(Span::new().days(kept_days));
        (day <= last && day > too_old).then(|| day.to_datetime(at))
    }
}

fn day_before(day: Date) -> Date {
    day.saturating_sub(1.day())
}

#[cfg(test)]
mod tests;
