//! Configuration: file, environment and flags, parsed once into types that cannot hold a bad value.
//!
//! `keys` is the one table that everything follows. `settings` gathers what the [`ConfigSources`] state,
//! `form` judges each value, `rules` what lies between them; then each slice reads its own. Every
//! fault is reported at once, by [`ConfigErrors`]. Secrets stay in files, read by [`secret`].

mod admin;
mod auth;
mod cache;
mod callers;
mod choices;
mod cors_origin;
pub(crate) mod duration;
mod effective;
mod error;
mod file;
mod form;
mod invalid_value;
mod keys;
mod log;
mod rules;
pub mod secret;
mod server;
mod settings;
mod size;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
mod tracing;
mod upstream;
mod warnings;

use std::collections::BTreeMap;

pub(crate) use self::error::{Source, TextPosition};
use self::settings::RawSettings;
pub use self::{
    admin::AdminConfig,
    cache::CacheConfig,
    callers::{CallersConfig, JwtConfig},
    choices::{LogFormat, RequestLog},
    cors_origin::CorsOrigin,
    error::{ConfigError, ConfigErrors},
    log::LogConfig,
    server::{ServerConfig, is_loopback_address},
    sources::{ConfigFlag, ConfigSources},
    tls::TlsConfig,
    tracing::TracingConfig,
    upstream::{AuthConfig, ClientAuthConfig, GrantConfig, TokenAudience, UpstreamConfig},
};

/// Everything that can be configured, each slice for the component that it is named after.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listener that dashboards use.
    pub server: ServerConfig,
    /// The listener of probes, metrics and cache administration.
    pub admin: AdminConfig,
    /// Who may call.
    pub callers: CallersConfig,
    /// How Partner Center is asked.
    pub upstream: UpstreamConfig,
    /// How much is held, and for how long it may be served.
    pub cache: CacheConfig,
    /// What is logged, and how it is written.
    pub log: LogConfig,
    /// Where traces are exported to; `None`: nothing is traced.
    pub tracing: Option<TracingConfig>,
    /// Where each key was stated that was; the others have their default.
    sources: BTreeMap<&'static str, Source>,
}

impl Config {
    /// Reads all sources; flags beat the environment, which beats the file, which beats defaults.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] names every fault of every source at once: what cannot be read, unknown
    /// keys, bad values (a better source's value excuses none), missing keys, and keys at odds.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigErrors> {
        let mut faults = Vec::new();
        let settings = RawSettings::collect(sources, &mut faults);
        if !settings.is_file_unreadable() {
            rules::check(&settings, &mut faults);
        }
        match Self::read(settings) {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigErrors::new(faults)),
        }
    }

    /// `None` where a key has no value, which is a fault already reported.
    fn read(settings: RawSettings) -> Option<Self> {
        Some(Self {
            server: ServerConfig::read(&settings)?,
            admin: AdminConfig::read(&settings)?,
            callers: CallersConfig::read(&settings)?,
            upstream: UpstreamConfig::read(&settings)?,
            cache: CacheConfig::read(&settings)?,
            log: LogConfig::read(&settings)?,
            tracing: TracingConfig::read(&settings),
            sources: settings.into_sources(),
        })
    }
}
