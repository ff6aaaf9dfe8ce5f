//! The shutdown of the process in two steps, and the tasks that it waits for.
//!
//! *Draining* asks all tasks to finish and to begin nothing new. *Cancelling* drops tasks that have not
//! finished by then.

use std::{future::Future, pin::Pin};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// One type for all tasks, so that the code that the runtime has for a task is compiled once.
type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A handle on the shutdown; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    cancelled: CancellationToken,
    tasks: TaskTracker,
}

// === impl Shutdown ===

impl Shutdown {
    /// Creates a handle.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that belongs to no request; it is dropped when [`Shutdown::cancel`] is called.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_cancellable(Box::pin(task));
    }

    fn spawn_cancellable(&self, mut task: BoxedTask) {
        let cancelled = self.cancelled.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = &mut task => {}
            }
        });
    }

    /// Runs a task that must not be dropped, such as one that stores a refresh token. [`Shutdown::cancel`]
    /// waits for it, and it must end soon after [`Shutdown::cancelled`].
    pub fn spawn_until_done(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: BoxedTask = Box::pin(task);
        self.tasks.spawn(task);
    }

    /// Asks all tasks to finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns true once [`Shutdown::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Completes once [`Shutdown::drain`] was called.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Completes once [`Shutdown::cancel`] was called.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Drops every task that is still running and waits until they are gone.
    pub async fn cancel(&self) {
        self.draining.cancel();
        self.cancelled.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cancelling_drops_what_still_runs_and_waits_for_it() {
        let shutdown = Shutdown::new();
        let (dropped, closed) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn(async move {
            let _sender = dropped;
            std::future::pending::<()>().await;
        });

        shutdown.cancel().await;

        assert!(shutdown.is_draining());
        assert!(
            closed.await.is_err(),
            "the task was dropped, its sender with it"
        );
    }
}
