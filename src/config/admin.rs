use std::net::SocketAddr;

use super::{TlsConfig, keys, settings::Settings, tls};
use crate::access_key::KeyHash;

/// `admin.*`: the listener of probes, metrics and cache administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens, never where the API does; port 0 takes a free one. Default
    /// `127.0.0.1:9090`.
    pub listen: SocketAddr,
    /// The keys that open it, by their hashes; with none it is open, and listens on the loopback.
    pub key_hashes: Vec<KeyHash>,
    /// Whether a scrape needs a key too, where there are keys. Default `true`.
    pub metrics_need_key: bool,
    /// Its TLS; plain HTTP without.
    pub tls: Option<TlsConfig>,
}

impl AdminConfig {
    pub(super) fn read(settings: &Settings) -> Option<Self> {
        Some(Self {
            listen: settings.get(&keys::ADMIN_LISTEN)?,
            key_hashes: settings.get(&keys::ADMIN_KEY_SHA256)?,
            metrics_need_key: settings.get(&keys::ADMIN_METRICS_NEED_KEY)?,
            tls: TlsConfig::read(settings, &tls::ADMIN),
        })
    }
}
