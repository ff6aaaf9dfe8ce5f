use std::net::SocketAddr;

use super::{ConfigErrors, ConfigSources, TlsConfig, keys, settings::RawSettings, tls};
use crate::access_key::KeyHash;

/// `admin.*`: the listener of probes, metrics and cache administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens, never where the API does; port 0 takes a free one. Default
    /// `127.0.0.1:9090`.
    pub listen: SocketAddr,
    /// The keys that open it, by their hashes; with none, and no client CA, it is open, and listens
    /// on the loopback.
    pub key_hashes: Vec<KeyHash>,
    /// Whether a scrape needs a key too, where there are keys. Default `true`.
    pub metrics_need_key: bool,
    /// Its TLS; plain HTTP without. A certificate of its client CA opens it as a key does.
    pub tls: Option<TlsConfig>,
}

impl AdminConfig {
    /// Reads this slice alone, for who asks the listener of a service that runs already: what else
    /// that service needs may be missing here.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] names every source that cannot be read, and every unknown key and bad value.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigErrors> {
        let mut faults = Vec::new();
        let settings = RawSettings::collect(sources, &mut faults);
        match Self::read(&settings) {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigErrors::new(faults)),
        }
    }

    /// Whether anything opens it, so that nobody gets in without.
    pub fn is_guarded(&self) -> bool {
        let takes_certificates = |tls: &TlsConfig| tls.client_ca_file.is_some();
        !self.key_hashes.is_empty() || self.tls.as_ref().is_some_and(takes_certificates)
    }

    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            listen: settings.get(&keys::ADMIN_LISTEN)?,
            key_hashes: settings.get(&keys::ADMIN_KEY_SHA256)?,
            metrics_need_key: settings.get(&keys::ADMIN_METRICS_NEED_KEY)?,
            tls: TlsConfig::read(settings, &tls::ADMIN_TLS),
        })
    }
}
