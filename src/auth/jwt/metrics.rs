use jiff::Timestamp;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::source::JwksFetchError;

/// What is counted of the issuer's keys. Children are resolved here, once.
#[derive(Clone, Debug)]
pub(super) struct JwksMetrics {
    fetches: [IntCounter; JwksFetchResult::ALL.len()],
    keys: IntGauge,
    last_success: IntGauge,
}

#[derive(Clone, Copy, Debug)]
enum JwksFetchResult {
    Success,
    TimedOut,
    Connection,
    Status,
    Malformed,
}

// === impl Metrics ===

impl JwksMetrics {
    /// # Errors
    ///
    /// When one of them is registered already.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let fetches = IntCounterVec::new(
            Opts::new(
                "usage_proxy_jwks_fetches_total",
                "Fetches of the token issuer's keys, by how they ended.",
            ),
            &["result"],
        )?;
        let keys = IntGauge::new(
            "usage_proxy_jwks_keys",
            "Keys of the token issuer that tokens are checked with; 0 before the first fetch.",
        )?;
        let last_success = IntGauge::new(
            "usage_proxy_jwks_last_success_timestamp_seconds",
            "When the token issuer's keys were last fetched, in Unix time; 0 before the first.",
        )?;
        registry.register(Box::new(fetches.clone()))?;
        registry.register(Box::new(keys.clone()))?;
        registry.register(Box::new(last_success.clone()))?;
        Ok(Self {
            fetches: JwksFetchResult::ALL
                .map(|result| fetches.with_label_values(&[result.as_str()])),
            keys,
            last_success,
        })
    }

    pub(super) fn record_success(&self, keys: usize, at: Timestamp) {
        self.increment(JwksFetchResult::Success);
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.last_success.set(at.as_second());
    }

    pub(super) fn record_failure(&self, error: &JwksFetchError) {
        self.increment(match error {
            JwksFetchError::TimedOut => JwksFetchResult::TimedOut,
            JwksFetchError::Connection(_) => JwksFetchResult::Connection,
            JwksFetchError::Status(_) => JwksFetchResult::Status,
            JwksFetchError::TooLong | JwksFetchError::Malformed | JwksFetchError::NoKeys => {
                JwksFetchResult::Malformed
            }
        });
    }

    fn increment(&self, result: JwksFetchResult) {
        if let Some(counter) = self.fetches.get(result as usize) {
            counter.inc();
        }
    }
}

// === impl FetchResult ===

impl JwksFetchResult {
    const ALL: [Self; 5] = [
        Self::Success,
        Self::TimedOut,
        Self::Connection,
        Self::Status,
        Self::Malformed,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::TimedOut => "timed-out",
            Self::Connection => "connection",
            Self::Status => "status",
            Self::Malformed => "malformed",
        }
    }
}
