//! The customers of the simulator and their usage.
//!
//! They are Microsoft's documented customer and a fleet that follows from a seed. Every count is a pure
//! function of seed, customer, product, workload and day, so both usage calls agree, and no history is
//! stored.

mod catalog;
mod publication;
mod seeded_draw;
mod usage;

use std::{collections::HashMap, sync::Arc};

use jiff::{
    ToSpan,
    civil::{Date, DateTime, Time, Weekday, date, time},
};
use uuid::Uuid;

pub(super) use catalog::product_id;
use catalog::{CatalogProduct, CatalogService, CatalogWorkload, EXCHANGE, SHAREPOINT, SKYPE};
pub(super) use publication::newest_published;
use seeded_draw::SeededDraw;

/// The customer of Microsoft's documentation; its insights body is Microsoft's example.
pub const DOCUMENTED_CUSTOMER: Uuid = Uuid::from_u128(0x4d3c_f487_70f4_4e1e_9ff1_b2bf_ce8d_9f04);

/// The only processed date that the documented customer has data for.
pub const DOCUMENTED_DATE: Date = date(2017, 3, 9);

/// A customer that this partner has no relationship with: 403, code 2032.
pub const NO_RELATIONSHIP_CUSTOMER: Uuid =
    Uuid::from_u128(0x0403_0000_0000_4000_8000_0000_0000_0001);

/// Days by which the newest processed date lags the clock.
const PROCESSING_LAG_DAYS: i32 = 3;

/// The number of processed dates with data, including the newest.
const HISTORY_DAYS: i32 = 400;

/// The days before the start of the simulator at which the last customers joined, and bought their last
/// products.
const NEWEST_PURCHASE: i32 = 15;

/// The days over which they did.
const PURCHASE_DAYS: u64 = 250;

/// The most rows of a generated customer.
const MAX_ROWS: usize = 16;

/// The time of processing of the newer rows, for half the customers with mixed dates.
const MIXED_TIME: Time = time(3, 25, 16, 360_000_000);

/// Microsoft's example, byte for byte.
const DOCUMENTED_USAGE: &[u8] = include_bytes!("fleet/documented_usage.json");

/// Microsoft's example of the deployment call, byte for byte.
const DOCUMENTED_DEPLOYMENT: &[u8] = include_bytes!("fleet/documented_deployment.json");

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the id of the generated customer at `index` of the fleet that follows from `seed`.
///
/// Every twentieth customer from index 19 on is empty. Every tenth from index 4 on has mixed
/// dates: its `crm` rows are a day newer than its `o365` rows. Of the others, every twentieth joined
/// later (from index 7 on), added a product later (11), or has no data of weekends (16).
pub fn customer_id(seed: u64, index: usize) -> Uuid {
    draw_for_customer(seed, index).id()
}

/// Returns the insights answer for [`DOCUMENTED_CUSTOMER`]: Microsoft's example after a UTF-8
/// byte-order mark.
pub fn documented_body() -> Vec<u8> {
    [BYTE_ORDER_MARK, DOCUMENTED_USAGE].concat()
}

/// Returns the deployment answer for [`DOCUMENTED_CUSTOMER`]: Microsoft's example after a UTF-8
/// byte-order mark.
pub fn documented_deployment_body() -> Vec<u8> {
    [BYTE_ORDER_MARK, DOCUMENTED_DEPLOYMENT].concat()
}

/// All customers of the partner.
#[derive(Debug)]
pub(super) struct CustomerFleet {
    customers: Vec<FleetCustomer>,
    by_id: HashMap<Uuid, usize>,
}

/// One customer and its purchases.
#[derive(Debug)]
pub(super) struct FleetCustomer {
    pub(super) id: Uuid,
    pub(super) name: String,
    schedule: ProcessingSchedule,
    channel: &'static str,
    purchases: Vec<PurchasedWorkload>,
}

/// The days on which a customer's usage is processed.
#[derive(Clone, Copy, Debug)]
enum ProcessingSchedule {
    /// On this day only.
    Once(Date),
    /// Daily, all services together at midnight.
    Daily,
    /// The same, without Saturdays and Sundays.
    Weekdays,
    /// Daily, Office a day behind Dynamics, and Dynamics at this time.
    Mixed(Time),
}

/// Seats of one product in one workload: one row a day.
#[derive(Debug)]
struct PurchasedWorkload {
    product: Arc<CatalogProduct>,
    workload: &'static CatalogWorkload,
    seats: u64,
    /// Its first day; [`Date::MIN`] if it was always there.
    since: Date,
    product_draw: SeededDraw,
    workload_draw: SeededDraw,
}

/// The processed date in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestedDate {
    /// The newest of each service.
    Newest,
    /// This one.
    Date(Date),
}

/// One row, before a call renders it.
#[derive(Clone, Debug)]
pub(super) struct FleetPageRow<'a> {
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

/// Returns the newest processed date on the day `today`.
pub(super) fn newest_date(today: Date) -> Date {
    today.saturating_sub(PROCESSING_LAG_DAYS.days())
}

// === impl CustomerFleet ===

impl CustomerFleet {
    /// `today` is the day of the start: what changed in the past follows from it.
    pub(super) fn new(seed: u64, generated: usize, today: Date) -> Self {
        let catalog = catalog::products();
        let mut customers = vec![FleetCustomer::documented()];
        let generate = |index| FleetCustomer::generated(seed, index, &catalog, today);
        customers.extend((0..generated).map(generate));
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

// === impl FleetCustomer ===

impl FleetCustomer {
    fn documented() -> Self {
        const PURCHASES: [(&str, CatalogWorkload, u64); 5] = [
            ("OFFICE 365 BUSINESS ESSENTIALS", EXCHANGE, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SHAREPOINT, 1),
            ("OFFICE 365 BUSINESS ESSENTIALS", SKYPE, 1),
            ("EXCHANGE ONLINE (PLAN 1)", EXCHANGE, 5),
            ("EXCHANGE ONLINE ARCHIVING FOR EXCHANGE ONLINE", EXCHANGE, 2),
        ];
        let draw = SeededDraw::new(0);
        let purchases = PURCHASES
            .iter()
            .map(|(product, workload, seats)| {
                let product = CatalogProduct::new(*product, CatalogService::Office365, &[]);
                let product = Arc::new(product);
                PurchasedWorkload::new(draw, &product, workload, *seats, Date::MIN)
            })
            .collect();
        Self {
            id: DOCUMENTED_CUSTOMER,
            name: "DT DEMO CSP CUSTOMER 005".into(),
            schedule: ProcessingSchedule::Once(DOCUMENTED_DATE),
            channel: "reseller",
            purchases,
        }
    }

    fn generated(seed: u64, index: usize, catalog: &[Arc<CatalogProduct>], today: Date) -> Self {
        let draw = draw_for_customer(seed, index);
        let schedule = match index % 20 {
            4 => ProcessingSchedule::Mixed(MIXED_TIME),
            14 => ProcessingSchedule::Mixed(Time::midnight()),
            16 => ProcessingSchedule::Weekdays,
            _ => ProcessingSchedule::Daily,
        };
        let mut purchases = if index % 20 == 19 {
            Vec::new()
        } else {
            draw_purchases(draw, schedule, catalog)
        };
        let newest = purchases.last().map(|purchase| purchase.product.id);
        let days = i64::from(NEWEST_PURCHASE)
            + draw
                .with_text("since")
                .number_below(PURCHASE_DAYS)
                .cast_signed();
        let since = today.saturating_sub(days.days());
        for purchase in &mut purchases {
            let is_later = match index % 20 {
                7 => true,
                11 => newest == Some(purchase.product.id),
                _ => false,
            };
            if is_later {
                purchase.since = since;
            }
        }
        Self {
            id: draw.id(),
            name: catalog::company_name(draw, index),
            schedule,
            channel: if draw.with_text("channel").number_below(8) == 0 {
                "direct"
            } else {
                "reseller"
            },
            purchases,
        }
    }

    /// Returns the domain of the customer's tenant.
    pub(super) fn domain(&self) -> String {
        let label = self.id.simple().to_string();
        format!("{}.onmicrosoft.com", label.get(..12).unwrap_or(&label))
    }

    /// Returns the rows of a date, while `newest` is the newest processed date of all.
    pub(super) fn rows(
        &self,
        requested: RequestedDate,
        newest: Date,
    ) -> impl Iterator<Item = FleetPageRow<'_>> {
        self.purchases
            .iter()
            .filter_map(move |purchase| self.row_for(purchase, requested, newest))
    }

    /// Returns the number of rows of a date, without their counts.
    pub(super) fn row_count(&self, requested: RequestedDate, newest: Date) -> usize {
        let is_processed = |purchase: &&PurchasedWorkload| {
            self.processed_at(purchase, requested, newest).is_some()
        };
        self.purchases.iter().filter(is_processed).count()
    }

    fn row_for<'a>(
        &'a self,
        purchase: &'a PurchasedWorkload,
        requested: RequestedDate,
        newest: Date,
    ) -> Option<FleetPageRow<'a>> {
        let product = &purchase.product;
        let processed = self.processed_at(purchase, requested, newest)?;
        let (active, qualified) = self.seat_counts(purchase, processed.date());
        Some(FleetPageRow {
            customer_id: self.id,
            customer_name: &self.name,
            product_id: product.id,
            product_name: &product.name,
            workload_code: purchase.workload.code,
            workload_name: purchase.workload.name,
            service_code: product.service.code(),
            service_name: product.service.name(),
            channel: self.channel,
            active,
            qualified,
            processed,
        })
    }

    fn seat_counts(&self, purchase: &PurchasedWorkload, day: Date) -> (u64, u64) {
        if matches!(self.schedule, ProcessingSchedule::Once(_)) {
            return (0, purchase.seats);
        }
        let qualified = usage::qualified(purchase.product_draw, day, purchase.seats);
        let active = usage::active(purchase.workload_draw, day, purchase.since, qualified);
        (active, qualified)
    }

    fn processed_at(
        &self,
        purchase: &PurchasedWorkload,
        requested: RequestedDate,
        newest: Date,
    ) -> Option<DateTime> {
        let service = purchase.product.service;
        let processed = self.schedule.processed_at(service, requested, newest)?;
        (processed.date() >= purchase.since).then_some(processed)
    }
}

fn draw_for_customer(seed: u64, index: usize) -> SeededDraw {
    SeededDraw::new(seed)
        .with_text("customer")
        .with_word(index as u64)
}

/// Draws two to four products, none twice, and at most [`MAX_ROWS`] workloads of them.
fn draw_purchases(
    draw: SeededDraw,
    schedule: ProcessingSchedule,
    catalog: &[Arc<CatalogProduct>],
) -> Vec<PurchasedWorkload> {
    let count = (1 + draw.with_text("count").number_below(4)).max(2);
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
        ProcessingSchedule::Once(_) | ProcessingSchedule::Daily | ProcessingSchedule::Weekdays => {
            [None, None]
        }
    };
    let mut products: Vec<&Arc<CatalogProduct>> = Vec::new();
    for product in needed.into_iter().flatten().chain(drawn) {
        if !products.iter().any(|known| known.id == product.id) {
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
            let seats = seats(product);
            let workloads = product.workloads.iter();
            workloads.map(move |workload| {
                PurchasedWorkload::new(draw, product, workload, seats, Date::MIN)
            })
        })
        .take(MAX_ROWS)
        .collect()
}

// === impl PurchasedWorkload ===

impl PurchasedWorkload {
    fn new(
        customer: SeededDraw,
        product: &Arc<CatalogProduct>,
        workload: &'static CatalogWorkload,
        seats: u64,
        since: Date,
    ) -> Self {
        let product_draw = customer.with_id(product.id);
        Self {
            product: Arc::clone(product),
            workload,
            seats,
            since,
            product_draw,
            workload_draw: product_draw.with_text(workload.code),
        }
    }
}

// === impl ProcessingSchedule ===

impl ProcessingSchedule {
    /// Returns the time at which `service` was processed for a date; `None` if it was not.
    fn processed_at(
        self,
        service: CatalogService,
        requested: RequestedDate,
        newest: Date,
    ) -> Option<DateTime> {
        let (last, kept_days, at) = match self {
            Self::Once(day) => (day, 1, Time::midnight()),
            Self::Daily => (newest, HISTORY_DAYS, Time::midnight()),
            Self::Weekdays => (last_weekday(newest), HISTORY_DAYS, Time::midnight()),
            Self::Mixed(at) if service == CatalogService::Dynamics => (newest, HISTORY_DAYS, at),
            Self::Mixed(_) => (day_before(newest), HISTORY_DAYS, Time::midnight()),
        };
        let day = match requested {
            RequestedDate::Newest => last,
            RequestedDate::Date(day) => day,
        };
        let is_skipped = matches!(self, Self::Weekdays) && is_weekend(day);
        let too_old = last.saturating_sub(kept_days.days());
        (day <= last && day > too_old && !is_skipped).then(|| day.to_datetime(at))
    }
}

fn is_weekend(day: Date) -> bool {
    matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Returns the day itself, or the Friday before it.
fn last_weekday(mut day: Date) -> Date {
    while is_weekend(day) {
        day = day_before(day);
    }
    day
}

pub(super) fn day_before(day: Date) -> Date {
    day.saturating_sub(1.day())
}

#[cfg(test)]
mod tests;
