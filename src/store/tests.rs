//! Tests of every engine, and of single ones.

mod conformance;
mod copy;
mod faults;
pub(super) mod fixtures;
mod guarded;
mod leases;
mod model;
mod postgres;
#[path = "../../tests/postgres/server.rs"]
pub(super) mod postgres_server;
mod sqlite;
mod tokens;
mod writer;
