//! The parts of the process that the client is built from.

use crate::{
    clock::SharedClock, jitter::Jitter, observability::traces::Tracer, shutdown::Shutdown,
};

/// The parts of the process that [`PartnerCenter`](super::PartnerCenter) is built from.
#[derive(Debug)]
pub struct UpstreamDeps<'a> {
    /// Takes all decisions about time.
    pub clock: SharedClock,
    /// Spreads retries and token refreshes.
    pub jitter: Jitter,
    /// Runs the task that keeps the access token.
    pub shutdown: Shutdown,
    /// Where the metrics are registered.
    pub registry: &'a prometheus::Registry,
    /// Begins the traces of token requests; `None` where nothing is traced. Calls are part of their
    /// callers' traces.
    pub tracer: Option<Tracer>,
}

/// The upstream client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamStartError {
    /// A configured value cannot stand in a header.
    #[error("{key}: expected visible characters that can stand in an HTTP header")]
    Header {
        /// The configuration key.
        key: &'static str,
    },
    /// The base URL is of a kind that has no paths.
    #[error("upstream.base_url: expected an http or https URL")]
    BaseUrl,
    /// TLS cannot be set up, for want of CA certificates for example.
    #[error("cannot make the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the upstream's metrics")]
    Metrics(#[from] prometheus::Error),
}
