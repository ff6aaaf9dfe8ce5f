//! What every engine does, and what is SQLite's own.

mod conformance;
mod faults;
pub(super) mod fixtures;
mod guarded;
mod model;
mod sqlite;
mod writer;
