//! What every engine does, and what is SQLite's own.

mod conformance;
pub(super) mod fixtures;
mod guarded;
mod model;
mod sqlite;
mod writer;
