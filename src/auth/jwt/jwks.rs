use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::{
    JwtDeps, TokenRejection, VerifyError, header::TokenHeader, key_set::KeySet,
    metrics::JwksMetrics, source::JwksSource,
};
use crate::{clock::SharedClock, jitter::Jitter, resilience::backoff::Backoff};

/// How old the keys get. It bounds how long a key is believed that the issuer has withdrawn, so
/// an answer that says `max-age=86400`, as Entra ID's does, is not taken at its word.
pub(super) const REFRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// A key that is not held has the keys fetched again, but not more often than this: anybody can
/// make up the name of a key.
pub(super) const DEMAND_INTERVAL: Duration = Duration::from_secs(30);

/// How long a request waits for such a fetch.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Pauses after fetches that failed; never less than [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(2), Duration::from_secs(60)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What a caller is told to wait when the issuer cannot be had.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The issuer's keys, as they were last fetched.
///
/// One task fetches them: at start, every hour, after a failure, and when a request needs a key
/// that is not held. While the issuer is down, the keys that are held go on being used.
#[derive(Debug)]
pub(super) struct JwksCache {
    held: ArcSwapOption<KeySet>,
    progress: watch::Sender<FetchProgress>,
    /// A request needs a key that is not held.
    demanded: Notify,
    clock: SharedClock,
}

/// How far fetching has come.
#[derive(Clone, Copy, Debug, Default)]
struct FetchProgress {
    begun: u64,
    ended: u64,
    begun_at: Option<Instant>,
    /// Whether the last one failed.
    failed: bool,
}

/// Fetches keys for as long as the process lives.
#[derive(Debug)]
struct JwksRefresher {
    jwks: Arc<JwksCache>,
    source: JwksSource,
    jitter: Jitter,
    metrics: JwksMetrics,
    /// Failures in a row.
    failures: u32,
}

// === impl Jwks ===

impl JwksCache {
    /// Begins to fetch keys, in a task of its own.
    pub(super) fn start(source: JwksSource, metrics: JwksMetrics, deps: &JwtDeps<'_>) -> Arc<Self> {
        let jwks = Arc::new(Self {
            held: ArcSwapOption::empty(),
            progress: watch::Sender::default(),
            demanded: Notify::new(),
            clock: Arc::clone(&deps.clock),
        });
        let keeper = JwksRefresher {
            jwks: Arc::clone(&jwks),
            source,
            jitter: deps.jitter,
            metrics,
            failures: 0,
        };
        deps.shutdown.spawn(keeper.run());
        jwks
    }

    /// The keys that are held now.
    pub(super) fn held(&self) -> Option<Arc<KeySet>> {
        self.held.load_full()
    }

    /// Keys that hold the one that `header` names. Waits for a fetch where that could bring it,
    /// together with everyone else who does.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::VerifyingKey`] when the issuer has no such key, and
    /// [`VerifyError::IssuerUnavailable`] when it could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the fetch to those who wait for it, and to later ones.
    pub(super) async fn with_key(&self, header: &TokenHeader) -> Result<Arc<KeySet>, VerifyError> {
        if let Some(keys) = self.held_with(header) {
            return Ok(keys);
        }
        let answered = self.ask().await;
        if let Some(keys) = self.held_with(header) {
            return Ok(keys);
        }
        match answered {
            Some(FetchProgress { failed: false, .. }) => Err(TokenRejection::Key.into()),
            _ => Err(VerifyError::IssuerUnavailable {
                retry_after: RETRY_AFTER,
            }),
        }
    }

    fn held_with(&self, header: &TokenHeader) -> Option<Arc<KeySet>> {
        self.held().filter(|keys| keys.find(header).is_some())
    }

    /// Has the keys fetched, unless they were a moment ago, and tells how the last fetch went;
    /// `None` when it takes too long.
    async fn ask(&self) -> Option<FetchProgress> {
        let now = self.clock.now();
        let seen = *self.progress.borrow();
        if seen.is_settled(now) {
            return Some(seen);
        }
        self.demanded.notify_one();
        let mut progress = self.progress.subscribe();
        tokio::select! {
            biased;
            ended = progress.wait_for(|progress| progress.ended > seen.ended) => {
                ended.ok().map(|progress| *progress)
            }
            () = self.clock.sleep_until(now + LONGEST_WAIT) => None,
        }
    }
}

// === impl Progress ===

impl FetchProgress {
    /// Whether the last fetch is too recent for another on demand.
    fn is_settled(&self, now: Instant) -> bool {
        let recent = |begun: Instant| now < begun + DEMAND_INTERVAL;
        self.begun == self.ended && self.begun_at.is_some_and(recent)
    }
}

// === impl Keeper ===

impl JwksRefresher {
    async fn run(mut self) {
        loop {
            let begun = self.jwks.clock.now();
            self.jwks.progress.send_modify(|progress| {
                progress.begun += 1;
                progress.begun_at = Some(begun);
            });
            let pause = self.fetch().await;
            self.jwks.progress.send_modify(|progress| {
                progress.ended = progress.begun;
                progress.failed = self.failures > 0;
            });
            self.wait(self.jwks.clock.now() + pause, begun + DEMAND_INTERVAL)
                .await;
        }
    }

    /// Fetches once, and says how long to wait until the next time.
    async fn fetch(&mut self) -> Duration {
        match self.source.fetch().await {
            Ok(keys) => {
                self.succeeded(keys);
                REFRESH_INTERVAL
            }
            Err(error) => {
                self.metrics.record_failure(&error);
                let cause = error.to_string();
                let held = self.jwks.held().map_or(0, |keys| keys.len());
                if self.failures == 0 {
                    tracing::warn!(url = %self.source.url(), cause, held, "cannot fetch the token issuer's keys");
                } else {
                    tracing::debug!(cause, held, "still cannot fetch the token issuer's keys");
                }
                let pause = BACKOFF.delay(self.failures, self.jitter.fraction());
                self.failures = self.failures.saturating_add(1);
                pause.max(SHORTEST_PAUSE)
            }
        }
    }

    /// Keys that have not changed stay what they are: tokens that they confirmed are remembered.
    fn succeeded(&mut self, keys: KeySet) {
        self.metrics
            .record_success(keys.len(), self.jwks.clock.wall_time());
        if self.failures > 0 {
            tracing::info!("the token issuer's keys can be fetched again");
        }
        self.failures = 0;
        if self
            .jwks
            .held()
            .is_none_or(|held| !held.has_same_digest(&keys))
        {
            tracing::info!(keys = keys.len(), "took over the token issuer's keys");
            self.jwks.held.store(Some(Arc::new(keys)));
        }
    }

    /// Until `at`, or until a request needs a key, but then not before `earliest`.
    async fn wait(&self, at: Instant, earliest: Instant) {
        let clock = &self.jwks.clock;
        loop {
            tokio::select! {
                () = clock.sleep_until(at) => return,
                () = self.jwks.demanded.notified() => {
                    if clock.now() >= earliest {
                        return;
                    }
                }
            }
        }
    }
}
