//! What every engine does, and what is the own of one.

mod conformance;
mod faults;
pub(super) mod fixtures;
mod guarded;
mod model;
mod postgres;
#[path = "../../tests/postgres/server.rs"]
pub(super) mod postgres_server;
mod sqlite;
mod writer;
