use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use url::Host;

use super::{CorsOrigin, TlsConfig, keys, settings::RawSettings, tls};

/// `server.*`: the listener that dashboards use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where the API listens; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// How long requests in flight may take after SIGTERM; zero cuts them at once. Default `25s`.
    pub drain_timeout: Duration,
    /// Whose pages may read answers, beside those of our own origin; nobody's by default.
    pub cors_origins: Vec<CorsOrigin>,
    /// Hosts that a listener on the loopback answers to where it identifies no callers, beside those
    /// of the loopback; of both listeners. None by default.
    pub allowed_hosts: Vec<Host>,
    /// How long the head of a request may take, from its first byte or the beginning of its
    /// connection. Default `5s`.
    pub header_timeout: Duration,
    /// How long a connection may stand idle. Default `75s`.
    pub idle_timeout: Duration,
    /// How long a request may take from the end of its head to the last byte of its answer, which a
    /// slow reader holds up. Default `60s`: more than twice `upstream.deadline`.
    pub request_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it. Default `10s`.
    pub stall_timeout: Duration,
    /// How many connections may be open. Default `10000`.
    pub max_connections: NonZeroUsize,
    /// Whether HTTP/2 is spoken without TLS to clients that begin with it. Default `false`.
    pub http2_cleartext: bool,
    /// Its TLS; plain HTTP without.
    pub tls: Option<TlsConfig>,
}

/// Whether only this machine reaches an address, written as IPv4 or as IPv6.
pub fn is_loopback_address(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl ServerConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            listen: settings.get(&keys::SERVER_LISTEN)?,
            drain_timeout: settings.get(&keys::SERVER_DRAIN_TIMEOUT)?,
            cors_origins: settings.get(&keys::SERVER_CORS_ORIGINS)?,
            allowed_hosts: settings.get(&keys::SERVER_ALLOWED_HOSTS)?,
            header_timeout: settings.get(&keys::SERVER_HEADER_TIMEOUT)?,
            idle_timeout: settings.get(&keys::SERVER_IDLE_TIMEOUT)?,
            request_timeout: settings.get(&keys::SERVER_REQUEST_TIMEOUT)?,
            stall_timeout: settings.get(&keys::SERVER_STALL_TIMEOUT)?,
            max_connections: settings.get(&keys::SERVER_MAX_CONNECTIONS)?,
            http2_cleartext: settings.get(&keys::SERVER_HTTP2_CLEARTEXT)?,
            tls: TlsConfig::read(settings, &tls::SERVER_TLS),
        })
    }
}
