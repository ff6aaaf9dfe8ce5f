//! The one writer of a process, behind the answers.

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{
    OldDates, StoreError, StoreWrite, Upkeep, UsageStore,
    metrics::StoreMetrics,
    pending::{Merge, PendingWrites, is_purge},
};
use crate::{
    clock::{SharedClock, with_deadline},
    domain::ProcessedDate,
    panic,
    shutdown::Shutdown,
};

/// Writes changes behind the answers that brought them; clones share the queue.
#[derive(Clone, Debug)]
pub struct StoreWriter(Arc<WriteQueue>);

/// The settings of a writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Time until a change is durable.
    pub flush_within: Duration,
    /// Time that a processed date is kept; `None`: for ever.
    pub keep: Option<Duration>,
}

#[derive(Debug)]
struct WriteQueue {
    pending: Mutex<PendingWrites>,
    is_failing: AtomicBool,
    /// Something waits.
    added: Notify,
    /// Something waits that should be written at once.
    urgent: Notify,
    progress: watch::Sender<WriteProgress>,
    clock: SharedClock,
    metrics: StoreMetrics,
}

/// The outcome of the attempts so far.
#[derive(Clone, Debug, Default)]
struct WriteProgress {
    /// All changes up to this number are durable, or can never be.
    written: u64,
    failures: u64,
    last_error: Option<StoreError>,
}

/// The task that writes.
struct WriterTask {
    queue: Arc<WriteQueue>,
    store: Arc<dyn UsageStore>,
    config: WriterConfig,
    clock: SharedClock,
    shutdown: Shutdown,
    retry_pause: Duration,
    /// Attempts that panicked since the last success.
    panics: u32,
    /// The first write that no upkeep followed.
    unmaintained_since: Option<Instant>,
    upkeep_at: Instant,
    deletion_at: Instant,
}

/// Memory for changes that wait.
const MAX_PENDING_BYTES: usize = 32 * 1024 * 1024;

/// Changes of one transaction.
const MAX_BATCH: usize = 1_000;

/// Changes whose write panics are tried again this often, and then dropped.
const MAX_PANICS: u32 = 3;

const MIN_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Short, so that what waits is stored soon after the store is back.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Time for the last changes at the end of the process.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// Upkeep begins so long after the last write, so that a date is not computed again for each customer.
const UPKEEP_PAUSE: Duration = Duration::from_secs(2);

const MAX_UPKEEP_DELAY: Duration = Duration::from_secs(60);

/// Time between two looks for dates that are older than `store.keep`.
const DELETION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Snapshots that are deleted at once.
const DELETION_BATCH: NonZeroUsize = NonZeroUsize::new(500).unwrap();

// === impl StoreWriter ===

impl StoreWriter {
    /// Starts the task that writes. At the end of the process, it writes what waits and closes the store.
    pub fn start(
        store: Arc<dyn UsageStore>,
        config: WriterConfig,
        clock: SharedClock,
        metrics: StoreMetrics,
        shutdown: &Shutdown,
    ) -> Self {
        let now = clock.now();
        let queue = Arc::new(WriteQueue {
            pending: Mutex::new(PendingWrites::new(MAX_PENDING_BYTES)),
            is_failing: AtomicBool::new(false),
            added: Notify::new(),
            urgent: Notify::new(),
            progress: watch::Sender::default(),
            clock: Arc::clone(&clock),
            metrics,
        });
        let task = WriterTask {
            queue: Arc::clone(&queue),
            store,
            config,
            clock,
            shutdown: shutdown.clone(),
            retry_pause: MIN_RETRY_PAUSE,
            panics: 0,
            unmaintained_since: None,
            upkeep_at: now,
            deletion_at: now,
        };
        shutdown.spawn_until_done(task.run());
        Self(queue)
    }

    /// Queues a change. It never blocks: while the store fails, changes wait in a bounded amount of
    /// memory, and the oldest are dropped when it is full.
    pub fn record(&self, change: StoreWrite) {
        let queue = &self.0;
        let is_urgent = is_purge(&change);
        let merge = match queue.is_failing.load(Ordering::Relaxed) {
            true => Merge::NewestWins,
            false => Merge::Lossless,
        };
        let mut pending = queue.lock();
        let dropped = pending.push(change, merge, queue.clock.wall_time());
        queue.set_pending(&pending);
        let is_urgent = is_urgent || pending.is_half_full();
        drop(pending);
        if dropped > 0 {
            queue.metrics.dropped.inc_by(dropped as u64);
            tracing::warn!(
                dropped,
                "too many changes wait for the store; the oldest were dropped"
            );
        }
        queue.added.notify_one();
        if is_urgent {
            queue.urgent.notify_one();
        }
    }

    /// Returns whether the last attempt to write failed.
    pub fn is_failing(&self) -> bool {
        self.0.is_failing.load(Ordering::Relaxed)
    }

    /// Writes all that was queued before.
    ///
    /// # Errors
    ///
    /// If an attempt fails in the meantime. The changes still wait, and are tried again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the writing.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let queue = &self.0;
        let mut progress = queue.progress.subscribe();
        let Some(last) = queue.lock().last_number() else {
            return Ok(());
        };
        let failures = progress.borrow().failures;
        queue.urgent.notify_one();
        let finished = |now: &WriteProgress| now.written >= last || now.failures > failures;
        let progress = match progress.wait_for(finished).await {
            Ok(progress) => progress.clone(),
            Err(_ended) => return Err(StoreError::Unavailable),
        };
        match progress.last_error {
            Some(error) if progress.written < last => Err(error),
            _ => Ok(()),
        }
    }
}

// === impl WriteQueue ===

impl WriteQueue {
    fn set_pending(&self, pending: &PendingWrites) {
        let waiting = i64::try_from(pending.len()).unwrap_or(i64::MAX);
        self.metrics.pending.set(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, PendingWrites> {
        // No panic leaves it inconsistent: a map is changed before the numbers about it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl WriterTask ===

impl WriterTask {
    async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.write_until_cancelled() => {}
        }
        // A write that was in progress is done again, which changes nothing.
        let deadline = self.clock.now() + LAST_FLUSH;
        let clock = Arc::clone(&self.clock);
        let last_flush = async { panic::catch(pin!(self.write_all())).await };
        let flushed = with_deadline(&clock, deadline, last_flush).await;
        let left = self.queue.lock().len();
        if left > 0 || flushed.is_none() {
            tracing::error!(changes = left, "changes could not be stored before the end");
        }
        let closed = with_deadline(&clock, deadline, self.store.close()).await;
        if !matches!(closed, Some(Ok(()))) {
            tracing::warn!("the store could not be closed in time");
        }
    }

    async fn write_until_cancelled(&mut self) {
        loop {
            let panicked = panic::catch(pin!(self.write_what_comes())).await.is_err();
            if panicked {
                tracing::error!("the writer of the store panicked, and begins again");
            }
            let until = self.clock.now() + MAX_RETRY_PAUSE;
            self.clock.sleep_until(until).await;
        }
    }

    /// Writes until it is dropped.
    async fn write_what_comes(&mut self) {
        loop {
            let next_upkeep = self.next_upkeep();
            if next_upkeep <= self.clock.now() {
                self.upkeep().await;
            }
            if self.queue.lock().len() > 0 {
                self.wait_for_more().await;
                self.write_some().await;
            } else {
                tokio::select! {
                    () = self.queue.added.notified() => {}
                    () = self.clock.sleep_until(next_upkeep) => {}
                }
            }
        }
    }

    /// Lets changes that come soon share a transaction.
    async fn wait_for_more(&self) {
        let until = self.clock.now() + self.config.flush_within / 2;
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            () = self.queue.urgent.notified() => {}
            () = self.shutdown.draining() => {}
        }
    }

    /// Writes all that waits. After a failure, waits a while.
    async fn write_some(&mut self) {
        if self.write_all().await {
            self.retry_pause = MIN_RETRY_PAUSE;
            let now = self.clock.now();
            let since = *self.unmaintained_since.get_or_insert(now);
            self.upkeep_at = (since + MAX_UPKEEP_DELAY).min(now + UPKEEP_PAUSE);
        } else {
            let until = self.clock.now() + self.retry_pause;
            self.retry_pause = MAX_RETRY_PAUSE.min(self.retry_pause * 2);
            self.clock.sleep_until(until).await;
        }
    }

    /// Returns false after the first failure.
    async fn write_all(&mut self) -> bool {
        loop {
            let Some((last, batch)) = self.queue.lock().first(MAX_BATCH) else {
                return true;
            };
            let result = match self.store.write(batch.clone()).await {
                Err(error) if self.is_permanent(&error) => self.write_each(batch).await,
                result => result,
            };
            match result {
                Ok(()) => self.panics = 0,
                Err(StoreError::Panicked) => self.panics += 1,
                Err(_) => {}
            }
            if !self.record_attempt(last, result) {
                return false;
            }
        }
    }

    /// Writes changes one by one, and drops those that can never be stored.
    async fn write_each(&self, batch: Vec<StoreWrite>) -> Result<(), StoreError> {
        for change in batch {
            match self.store.write(vec![change]).await {
                Err(error) if self.is_permanent(&error) => {
                    self.queue.metrics.dropped.inc();
                    tracing::error!(%error, "a change was dropped");
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Returns true if another attempt would fail too.
    fn is_permanent(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Unstorable(_) => true,
            StoreError::Panicked => self.panics >= MAX_PANICS,
            StoreError::Unavailable | StoreError::NotOpen(_) | StoreError::Failed(_) => false,
        }
    }

    fn record_attempt(&self, last: u64, result: Result<(), StoreError>) -> bool {
        let is_success = result.is_ok();
        let was_failing = self.queue.is_failing.swap(!is_success, Ordering::Relaxed);
        if is_success {
            let mut pending = self.queue.lock();
            pending.remove_up_to(last);
            self.queue.set_pending(&pending);
        }
        match &result {
            Ok(()) if was_failing => tracing::info!("the store is written again"),
            Err(error) if !was_failing => tracing::error!(
                %error,
                "changes cannot be stored; they wait in memory and are tried again"
            ),
            Ok(()) | Err(_) => {}
        }
        self.queue.progress.send_modify(|progress| match result {
            Ok(()) => progress.written = last,
            Err(error) => {
                progress.failures += 1;
                progress.last_error = Some(error);
            }
        });
        is_success
    }

    fn next_upkeep(&self) -> Instant {
        match self.config.keep {
            Some(_) => self.upkeep_at.min(self.deletion_at),
            None => self.upkeep_at,
        }
    }

    async fn upkeep(&mut self) {
        let now = self.clock.now();
        if let Some(keep) = self.config.keep
            && self.deletion_at <= now
        {
            let is_done = self.delete_old(keep).await;
            self.deletion_at = now
                + if is_done {
                    DELETION_INTERVAL
                } else {
                    UPKEEP_PAUSE
                };
            // Totals follow.
            self.upkeep_at = now;
            return;
        }
        self.unmaintained_since = None;
        self.upkeep_at = now
            + match self.store.maintain().await {
                Ok(Upkeep {
                    stored_bytes,
                    is_done,
                }) => {
                    let bytes = i64::try_from(stored_bytes).unwrap_or(i64::MAX);
                    self.queue.metrics.bytes.set(bytes);
                    if is_done {
                        DELETION_INTERVAL
                    } else {
                        Duration::ZERO
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the upkeep of the store failed");
                    MAX_UPKEEP_DELAY
                }
            };
    }

    /// Deletes some of the dates that are kept no longer. Returns false if more are left.
    async fn delete_old(&self, keep: Duration) -> bool {
        const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

        let oldest = self.clock.wall_time().checked_sub(keep);
        let Ok(oldest) = oldest else {
            return true;
        };
        let days = keep.as_secs().div_ceil(SECONDS_OF_A_DAY);
        let old = OldDates {
            before: ProcessedDate::from_timestamp(oldest),
            days_before_newest: i64::try_from(days).unwrap_or(i64::MAX),
        };
        match self.store.delete_old(old, DELETION_BATCH).await {
            Ok(deleted) => deleted < DELETION_BATCH.get(),
            Err(error) => {
                tracing::warn!(%error, "old dates could not be deleted from the store");
                true
            }
        }
    }
}
