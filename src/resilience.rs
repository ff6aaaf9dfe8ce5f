//! Pure decisions about when to ask again: no I/O, and time and chance are given.

pub mod backoff;
pub mod circuit_breaker;
pub mod fair_queue;
pub mod retry_budget;
pub mod token_bucket;
