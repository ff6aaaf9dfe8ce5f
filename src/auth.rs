//! Authentication of callers: by keys and certificates of the callers file, and by tokens of an issuer.

mod caller_fields;
mod caller_set;
mod callers_file;
mod callers_parser;
pub mod jwt;
#[cfg(test)]
mod tests;
mod token_authenticator;

pub use self::{
    caller_set::{CallerIdentity, CallerSet, RateLimit},
    callers_file::{CallersFile, CallersMetrics, check_callers_file},
    token_authenticator::TokenAuthenticator,
};
