//! The rows of all customers on a date.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    domain::{CustomerId, FleetEntry, FleetStatus, FleetUsage, LicenseUsage, ProcessedDate},
    service::source::CallIds,
    store::StoredSnapshot,
};

/// The rows of all customers on a date.
#[derive(Clone, Debug)]
pub(super) struct DatedRows {
    pub(super) usages: Arc<Vec<DatedUsage>>,
    /// All customers were asked for.
    pub(super) is_whole: bool,
    /// The last time when one call asked for all customers.
    pub(super) asked_at: Option<Timestamp>,
    pub(super) at: Instant,
    /// The ids of the call that fetched them; `None` for rows that were known before.
    pub(super) call_ids: Option<CallIds>,
    pub(super) built: Arc<BuiltFleet>,
}

/// The fleet of a date as it was built last, so that answers of the same data share their documents.
#[derive(Debug, Default)]
pub(super) struct BuiltFleet(Mutex<Option<BuiltWith>>);

#[derive(Debug)]
struct BuiltWith {
    /// The customers of today.
    today: Weak<FleetUsage>,
    fleet: Arc<FleetUsage>,
}

/// The rows of a customer on a date.
#[derive(Clone, Debug)]
pub(super) struct DatedUsage {
    pub(super) usage: Arc<LicenseUsage>,
    pub(super) fetched_at: Timestamp,
}

// === impl BuiltFleet ===

impl BuiltFleet {
    /// Returns the fleet that was built last, unless other customers are known today.
    pub(super) fn get_or_build(
        &self,
        today: &Arc<FleetUsage>,
        build: impl FnOnce() -> FleetUsage,
    ) -> Arc<FleetUsage> {
        // It is assigned whole.
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An address is not used again while there is a weak reference to it.
        if let Some(built) = &*built
            && Weak::as_ptr(&built.today) == Arc::as_ptr(today)
        {
            return Arc::clone(&built.fleet);
        }
        let fleet = Arc::new(build());
        *built = Some(BuiltWith {
            today: Arc::downgrade(today),
            fleet: Arc::clone(&fleet),
        });
        fleet
    }
}

// === impl DatedUsage ===

impl From<StoredSnapshot> for DatedUsage {
    fn from(stored: StoredSnapshot) -> Self {
        Self {
            usage: stored.usage,
            fetched_at: stored.fetched_at,
        }
    }
}

// === impl DatedRows ===

impl DatedRows {
    /// Returns those of a date of which nothing is known.
    pub(super) fn none(at: Instant) -> Self {
        Self {
            usages: Arc::default(),
            is_whole: false,
            asked_at: None,
            at,
            call_ids: None,
            built: Arc::default(),
        }
    }

    /// Returns true if every customer was asked for, and some have rows. A date without any may have
    /// been asked for too early.
    pub(super) fn are_whole(&self) -> bool {
        self.is_whole && self.has_rows()
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.usages.is_empty()
    }

    /// Returns the usage of the customers of today on a date.
    pub(super) fn fleet(&self, date: ProcessedDate, today: &FleetUsage) -> FleetUsage {
        let usages: HashMap<CustomerId, &DatedUsage> = self
            .usages
            .iter()
            .filter(|dated| dated.usage.processed_date() == Some(date))
            .map(|dated| (dated.usage.customer_id(), dated))
            .collect();
        let without_rows = if self.is_whole {
            FleetStatus::Empty
        } else {
            FleetStatus::NotFetched
        };
        let entries = today.entries.iter().map(|entry| {
            let usage = usages.get(&entry.customer_id);
            let status = match usage {
                Some(_) => FleetStatus::Current,
                None if entry.status == FleetStatus::Failed => FleetStatus::Failed,
                None => without_rows,
            };
            Arc::new(FleetEntry {
                customer_id: entry.customer_id,
                customer_name: Arc::clone(&entry.customer_name),
                status,
                usage: usage.map(|dated| Arc::clone(&dated.usage)),
                fetched_at: usage.map(|dated| dated.fetched_at),
                failure: entry.failure.filter(|_| status == FleetStatus::Failed),
            })
        });
        FleetUsage {
            processed_date: Some(date),
            entries: entries.collect(),
        }
    }
}
