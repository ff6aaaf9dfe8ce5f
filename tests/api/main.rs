//! The real service in front of the simulated Partner Center, as dashboards and operators see it.
//! Both have loopback ports of their own and a clock that the tests move.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail in any way"
)]

mod admin;
mod admin_access;
mod assets;
mod authentication;
mod authorization;
mod backfill;
mod bad_input;
mod chart;
mod circuit_breaker;
mod client_proof;
mod conditional_requests;
mod cors;
mod customers;
mod dated_calls;
mod documentation;
mod documents;
mod faults;
mod fleet;
mod fleet_refresh;
mod fleet_replicas;
mod freshness;
mod full_cache;
mod history;
mod hosts;
mod isolation;
mod jwt;
mod logs;
mod malformed_answers;
mod mass_absence;
mod metrics;
mod negotiation;
mod newest_date;
mod openapi;
mod overload;
mod overview;
mod page;
mod page_history;
mod panics;
mod portfolio;
mod problem_details;
mod purge;
mod rate_limits;
mod raw_http;
mod readiness;
mod replicas;
mod retries;
mod sdk;
mod shared_tokens;
mod single_flight;
mod soft_timeout;
mod stale_if_error;
mod stale_while_revalidate;
mod support;
mod suspect;
mod throttling;
mod tls;
mod tokens;
mod traces;
mod unsent;
mod upstream_calls;
mod usage_metrics;
mod usage_numbers;
mod warm_start;
