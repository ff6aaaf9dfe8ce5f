use std::{net::SocketAddr, time::Duration};

use super::{Origin, keys, settings::Settings};

/// `server.*`: the listener that dashboards use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where the API listens; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// How long requests in flight may take after SIGTERM; zero cuts them at once. Default `25s`.
    pub drain_timeout: Duration,
    /// Whose pages may read answers, beside those of our own origin; nobody's by default.
    pub cors_origins: Vec<Origin>,
}

impl ServerConfig {
    pub(super) fn read(settings: &Settings) -> Option<Self> {
        Some(Self {
            listen: settings.get(&keys::SERVER_LISTEN)?,
            drain_timeout: settings.get(&keys::SERVER_DRAIN_TIMEOUT)?,
            cors_origins: settings.get(&keys::SERVER_CORS_ORIGINS)?,
        })
    }
}
