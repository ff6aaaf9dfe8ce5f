//! The built binary, as an operator meets it: exit codes, signals, output.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail in any way"
)]

mod backfill;
mod configuration;
mod consent;
mod crashes;
mod doctor;
mod get;
mod hash_key;
mod healthcheck;
mod huge_pages;
mod log;
mod manual;
mod open_files;
mod postgres;
#[path = "../postgres/server.rs"]
mod postgres_server;
mod refresh_token;
mod reload;
mod rolling_restart;
mod secrets;
mod shutdown;
mod store;
mod store_copy;
mod support;
mod try_it;
mod upstream_bodies;
