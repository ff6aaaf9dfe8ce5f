//! The dependencies of the client, and the errors of its start.

use std::{path::PathBuf, sync::Arc};

use crate::{
    clock::SharedClock,
    jitter::Jitter,
    observability::traces::Tracer,
    shutdown::Shutdown,
    store::{Leases, UsageStore},
};

/// The dependencies of [`PartnerCenter`](super::PartnerCenter).
#[derive(Debug)]
pub struct UpstreamDeps<'a> {
    /// The time.
    pub clock: SharedClock,
    /// Spreads retries and token refreshes.
    pub jitter: Jitter,
    /// Runs the task that keeps the access token.
    pub shutdown: Shutdown,
    /// Registers the metrics.
    pub registry: &'a prometheus::Registry,
    /// Starts the traces of token requests; `None` where nothing is traced. Calls are part of the traces
    /// of their callers.
    pub tracer: Option<Tracer>,
    /// Shares tokens with other replicas; `None`: each has its own.
    pub tokens: Option<SharedTokenStore>,
}

/// A store that replicas share, for their tokens.
#[derive(Clone, Debug)]
pub struct SharedTokenStore {
    pub(super) store: Arc<dyn UsageStore>,
    pub(super) leases: Leases,
    /// The file with the keys that encrypt tokens there.
    pub(super) key_file: PathBuf,
    pub(super) shutdown: Shutdown,
}

/// The client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamStartError {
    /// A header cannot hold a configured value.
    #[error("{key}: expected visible characters, as an HTTP header can hold")]
    Header {
        /// The configuration key.
        key: &'static str,
    },
    /// The base URL has no paths.
    #[error("upstream.base_url: expected an http or https URL")]
    BaseUrl,
    /// TLS cannot be set up, for example because there are no CA certificates.
    #[error("cannot make the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the upstream's metrics")]
    Metrics(#[from] prometheus::Error),
}

// === impl SharedTokenStore ===

impl SharedTokenStore {
    /// Returns `None` for a store that no other process shares. `key_file` has the keys that encrypt tokens
    /// there.
    pub fn new(
        store: &Arc<dyn UsageStore>,
        key_file: PathBuf,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Option<Self> {
        Some(Self {
            leases: Leases::new(store, clock, shutdown.clone())?,
            store: Arc::clone(store),
            key_file,
            shutdown,
        })
    }
}
