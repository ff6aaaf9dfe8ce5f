//! Configuration: file, environment and flags, parsed once into types that cannot hold a bad value.

pub mod secret;
mod upstream;

pub use cache::CacheConfig;
pub use log::RequestLog;
pub use upstream::{AuthConfig, GrantConfig, TokenAudience, UpstreamConfig};
