//! Applies the purges of other processes that use the same store.

use std::{sync::Arc, time::Duration};

use super::{UsageService, second_level::Followed};
use crate::{
    cache::{PurgeMode, PurgeScope},
    clock::SharedClock,
    jitter::Jitter,
    store::{StoreError, UsageStore},
};

/// Looks for purges of other processes about every second.
///
/// While the store does not answer, nothing changes; the first answer after that has all that was missed.
#[derive(Debug)]
pub struct PurgeFollower {
    usage: UsageService,
    store: Arc<dyn UsageStore>,
    clock: SharedClock,
    jitter: Jitter,
}

/// Time between two looks, plus the jitter. With the time that a purge takes to be stored, it is applied
/// within 2 s.
const INTERVAL: Duration = Duration::from_millis(750);

const MAX_JITTER: Duration = Duration::from_millis(500);

// === impl PurgeFollower ===

impl PurgeFollower {
    pub(super) fn new(usage: UsageService, store: Arc<dyn UsageStore>, jitter: Jitter) -> Self {
        let clock = Arc::clone(&usage.inner.clock);
        Self {
            usage,
            store,
            clock,
            jitter,
        }
    }

    /// Follows until the task is cancelled.
    pub async fn run(self) {
        loop {
            let pause = INTERVAL + MAX_JITTER.mul_f64(self.jitter.fraction());
            self.clock.sleep_until(self.clock.now() + pause).await;
            // The store itself reports its failures.
            let _answered = self.follow().await.is_ok();
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let level = &self.usage.inner.level;
        let applied = match level.followed() {
            Followed::UpTo(generation) => Some(generation),
            Followed::Nothing | Followed::Unknown => None,
        };
        let later = self.store.purges_after(applied).await?;
        match applied {
            Some(applied) if applied <= later.generation => {
                for purge in later.purges.iter().filter(|purge| !purge.is_own) {
                    self.usage.apply_purge(purge.scope, purge.mode);
                }
            }
            Some(_) => {
                tracing::warn!(
                    "the store went back in time, so purges may be lost: all data is fetched again when it \
                     is asked for"
                );
                self.usage.apply_lost_purges();
            }
            // The store could not be read at the start. It knows the purges of its own data.
            None => self
                .usage
                .apply_purge(PurgeScope::default(), PurgeMode::Soft),
        }
        level.set_followed(Followed::UpTo(later.generation));
        Ok(())
    }
}
