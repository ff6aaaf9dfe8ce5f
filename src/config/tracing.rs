use std::path::PathBuf;

use url::Url;

use super::{keys, settings::RawSettings};

/// `tracing.*`: where spans are exported to, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// Base URL of a collector that takes OTLP over HTTP. No default: without it, nothing is traced.
    pub otlp_endpoint: Url,
    /// Headers that the collector wants, a `Name: value` a line; `None`: it wants none.
    pub headers_file: Option<PathBuf>,
    /// The share of traces that is sampled, 0 to 1, of those that begin here. Default 1.
    pub sample_ratio: f64,
    /// `service.name` of every span. Default `usage-proxy`.
    pub service_name: String,
}

impl TracingConfig {
    /// Where spans are sent (OTLP/HTTP).
    pub fn traces_url(&self) -> Url {
        let mut url = self.otlp_endpoint.clone();
        url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
        url
    }

    /// `None` without an endpoint.
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            otlp_endpoint: settings.get(&keys::TRACING_OTLP_ENDPOINT)?,
            headers_file: settings.get(&keys::TRACING_HEADERS_FILE),
            sample_ratio: settings.get(&keys::TRACING_SAMPLE_RATIO)?,
            service_name: settings.get(&keys::TRACING_SERVICE_NAME)?,
        })
    }
}
