use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{StoreWrite, UsageStore};
use crate::{clock::SharedClock, shutdown::Shutdown};

/// Writes changes behind the answers that brought them.
#[derive(Clone, Debug)]
pub struct StoreWriter {
    changes: mpsc::UnboundedSender<StoreWrite>,
}

// === impl StoreWriter ===

impl StoreWriter {
    /// Starts the task that writes changes within `flush_within`.
    pub fn start(
        store: Arc<dyn UsageStore>,
        flush_within: Duration,
        clock: SharedClock,
        shutdown: &Shutdown,
    ) -> Self {
        let (changes, mut pending) = mpsc::unbounded_channel();
        let draining = shutdown.clone();
        shutdown.spawn_until_done(async move {
            while let Some(first) = pending.recv().await {
                tokio::select! {
                    () = clock.sleep_until(clock.now() + flush_within / 2) => {}
                    () = draining.draining() => {}
                }
                let mut batch = vec![first];
                while let Ok(change) = pending.try_recv() {
                    batch.push(change);
                }
                if let Err(error) = store.write(batch).await {
                    tracing::warn!(%error, "changes were not stored");
                }
            }
        });
        Self { changes }
    }

    /// Queues a change. It never blocks.
    pub fn record(&self, change: StoreWrite) {
        drop(self.changes.send(change));
    }
}
