//! Pure decisions about when to ask again, and how much may be under way: no I/O, and time and chance
//! are given.

pub mod backoff;
pub mod byte_budget;
pub mod circuit_breaker;
pub mod memory_pool;
pub mod retry_budget;
