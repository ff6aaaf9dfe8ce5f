//! The customers of the stand-in and what they use.
//!
//! Microsoft's documented customer, a fleet that follows from a seed, and on demand one customer
//! with very many rows. Every count is a pure function of seed, customer, product, workload and
//! day, so that both usage calls tell the same and no history has to be kept.

mod catalog;
mod draw;
mod usage;

use std::{collections::HashMap, sync::Arc};

use jiff::{
    Span, ToSpan,
    civil::{Date, DateTime, Time, date, time},
};
use uuid::Uuid;

use catalog::{EXCHANGE, Product, SHAREPOINT, SKYPE, Service, Workload};
use draw::Draw;

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
pub const NO_RELATIONSHIP_CUSTOMERS: [Uuid; 3] = [
    NO_RELATIONSHIP_CUSTOMER,
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0002),
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0003),
];

/// Days by which the newest processed date lags the clock.
pub const PROCESSING_LAG_DAYS: i32 = 3;

/// Processed dates that are kept, the newest included.
pub const HISTORY_DAYS: i32 = 400;

/// Most rows of a generated customer.
const MOST_ROWS: usize = 12;

/// When the newer rows of half the customers with mixed dates were processed.
const ODD_TIME: Time = time(3, 25, 16, 360_000_000);

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
    customer_draw(seed, index).id()
}

/// The id of a product, which follows from its name.
pub(super) fn product_id(name: &str) -> Uuid {
    Draw::new(0).with_text(name).id()
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
pub(super) struct Fleet {
    customers: Vec<Customer>,
    by_id: HashMap<Uuid, usize>,
}

/// One customer and what it holds.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: Uuid,
    pub(super) name: String,
    draw: Draw,
    schedule: Schedule,
    channel: &'static str,
    holdings: Vec<Holding>,
}

/// When a customer's usage is processed.
#[derive(Clone, Copy, Debug)]
enum Schedule {
    /// Once, and never again.
    Once(Date),
    /// Daily, all services together at midnight.
    Daily,
    /// Daily, Office a day behind Dynamics, and Dynamics at this time.
    Mixed(Time),
}

/// Seats of one product in one workload: one row a day.
#[derive(Debug)]
struct Holding {
    product: Arc<Product>,
    workload: &'static Workload,
    seats: u64,
}

/// Which processed date is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AsOf {
    /// The newest of each service.
    Newest,
    /// This one.
    Date(Date),
}

/// One row, before either call puts it in its own words.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
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

impl Fleet {
    pub(super) fn new(seed: u64, generated: usize, wide_rows: usize) -> Self {
        let catalog = catalog::products();
        let mut customers = vec![Customer::documented()];
        customers.extend((0..generated).map(|index| Customer::generated(seed, index, &catalog)));
        if wide_rows > 0 {
            customers.push(Customer::wide(seed, wide_rows));
        }
        let by_id = customers
            .iter()
            .enumerate()
            .map(|(position, customer)| (customer.id, position))
            .collect();
        Self { customers, by_id }
    }

    pub(super) fn customers(&self) -> &[Customer] {
        &self.customers
    }

    pub(super) fn customer(&self, id: Uuid) -> Option<&Customer> {
        self.customers.get(*self.by_id.get(&id)?)
    }
}

// === impl Customer ===

impl Customer {
    fn documented() -> Self {
        const HOLDINGS: [(&str, Workload, u64); 5] = [
            ("OFFICE 365 BUSINESS ESSENTIALS", EXCHANGE, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SHAREPOINT, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SKYPE, 1),
            ("EXCHANGE ONLINE (PLAN 1)", EXCHANGE, 5),
            ("EXCHANGE ONLINE ARCHIVING FOR EXCHANGE ONLINE", EXCHANGE, 2),
        ];
        let holdings = HOLDINGS
            .iter()
            .map(|(product, workload, seats)| Holding {
                product: Arc::new(Product::new(*product, Service::Office365, &[])),
                workload,
                seats: *seats,
            })
            .collect();
        Self {
            id: DOCUMENTED_CUSTOMER,
            name: "DT DEMO CSP CUSTOMER 005".into(),
            draw: Draw::new(0),
            schedule: Schedule::Once(DOCUMENTED_DATE),
            channel: "reseller",
            holdings,
        }
    }

    fn generated(seed: u64, index: usize, catalog: &[Arc<Product>]) -> Self {
        let draw = customer_draw(seed, index);
        let schedule = match index % 20 {
            4 => Schedule::Mixed(ODD_TIME),
            14 => Schedule::Mixed(Time::midnight()),
            _ => Schedule::Daily,
        };
        let holdings = if index % 20 == 19 {
            Vec::new()
        } else {
            purchases(draw, schedule, catalog)
        };
        Self {
            id: draw.id(),
            name: catalog::company_name(draw, index),
            draw,
            schedule,
            channel: if draw.with_text("channel").below(8) == 0 {
                "direct"
            } else {
                "reseller"
            },
            holdings,
        }
    }

    fn wide(seed: u64, rows: usize) -> Self {
        let holding = |number: usize| Holding {
            product: Arc::new(Product::new(
                format!("WIDE PRODUCT {number:06}"),
                Service::Office365,
                &[],
            )),
            workload: &EXCHANGE,
            seats: 100,
        };
        Self {
            id: WIDE_CUSTOMER,
            name: "WIDE CUSTOMER".into(),
            draw: Draw::new(seed).with_id(WIDE_CUSTOMER),
            schedule: Schedule::Daily,
            channel: "reseller",
            holdings: (0..rows).map(holding).collect(),
        }
    }

    /// The domain of the customer's tenant.
    pub(super) fn domain(&self) -> String {
        let label = self.id.simple().to_string();
        format!("{}.onmicrosoft.com", label.get(..12).unwrap_or(&label))
    }

    /// What was processed for `as_of`, while `newest` is the newest processed date of all.
    pub(super) fn rows(&self, as_of: AsOf, newest: Date) -> impl Iterator<Item = Row<'_>> {
        self.holdings
            .iter()
            .filter_map(move |holding| self.row(holding, as_of, newest))
    }

    fn row<'a>(&'a self, holding: &'a Holding, as_of: AsOf, newest: Date) -> Option<Row<'a>> {
        let product = &holding.product;
        let processed = self.schedule.processed(product.service, as_of, newest)?;
        let (active, qualified) = self.counts(holding, processed.date());
        Some(Row {
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

    fn counts(&self, holding: &Holding, day: Date) -> (u64, u64) {
        if matches!(self.schedule, Schedule::Once(_)) {
            return (0, holding.seats);
        }
        let product = self.draw.with_id(holding.product.id);
        let workload = product.with_text(holding.workload.code);
        let qualified = usage::qualified(product, day, holding.seats);
        (usage::active(workload, day, qualified), qualified)
    }
}

fn customer_draw(seed: u64, index: usize) -> Draw {
    Draw::new(seed).with_text("customer").with(index as u64)
}

/// One to four products, no product twice, and at most [`MOST_ROWS`] workloads of them.
fn purchases(draw: Draw, schedule: Schedule, catalog: &[Arc<Product>]) -> Vec<Holding> {
    let count = 1 + draw.with_text("count").below(4);
    let drawn = (0..count).filter_map(|turn| draw.with_text("product").with(turn).choose(catalog));
    let first_of = |service| {
        catalog
            .iter()
            .find(move |product| product.service == service)
    };
    let needed = match schedule {
        Schedule::Mixed(_) => [first_of(Service::Dynamics), first_of(Service::Office365)],
        Schedule::Once(_) | Schedule::Daily => [None, None],
    };
    let mut products: Vec<&Arc<Product>> = Vec::new();
    for product in needed.into_iter().flatten().chain(drawn) {
        if !products.iter().any(|held| held.id == product.id) {
            products.push(product);
        }
    }
    let seats = |product: &Product| 5 + draw.with_text("seats").with_id(product.id).below(400);
    products
        .into_iter()
        .flat_map(|product| {
            product.workloads.iter().map(move |workload| Holding {
                product: Arc::clone(product),
                workload,
                seats: seats(product),
            })
        })
        .take(MOST_ROWS)
        .collect()
}

// === impl Schedule ===

impl Schedule {
    /// When `service` was processed for `as_of`; `None` when it was not.
    fn processed(self, service: Service, as_of: AsOf, newest: Date) -> Option<DateTime> {
        let (last, kept_days, at) = match self {
            Self::Once(day) => (day, 1, Time::midnight()),
            Self::Daily => (newest, HISTORY_DAYS, Time::midnight()),
            Self::Mixed(at) if service == Service::Dynamics => (newest, HISTORY_DAYS, at),
            Self::Mixed(_) => (day_before(newest), HISTORY_DAYS, Time::midnight()),
        };
        let day = match as_of {
            AsOf::Newest => last,
            AsOf::Date(day) => day,
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
