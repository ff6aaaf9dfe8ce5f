//! Usage, served from what is held or fetched from its source.

pub mod source;
