use std::net::SocketAddr;

use super::{keys, settings::Settings};

/// `admin.*`: the listener of probes, metrics and cache administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens, never where the API does; port 0 takes a free one. Default
    /// `127.0.0.1:9090`.
    pub listen: SocketAddr,
}

impl AdminConfig {
    pub(super) fn read(settings: &Settings) -> Option<Self> {
        Some(Self {
            listen: settings.get(&keys::ADMIN_LISTEN)?,
        })
    }
}
