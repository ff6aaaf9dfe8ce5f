//! Threads that do jobs one after another, for calls that may block.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Barrier, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;

use crate::store::StoreError;

/// Sends jobs to threads that each have a state `S`. They end when the lane is dropped, and not when a job
/// panics: a job takes what it must not leave half changed out of the state.
pub(in crate::store) struct Lane<S> {
    jobs: mpsc::Sender<Job<S>>,
    threads: usize,
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

// === impl Lane ===

impl<S: Send + 'static> Lane<S> {
    /// Starts a thread for each state.
    pub(in crate::store) fn start(name: &str, states: impl IntoIterator<Item = S>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let queue = Arc::new(Mutex::new(queue));
        let start = |state| {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || do_jobs(&queue, state))
        };
        let started = states.into_iter().map(start);
        let threads = started
            .filter_map(|thread| {
                thread
                    .inspect_err(|error| {
                        tracing::error!(%error, "a thread of the store could not be started");
                    })
                    .ok()
            })
            .count();
        Self { jobs, threads }
    }

    /// Runs a job on one of the threads, unless its caller has gone before its turn.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the result.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        self.send(move |state| {
            if !sender.is_closed() {
                let _gone = sender.send(job(state)).is_err();
            }
        });
        result.await.unwrap_or(Err(StoreError::Panicked))
    }

    /// Runs a job on each of the threads.
    pub(in crate::store) async fn run_on_each(
        &self,
        job: impl FnOnce(&mut S) + Clone + Send + 'static,
    ) {
        // A thread that has done it waits for the others, so that it takes no second one.
        let barrier = Arc::new(Barrier::new(self.threads));
        let (sender, mut done) = tokio::sync::mpsc::channel::<()>(1);
        for _ in 0..self.threads {
            let (job, barrier, sender) = (job.clone(), Arc::clone(&barrier), sender.clone());
            self.send(move |state| {
                // A caller that has gone asks again.
                if !sender.is_closed() {
                    catch_panic(|| job(state));
                }
                barrier.wait();
                drop(sender);
            });
        }
        drop(sender);
        // Ends when the last sender is dropped.
        let _nothing = done.recv().await;
    }

    /// Runs a job that nobody waits for.
    pub(in crate::store) fn send(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        // Without a thread the job is dropped, which its caller sees.
        let _gone = self.jobs.send(Box::new(job)).is_err();
    }
}

fn do_jobs<S>(queue: &Mutex<mpsc::Receiver<Job<S>>>, mut state: S) {
    loop {
        // It guards the queue, which no panic can leave half changed.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => catch_panic(|| job(&mut state)),
            Err(mpsc::RecvError) => return,
        }
    }
}

/// Runs a job. Its caller sees a panic as an answer that never comes; the panic hook has logged it.
fn catch_panic(job: impl FnOnce()) {
    let _panicked = panic::catch_unwind(AssertUnwindSafe(job)).is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_fails_and_leaves_its_thread_to_others() {
        let lane = Lane::start("test", [0]);

        let failed = lane.run::<()>(|_| panic!("as the test wants it")).await;
        lane.run_on_each(|_| panic!("as the test wants it")).await;
        let next = lane.run(|state| Ok(*state)).await;

        assert!(matches!(failed, Err(StoreError::Panicked)), "{failed:?}");
        assert_eq!(next.unwrap(), 0);
    }
}
