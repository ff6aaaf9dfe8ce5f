//! Leases that a process holds: they are renewed until they end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Coordination, LEASE_RENEWAL, Lease, LeaseAttempt, LeaseEnd, StoreError, UsageStore, WantedLease,
};
use crate::{clock::SharedClock, shutdown::Shutdown};

/// Takes leases, and renews those that are held; clones share the store.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Arc<dyn UsageStore>,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The answer to a request for a lease; see [`LeaseAttempt`].
#[derive(Debug)]
pub enum LeaseTurn {
    /// This process holds it.
    Held(HeldLease),
    /// Another process holds it.
    OfAnother,
    /// Another process has just ended it, and stored its result.
    Finished,
    /// Another process failed.
    Failed {
        /// The failure.
        failure: String,
        /// It counts so much longer.
        remaining: Duration,
    },
}

/// A lease of this process. It is renewed until it is released or dropped.
#[derive(Debug)]
pub struct HeldLease {
    /// `None` once it was released.
    lease: Option<Lease>,
    leases: Leases,
    lost: CancellationToken,
    _renewal: DropGuard,
}

// === impl Leases ===

impl Leases {
    /// Returns `None` for a store that no other process shares.
    pub fn new(
        store: &Arc<dyn UsageStore>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Option<Self> {
        store.coordination()?;
        let store = Arc::clone(store);
        Some(Self {
            store,
            clock,
            shutdown,
        })
    }

    /// Takes a lease if it is free.
    ///
    /// # Errors
    ///
    /// [`StoreError`] while the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a lease that expires.
    pub async fn acquire(&self, wanted: WantedLease) -> Result<LeaseTurn, StoreError> {
        let attempt = self.coordination()?.acquire_lease(wanted).await?;
        Ok(match attempt {
            LeaseAttempt::Granted(lease) => LeaseTurn::Held(self.hold(lease)),
            LeaseAttempt::Held => LeaseTurn::OfAnother,
            LeaseAttempt::Finished => LeaseTurn::Finished,
            LeaseAttempt::Failed { failure, remaining } => LeaseTurn::Failed { failure, remaining },
        })
    }

    fn hold(&self, lease: Lease) -> HeldLease {
        let (ended, lost) = (CancellationToken::new(), CancellationToken::new());
        let renewing = self
            .clone()
            .renew(lease.clone(), ended.clone(), lost.clone());
        self.shutdown.spawn(renewing);
        HeldLease {
            lease: Some(lease),
            leases: self.clone(),
            lost,
            _renewal: ended.drop_guard(),
        }
    }

    async fn renew(self, lease: Lease, ended: CancellationToken, lost: CancellationToken) {
        let renewals = async {
            loop {
                self.clock
                    .sleep_until(self.clock.now() + LEASE_RENEWAL)
                    .await;
                // While the store does not answer, nobody else can take it either.
                if let Ok(coordination) = self.coordination()
                    && let Ok(false) = coordination.renew_lease(lease.clone()).await
                {
                    return lost.cancel();
                }
            }
        };
        tokio::select! {
            () = ended.cancelled() => {}
            () = renewals => {}
        }
    }

    async fn release(self, lease: Lease, end: LeaseEnd) {
        if let Ok(coordination) = self.coordination() {
            // If this fails, it expires.
            let _released = coordination.release_lease(lease, end).await.is_ok();
        }
    }

    fn coordination(&self) -> Result<&dyn Coordination, StoreError> {
        self.store.coordination().ok_or(StoreError::Unavailable)
    }
}

// === impl HeldLease ===

impl HeldLease {
    /// The lease, for what is written because of it.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Completes when another process has it, or nobody.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Ends the lease.
    pub async fn release(mut self, end: LeaseEnd) {
        if let Some(lease) = self.lease.take() {
            self.leases.clone().release(lease, end).await;
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            // Otherwise others would wait until it expires.
            let release = self.leases.clone().release(lease, LeaseEnd::Abandoned);
            self.leases.shutdown.spawn_until_done(release);
        }
    }
}
