use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::time::Instant;

/// Since when an HTTP/2 connection owes something: its open streams, and what its socket holds up.
///
/// Each stream has a time of its own here, so that one that its client stalls is not excused by the
/// others that go on beside it.
#[derive(Debug, Default)]
pub(super) struct Streams {
    since: Mutex<Since>,
    /// What `since` says of it, for a look without the lock.
    held_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Since {
    /// In the order in which they were opened; hyper bounds how many.
    open: Vec<(u32, Instant)>,
    /// When the socket last refused to take more; `None` where it has taken some since.
    held_up: Option<Instant>,
}

// === impl Streams ===

impl Streams {
    /// A stream is open until its answer has been written to the socket, or given up.
    pub(super) fn open(&self, stream: u32) {
        self.since().open.push((stream, Instant::now()));
    }

    pub(super) fn end(&self, stream: u32) {
        let mut since = self.since();
        if let Some(at) = since.open.iter().position(|(open, _)| *open == stream) {
            since.open.remove(at);
        }
    }

    /// Tells whether the socket takes what is written to it.
    pub(super) fn set_held_up(&self, held_up: bool) {
        if self.held_up.swap(held_up, Relaxed) != held_up {
            self.since().held_up = held_up.then(Instant::now);
        }
    }

    /// Since when the oldest debt has stood.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let since = self.since();
        let stream = since.open.first().map(|(_, opened)| *opened);
        stream.into_iter().chain(since.held_up).min()
    }

    fn since(&self) -> MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_debt_stands_until_it_is_paid() {
        let (streams, start) = (Streams::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(streams.oldest(), None);

        streams.open(1);
        tokio::time::advance(second).await;
        streams.open(2);
        streams.end(2);
        streams.open(3);
        assert_eq!(streams.oldest(), Some(start));
        tokio::time::advance(second).await;
        streams.set_held_up(true);
        streams.end(1);
        assert_eq!(streams.oldest(), Some(start + second));
        streams.end(3);
        tokio::time::advance(second).await;
        streams.set_held_up(true);
        assert_eq!(streams.oldest(), Some(start + 2 * second));
        streams.set_held_up(false);

        assert_eq!(streams.oldest(), None);
    }
}
