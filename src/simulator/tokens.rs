//! The identity provider: its token endpoint and authorization endpoint, v1 and v2, and the tokens
//! that it issued.

pub(super) mod assertion;
pub(super) mod authorization;
pub(super) mod codes;
mod error;
pub(super) mod registry;
pub(super) mod token_endpoint;
