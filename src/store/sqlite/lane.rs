//! A thread that does jobs one after another, for calls that may block.

use std::{sync::mpsc, thread};

use tokio::sync::oneshot;

use crate::store::StoreError;

/// Sends jobs to a thread and its state `S`. The thread ends when the last sender is dropped.
pub(super) struct Lane<S> {
    jobs: mpsc::Sender<Job<S>>,
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

// === impl Lane ===

impl<S: Send + 'static> Lane<S> {
    pub(super) fn start(name: &str, mut state: S) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let thread = thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || {
            for job in queue {
                job(&mut state);
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "a thread of the store could not be started");
        }
        Self { jobs }
    }

    /// Runs a job, unless its caller has gone before its turn.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        self.send(move |state| {
            if !sender.is_closed() {
                let _gone = sender.send(job(state)).is_err();
            }
        });
        result.await.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Runs a job that nobody waits for.
    pub(super) fn send(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        // Without a thread the job is dropped, which its caller sees.
        let _gone = self.jobs.send(Box::new(job)).is_err();
    }
}

impl<S> Clone for Lane<S> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
        }
    }
}
