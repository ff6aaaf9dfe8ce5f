//! All customers together: what is known of each, and the task that refreshes them.

mod book;
mod dated;
mod dated_rows;
mod leader;
mod metrics;
mod refresher;
mod schedule;

pub(super) use self::{
    book::FleetBook,
    dated::{DatedFailure, DatedFleet, DatedFleets},
};
pub use self::{metrics::FleetMetrics, refresher::FleetRefresher};
