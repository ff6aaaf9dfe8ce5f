//! The identity provider: its token endpoint and authorization endpoint, v1 and v2, and the tokens
//! that it issued.

mod assertion;
pub(super) mod authorization;
mod codes;
mod error;
mod registry;
mod token_endpoint;

pub use self::assertion::RegisteredCertificate;
pub(super) use self::{
    assertion::AssertionVerifier,
    codes::IssuedCodes,
    registry::{AccessGrant, TokenRegistry},
    token_endpoint::handle,
};
