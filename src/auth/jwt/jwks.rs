//! The cached keys of the issuer, and the task that keeps them fresh.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use prometheus::{
    IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_gauge_with_registry,
};
use tokio::sync::{Notify, watch};

use super::{
    header::TokenHeader,
    jwks_source::{JwksFetchError, JwksSource},
    key_set::KeySet,
    rejection::{TokenAuthError, TokenRejection},
};
use crate::{clock::SharedClock, jitter::Jitter, resilience::backoff::Backoff, shutdown::Shutdown};

/// The age at which keys are fetched again. It limits how long a withdrawn key is accepted, so a
/// `max-age=86400`, as Entra ID sends it, is ignored.
pub(super) const REFRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The shortest time between fetches for an unknown key: anybody can make up the name of a key.
pub(super) const DEMAND_INTERVAL: Duration = Duration::from_secs(30);

/// The longest time for which a request waits for such a fetch.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(3);

/// Delays after failed fetches; never less than [`MIN_DELAY`].
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
const MIN_DELAY: Duration = Duration::from_secs(1);

/// `Retry-After` of requests while the issuer is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The issuer's keys, as they were last fetched.
///
/// One task fetches them: at start, every hour, after a failure, and when a request needs an unknown
/// key. While the issuer is down, the cached keys stay in use.
#[derive(Debug)]
pub(super) struct JwksCache {
    keys: ArcSwapOption<KeySet>,
    progress: watch::Sender<FetchProgress>,
    /// Notified when a request needs an unknown key.
    demanded: Notify,
    clock: SharedClock,
}

/// The fetches so far.
#[derive(Clone, Copy, Debug, Default)]
struct FetchProgress {
    begun: u64,
    ended: u64,
    begun_at: Option<Instant>,
    /// True if the last fetch failed.
    failed: bool,
}

/// The task that fetches keys for as long as the process runs.
#[derive(Debug)]
struct JwksRefresher {
    cache: Arc<JwksCache>,
    source: JwksSource,
    jitter: Jitter,
    metrics: JwksMetrics,
    /// Failures in a row.
    failures: u32,
}

/// Metrics of the issuer's keys.
#[derive(Clone, Debug)]
pub(super) struct JwksMetrics {
    fetches: IntCounterVec,
    keys: IntGauge,
    last_success: IntGauge,
}

// === impl JwksCache ===

impl JwksCache {
    /// Starts to fetch keys in a task of its own.
    pub(super) fn start(
        source: JwksSource,
        metrics: JwksMetrics,
        clock: SharedClock,
        jitter: Jitter,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let cache = Arc::new(Self {
            keys: ArcSwapOption::empty(),
            progress: watch::Sender::default(),
            demanded: Notify::new(),
            clock,
        });
        let refresher = JwksRefresher {
            cache: Arc::clone(&cache),
            source,
            jitter,
            metrics,
            failures: 0,
        };
        shutdown.spawn(refresher.run());
        cache
    }

    /// Returns the cached keys.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Returns keys that include the one of `header`. Waits for a fetch if that could bring it;
    /// all requests share one fetch.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::Key`] if the issuer has no such key, and
    /// [`TokenAuthError::IssuerUnavailable`] if the fetch failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the fetch.
    pub(super) async fn with_key(
        &self,
        header: &TokenHeader,
    ) -> Result<Arc<KeySet>, TokenAuthError> {
        if let Some(keys) = self.cached_with(header) {
            return Ok(keys);
        }
        let progress = self.fetch_on_demand().await;
        if let Some(keys) = self.cached_with(header) {
            return Ok(keys);
        }
        match progress {
            Some(FetchProgress { failed: false, .. }) => Err(TokenRejection::Key.into()),
            _ => Err(TokenAuthError::IssuerUnavailable {
                retry_after: RETRY_AFTER,
            }),
        }
    }

    fn cached_with(&self, header: &TokenHeader) -> Option<Arc<KeySet>> {
        self.keys().filter(|keys| keys.find(header).is_some())
    }

    /// Has the keys fetched, unless the last fetch is recent, and returns its result; `None` if it
    /// takes too long.
    async fn fetch_on_demand(&self) -> Option<FetchProgress> {
        let now = self.clock.now();
        let last = *self.progress.borrow();
        let is_recent = |begun_at: Instant| now < begun_at + DEMAND_INTERVAL;
        if last.begun == last.ended && last.begun_at.is_some_and(is_recent) {
            return Some(last);
        }
        self.demanded.notify_one();
        let mut progress = self.progress.subscribe();
        tokio::select! {
            biased;
            ended = progress.wait_for(|progress| progress.ended > last.ended) => {
                ended.ok().map(|progress| *progress)
            }
            () = self.clock.sleep_until(now + MAX_WAIT) => None,
        }
    }
}

// === impl JwksRefresher ===

impl JwksRefresher {
    async fn run(mut self) {
        loop {
            let begun = self.cache.clock.now();
            self.cache.progress.send_modify(|progress| {
                progress.begun += 1;
                progress.begun_at = Some(begun);
            });
            let delay = match self.source.fetch().await {
                Ok(keys) => self.store(keys),
                Err(error) => self.record_failure(&error),
            };
            self.cache.progress.send_modify(|progress| {
                progress.ended = progress.begun;
                progress.failed = self.failures > 0;
            });
            self.wait(self.cache.clock.now() + delay, begun + DEMAND_INTERVAL)
                .await;
        }
    }

    /// Stores the keys and returns the delay until the next fetch. Unchanged keys stay the same
    /// object, so that tokens that they verified stay cached.
    fn store(&mut self, keys: KeySet) -> Duration {
        let now = self.cache.clock.wall_time();
        self.metrics.record_success(keys.len(), now);
        if self.failures > 0 {
            tracing::info!("the token issuer's keys can be fetched again");
        }
        self.failures = 0;
        let cached = self.cache.keys();
        if cached.is_none_or(|cached| !cached.has_same_digest(&keys)) {
            tracing::info!(keys = keys.len(), "stored the token issuer's keys");
            self.cache.keys.store(Some(Arc::new(keys)));
        }
        REFRESH_INTERVAL
    }

    /// Returns the delay until the next fetch.
    fn record_failure(&mut self, error: &JwksFetchError) -> Duration {
        self.metrics.record_failure(error);
        let cause = error.to_string();
        let cached = self.cache.keys().map_or(0, |keys| keys.len());
        if self.failures == 0 {
            let url = self.source.url();
            tracing::warn!(%url, cause, cached, "cannot fetch the token issuer's keys");
        } else {
            tracing::debug!(cause, cached, "still cannot fetch the token issuer's keys");
        }
        let delay = BACKOFF.delay(self.failures, self.jitter.fraction());
        self.failures = self.failures.saturating_add(1);
        delay.max(MIN_DELAY)
    }

    /// Waits until `at`, or until a request needs an unknown key, but then at least until
    /// `earliest`.
    async fn wait(&self, at: Instant, earliest: Instant) {
        let clock = &self.cache.clock;
        loop {
            tokio::select! {
                () = clock.sleep_until(at) => return,
                () = self.cache.demanded.notified() => {
                    if clock.now() >= earliest {
                        return;
                    }
                }
            }
        }
    }
}

// === impl JwksMetrics ===

impl JwksMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let fetches = register_int_counter_vec_with_registry!(
            "usage_proxy_jwks_fetches_total",
            "Fetches of the token issuer's keys by result.",
            &["result"],
            registry
        )?;
        for result in ["success", "timed-out", "connection", "status", "malformed"] {
            fetches.with_label_values(&[result]);
        }
        Ok(Self {
            fetches,
            keys: register_int_gauge_with_registry!(
                "usage_proxy_jwks_keys",
                "Cached keys of the token issuer; 0 before the first fetch.",
                registry
            )?,
            last_success: register_int_gauge_with_registry!(
                "usage_proxy_jwks_last_success_timestamp_seconds",
                "When the token issuer's keys were last fetched, in Unix time; 0 before the first fetch.",
                registry
            )?,
        })
    }

    fn record_success(&self, keys: usize, at: Timestamp) {
        self.fetches.with_label_values(&["success"]).inc();
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.last_success.set(at.as_second());
    }

    fn record_failure(&self, error: &JwksFetchError) {
        self.fetches.with_label_values(&[error.label()]).inc();
    }
}
