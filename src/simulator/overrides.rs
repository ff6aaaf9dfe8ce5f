//! Data that replaces the data of the fleet.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::civil::{Date, DateTime, Time};
use uuid::Uuid;

use super::{
    fleet::{CustomerFleet, FleetPageRow, RequestedDate, product_id},
    reply::SimulatedReply,
};

/// Replaces the data of one customer.
#[derive(Clone, Debug)]
pub enum CustomerOverride {
    /// These rows, as the newest data, in both usage calls.
    Rows(Vec<SimulatedRow>),
    /// The rows of `newest` as the newest data, and those of another date for a call that names it.
    History {
        /// The newest date of the data, also if no row has it.
        newest: Date,
        /// Rows of several dates.
        rows: Vec<SimulatedRow>,
    },
    /// This body, with status 200, to every call for this customer alone.
    Body(Bytes),
    /// This answer, to every call for this customer alone.
    Status {
        /// Its status.
        status: StatusCode,
        /// Its body, sent as JSON unless `headers` say otherwise.
        body: Bytes,
        /// Headers that are added to the usual ones, or replace them.
        headers: HeaderMap,
    },
}

/// One row of [`CustomerOverride::Rows`].
#[derive(Clone, Debug)]
pub struct SimulatedRow {
    /// The customer's name.
    pub customer_name: String,
    /// The product's name; its id follows from it.
    pub product_name: String,
    /// The workload's code.
    pub workload_code: String,
    /// The workload's name.
    pub workload_name: String,
    /// The service's code.
    pub service_code: String,
    /// The service's name.
    pub service_name: String,
    /// The sales channel.
    pub channel: String,
    /// Seats in use.
    pub licenses_active: u64,
    /// Seats that qualify for use.
    pub licenses_qualified: u64,
    /// The time of processing, in UTC.
    pub processed: DateTime,
}

/// All that replaces or changes the data of the fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct DataOverrides {
    /// In the order of the ids, which the pages of all rows follow.
    pub(super) customers: BTreeMap<Uuid, Arc<CustomerOverride>>,
    /// The customers whose newest date is the day before that of the fleet.
    pub(super) late: HashSet<Uuid>,
    /// The qualified seats that are added to each row of a date.
    pub(super) corrections: HashMap<Date, u64>,
}

// === impl DataOverrides ===

impl DataOverrides {
    /// Returns the rows of a customer's override; `None` if it has none.
    pub(super) fn rows(
        &self,
        customer: Uuid,
        as_of: RequestedDate,
    ) -> Option<Vec<FleetPageRow<'_>>> {
        self.customers.get(&customer)?.rows(customer, as_of)
    }

    /// Returns the customers that the fleet does not have.
    pub(super) fn added_to(&self, fleet: &CustomerFleet) -> impl Iterator<Item = Uuid> {
        let customers = self.customers.keys().copied();
        customers.filter(|id| fleet.customer(*id).is_none())
    }

    pub(super) fn is_late(&self, customer: Uuid) -> bool {
        self.late.contains(&customer)
    }

    pub(super) fn correction(&self, date: Date) -> u64 {
        self.corrections.get(&date).copied().unwrap_or_default()
    }
}

// === impl CustomerOverride ===

impl CustomerOverride {
    /// Returns the rows for `as_of`; `None` if the override has none.
    pub(super) fn rows(
        &self,
        customer_id: Uuid,
        as_of: RequestedDate,
    ) -> Option<Vec<FleetPageRow<'_>>> {
        let (rows, day) = match (self, as_of) {
            (Self::Rows(rows), RequestedDate::Newest) => (rows, None),
            (Self::History { newest, rows }, RequestedDate::Newest) => (rows, Some(*newest)),
            (Self::Rows(rows) | Self::History { rows, .. }, RequestedDate::Date(day)) => {
                (rows, Some(day))
            }
            (Self::Body(_) | Self::Status { .. }, _) => return None,
        };
        let wanted = |row: &&SimulatedRow| day.is_none_or(|day| row.processed.date() == day);
        let rows = rows.iter().filter(wanted);
        Some(rows.map(|row| row.fleet_row(customer_id)).collect())
    }

    /// Returns the answer to a call for this customer alone; `None` if the override has rows.
    pub(super) fn reply(&self) -> Option<SimulatedReply> {
        match self {
            Self::Rows(_) | Self::History { .. } => None,
            Self::Body(body) => Some(SimulatedReply::raw_json(StatusCode::OK, body.clone())),
            Self::Status {
                status,
                body,
                headers,
            } => {
                let mut reply = SimulatedReply::raw_json(*status, body.clone());
                for (name, value) in headers {
                    reply.headers.insert(name, value.clone());
                }
                Some(reply)
            }
        }
    }
}

// === impl SimulatedRow ===

impl SimulatedRow {
    /// Creates a row of a resold Office product with no seats in use. Every field can be changed.
    pub fn new(product_name: &str, workload_name: &str, qualified: u64, processed: Date) -> Self {
        Self {
            customer_name: "Overridden customer".into(),
            product_name: product_name.into(),
            workload_code: workload_name.to_uppercase(),
            workload_name: workload_name.into(),
            service_code: "O365".into(),
            service_name: "o365".into(),
            channel: "reseller".into(),
            licenses_active: 0,
            licenses_qualified: qualified,
            processed: processed.to_datetime(Time::midnight()),
        }
    }

    fn fleet_row(&self, customer_id: Uuid) -> FleetPageRow<'_> {
        FleetPageRow {
            customer_id,
            customer_name: &self.customer_name,
            product_id: product_id(&self.product_name),
            product_name: &self.product_name,
            workload_code: &self.workload_code,
            workload_name: &self.workload_name,
            service_code: &self.service_code,
            service_name: &self.service_name,
            channel: &self.channel,
            active: self.licenses_active,
            qualified: self.licenses_qualified,
            processed: self.processed,
        }
    }
}
