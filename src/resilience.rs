//! Decisions about retries and limits, without I/O: callers pass time and randomness.

pub mod backoff;
pub mod byte_budget;
pub mod circuit_breaker;
pub mod retry_budget;
