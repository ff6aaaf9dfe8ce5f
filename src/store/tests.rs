//! What every engine does, and what is SQLite's own.

mod conformance;
mod fixtures;
mod sqlite;
