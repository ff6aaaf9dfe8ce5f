//! The configuration as a whole: how it is loaded and printed.

use super::{
    auth,
    error::{ConfigError, ConfigErrors},
    key::{AnyConfigKey, KeyPresence, last_part},
    keys, rules,
    sections::{
        self, AdminConfig, CacheConfig, CallersConfig, FleetConfig, LogConfig, MetricsConfig,
        PortfolioConfig, ServerConfig, StoreConfig, TracingConfig, UpstreamConfig,
    },
    settings::RawSettings,
    sources::ConfigSources,
};

/// The configuration, one part for each component.
#[derive(Clone, Debug)]
pub struct Config {
    /// The API listener.
    pub server: ServerConfig,
    /// The listener of probes, metrics and cache administration.
    pub admin: AdminConfig,
    /// The callers.
    pub callers: CallersConfig,
    /// The calls to Partner Center.
    pub upstream: UpstreamConfig,
    /// The size of the cache, and the time for which answers may be served.
    pub cache: CacheConfig,
    /// The place where accepted snapshots are kept durably.
    pub store: StoreConfig,
    /// The refresh of all customers together.
    pub fleet: FleetConfig,
    /// The partner's own names, prices and groups.
    pub portfolio: PortfolioConfig,
    /// Usage as metrics.
    pub metrics: MetricsConfig,
    /// The log.
    pub log: LogConfig,
    /// The collector of spans; `None`: nothing is traced.
    pub tracing: Option<TracingConfig>,
    pub(super) settings: RawSettings,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] names every mistake of every source at once: sources that cannot be read,
    /// unknown keys, bad values (even if another source wins), missing keys, and conflicts.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut settings = sources.collect(&mut errors);
        auth::set_default_audience(&mut settings);
        if !settings.is_file_unreadable {
            rules::check(&settings, &mut errors);
        }
        accept(Self::read(settings), errors)
    }

    /// Returns `None` if a value is missing or invalid, which is reported already.
    fn read(settings: RawSettings) -> Option<Self> {
        Some(Self {
            server: sections::server::read(&settings)?,
            admin: sections::admin::read(&settings)?,
            callers: sections::callers::read(&settings)?,
            upstream: sections::upstream::read(&settings)?,
            cache: sections::cache::read(&settings)?,
            store: sections::store::read(&settings)?,
            fleet: sections::fleet::read(&settings)?,
            portfolio: sections::portfolio::read(&settings)?,
            metrics: sections::metrics::read(&settings)?,
            log: sections::log::read(&settings)?,
            tracing: sections::tracing::read(&settings),
            settings,
        })
    }

    /// Prints the configuration in effect, as TOML that loads back to the same.
    ///
    /// A comment on each line names the source of the value. Secrets are only in their files, so the
    /// text may be logged.
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for table in keys::TABLES {
            let is_lacking = |key: &&dyn AnyConfigKey| {
                matches!(key.presence(), KeyPresence::RequiredInTable)
                    && !self.settings.is_set(*key)
            };
            // The defaults of a table that is not there.
            if table.iter().any(is_lacking) {
                continue;
            }
            let lines: Vec<_> = table.iter().filter_map(|key| self.line(*key)).collect();
            if let (Some(key), false) = (table.first(), lines.is_empty()) {
                let gap = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}[{}]\n{}", key.table(), lines.concat()));
            }
        }
        text
    }

    fn line(&self, key: &dyn AnyConfigKey) -> Option<String> {
        let value = key.to_toml(self.settings.text(key)?);
        let source = match self.settings.source_of(key.name()) {
            Some(source) => source.to_string().replace(char::is_control, "\u{fffd}"),
            None => "default".to_owned(),
        };
        Some(format!("{} = {value} # {source}\n", last_part(key.name())))
    }
}

impl AdminConfig {
    /// Reads this part alone, for a command that calls the listener of a running service: other
    /// keys that the service needs may be missing.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] names every source that cannot be read, unknown key and bad value.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let settings = sources.collect(&mut errors);
        accept(sections::admin::read(&settings), errors)
    }
}

fn accept<T>(read: Option<T>, errors: Vec<ConfigError>) -> Result<T, ConfigErrors> {
    match read {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(ConfigErrors::new(errors)),
    }
}
