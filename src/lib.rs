//! usage-proxy: license usage per customer, cached in front of Partner Center.

pub mod clock;
pub mod config;
pub mod domain;
pub mod jitter;
pub mod representation;
pub mod shutdown;
pub mod usage;
