//! The activity of a connection, shared by its socket, its requests and its watchdog.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use super::stream_tracker::{StallAction, StreamTracker};

/// The counts and flags of one connection.
///
/// With HTTP/1 one task polls everything in turn; only HTTP/2 has tasks of its own for streams, and
/// then nothing here orders anything but itself.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests that were received.
    received: AtomicU32,
    /// Requests whose response was written whole, or dropped.
    finished: AtomicU32,
    /// Requests whose response has left, as far as the socket tells.
    answered: AtomicU32,
    /// Bytes came after the last request that was received.
    is_partial: AtomicBool,
    is_closing: AtomicBool,
    /// A request was rejected; it is the last.
    is_rejected: AtomicBool,
    /// The last request has a body, which may be unread.
    has_body: AtomicBool,
    /// The socket does not accept data.
    is_stalled: AtomicBool,
    /// The number of times that the socket accepted data again after a stall.
    resumed: AtomicU32,
    /// With HTTP/2 only, whose requests are not answered one after another.
    streams: Option<StreamTracker>,
}

/// The phase of a connection. Its number tells one request from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has come yet.
    Opening,
    /// The head of a request is coming.
    Head(u32),
    /// A request is being answered, or its response taken.
    Request(u32),
    /// Streams are being answered, the oldest since then.
    Streams(Instant),
    /// Everything is answered.
    Idle(u32),
    /// We closed, and the client has not yet.
    Closing,
}

// === impl Activity ===

impl Activity {
    /// The activity of an HTTP/2 connection.
    pub(super) fn with_streams() -> Self {
        Self {
            streams: Some(StreamTracker::default()),
            ..Self::default()
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let (received, answered) = (self.received.load(Relaxed), self.answered.load(Relaxed));
        if self.is_closing.load(Relaxed) {
            return Phase::Closing;
        }
        if let Some(streams) = &self.streams {
            return match (streams.oldest_opened_at(), received) {
                (Some(since), _) => Phase::Streams(since),
                (None, 0) => Phase::Opening,
                (None, received) => Phase::Idle(received),
            };
        }
        if received != answered {
            Phase::Request(answered)
        } else if self.is_partial.load(Relaxed) {
            Phase::Head(received)
        } else if received == 0 {
            Phase::Opening
        } else {
            Phase::Idle(received)
        }
    }

    /// Records bytes from the client. Those that come while a request is answered may be the head of
    /// the next; they are looked at when that is done.
    pub(super) fn record_read(&self) {
        if self.streams.is_none() && !self.owes_responses() {
            self.is_partial.store(true, Relaxed);
        }
    }

    /// Records a request, and returns its number.
    pub(super) fn receive(&self) -> u32 {
        self.is_partial.store(false, Relaxed);
        self.received.fetch_add(1, Relaxed) + 1
    }

    /// Spawns the task of the stream that was opened last.
    pub(super) fn run(&self, spawn: impl FnOnce() -> AbortHandle) {
        match &self.streams {
            Some(streams) => streams.open(self.received.load(Relaxed), spawn),
            None => drop(spawn()),
        }
    }

    /// Records that hyper took the next chunk of a stream's response.
    pub(super) fn record_chunk(&self, stream: u32) {
        if let Some(streams) = &self.streams {
            streams.record_chunk(stream);
        }
    }

    /// Resets the streams whose clients have taken nothing for this long.
    pub(super) fn reset_stalled(&self, timeout: Duration) -> StallAction {
        match &self.streams {
            Some(streams) => streams.reset_stalled(timeout),
            None => StallAction::Wait(None),
        }
    }

    /// Returns true while a request that was received is not answered.
    pub(super) fn owes_responses(&self) -> bool {
        self.received.load(Relaxed) != self.answered.load(Relaxed)
    }

    pub(super) fn is_partial(&self) -> bool {
        self.is_partial.load(Relaxed)
    }

    pub(super) fn reject(&self) {
        self.is_rejected.store(true, Relaxed);
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.is_rejected.load(Relaxed)
    }

    pub(super) fn expect_body(&self) {
        self.has_body.store(true, Relaxed);
    }

    /// Records a response that was written whole, or dropped.
    pub(super) fn finish(&self, stream: u32) {
        self.finished.fetch_add(1, Relaxed);
        if let Some(streams) = &self.streams {
            streams.end(stream);
        }
    }

    pub(super) fn set_stalled(&self, is_stalled: bool) {
        if self.is_stalled.load(Relaxed) != is_stalled {
            self.is_stalled.store(is_stalled, Relaxed);
            if !is_stalled {
                self.resumed.fetch_add(1, Relaxed);
            }
        }
    }

    /// The number of the stall that lasts: another number means that the socket took something since.
    pub(super) fn stall(&self) -> Option<u32> {
        let is_stalled = self.is_stalled.load(Relaxed);
        is_stalled.then(|| self.resumed.load(Relaxed))
    }

    /// Records that everything has left that hyper had.
    pub(super) fn record_flush(&self) {
        let finished = self.finished.load(Relaxed);
        if self.answered.load(Relaxed) != finished {
            self.answered.store(finished, Relaxed);
        }
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Relaxed);
    }

    /// Returns true where the client may have sent bytes that are not read.
    pub(super) fn leaves_bytes_unread(&self) -> bool {
        self.is_rejected() || self.is_partial() || self.has_body.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lasts_until_its_response_has_left() {
        let activity = Activity::default();
        assert_eq!(activity.phase(), Phase::Opening);

        activity.record_read();
        assert_eq!(activity.phase(), Phase::Head(0));
        let request = activity.receive();
        assert_eq!(activity.phase(), Phase::Request(0));
        activity.record_flush();
        activity.finish(request);
        assert_eq!(activity.phase(), Phase::Request(0));
        activity.record_flush();

        assert_eq!(activity.phase(), Phase::Idle(1));
    }

    #[test]
    fn bytes_of_the_next_request_give_no_more_time_to_this_one() {
        let activity = Activity::default();
        activity.receive();
        let before = activity.phase();

        activity.record_read();

        assert_eq!(activity.phase(), before);
    }
}
