//! Logs, metrics and traces.

pub mod telemetry;

pub mod traces;
