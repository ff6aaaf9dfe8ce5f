//! The rows that the calls answer from: those of the fleet, as overrides change them.

use jiff::civil::Date;
use uuid::Uuid;

use super::{
    fleet::{CustomerFleet, FleetPageRow, RequestedDate, day_before},
    overrides::DataOverrides,
};

/// The rows of all customers at one moment.
#[derive(Debug)]
pub(super) struct Dataset<'a> {
    pub(super) fleet: &'a CustomerFleet,
    pub(super) overrides: &'a DataOverrides,
    /// The newest processed date of the fleet.
    pub(super) newest: Date,
}

// === impl Dataset ===

impl<'a> Dataset<'a> {
    /// Returns the rows of a customer; none if it is unknown.
    pub(super) fn rows(&self, id: Uuid, date: RequestedDate) -> Vec<FleetPageRow<'a>> {
        let mut rows = match self.overrides.rows(id, date) {
            Some(rows) => rows,
            None => {
                let customer = self.fleet.customer(id).into_iter();
                let newest = self.newest_of(id);
                customer
                    .flat_map(|customer| customer.rows(date, newest))
                    .collect()
            }
        };
        for row in &mut rows {
            row.qualified += self.overrides.correction(row.processed.date());
        }
        rows
    }

    /// Returns the number of all rows, and so many of them after the first `skip`.
    pub(super) fn page(
        &self,
        date: RequestedDate,
        skip: usize,
        top: usize,
    ) -> (usize, Vec<FleetPageRow<'a>>) {
        let end = skip.saturating_add(top);
        let (mut total, mut page) = (0, Vec::new());
        for id in self.customers() {
            let count = self.row_count(id, date);
            let (first, after) = (total, total + count);
            total = after;
            if first < end && after > skip {
                let rows = self.rows(id, date).into_iter();
                let within = skip.saturating_sub(first)..end.min(after) - first;
                page.extend(rows.skip(within.start).take(within.len()));
            }
        }
        (total, page)
    }

    /// The customers of the fleet, and then those that overrides add.
    fn customers(&self) -> impl Iterator<Item = Uuid> {
        let known = self.fleet.customers().iter().map(|customer| customer.id);
        known.chain(self.overrides.added_to(self.fleet))
    }

    fn row_count(&self, id: Uuid, date: RequestedDate) -> usize {
        match (self.overrides.rows(id, date), self.fleet.customer(id)) {
            (Some(rows), _) => rows.len(),
            (None, Some(customer)) => customer.row_count(date, self.newest_of(id)),
            (None, None) => 0,
        }
    }

    fn newest_of(&self, id: Uuid) -> Date {
        if self.overrides.is_late(id) {
            day_before(self.newest)
        } else {
            self.newest
        }
    }
}
