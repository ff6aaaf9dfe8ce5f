//! The streams of an HTTP/2 connection.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// The open streams of an HTTP/2 connection.
///
/// Each stream has its own time, so that a stalled stream is found while others make progress.
#[derive(Debug, Default)]
pub(super) struct StreamTracker {
    /// In the order in which they were opened; hyper bounds how many.
    open: Mutex<Vec<TrackedStream>>,
}

#[derive(Debug)]
struct TrackedStream {
    number: u32,
    opened_at: Instant,
    /// Passes the response to hyper in chunks. Aborting it resets the stream. `None` until it is spawned.
    task: Option<AbortHandle>,
    /// hyper has a chunk of the response, and has not requested another since.
    waits_for_client: bool,
    /// The time at which that was first seen.
    waiting_since: Option<Instant>,
}

/// The next step against clients that read nothing of their responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StallAction {
    /// Check again at this time; `None` if no stream is open.
    Wait(Option<Instant>),
    /// Close the connection: hyper has all of a response, so the stream cannot be reset.
    CloseConnection,
}

// === impl StreamTracker ===

impl StreamTracker {
    /// Adds a stream, which is open until its response was written to the socket or dropped. `spawn`
    /// runs its task.
    pub(super) fn open(&self, number: u32, spawn: impl FnOnce() -> AbortHandle) {
        // Before the task runs, so that the stream is here to be removed when it ends.
        self.lock().push(TrackedStream {
            number,
            opened_at: Instant::now(),
            task: None,
            waits_for_client: false,
            waiting_since: None,
        });
        // Not under the lock: a runtime that shuts down drops the task at once, which ends the stream.
        let task = spawn();
        let mut open = self.lock();
        if let Some(stream) = open.iter_mut().find(|stream| stream.number == number) {
            stream.task = Some(task);
        }
    }

    /// Records that hyper got the next chunk of a response, and has sent those before it.
    pub(super) fn record_chunk(&self, number: u32) {
        let mut open = self.lock();
        if let Some(stream) = open.iter_mut().find(|stream| stream.number == number) {
            stream.waits_for_client = true;
            stream.waiting_since = None;
        }
    }

    pub(super) fn end(&self, number: u32) {
        let mut open = self.lock();
        if let Some(at) = open.iter().position(|stream| stream.number == number) {
            open.remove(at);
        }
    }

    /// Returns the time at which the oldest stream was opened.
    pub(super) fn oldest_opened_at(&self) -> Option<Instant> {
        self.lock().first().map(|stream| stream.opened_at)
    }

    /// Resets the streams whose clients have read nothing for this long, as far as that was seen.
    pub(super) fn reset_stalled(&self, timeout: Duration) -> StallAction {
        let mut open = self.lock();
        let now = Instant::now();
        let mut next = None;
        for stream in &mut *open {
            let mut deadline = now + timeout;
            if stream.waits_for_client {
                deadline = *stream.waiting_since.get_or_insert(now) + timeout;
            }
            if deadline > now {
                next = next.into_iter().chain([deadline]).min();
            } else if let Some(task) = &stream.task {
                if task.is_finished() {
                    return StallAction::CloseConnection;
                }
                task.abort();
            }
        }
        StallAction::Wait(next)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TrackedStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use tokio::task::JoinSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Opens streams whose tasks do not end by themselves.
    fn open(numbers: &[u32]) -> (StreamTracker, JoinSet<()>) {
        let (streams, mut tasks) = (StreamTracker::default(), JoinSet::new());
        for number in numbers {
            streams.open(*number, || tasks.spawn(std::future::pending()));
        }
        (streams, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_stream_counts_until_it_ends() {
        let (streams, mut tasks) = open(&[1]);
        let start = Instant::now();
        tokio::time::advance(SECOND).await;
        for number in [2, 3] {
            streams.open(number, || tasks.spawn(std::future::pending()));
        }

        streams.end(2);
        assert_eq!(streams.oldest_opened_at(), Some(start));
        streams.end(1);
        assert_eq!(streams.oldest_opened_at(), Some(start + SECOND));
        streams.end(3);
        assert_eq!(streams.oldest_opened_at(), None);
    }

    #[test]
    fn a_stream_whose_task_is_dropped_immediately_is_not_tracked() {
        /// Ends the stream when its task is dropped.
        struct StreamEndGuard(Arc<StreamTracker>);
        impl Drop for StreamEndGuard {
            fn drop(&mut self) {
                self.0.end(1);
            }
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let closed = runtime.handle().clone();
        drop(runtime);
        let (send, receive) = mpsc::channel();

        // On a thread of its own, so that a deadlock fails the test.
        thread::spawn(move || {
            let streams = Arc::new(StreamTracker::default());
            let ending = StreamEndGuard(Arc::clone(&streams));
            streams.open(1, || {
                closed.spawn(async move { drop(ending) }).abort_handle()
            });
            send.send(streams.oldest_opened_at()).unwrap();
        });

        assert_eq!(receive.recv_timeout(10 * SECOND), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_whose_client_takes_nothing_is_reset() {
        let (streams, mut tasks) = open(&[1, 2, 3]);
        streams.record_chunk(2);
        streams.record_chunk(3);
        let first = streams.reset_stalled(SECOND);
        tokio::time::advance(SECOND / 2).await;
        streams.record_chunk(3);
        tokio::time::advance(SECOND / 2).await;

        let second = streams.reset_stalled(SECOND);

        assert!(matches!(first, StallAction::Wait(Some(_))), "{first:?}");
        assert!(matches!(second, StallAction::Wait(Some(_))), "{second:?}");
        let reset = tasks.join_next().await.unwrap();
        assert!(reset.unwrap_err().is_cancelled());
        assert_eq!(tasks.len(), 2, "the handler's and the one that goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_stream_that_stalls_closes_the_connection() {
        let (streams, mut tasks) = (StreamTracker::default(), JoinSet::new());
        streams.open(1, || tasks.spawn(async {}));
        streams.record_chunk(1);
        tasks.join_next().await;
        let first = streams.reset_stalled(SECOND);
        tokio::time::advance(SECOND).await;

        assert!(matches!(first, StallAction::Wait(Some(_))), "{first:?}");
        assert_eq!(streams.reset_stalled(SECOND), StallAction::CloseConnection);
    }
}
