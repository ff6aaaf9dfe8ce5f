//! usage-proxy: license usage per customer, cached in front of Partner Center.

pub mod admin;
pub mod api;
pub mod cache;
pub mod clock;
pub mod config;
pub mod domain;
pub mod jitter;
pub mod problem;
pub mod representation;
pub mod request_id;
pub mod serve;
pub mod shutdown;
pub mod simulator;
pub mod usage;
