//! Pure decisions about when to ask again: no I/O, and time and chance are given.

pub mod backoff;
