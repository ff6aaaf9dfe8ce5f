//! Configuration: file, environment and flags, parsed once into types that cannot hold a bad value.

mod upstream;

pub use upstream::{AuthConfig, GrantConfig, TokenAudience, UpstreamConfig};
