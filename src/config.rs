//! Configuration: file, environment and flags, parsed once into types that cannot hold a bad value.
//!
//! [`Config::load`] collects the values of all [`ConfigSources`] (`sources`, `file`, `settings`),
//! checks each by its type (`value_type`, `network_types`) and all by the `rules`, and reads them
//! into one struct for each table. `sections` and `auth` declare these structs, one row per key;
//! `keys` lists all keys. [`ConfigErrors`] reports all mistakes at once. Secrets are in files, which
//! [`secret`] reads.

mod auth;
mod error;
mod file;
mod key;
mod keys;
mod load;
mod network_types;
mod postgres_url;
mod rules;
pub mod secret;
mod section;
mod sections;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod value_type;
mod warnings;

pub use self::{
    auth::{AuthConfig, ClientAuthConfig, GrantConfig, TokenAudience},
    error::{ConfigError, ConfigErrors},
    load::Config,
    network_types::{CorsOrigin, is_loopback_address},
    postgres_url::{PostgresConfig, PostgresUrl},
    sections::{
        AdminConfig, CacheConfig, CallersConfig, FleetConfig, JwtConfig, LogConfig, MetricsConfig,
        PortfolioConfig, ServerConfig, StoreConfig, TlsConfig, TracingConfig, UpstreamConfig,
    },
    sources::{ConfigFlag, ConfigSources},
    value_type::{LogFormat, RequestLog, StoreUrl},
};
pub(crate) use self::{
    error::{Source, TextPosition},
    value_type::parse_duration,
};
