//! Three built programs that share a PostgreSQL server of their own, through the faults that happen to
//! processes, servers and networks.
//!
//! `LONG=1` lets a process that is stopped, or a server that is gone, be so for a minute.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail in any way"
)]

mod clocks;
mod database;
mod full_disk;
mod isolation;
mod leases;
mod network;
mod poison;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "../process/support.rs"]
mod process;
mod refresher;
mod relay;
mod server;
mod support;
